"""The verb ``train``: from labels to a ranker."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffdask.errors import BadLabels, BadParameter
from diffdask.io.frames_store import frames_attributes, open_frames
from diffdask.io.labels import read_labels
from diffdask.io.ranker_store import TrainedRanker, save_ranker
from diffdask.io.results_store import frames_path
from diffdask.models.ranker import Ranker, cross_fit, find_learning_curve
from diffdask.pipeline.features import HitFeatures, take_features

_log = logging.getLogger(__name__)


def train(
    results: str | Path,
    *,
    labels: str | Path,
    to: str | Path,
    features: str = "azimuthal",
    similarity: str = "common-arc",
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
    features
        What the ranker looks at: "azimuthal" (correlations and angular power of the polar residual), "structure"
        (the single frame's score), "diffusion-map" (coordinates from the matrix of ``diffdask compare``, as many as
        cross-validation finds best; such a ranker serves these hits only), or several: "azimuthal+structure".
    similarity
        Of the diffusion map: "common-arc", "correlation" or "euclidean".
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
    found = take_features(results, features=features, similarity=similarity)
    where = frames_path(results)
    frame_id = open_frames(where).frame_id.values
    rows, y = _labelled_hits(found.hit_frame, dict(read_labels(labels, frame_id.tolist()).items()))
    rows, y = _leave_out_incomplete(found, rows, y)
    if share < 1:
        rows, y = _draw(rows, y, share, seed)
    X, ranker = found.values[rows], Ranker(component_count=component_count, C=C, iterations=iterations)
    if features == "diffusion-map":
        X = X[:, : choose_coordinates(ranker, X, y, fold_count=fold_count, seed=seed)]
    ranker.fit(X, y)
    save_ranker(
        to,
        TrainedRanker(
            ranker=ranker,
            frame_id=frame_id[found.hit_frame[rows]],
            frames_identity=str(frames_attributes(where)["identity"]),
            score=cross_fit(ranker, X, y, fold_count=fold_count, seed=seed),
            learning_curve=find_learning_curve(ranker, X, y, seed=seed),
            parameters={"share": share, "fold_count": fold_count, "seed": seed, **ranker.get_params()},
            features=found.made_with,
        ),
    )
    return Path(to)


def choose_coordinates(ranker: Ranker, X: np.ndarray, y: np.ndarray, *, fold_count: int, seed: int) -> int:
    """Find how many of the leading columns of X, (n, f), give held-out labels the highest probability."""
    counts = [count for count in (1, 2, 3, 5, 8, 13, 20, 30) if count <= X.shape[1]]
    likelihood = []
    for count in counts:
        score = cross_fit(ranker, X[:, :count], y, fold_count=fold_count, seed=seed)
        likelihood.append(np.log(np.where(y == 1, score, 1.0 - score)).mean())
    return counts[int(np.argmax(likelihood))]


def _labelled_hits(hit_frame: np.ndarray, labels: Mapping[Any, str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the hits that are labelled diffuse or non-diffuse, and 1 or 0 for each."""
    row_of = {int(frame): row for row, frame in enumerate(hit_frame.tolist())}
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


def _leave_out_incomplete(found: HitFeatures, rows: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave out labelled hits that have no such features, and say so."""
    is_there = found.is_there[rows]
    if not is_there.all():
        _log.warning("%d of %d labelled hits have no such features and take no part", (~is_there).sum(), rows.size)
    return rows[is_there], y[is_there]


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
