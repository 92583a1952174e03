"""All methods on the same folds: one table, as the reference's Table I."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffdask.classification import FIGURES, REFERENCE, draw_hits, measure_scores
from diffdask.errors import BadParameter
from diffdask.kernels.agreement import Measure
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

_REFERENCE_ROW = "reference (2018)"


def compare_methods(
    features: Mapping[str, np.ndarray],
    y: np.ndarray,
    run: np.ndarray | None,
    *,
    scores: Mapping[str, tuple[np.ndarray, float]] | None = None,
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
        Method to features (n, f), not the same f for all; NaN in rows of hits that have none. Such hits are left out
        for all methods, else the table would compare hits, not methods.
    y
        (n,) labels, 1 for diffuse and 0 for non-diffuse.
    run
        (n,) what folds must not split: the run, or the experiment; None to deal hits one by one.
    scores
        Method to scores (n,) that need no training and the threshold of diffuse.
    ranker
        Whose parameters to use; None for the defaults.
    folds
        Rows to train on and to test on; None for ``fold_count`` folds by run. One fold of 500 and 500 hits is the
        reference's split; a fold an experiment tests on experiments not seen. Every hit is tested at most once.
    is_measured
        (n,) hits that count where they are tested, such as those of strong and medium signal; None for all.
    prevalence, top
        As in :func:`diffdask.classification.measure_scores`.
    bootstrap
        Draws for the intervals.
    draw_runs
        Draw whole runs: right where there are many.
    seed
        Of folds and draws.

    Returns
    -------
    dict
        JSON-able: ``rows``, method to its measures, with intervals from the same draws for all; ``hits`` and
        ``diffuse`` of them, tested; ``left_out``; ``fold_count``; ``folds_by``; ``prevalence``; ``top``; ``reference``.

    Raises
    ------
    BadParameter
        If arrays do not fit together, or a hit is tested twice.
    BadLabels
        If folds cannot be made.
    """
    scores, y = scores or {}, np.asarray(y)
    is_there = _find_common({**features, **{name: one for name, (one, _) in scores.items()}}, y)
    given = None if run is None else np.asarray(run)
    ranker = ranker or Ranker(engine="scikit-learn", seed=seed)
    dealt = _deal(y, given, is_there, folds, fold_count, seed)
    is_tested = np.zeros(y.size, dtype=bool)
    for _, test in dealt:
        is_tested[test] = True
    measured = np.flatnonzero(is_tested if is_measured is None else is_tested & np.asarray(is_measured))
    found = {name: (_score(ranker, X, y, dealt, given), 0.5) for name, X in features.items()} | dict(scores)
    drawn_by = given[measured] if draw_runs and given is not None else None
    samples = draw_hits(measured.size, bootstrap, seed=seed, run=drawn_by)
    options: dict[str, Any] = {"samples": samples, "prevalence": prevalence, "top": top, "seed": seed}
    rows = {
        name: measure_scores(y[measured], np.asarray(one, dtype=float)[measured], threshold=threshold, **options)
        for name, (one, threshold) in found.items()
    }
    return {
        "rows": rows,
        "hits": int(measured.size),
        "diffuse": int(y[measured].sum()),
        "left_out": int((~is_there).sum()),
        "fold_count": len(dealt),
        "folds_by": "as given" if folds is not None else "hit" if run is None else "run",
        "prevalence": prevalence,
        "top": top or int(y[measured].sum()),
        "reference": REFERENCE,
    }


def format_comparison(result: dict[str, Any]) -> str:
    """Write a comparison as a Markdown table: shares in per cent with 95 % intervals, the area under the curve as is.

    A star marks methods that reach every figure of the reference's Table I.
    """
    at = f"P at {100 * result['prevalence']:g} %"
    heads = [
        "method",
        *(COLUMNS | {"precision_in_top": f"top {result['top']}", "precision_at_prevalence": at}).values(),
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, row in result["rows"].items():
        cells = [_cell(row[column], is_share=column != "area_under_roc") for column in COLUMNS]
        lines.append("| " + " | ".join([name + (" *" if row["passes_reference"] else ""), *cells]) + " |")
    known = [f"{100 * REFERENCE[name]:.1f}" for name in FIGURES]
    lines.append("| " + " | ".join([_REFERENCE_ROW, *known, *["–"] * (len(COLUMNS) - len(known))]) + " |")
    told = f"{result['hits']} hits tested, {result['diffuse']} of them diffuse; {result['fold_count']} folds"
    left_out = f"; {result['left_out']} hits lack a feature set and are left out for all" if result["left_out"] else ""
    return "\n".join([*lines, "", f"{told} (by {result['folds_by']}){left_out}. Intervals: 95 %, bootstrap."])


def _find_common(columns: Mapping[str, np.ndarray], y: np.ndarray) -> np.ndarray:
    """Hits, (n,), that every method can speak of."""
    if not columns:
        raise BadParameter("no methods to compare")
    is_there = np.ones(y.size, dtype=bool)
    for name, values in columns.items():
        if len(values) != y.size:
            raise BadParameter(f"'{name}' has {len(values)} rows for {y.size} labels")
        is_there &= np.isfinite(np.reshape(values, (y.size, -1))).all(axis=1)
    if not is_there.all():
        _log.warning("%d of %d hits lack a feature set and are left out for all", (~is_there).sum(), y.size)
    return is_there


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


def _score(ranker: Ranker, X: np.ndarray, y: np.ndarray, folds: Sequence[Fold], run: np.ndarray | None) -> np.ndarray:
    """Scores of tested hits, (n,); rows of hits that lack features take no part, whatever is in them."""
    used = np.unique(np.concatenate([part for fold in folds for part in fold]))
    within = [(np.searchsorted(used, train), np.searchsorted(used, test)) for train, test in folds]
    scores = np.full(y.size, np.nan)
    scores[used] = score_folds(ranker, X[used], y[used], within, group=None if run is None else run[used])
    return scores


def _cell(measure: Measure, *, is_share: bool) -> str:
    if measure["value"] is None:
        return "none"
    unit, digits = (100.0, 1) if is_share else (1.0, 3)
    value, low, high = (f"{unit * measure[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low}–{high})"
