"""Scores of hits by one method or another, and where each came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffdask.errors import BadStore
from diffdask.io.frames_store import frames_attributes, take_columns
from diffdask.io.ranker_store import TrainedRanker, load_ranker
from diffdask.io.results_store import frames_path, open_features
from diffdask.models.label_free import LabelFreeScore
from diffdask.models.pairs import PairStructure
from diffdask.pipeline.crystals import is_oriented, open_crystals
from diffdask.pipeline.features import take_features
from diffdask.pipeline.grow import find_pairs, find_standard_structure, grow_map
from diffdask.pipeline.orient import open_oriented

#: Scores without labels count chance as one: a hit this far above it is predicted diffuse.
SIGNIFICANT = 4.0

#: Log odds above this are predicted diffuse.
EVEN = 0.0

#: A probability of at least this is predicted diffuse.
PROBABLE = 0.5


@dataclass(frozen=True)
class HitScores:
    """Scores of all hits by one method."""

    hit_frame: np.ndarray  #: (n,) frame numbers
    source: np.ndarray  #: (n,) text: which score the hit has, and why
    columns: dict[str, np.ndarray]  #: variable with dims ("frame",) to values (n,); "frame_score" is what ranks
    attributes: dict[str, Any]  #: of the group: JSON-able; "threshold" is where predicted diffuse begins

    @property
    def picked_count(self) -> int:
        """Hits that are predicted diffuse."""
        return int((self.columns["frame_score"] >= self.attributes["threshold"]).sum())


def score_by_ranker(results: str | Path, ranker: str) -> HitScores:
    """Probabilities from a ranker, out of fold for hits that trained it.

    Raises
    ------
    BadStore
        If the features differ from those that the ranker was trained on.
    """
    trained = load_ranker(ranker)
    similarity = str(trained.features.get("similarity", "common-arc"))
    found = take_features(
        results,
        features=str(trained.features["features"]),
        similarity=similarity,
        scales=trained.features.get("scales"),
    )
    _check_features(trained.features, found.made_with, f"'{ranker}'", f"'{results}'")
    score = np.full(found.hit_frame.size, np.nan)
    if found.is_there.any():
        seen = found.values[found.is_there][:, : trained.ranker.mean_.size]
        score[found.is_there] = trained.ranker.predict_proba(seen)[:, 1]
    where = frames_path(results)
    if trained.frames_identity == frames_attributes(where)["identity"]:
        frame_id = take_columns(where, found.hit_frame, columns=("frame_id",)).frame_id.values
        score = _put_cross_fitted(score, frame_id, trained)
    return HitScores(
        hit_frame=found.hit_frame,
        source=np.where(np.isfinite(score), "ranker", "none: not indexed").astype(object),
        columns={"frame_score": score},
        attributes={
            "threshold": PROBABLE,
            "features": trained.features["features"],
            **{name: trained.features[name] for name in ("weights",) if name in trained.features},
            "parameters": trained.parameters,
            "cross_fitted": True,
            "learning_curve": trained.learning_curve,
            "trained_on": int(trained.frame_id.size),
        },
    )


def score_by_structure(results: str | Path) -> HitScores:
    """How much neighbouring bins agree, in robust standard deviations of all hits."""
    found = open_features(results)
    structure = find_standard_structure(results)
    return HitScores(
        hit_frame=found.hit_frame.values,
        source=np.where(np.isfinite(structure), "structure", "none: no bins to look at").astype(object),
        columns={"frame_score": structure, "frame_structure": structure},
        attributes={"threshold": SIGNIFICANT, "parameters": found.attrs["parameters"]},
    )


def score_by_pairs(results: str | Path, *, seed: int) -> HitScores:
    """How much each hit agrees with the leading group of hits; the structure of those that are not compared."""
    found, crystals = find_pairs(results, seed=seed), open_crystals(results)
    structure = find_standard_structure(results)
    is_compared = np.isfinite(found.pairs)
    is_known = is_oriented(crystals.crystal_rotation.values)
    source = np.where(is_known, "structure: not among the hits compared", "structure: not indexed").astype(object)
    return HitScores(
        hit_frame=crystals.hit_frame.values,
        source=np.where(is_compared, "pairs", source).astype(object),
        columns={
            "frame_score": np.where(is_compared, found.pairs, structure),
            "frame_pairs": found.pairs,
            "frame_pairs_p_value": found.p_value,
            "frame_structure": structure,
        },
        attributes={
            "threshold": SIGNIFICANT,
            "parameters": {**crystals.attrs["parameters"], **PairStructure(seed=seed).get_params()},
        },
    )


def score_by_consistency(results: str | Path, *, seed: int) -> HitScores:
    """How much each hit agrees with a map grown from the others; the structure of those that are not indexed."""
    grown, structure = grow_map(results, seed=seed), find_standard_structure(results)
    consistency, false_discovery = grown.hit_consistency.values, grown.hit_false_discovery.values
    is_mapped = np.isfinite(consistency)
    picked = false_discovery[is_mapped & (consistency >= SIGNIFICANT)]
    by_structure = int((~is_mapped & (structure >= SIGNIFICANT)).sum())
    return HitScores(
        hit_frame=grown.hit_frame.values,
        source=np.where(is_mapped, "map-consistency", "structure: not indexed").astype(object),
        columns={
            "frame_score": np.where(is_mapped, consistency, structure),
            "frame_consistency": consistency,
            "frame_false_discovery": false_discovery,
            "frame_structure": structure,
        },
        attributes={
            "threshold": SIGNIFICANT,
            "expected_wrong_share": float(picked.max()) if picked.size else None,
            "picks_without_promise": by_structure,
            "parameters": grown.attrs["parameters"],
        },
    )


def score_label_free(results: str | Path, *, seed: int) -> HitScores:
    """Log odds that each hit is diffuse, from structure, pairs, consistency and search together."""
    grown, structure = grow_map(results, seed=seed), find_standard_structure(results)
    oriented = open_oriented(results)
    search = oriented.frame_search.values[grown.hit_frame.values]
    # cross-fitted: a group or a map that knows the hit agrees with it where no hit is diffuse at all
    agreement = grown.hit_pairs_significance.values, grown.hit_consistency_significance.values
    whole = np.column_stack([grown.hit_pairs.values, grown.hit_consistency.values])
    model = LabelFreeScore().fit(np.column_stack([structure, *agreement, search]), whole=whole)
    picked = model.expected_wrong_[model.score_ > EVEN]
    return HitScores(
        hit_frame=grown.hit_frame.values,
        source=np.char.add("label-free: ", model.carried_by_.astype(str)).astype(object),
        columns={
            "frame_score": model.score_,
            "frame_structure": structure,
            "frame_pairs": grown.hit_pairs.values,
            "frame_pairs_p_value": grown.hit_pairs_p_value.values,
            "frame_consistency": grown.hit_consistency.values,
            "frame_false_discovery": grown.hit_false_discovery.values,
            "frame_expected_wrong": model.expected_wrong_,
        },
        attributes={
            "threshold": EVEN,
            "expected_wrong_share": float(picked.max()) if picked.size else None,
            "existence": model.existence_,
            "diffuse_share": model.share_,
            "parameters": {**oriented.attrs["parameters"], **model.get_params()},
        },
    )


def score_without_orientations(results: str | Path) -> HitScores:
    """The label-free score of hits of which none is indexed: all there is, is structure."""
    structure = find_standard_structure(results)
    nothing = np.full(structure.size, np.nan)
    model = LabelFreeScore().fit(np.column_stack([structure, nothing, nothing, nothing]))
    found = open_features(results)
    return HitScores(
        hit_frame=found.hit_frame.values,
        source=np.full(structure.size, "label-free: structure, no hit is indexed", dtype=object),
        columns={
            "frame_score": model.score_,
            "frame_structure": structure,
            "frame_expected_wrong": model.expected_wrong_,
        },
        attributes={
            "threshold": EVEN,
            "expected_wrong_share": None,
            "existence": model.existence_,
            "diffuse_share": model.share_,
            "parameters": {**found.attrs["parameters"], **model.get_params()},
        },
    )


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
