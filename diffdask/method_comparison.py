"""All methods on the same folds: one table, as the reference's Table I."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from diffdask.classification import REFERENCE, draw_hits, measure_scores, refer_to, tell_reference
from diffdask.errors import BadParameter
from diffdask.kernels.agreement import Measure
from diffdask.models.coordinates import choose_coordinates
from diffdask.models.folds import Fold, make_folds
from diffdask.models.ranker import Ranker, score_folds

_log = logging.getLogger(__name__)

#: Measures of a row, and the heads of their columns.
COLUMNS = {
    "diffuse_precision": "diffuse P",
    "diffuse_recall": "diffuse R",
    "non_diffuse_precision": "non-diffuse P",
    "non_diffuse_recall": "non-diffuse R",
    "overall": "overall",
    "area_under_roc": "AUC",
    "precision_in_top": "top N",
    "precision_at_prevalence": "P at prevalence",
}

REFERENCE_ROW = "reference (2018)"

#: Said where the reference's row has a precision at another prevalence than its own.
FROM_RECALLS = "Its precision at another share of diffuse follows from its recalls."


def compare_methods(
    features: Mapping[str, np.ndarray],
    y: np.ndarray,
    run: np.ndarray | None,
    *,
    scores: Mapping[str, tuple[np.ndarray, float]] | None = None,
    ordered: Collection[str] = (),
    ranker: Ranker | None = None,
    folds: Sequence[Fold] | None = None,
    is_measured: np.ndarray | None = None,
    fold_count: int = 5,
    prevalence: float = 0.05,
    top: int | None = None,
    bootstrap: int = 1000,
    draw_runs: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Train and test methods on the same folds of the same hits.

    Parameters
    ----------
    features
        Method to features (n, f). Hits that have NaN in any are left out for all, else hits would be compared.
    y, run
        (n,) labels, 1 for diffuse and 0 for non-diffuse, and what folds must not split: the run, or the experiment;
        None to deal hits one by one.
    scores, ordered
        Method to scores (n,) that need no training, and the threshold of diffuse. Methods of whose columns the
        leading ones count, as many as the training hits find best.
    ranker, folds
        Whose parameters to use; rows to train on and to test on, no hit twice. None for the defaults, and for
        ``fold_count`` folds by run.
    is_measured
        (n,) hits that count where they are tested, such as those of strong and medium signal; None for all.
    prevalence, top
        As in :func:`diffdask.classification.measure_scores`.
    bootstrap, draw_runs, seed
        Draws for the intervals; whether of whole runs, which is right where there are many; of folds and draws.

    Returns
    -------
    dict
        JSON-able: ``rows``, method to its measures, and what they rest on.

    Raises
    ------
    BadParameter, BadLabels
        If arrays do not fit together, a hit is tested twice, or folds cannot be made.
    """
    scores, y, run = scores or {}, np.asarray(y), None if run is None else np.asarray(run)
    is_there = find_complete({**features, **{name: one for name, (one, _) in scores.items()}}, y.size)
    dealt = _deal(y, run, is_there, folds, fold_count, seed)
    ranker = ranker or Ranker(engine="scikit-learn", seed=seed)
    found = {name: (_score(ranker, X, y, dealt, run, name in ordered), 0.5) for name, X in features.items()}
    measured = _find_measured(dealt, y.size, is_measured)
    samples = draw_hits(measured.size, bootstrap, seed=seed, run=_drawn_by(run, measured) if draw_runs else None)
    options: dict[str, Any] = {"samples": samples, "prevalence": prevalence, "top": top, "seed": seed}
    told = {"fold_count": len(dealt), "folds_by": _name_folds(folds, run), "left_out": int((~is_there).sum())}
    rows = _measure_rows(found | dict(scores), y, measured, options)
    return {"rows": rows, **_tell_basis(y[measured], prevalence, top), **told, "seed": seed}


def format_comparison(result: dict[str, Any]) -> str:
    """Write a comparison as a Markdown table: shares in per cent with 95 % intervals, the area under the curve as is.

    A star marks methods that reach every figure of the reference's Table I.
    """
    own, at = (f"{100 * share:g} %" for share in (round(result["diffuse"] / result["hits"], 3), result["prevalence"]))
    named = COLUMNS | {"precision_in_top": f"top {result['top']}", "precision_at_prevalence": f"P at {at}"}
    heads = ["method", *(f"{head} at {own}" if head.endswith(" P") else head for head in named.values())]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, row in result["rows"].items():
        cells = [_cell(row[column], is_share=column != "area_under_roc") for column in COLUMNS]
        lines.append("| " + " | ".join([name + (" *" if row["passes_reference"] else ""), *cells]) + " |")
    reference = result["reference_row"]
    known = {name: f"{100 * value:.1f}" for name, value in reference["figures"].items()}
    known["precision_at_prevalence"] = f"{100 * reference['precision_at_prevalence']:.1f}"
    lines.append("| " + " | ".join([REFERENCE_ROW, *(known.get(column, "–") for column in COLUMNS)]) + " |")
    return "\n".join([*lines, "", tell_basis(result), tell_reference(reference) + " " + FROM_RECALLS])


