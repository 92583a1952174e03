"""Figures of a classification of hits, as in the reference's Table I, with bootstrap intervals.

Hits only: y is 1 for diffuse, 0 for non-diffuse. Draws of the bootstrap are made
once and shared, so that methods are compared on the same draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffdask.errors import BadLabels, BadParameter
from diffdask.kernels.agreement import (
    Measure,
    area_under_roc,
    measure_precision,
    precision_at_prevalence,
    precision_in_top,
    wilson_interval,
)

#: Columns of Table I, in its order.
FIGURES = ("diffuse_precision", "diffuse_recall", "non_diffuse_precision", "non_diffuse_recall", "overall")

#: The study of 2018: VGG16, PCA to 50, logistic regression; 500 frames to train, 500 to test.
REFERENCE = dict(zip(FIGURES, (0.953, 0.914, 0.921, 0.957, 0.936), strict=True))

#: Where these come from, to be said wherever they are shown.
REFERENCE_SOURCE = (
    "Table I of the study of 2018 (VGG16 with ImageNet's weights, 50 principal components, logistic regression; "
    "500 hits to train and 500 to test, of another experiment)"
)

#: Share of diffuse among the hits that it tested: the one at which its precisions and recalls agree.
REFERENCE_PREVALENCE = 0.488

#: Two-sided 95 %.
_PERCENTILES = (2.5, 97.5)


def draw_hits(count: int, draws: int, *, seed: int, run: np.ndarray | None = None) -> list[np.ndarray]:
    """Draw hits with replacement.

    Parameters
    ----------
    count
        Hits there are.
    draws
        Samples wanted.
    seed
        Of the draws.
    run
        (count,) to draw whole runs: where hits of a run resemble each other, and there are many runs.

    Returns
    -------
    list of numpy.ndarray
        Numbers of the hits of each sample.
    """
    random = np.random.default_rng(seed)
    if run is None:
        return list(random.integers(count, size=(draws, count)))
    members = [np.flatnonzero(run == one) for one in np.unique(run)]
    return [
        np.concatenate([members[one] for one in chosen])
        for chosen in random.integers(len(members), size=(draws, len(members)))
    ]


def measure_scores(
    y: np.ndarray,
    score: np.ndarray,
    *,
    samples: Sequence[np.ndarray],
    threshold: float = 0.5,
    prevalence: float = 0.05,
    top: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure a classification.

    Parameters
    ----------
    y
        (n,) labels 0 and 1.
    score
        (n,) higher for diffuse; finite.
    samples
        From :func:`draw_hits`.
    threshold
        Score from which on a hit is predicted diffuse.
    prevalence
        Share of diffuse among hits for ``precision_at_prevalence``.
    top
        Best hits for ``precision_in_top``; None for as many as are diffuse.
    seed
        Of the posterior of the precision at the prevalence.

    Returns
    -------
    dict
        The five ``FIGURES``, ``area_under_roc``, ``precision_in_top`` and ``precision_at_prevalence`` as measures;
        ``confusion``: counts, rows by label and columns by prediction, diffuse first; ``passes_reference``.

    Raises
    ------
    BadLabels
        If there are no hits of a class.
    BadParameter
        If a score is not finite.
    """
    _check(y, score, prevalence, top)
    y, score = np.asarray(y), np.asarray(score)
    counts = count_cells(y == 1, score >= threshold)
    values = find_values(y, score, threshold=threshold, top=top)
    drawn = _find_drawn(y, score, samples, threshold, top)
    rests_on = [*_counts_of(counts).tolist(), min(counts.sum(axis=1).tolist()), min(top or int(y.sum()), y.size)]
    measures = {
        name: _measure(value, drawn[name], count) for (name, value), count in zip(values.items(), rests_on, strict=True)
    }
    return {
        **measures,
        "precision_at_prevalence": _measure_at(prevalence, counts, max(len(samples), 200), seed),
        "confusion": counts.tolist(),
        "passes_reference": bool(all(values[name] >= REFERENCE[name] for name in FIGURES)),
    }


def refer_to(prevalence: float) -> dict[str, Any]:
    """The reference's row: ``figures``, ``source``, ``prevalence``, and its precision at ours, from its recalls."""
    rates = REFERENCE["diffuse_recall"], 1.0 - REFERENCE["non_diffuse_recall"]
    return {
        "figures": REFERENCE,
        "source": REFERENCE_SOURCE,
        "prevalence": REFERENCE_PREVALENCE,
        "precision_at_prevalence": float(precision_at_prevalence(*rates, prevalence)),
    }


