"""The hits that train a ranker and their labels: a person's, or the surest of those found without any."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffdask.errors import BadLabels, BadStore
from diffdask.io.frames_store import open_frames
from diffdask.io.labels import read_labels
from diffdask.io.results_store import frames_path, open_scores
from diffdask.models.label_free import choose_training_hits
from diffdask.pipeline.features import HitFeatures

_log = logging.getLogger(__name__)

#: In place of a file of labels.
LABEL_FREE = "label-free"


def find_training_hits(
    results: str | Path, labels: str | Path, hit_frame: np.ndarray, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find the hits to train on.

    Parameters
    ----------
    results
        The results store.
    labels
        A CSV file, or "label-free" for the hits that are surely diffuse, or surely not, by the label-free score.
    hit_frame
        (n,) frame numbers of all hits.
    seed
        Of the draw among hits that are surely not diffuse: there are many more of them.

    Returns
    -------
    tuple
        Rows of the hits that are labelled diffuse or non-diffuse, rising, and 1 or 0 for each.

    Raises
    ------
    BadLabels
        If there are none, or too few are sure.
    BadStore
        If hits are not ranked by the label-free score.
    """
    if str(labels) != LABEL_FREE:
        frame_id = open_frames(frames_path(results), columns=("frame_id",)).frame_id.values
        return _labelled_hits(hit_frame, dict(read_labels(labels, frame_id.tolist()).items()))
    scores = open_scores(results)
    if scores is None or scores.attrs["method"] != LABEL_FREE:
        raise BadStore(
            f"the hits of '{results}' have no label-free score to be labelled by; run: "
            f"diffdask rank {results} --method {LABEL_FREE}"
        )
    chosen = choose_training_hits(scores.frame_score.values[hit_frame], seed=seed)
    _log.info(
        "labels without a person: %d hits surely diffuse, and %d of %d surely not",
        chosen.sure_diffuse,
        chosen.label.size - chosen.sure_diffuse,
        chosen.sure_other,
    )
    return chosen.rows, chosen.label


def leave_out_incomplete(found: HitFeatures, rows: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave out labelled hits that have no such features, and say so."""
    is_there = found.is_there[rows]
    if not is_there.all():
        _log.warning("%d of %d labelled hits have no such features and take no part", (~is_there).sum(), rows.size)
    return rows[is_there], y[is_there]


def draw_share(rows: np.ndarray, y: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a share of each class of hits, rows and labels (n,)."""
    random = np.random.default_rng(seed)
    kept = np.concatenate(
        [
            random.permutation(members)[: max(1, round(share * members.size))]
            for members in (np.flatnonzero(y == label) for label in (0, 1))
        ]
    )
    kept.sort()
    return rows[kept], y[kept]


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