def tell_basis(result: dict[str, Any]) -> str:
    """What a comparison rests on, in words."""
    told = f"{result['hits']} hits tested, {result['diffuse']} of them diffuse; {result['fold_count']} folds"
    left_out = f"; {result['left_out']} hits lack a feature set and are left out for all" if result["left_out"] else ""
    return f"{told} (by {result['folds_by']}), seed {result['seed']}{left_out}. Intervals: 95 %, bootstrap."


def find_complete(columns: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    """Hits, (n,), that every method can speak of.

    Raises
    ------
    BadParameter
        If there are no methods, or one has not ``count`` rows.
    """
    if not columns:
        raise BadParameter("no methods to compare")
    is_there = np.ones(count, dtype=bool)
    for name, values in columns.items():
        if len(values) != count:
            raise BadParameter(f"'{name}' has {len(values)} rows for {count} labels")
        is_there &= np.isfinite(np.reshape(values, (count, -1))).all(axis=1)
    if not is_there.all():
        _log.warning("%d of %d hits lack a feature set and are left out for all", (~is_there).sum(), count)
    return is_there


def _measure_rows(
    found: Mapping[str, tuple[np.ndarray, float]], y: np.ndarray, measured: np.ndarray, options: dict[str, Any]
) -> dict[str, Any]:
    """Measures of each method, from its scores of all hits and its threshold."""
    return {
        name: measure_scores(y[measured], np.asarray(score, dtype=float)[measured], threshold=threshold, **options)
        for name, (score, threshold) in found.items()
    }


def _tell_basis(y: np.ndarray, prevalence: float, top: int | None) -> dict[str, Any]:
    """What the figures rest on: ``hits`` that are tested, ``diffuse`` of them, and the reference's row."""
    return {
        "hits": int(y.size),
        "diffuse": int(y.sum()),
        "prevalence": prevalence,
        "top": top or int(y.sum()),
        "reference": REFERENCE,
        "reference_row": refer_to(prevalence),
    }


def _name_folds(folds: Sequence[Fold] | None, run: np.ndarray | None) -> str:
    """What folds keep together."""
    return "as given" if folds is not None else "hit" if run is None else "run"


def _drawn_by(run: np.ndarray | None, measured: np.ndarray) -> np.ndarray | None:
    """Run of each hit that counts, where runs are known."""
    return None if run is None else run[measured]


def _find_measured(folds: Sequence[Fold], count: int, is_measured: np.ndarray | None) -> np.ndarray:
    """Rows of the hits that are tested and count."""
    is_tested = np.zeros(count, dtype=bool)
    for _, test in folds:
        is_tested[test] = True
    return np.flatnonzero(is_tested if is_measured is None else is_tested & np.asarray(is_measured))


def _deal(
    y: np.ndarray,
    run: np.ndarray | None,
    is_there: np.ndarray,
    folds: Sequence[Fold] | None,
    fold_count: int,
    seed: int,
) -> list[Fold]:
    """Folds of the hits that are there, as row numbers of all hits."""
    rows = np.flatnonzero(is_there)
    if folds is None:
        group = None if run is None else run[rows]
        made = make_folds(y[rows], fold_count=fold_count, seed=seed, group=group)
        return [(rows[train], rows[test]) for train, test in made]
    given = [(train[is_there[train]], test[is_there[test]]) for train, test in map(_as_rows, folds)]
    tested = np.concatenate([test for _, test in given])
    if np.unique(tested).size < tested.size or any(np.isin(train, test).any() for train, test in given):
        raise BadParameter("a hit is tested twice, or by a ranker that was trained on it")
    return given


def _as_rows(fold: Fold) -> Fold:
    """Row numbers, where rows are given as numbers or as truth values."""
    train, test = (np.asarray(part) for part in fold)
    return (
        np.flatnonzero(train) if train.dtype == bool else train,
        np.flatnonzero(test) if test.dtype == bool else test,
    )


def _score(
    ranker: Ranker, X: np.ndarray, y: np.ndarray, folds: Sequence[Fold], run: np.ndarray | None, is_ordered: bool
) -> np.ndarray:
    """Scores of tested hits, (n,); rows of hits that lack features take no part, whatever is in them."""
    used = np.unique(np.concatenate([part for fold in folds for part in fold]))
    within = [(np.searchsorted(used, train), np.searchsorted(used, test)) for train, test in folds]
    scores, group = np.full(y.size, np.nan), None if run is None else run[used]
    if not is_ordered:
        scores[used] = score_folds(ranker, X[used], y[used], within, group=group)
        return scores
    for train, test in within:  # chosen anew without each fold's tests: a choice learns from labels too
        count = choose_coordinates(ranker, X[used[train]], y[used[train]], seed=ranker.seed)
        scored = score_folds(ranker, X[used, :count], y[used], [(train, test)], group=group)
        scores[used[test]] = scored[test]
    return scores


def _cell(measure: Measure, *, is_share: bool) -> str:
    if measure["value"] is None:
        return "none"
    unit, digits = (100.0, 1) if is_share else (1.0, 3)
    value, low, high = (f"{unit * measure[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low}–{high})"
