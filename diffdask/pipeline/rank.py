"""The verb ``rank``: a score for every hit, with labels or without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diffdask.errors import BadParameter, BadStore, nearest
from diffdask.io.frames_store import open_frames
from diffdask.io.results_store import frames_path, replace_group
from diffdask.pipeline.compare import compare
from diffdask.pipeline.features import open_compared
from diffdask.pipeline.scores import (
    HitScores,
    score_by_consistency,
    score_by_pairs,
    score_by_ranker,
    score_by_structure,
)
from diffdask.variables import wrap

METHODS = ("pairs", "map-consistency", "structure", "ranker")


def rank(
    results: str | Path,
    *,
    method: str = "",
    ranker: str | Path | None = None,
    seed: int = 0,
    on: Any = None,
    progress: bool = True,
) -> Path:
    """Score and rank all hits.

    Parameters
    ----------
    results
        The results store, screened.
    method
        "ranker": the probability that a hit is diffuse, from what ``train`` learnt of labels. "pairs": no labels; how
        much a hit agrees with the leading group of hits along their common arcs, in units of chance (``compare`` is
        run if it was not); hits that are not indexed get their structure. "map-consistency": the same against a 3D map
        grown from that group, each hit held against the map of the others, with the share of its picks that it
        expects to be wrong. "structure": no labels and no orientation;
        how much neighbouring bins of the hit agree, in robust standard deviations of all hits. Empty for "ranker"
        if one is given, else "pairs".
    ranker
        From ``train``, on these or on other results. A hit that it was trained on gets the score of a ranker that
        had not seen its label, so that scores of all hits can be trusted alike.
    seed
        Of the folds in which "pairs" finds significances.
    on
        Where to run: "laptop", a scheduler's address, or a file of deploy/.
    progress
        Show a bar on the terminal.

    Returns
    -------
    pathlib.Path
        The results store.

    Raises
    ------
    BadParameter
        If the method is not known, or its ranker is missing.
    BadStore
        If the features differ from those that the ranker was trained on.
    """
    results = Path(results)
    method = method or ("pairs" if ranker is None else "ranker")
    if method not in METHODS:
        raise BadParameter(f"method '{method}' is not known; {nearest(method, METHODS)}")
    if (method == "ranker") != (ranker is not None):
        raise BadParameter("method 'ranker' goes with a ranker, and no other does: give both or neither")
    if method in ("pairs", "map-consistency") and not _is_compared(results):
        compare(results, on=on, progress=progress)
    scored = {
        "ranker": lambda: score_by_ranker(results, str(ranker)),
        "pairs": lambda: score_by_pairs(results, seed=seed),
        "map-consistency": lambda: score_by_consistency(results, seed=seed),
        "structure": lambda: score_by_structure(results),
    }[method]()
    _write_scores(results, method, scored)
    return results


def _is_compared(results: Path) -> bool:
    try:
        open_compared(results, "common-arc")
    except BadStore:
        return False
    return True


def _write_scores(results: Path, method: str, scored: HitScores) -> None:
    """Spread the scores of hits over all frames, and rank them."""
    frames = open_frames(frames_path(results))
    count = frames.sizes["frame"]
    columns = {name: np.full(count, np.nan) for name in scored.columns}
    for name, values in scored.columns.items():
        columns[name][scored.hit_frame] = values
    source = np.full(count, "not a hit", dtype=object)
    source[scored.hit_frame] = scored.source
    replace_group(
        results,
        "scores",
        wrap(**columns, frame_rank=rank_scores(columns["frame_score"]), frame_score_source=source),
        {"method": method, **scored.attributes},
    )


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
