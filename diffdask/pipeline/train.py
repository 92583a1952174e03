"""The verb ``train``: from labels to a ranker."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from diffdask.errors import BadLabels, BadParameter, nearest
from diffdask.io.frames_store import frames_attributes, take_columns
from diffdask.io.paths import as_store
from diffdask.io.ranker_store import TrainedRanker, save_ranker
from diffdask.io.results_store import frames_path
from diffdask.models.coordinates import choose_coordinates
from diffdask.models.folds import make_folds
from diffdask.models.ranker import Ranker, cross_fit, find_learning_curve
from diffdask.pipeline.features import take_features
from diffdask.pipeline.training_labels import LABEL_FREE, draw_share, find_training_hits, leave_out_incomplete

_log = logging.getLogger(__name__)

#: What folds must not split; "auto" for the run where there are runs enough.
FOLDS = ("auto", "run", "hit")


def train(
    results: str | Path,
    *,
    labels: str | Path,
    to: str | Path,
    features: str = "azimuthal",
    similarity: str = "common-arc",
    share: float = 1.0,
    component_count: int = 20,
    C: float = 0.0,
    iterations: int = 100,
    engine: str = "dask-ml",
    standardise: bool = False,
    calibration: str = "platt",
    prevalence: float | None = None,
    fold_count: int = 10,
    fold_by: str = "auto",
    seed: int = 0,
) -> str | Path:
    """Train a ranker on labelled hits.

    Parameters
    ----------
    results
        The results store, screened.
    labels
        CSV with columns ``frame`` (number in ingest order, or frame_id) and
        ``label`` (diffuse, non-diffuse, blank). Blanks and frames that are no
        hits take no part. Or "label-free": hits that are surely diffuse, or surely not, by ``rank --method
        label-free``; such a ranker needs no person, and serves hits that are not indexed.
    to
        The ranker, a Zarr group.
    features
        What the ranker looks at: "azimuthal" (correlations and angular power of the polar residual), "structure"
        (the single frame's score), "anisotropy" (how strongly each ring depends on azimuth), "diffusion-map"
        (coordinates from the matrix of ``diffdask compare``, as many as cross-validation finds best; such a ranker
        serves these hits only), "vgg16" (of ``diffdask extract``), or several: "azimuthal+structure", each set then
        scaled to unit variance.
    similarity
        Of the diffusion map: "common-arc", "correlation" or "euclidean".
    share
        Part of the labelled hits to train on, 0 to 1, drawn at random; the others stay for testing.
    component_count
        Principal components that enter the regression.
    C
        Inverse strength of its ridge; 0 to choose what gives held-out labels the highest probability.
    iterations
        Most iterations of its solver.
    engine
        "dask-ml" or "scikit-learn": what fits; the model is the same.
    standardise
        Divide each feature by its standard deviation first: for sets of features that do not share a unit.
    calibration
        Of the probabilities, on scores of hits by rankers that had not seen their labels: "platt" (slope and offset),
        "temperature" (slope) or "none".
    prevalence
        Share of diffuse among the hits that will be ranked, which the probabilities are meant for; None for that
        among the training labels.
    fold_count
        Folds in which the training hits themselves are scored.
    fold_by
        What these folds keep together: "run", so that no hit is scored by a ranker that has seen its run; "hit" deals
        hits one by one; "auto" is "run" where the labelled runs are enough for that, else "hit", and says which.
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
    rows, y = find_training_hits(results, labels, found.hit_frame, seed=seed)
    rows, y = leave_out_incomplete(found, rows, y)
    if share < 1:
        rows, y = draw_share(rows, y, share, seed)
    X = found.values[rows]
    hits = take_columns(where, found.hit_frame[rows], columns=("run", "frame_id"))
    ranker = Ranker(
        component_count=component_count,
        C=C,
        iterations=iterations,
        engine=engine,
        standardise=standardise,
        calibration=calibration,
        prevalence=prevalence,
        seed=seed,
    )
    run = choose_groups(y, hits.run.values, fold_by, fold_count=fold_count, seed=seed)
    folds: dict[str, Any] = {"seed": seed, "group": run}
    if features == "diffusion-map":
        X = X[:, : choose_coordinates(ranker, X, y, fold_count=fold_count, **folds)]
    ranker.fit(X, y, group=run)
    if not ranker.is_converged_:
        _log.warning("the regression was stopped after %d iterations, before its end: raise iterations", iterations)
    save_ranker(
        to,
        TrainedRanker(
            ranker=ranker,
            frame_id=hits.frame_id.values,
            frames_identity=str(frames_attributes(where)["identity"]),
            score=cross_fit(ranker, X, y, fold_count=fold_count, **folds),
            learning_curve=find_learning_curve(ranker, X, y, **folds),
            parameters={
                "labels": LABEL_FREE if str(labels) == LABEL_FREE else "file",
                "share": share,
                "fold_count": fold_count,
                "fold_by": "hit" if run is None else "run",
                **ranker.get_params(),
                "C": ranker.C_,
            },
            features=found.made_with,
        ),
    )
    return as_store(to)


def choose_groups(y: np.ndarray, run: np.ndarray, fold_by: str, *, fold_count: int, seed: int) -> np.ndarray | None:
    """Runs, (n,), that folds must not split; None where hits are dealt one by one.

    Raises
    ------
    BadLabels
        If folds by run are asked for and cannot be made.
    BadParameter
        If ``fold_by`` is not known.
    """
    if fold_by not in FOLDS:
        raise BadParameter(f"fold_by '{fold_by}' is not known; {nearest(fold_by, FOLDS)}")
    if fold_by == "hit":
        return None
    try:
        for count in (fold_count, 4):  # of the scores, of the learning curve
            make_folds(y, fold_count=count, seed=seed, group=run)
    except BadLabels as error:
        if fold_by == "run":
            raise
        _log.info("folds are made by hit: %s", error)
        return None
    return run
