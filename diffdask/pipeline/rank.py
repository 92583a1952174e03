"""The verbs ``train`` and ``rank``: from labels to a score for every hit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from diffdask.errors import BadLabels, BadParameter, BadStore
from diffdask.io.frames_store import frames_attributes, open_frames
from diffdask.io.labels import read_labels
from diffdask.io.ranker_store import TrainedRanker, load_ranker, save_ranker
from diffdask.io.results_store import frames_path, open_features, open_group, replace_group
from diffdask.models.ranker import Ranker, cross_fit, find_learning_curve
from diffdask.variables import wrap

_log = logging.getLogger(__name__)

#: Parameters of earlier groups that decide what a feature means, whatever the experiment.
_SHAPING = {
    "layout": ("ring_count", "azimuth_count", "q_min", "q_max"),
    "hits": ("polar_ring_count", "bin_pixels"),
}


def train(
    results: str | Path,
    *,
    labels: str | Path,
    to: str | Path,
    share: float = 1.0,
    component_count: int = 20,
    C: float = 0.1,
    iterations: int = 100,
    fold_count: int = 10,
    seed: int = 0,
) -> Path:
    """Train a ranker on labelled hits.

    Parameters
    ----------
    results
        The results store, screened.
    labels
        CSV with columns ``frame`` (number in ingest order, or frame_id) and
        ``label`` (diffuse, non-diffuse, blank). Blanks and frames that are no
        hits take no part.
    to
        The ranker, a Zarr group.
    share
        Part of the labelled hits to train on, 0 to 1, drawn at random; the others stay for testing.
    component_count
        Principal components that enter the regression.
    C
        Inverse strength of its ridge.
    iterations
        Most iterations of its solver.
    fold_count
        Folds in which the training hits themselves are scored.
    seed
        Of the draw and of the folds.

    Returns
    -------
    pathlib.Path
        The ranker.

    Raises
    ------
    BadLabels
        If labels are not understood, or fewer than five hits of a class are labelled.
    BadStore
        If the results have no features.
    """
    if not 0 < share <= 1:
        raise BadParameter(f"share = {share} must be above 0 and at most 1")
    found = open_features(results)
    where = frames_path(results)
    frame_id = open_frames(where).frame_id.values
    rows, y = _labelled_hits(found, dict(read_labels(labels, frame_id.tolist()).items()))
    if share < 1:
        rows, y = _draw(rows, y, share, seed)
    X = found.azimuthal_features.values[rows]
    ranker = Ranker(component_count=component_count, C=C, iterations=iterations).fit(X, y)
    save_ranker(
        to,
        TrainedRanker(
            ranker=ranker,
            frame_id=frame_id[found.hit_frame.values[rows]],
            frames_identity=str(frames_attributes(where)["identity"]),
            score=cross_fit(ranker, X, y, fold_count=fold_count, seed=seed),
            learning_curve=find_learning_curve(ranker, X, y, seed=seed),
            parameters={"share": share, "fold_count": fold_count, "seed": seed, **ranker.get_params()},
            features=_made_with(results, found),
        ),
    )
    return Path(to)


def rank(results: str | Path, *, ranker: str | Path) -> Path:
    """Score and rank all hits.

    A hit that the ranker was trained on gets the score of a ranker that had not
    seen its label, so that scores of all hits can be trusted alike.

    Parameters
    ----------
    results
        The results store, screened.
    ranker
        From ``train``, on these or on other results.

    Returns
    -------
    pathlib.Path
        The results store.

    Raises
    ------
    BadStore
        If the features differ from those that the ranker was trained on.
    """
    found = open_features(results)
    trained = load_ranker(ranker)
    _check_features(trained.features, _made_with(results, found), f"'{ranker}'", f"'{results}'")
    where = frames_path(results)
    frames = open_frames(where)
    hit_frame = found.hit_frame.values
    hit_score = trained.ranker.predict_proba(found.azimuthal_features.values)[:, 1] if hit_frame.size else np.empty(0)
    if trained.frames_identity == frames_attributes(where)["identity"]:
        hit_score = _put_cross_fitted(hit_score, frames.frame_id.values[hit_frame], trained)
    score = np.full(frames.sizes["frame"], np.nan)
    score[hit_frame] = hit_score
    replace_group(
        results,
        "scores",
        wrap(frame_score=score, frame_rank=rank_scores(score)),
        {
            "method": "azimuthal features, incremental PCA, logistic regression",
            "parameters": trained.parameters,
            "cross_fitted": True,
            "learning_curve": trained.learning_curve,
            "trained_on": int(trained.frame_id.size),
        },
    )
    return Path(results)


def rank_scores(score: np.ndarray) -> np.ndarray:
    """Rank scores from 1 for the highest; frames without a score get 0, equal scores keep their order.

    Examples
    --------
    >>> rank_scores(np.array([0.2, np.nan, 0.9])).tolist()
    [2, 0, 1]
    """
    ranks = np.zeros(score.size, dtype=np.int64)
    scored = np.flatnonzero(np.isfinite(score))
    ranks[scored[np.argsort(-score[scored], kind="stable")]] = np.arange(1, scored.size + 1)
    return ranks


def _made_with(results: str | Path, found: xr.Dataset) -> dict[str, Any]:
    """Parameters that features must share to be compared."""
    made = dict(found.attrs["parameters"])
    for group, names in _SHAPING.items():
        opened = open_group(results, group)
        if opened is None:
            raise BadStore(f"'{group}' of '{results}' is not finished; run: diffdask screen FRAMES --results {results}")
        made.update({name: opened.attrs["parameters"][name] for name in names})
    return made


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


def _labelled_hits(found: xr.Dataset, labels: Mapping[Any, str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the hits that are labelled diffuse or non-diffuse, and 1 or 0 for each."""
    row_of = {int(frame): row for row, frame in enumerate(found.hit_frame.values)}
    wanted = {frame: label for frame, label in labels.items() if label != "blank"}
    lost = [frame for frame in wanted if frame not in row_of]
    if lost:
        _log.warning(
            "%d of %d frames labelled diffuse or non-diffuse are no hits by the screen and take no part: %s%s",
            len(lost),
            len(wanted),
            ", ".join(map(str, lost[:10])),
            "..." if len(lost) > 10 else "",
        )
    pairs = sorted((row_of[frame], label == "diffuse") for frame, label in wanted.items() if frame in row_of)
    if not pairs:
        raise BadLabels("no hit is labelled diffuse or non-diffuse")
    rows, y = zip(*pairs, strict=True)
    return np.array(rows), np.array(y, dtype=int)


def _draw(rows: np.ndarray, y: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a share of each class."""
    random = np.random.default_rng(seed)
    kept = np.concatenate(
        [
            random.permutation(members)[: max(1, round(share * members.size))]
            for members in (np.flatnonzero(y == label) for label in (0, 1))
        ]
    )
    kept.sort()
    return rows[kept], y[kept]


def _put_cross_fitted(score: np.ndarray, frame_id: np.ndarray, trained: TrainedRanker) -> np.ndarray:
    known = dict(zip(trained.frame_id.tolist(), trained.score.tolist(), strict=True))
    return np.array([known.get(name, own) for name, own in zip(frame_id.tolist(), score.tolist(), strict=True)])
