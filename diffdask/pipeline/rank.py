"""The verb ``rank``: a score for every hit, with labels or without."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from diffdask.errors import BadParameter, BadStore, nearest
from diffdask.io.frames_store import frames_attributes, take_columns
from diffdask.io.paths import as_store
from diffdask.io.results_store import frames_path, open_features, replace_group
from diffdask.pipeline.compare import ensure_compared
from diffdask.pipeline.grow import grow_map
from diffdask.pipeline.halo_scores import score_by_haloes
from diffdask.pipeline.orient import open_oriented, orient
from diffdask.pipeline.scores import (
    HitScores,
    score_by_consistency,
    score_by_pairs,
    score_by_ranker,
    score_by_structure,
    score_label_free,
    score_without_orientations,
)
from diffdask.variables import wrap

_log = logging.getLogger(__name__)

METHODS = ("label-free", "pairs", "map-consistency", "structure", "haloes", "ranker")


def rank(
    results: str | Path,
    *,
    method: str = "",
    ranker: str | Path | None = None,
    seed: int = 0,
    on: Any = None,
    progress: bool = True,
) -> str | Path:
    """Score and rank all hits.

    Parameters
    ----------
    results
        The results store, screened.
    method
        "label-free", the default without a ranker: log odds that a hit is diffuse, from all that needs no labels:
        structure, pairs, consistency with the map, and the search in it. ``compare`` and ``orient`` are run if they
        were not. "pairs": how
        much a hit agrees with the leading group of hits along their common arcs, in units of chance; hits that are not
        indexed get their structure. "map-consistency": the same against a 3D map
        grown from that group, each hit held against the map of the others, with the share of its picks that it
        expects to be wrong. "structure": needs no orientation;
        how much neighbouring bins of the hit agree, in robust standard deviations of all hits. "haloes": how much
        the intensity close to Bragg spots exceeds that between them, from ``diffdask haloes``. "ranker", the default
        with one: the probability that a hit is diffuse, from what ``train`` learnt of labels.
    ranker
        From ``train``, on these or on other results. A hit that it was trained on gets the score of a ranker that
        had not seen its label, so that scores of all hits can be trusted alike.
    seed
        Of the folds in which hits are held against the others.
    on
        Where to run: "laptop", a scheduler's address, or a file of deploy/.
    progress
        Show a bar on the terminal.

    Returns
    -------
    pathlib.Path or str
        The results store: a path, or a URL.

    Raises
    ------
    BadParameter
        If the method is not known, or its ranker is missing.
    BadStore
        If the features differ from those that the ranker was trained on.
    """
    results = as_store(results)
    method = method or ("label-free" if ranker is None else "ranker")
    if method not in METHODS:
        raise BadParameter(f"method '{method}' is not known; {nearest(method, METHODS)}")
    if (method == "ranker") != (ranker is not None):
        raise BadParameter("method 'ranker' goes with a ranker, and no other does: give both or neither")
    if method in ("pairs", "map-consistency"):
        ensure_compared(results, on=on, progress=progress)
    scored = {
        "ranker": lambda: score_by_ranker(results, str(ranker)),
        "label-free": lambda: _score_label_free(results, seed=seed, on=on, progress=progress),
        "pairs": lambda: score_by_pairs(results, seed=seed),
        "map-consistency": lambda: score_by_consistency(results, seed=seed),
        "structure": lambda: score_by_structure(results),
        "haloes": lambda: score_by_haloes(results),
    }[method]()
    _write_scores(results, method, scored)
    return results


def _score_label_free(results: str | Path, *, seed: int, on: Any, progress: bool) -> HitScores:
    if not _is_any_indexed(results):
        _log.warning("no hit of '%s' is indexed: all that is known without labels is structure", results)
        return score_without_orientations(results)
    ensure_compared(results, on=on, progress=progress)
    grow_map(results, seed=seed)
    try:
        open_oriented(results)
    except BadStore:
        orient(results, seed=seed, on=on, progress=progress)
    return score_label_free(results, seed=seed)


def _is_any_indexed(results: str | Path) -> bool:
    hits = take_columns(frames_path(results), open_features(results).hit_frame.values, columns=("orientation",))
    return bool(np.isfinite(hits.orientation.values).all(axis=(1, 2)).any())


def _write_scores(results: str | Path, method: str, scored: HitScores) -> None:
    """Spread the scores of hits over all frames, and rank them."""
    count = int(frames_attributes(frames_path(results))["frame_count"])
    columns = {name: np.full(count, np.nan) for name in scored.columns}
    for name, values in scored.columns.items():
        columns[name][scored.hit_frame] = values
    source = np.full(count, "not a hit", dtype=object)
    source[scored.hit_frame] = scored.source
    replace_group(
        results,
        "scores",
        wrap(**columns, frame_rank=rank_scores(columns["frame_score"]), frame_score_source=source),
        {"method": method, "picked_count": scored.picked_count, **scored.attributes},
    )
    _tell_picks(method, scored)


def _tell_picks(method: str, scored: HitScores) -> None:
    """Say how many hits are predicted diffuse, and how many of these are expected to be wrong."""
    told = f"{method}: {scored.picked_count} of {scored.hit_frame.size} hits are predicted diffuse"
    wrong, alone = scored.attributes.get("expected_wrong_share"), scored.attributes.get("picks_without_promise")
    if wrong is not None:
        told += f", of which {wrong:.1%} are expected to be wrong"
    if alone:
        told += f"; {alone} of them, in no map, by structure, of which nothing is promised"
    _log.info(told)


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
