"""Scores of hits by one method or another, and where each came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from diffdask.errors import BadStore
from diffdask.io.frames_store import frames_attributes, open_frames
from diffdask.io.ranker_store import TrainedRanker, load_ranker
from diffdask.io.results_store import frames_path, open_features
from diffdask.models.consistency import MapConsistency
from diffdask.models.pairs import PairStructure
from diffdask.pipeline.compare import find_symmetry
from diffdask.pipeline.features import open_compared, take_features
from diffdask.pipeline.merge import load_oriented_hits
from diffdask.steps.similarity import prepare_hits

#: Scores without labels count chance as one: a hit this far above it is predicted diffuse.
SIGNIFICANT = 4.0

#: A probability of at least this is predicted diffuse.
PROBABLE = 0.5


@dataclass(frozen=True)
class HitScores:
    """Scores of all hits by one method."""

    hit_frame: np.ndarray  #: (n,) frame numbers
    source: np.ndarray  #: (n,) text: which score the hit has, and why
    columns: dict[str, np.ndarray]  #: variable with dims ("frame",) to values (n,); "frame_score" is what ranks
    attributes: dict[str, Any]  #: of the group: JSON-able; "threshold" is where predicted diffuse begins


def score_by_ranker(results: Path, ranker: str) -> HitScores:
    """Probabilities from a ranker, out of fold for hits that trained it.

    Raises
    ------
    BadStore
        If the features differ from those that the ranker was trained on.
    """
    trained = load_ranker(ranker)
    similarity = str(trained.features.get("similarity", "common-arc"))
    found = take_features(results, features=str(trained.features["features"]), similarity=similarity)
    _check_features(trained.features, found.made_with, f"'{ranker}'", f"'{results}'")
    score = np.full(found.hit_frame.size, np.nan)
    if found.is_there.any():
        seen = found.values[found.is_there][:, : trained.ranker.mean_.size]
        score[found.is_there] = trained.ranker.predict_proba(seen)[:, 1]
    where = frames_path(results)
    if trained.frames_identity == frames_attributes(where)["identity"]:
        score = _put_cross_fitted(score, open_frames(where).frame_id.values[found.hit_frame], trained)
    return HitScores(
        hit_frame=found.hit_frame,
        source=np.where(np.isfinite(score), "ranker", "none: not indexed").astype(object),
        columns={"frame_score": score},
        attributes={
            "threshold": PROBABLE,
            "features": trained.features["features"],
            "parameters": trained.parameters,
            "cross_fitted": True,
            "learning_curve": trained.learning_curve,
            "trained_on": int(trained.frame_id.size),
        },
    )


def score_by_structure(results: Path) -> HitScores:
    """How much neighbouring bins agree, in robust standard deviations of all hits."""
    found = open_features(results)
    structure = standardise_scores(found.hit_structure.values)
    return HitScores(
        hit_frame=found.hit_frame.values,
        source=np.where(np.isfinite(structure), "structure", "none: no bins to look at").astype(object),
        columns={"frame_score": structure, "frame_structure": structure},
        attributes={"threshold": SIGNIFICANT, "parameters": found.attrs["parameters"]},
    )


def score_by_pairs(results: Path, *, seed: int) -> HitScores:
    """How much each hit agrees with the leading group of hits; the structure of those that are not indexed."""
    compared = open_compared(results, "common-arc")
    structure = standardise_scores(open_features(results).hit_structure.values)
    model = _find_group(compared, structure, seed)
    middle, spread = model.chance_
    pairs = (model.score_ - middle) / spread
    is_compared = np.isfinite(pairs)
    return HitScores(
        hit_frame=compared.hit_frame.values,
        source=np.where(is_compared, "pairs", "structure: not indexed").astype(object),
        columns={
            "frame_score": np.where(is_compared, pairs, structure),
            "frame_pairs": pairs,
            "frame_pairs_p_value": model.p_value_,
            "frame_structure": structure,
        },
        attributes={"threshold": SIGNIFICANT, "parameters": {**compared.attrs["parameters"], **model.get_params()}},
    )


def score_by_consistency(results: Path, *, seed: int) -> HitScores:
    """How much each hit agrees with a map grown from the others; the structure of those that are not indexed."""
    compared = open_compared(results, "common-arc")
    told = compared.attrs["parameters"]
    structure = standardise_scores(open_features(results).hit_structure.values)
    hits = load_oriented_hits(results, np.arange(compared.sizes["hit"]))
    prepared = prepare_hits(hits, q_min=told["compare_q_min"], q_max=told["compare_q_max"] or np.inf)
    model = MapConsistency(friedel=told["friedel"], seed=seed).fit(
        prepared.standardised_residual.values,
        rotation=hits.crystal_rotation.values,
        wavelength=hits.hit_wavelength.values,
        ring_q=prepared.similarity_ring_q.values,
        rotations=find_symmetry(told["laue"], told["lattice"], compared.crystal_cell.values).rotations,
        start_weight=_find_group(compared, structure, seed).weight_,
    )
    middle, spread = model.chance_
    consistency = (model.score_ - middle) / spread
    is_mapped = np.isfinite(consistency)
    picked = model.false_discovery_[is_mapped & (consistency >= SIGNIFICANT)]
    return HitScores(
        hit_frame=compared.hit_frame.values,
        source=np.where(is_mapped, "map-consistency", "structure: not indexed").astype(object),
        columns={
            "frame_score": np.where(is_mapped, consistency, structure),
            "frame_consistency": consistency,
            "frame_false_discovery": model.false_discovery_,
            "frame_structure": structure,
        },
        attributes={
            "threshold": SIGNIFICANT,
            "expected_wrong_share": float(picked.max()) if picked.size else None,
            "parameters": {**told, **model.get_params()},
        },
    )


def _find_group(compared: xr.Dataset, structure: np.ndarray, seed: int) -> PairStructure:
    """The group of hits that agree in pairs; matrices are read by rows: of 20 000 hits each has 1.6 GB."""
    return PairStructure(seed=seed).fit(
        compared.pair_agreement,
        samples=compared.pair_samples,
        null=[compared.exchanged_agreement],
        null_samples=[compared.exchanged_samples],
        hint=structure,
    )


def standardise_scores(score: np.ndarray) -> np.ndarray:
    """Put scores, (n,), over those of hits that are not diffuse, however many are diffuse.

    Hits without the signal lie close together; those with it lie above, far and
    wide. So zero is the middle of the shortest interval with a quarter of all
    hits, and one the spread of the hits below it. NaN stays NaN.

    Examples
    --------
    >>> standardise_scores(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 60.0, 90.0, 500.0])).round(2).tolist()
    [-0.67, 0.0, 0.67, 1.35, 2.02, 39.12, 59.36, 335.9]
    """
    known = np.sort(score[np.isfinite(score)])
    if known.size == 0:
        return score
    inside = max(-(-known.size // 4), min(3, known.size))
    shortest = int(np.argmin(known[inside - 1 :] - known[: known.size - inside + 1]))
    middle = np.median(known[shortest : shortest + inside])
    below = middle - known[known < middle]
    spread = np.median(below) / 0.6745 if below.size else 0.0
    return np.asarray((score - middle) / (spread if spread > 0 else 1.0))


def _check_features(before: dict[str, Any], now: dict[str, Any], ranker: str, results: str) -> None:
    other = [
        f"{name}: {before.get(name)!r} for the ranker, {now.get(name)!r} for the results"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if other:
        raise BadStore(
            f"{ranker} was trained on features made with other parameters than those of {results} "
            f"({'; '.join(other)}); train anew, or screen with the same parameters"
        )


def _put_cross_fitted(score: np.ndarray, frame_id: np.ndarray, trained: TrainedRanker) -> np.ndarray:
    known = dict(zip(trained.frame_id.tolist(), trained.score.tolist(), strict=True))
    return np.array([known.get(name, own) for name, own in zip(frame_id.tolist(), score.tolist(), strict=True)])