def tell_reference(reference: dict[str, Any]) -> str:
    """Where the row of :func:`refer_to` comes from, in words."""
    own = f"{100 * reference['prevalence']:.0f} % of those were diffuse"
    return f"Reference: {reference['source']}; {own}."


def warn_of_weights(weights: str | None) -> str | None:
    """What to say, loudly, wherever figures rest on such weights of VGG16; None where they are no random ones."""
    if not (weights or "").startswith("random"):
        return None
    told = "VGG16 HAS RANDOM WEIGHTS, not ImageNet's: these figures say nothing of what VGG16 can do."
    return f"{told} Its weights: {weights}."


def find_values(
    y: np.ndarray, score: np.ndarray, *, threshold: float = 0.5, top: int | None = None
) -> dict[str, float]:
    """The numbers of :func:`measure_scores` that need no prevalence, without intervals; NaN where there is none."""
    is_diffuse, score = np.asarray(y) == 1, np.asarray(score)
    top = min(top or max(1, int(is_diffuse.sum())), score.size)
    return {
        **dict(zip(FIGURES, find_figures(count_cells(is_diffuse, score >= threshold)).tolist(), strict=True)),
        "area_under_roc": area_under_roc(score[is_diffuse], score[~is_diffuse]),
        "precision_in_top": precision_in_top(score, is_diffuse, top),
    }


def count_cells(is_diffuse: np.ndarray, is_picked: np.ndarray) -> np.ndarray:
    """Counts, (label, prediction), diffuse first.

    Examples
    --------
    >>> count_cells(np.array([True, True, False]), np.array([True, False, False])).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(2 * ~is_diffuse + ~is_picked, minlength=4).reshape(2, 2)


def find_figures(counts: np.ndarray) -> np.ndarray:
    """The five ``FIGURES``, (5,), of counts (label, prediction); NaN where nothing was predicted or labelled so.

    Examples
    --------
    >>> find_figures(np.array([[8, 2], [0, 10]])).round(3).tolist()
    [1.0, 0.8, 0.833, 1.0, 0.9]
    """
    found, left = np.diag(counts)
    parts = np.array([found, found, left, left, found + left], dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(parts / _counts_of(counts))


def _counts_of(counts: np.ndarray) -> np.ndarray:
    """Hits that each of the five figures is a share of."""
    (found, missed), (wrong, left) = counts
    return np.array([found + wrong, found + missed, left + missed, left + wrong, counts.sum()])


def _find_drawn(
    y: np.ndarray, score: np.ndarray, samples: Sequence[np.ndarray], threshold: float, top: int | None
) -> dict[str, np.ndarray]:
    """Values of every sample, name to (draws,); of a smaller sample the best fewer hits count."""
    found = [
        find_values(y[rows], score[rows], threshold=threshold, top=top and max(1, round(rows.size * top / y.size)))
        for rows in samples
    ]
    names = (*FIGURES, "area_under_roc", "precision_in_top")
    return {name: np.array([one[name] for one in found]) for name in names}


def _measure_at(prevalence: float, counts: np.ndarray, draws: int, seed: int) -> Measure:
    """Precision at a prevalence, from counts (label, prediction)."""
    (found, missed), (wrong, left) = counts.tolist()
    random = np.random.default_rng(seed)
    measured = measure_precision(found, found + missed, wrong, wrong + left, prevalence, draws, random)
    return {"prevalence": prevalence, **measured}


def _measure(value: float, drawn: np.ndarray, count: int) -> Measure:
    """A measure with its bootstrap interval."""
    known = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not known.size:
        return {"value": None, "low": None, "high": None, "count": int(count)}
    low, high = np.percentile(known, _PERCENTILES)
    if value in (0.0, 1.0):  # no draw ever differs; finitely many hits are no certainty all the same
        low, high = wilson_interval(value * count, int(count))
    return {
        "value": float(value),
        "low": float(min(low, value)),
        "high": float(max(high, value)),
        "count": int(count),
    }


def _check(y: np.ndarray, score: np.ndarray, prevalence: float, top: int | None) -> None:
    if not 0 < prevalence < 1:
        raise BadParameter(f"prevalence = {prevalence} must lie between 0 and 1: the share of diffuse among the hits")
    if top is not None and top < 1:
        raise BadParameter(f"top = {top} must be at least 1")
    if np.shape(y) != np.shape(score) or not np.isfinite(score).all():
        raise BadParameter(f"{np.shape(score)} scores, all finite, are needed for {np.shape(y)} labels")
    if not np.isin(y, (0, 1)).all() or np.unique(y).size < 2:
        raise BadLabels("labels are 0 and 1, and hits of both classes are needed to measure a classification")
