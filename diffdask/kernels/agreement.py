"""Agreement of predictions with labels: plain numbers, and measures with intervals.

A measure is a dict of ``value``, ``low`` and ``high`` (a 95 % interval) and the
``count`` it rests on; the first three are None where nothing can be said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Measure = dict[str, Any]

#: Two-sided 95 % point of the standard normal distribution.
_Z = 1.959963984540054
_PERCENTILES = (2.5, 97.5)


def confusion_matrix(label: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Counts, (label, predicted label), both in the order of ``classes``."""
    return np.array([[int(((label == a) & (predicted == b)).sum()) for b in classes] for a in classes])


def area_under_roc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a positive scores above a negative, ties counted half; NaN if there are none of one."""
    if not positive.size or not negative.size:
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left") + np.searchsorted(ordered, positive, side="right")
    return float(below.sum() / (2.0 * positive.size * negative.size))


def precision_in_top(score: np.ndarray, is_positive: np.ndarray, top: int) -> float:
    """Share of positives among the ``top`` highest scores; the mean over all orders of ties."""
    last = np.sort(score)[-top]
    above, tied = score > last, score == last
    return float((is_positive[above].sum() + (top - above.sum()) * is_positive[tied].mean()) / top)


def precision_at_prevalence(
    true_positive_rate: float | np.ndarray, false_positive_rate: float | np.ndarray, prevalence: float
) -> np.ndarray:
    """Bayes: chance that what is predicted positive is so, where this share of all is; NaN if none is predicted."""
    found = np.asarray(true_positive_rate) * prevalence
    wrong = np.asarray(false_positive_rate) * (1.0 - prevalence)
    with np.errstate(invalid="ignore"):
        return np.asarray(found / (found + wrong))


def mean_log_likelihood(positive: np.ndarray, negative: np.ndarray) -> float:
    """Mean log of the probability that scores give to the true label; NaN if there are no scores."""
    given = np.concatenate([positive, 1.0 - negative])
    tiny = np.finfo(np.float64).eps
    return float(np.log(np.clip(given, tiny, 1.0 - tiny)).mean()) if given.size else float("nan")


def wilson_interval(successes: float, count: int) -> tuple[float, float]:
    """95 % interval of a proportion.

    References
    ----------
    Wilson, J. Am. Stat. Assoc. 22, 209 (1927).
    """
    share, widening = successes / count, _Z**2 / count
    centre = (share + widening / 2) / (1 + widening)
    half = _Z / (1 + widening) * np.sqrt(max(share * (1 - share), 0.0) / count + widening / (4 * count))
    # The interval holds the share itself; rounding must not say otherwise at 0 and 1.
    return min(max(0.0, float(centre - half)), share), max(min(1.0, float(centre + half)), share)


def measure_proportion(successes: float, count: int) -> Measure:
    """Measure a proportion, with Wilson's interval."""
    if count == 0:
        return _measure(None, None, None, 0)
    return _measure(successes / count, *wilson_interval(float(successes), int(count)), count)


def measure_area(positive: np.ndarray, negative: np.ndarray, draws: int, random: np.random.Generator) -> Measure:
    """Measure the area under the curve, with an interval by bootstrap."""
    measure = _measure_drawn(area_under_roc, positive, negative, draws, random)
    count = min(positive.size, negative.size)
    if measure["value"] in (0.0, 1.0):
        # No draw ever differs. Disjoint pairs of a positive and a negative are independent
        # trials with this chance, so that Wilson's interval for them is wide enough.
        measure["low"], measure["high"] = wilson_interval(measure["value"] * count, count)
    return measure


def measure_likelihood(positive: np.ndarray, negative: np.ndarray, draws: int, random: np.random.Generator) -> Measure:
    """Measure the mean log-likelihood of a label, with an interval by bootstrap."""
    return _measure_drawn(mean_log_likelihood, positive, negative, draws, random)


def measure_top(score: np.ndarray, is_positive: np.ndarray, top: int) -> Measure:
    """Measure the precision among the ``top`` highest scores, or among all where there are fewer."""
    top = min(top, score.size)
    if top == 0:
        return _measure(None, None, None, 0)
    return measure_proportion(precision_in_top(score, is_positive, top) * top, top)


def measure_precision(
    found: int, positives: int, wrong: int, negatives: int, prevalence: float, draws: int, random: np.random.Generator
) -> Measure:
    """Measure the precision at a prevalence from ``found`` of the positives and ``wrong`` of the negatives."""
    count = positives + negatives
    if not positives or not negatives:
        return _measure(None, None, None, count)
    value = float(precision_at_prevalence(found / positives, wrong / negatives, prevalence))
    # Rates from their posterior under Jeffreys' prior, not resampled: no false positive among
    # fifty frames does not mean that there will be none, and a bootstrap would say just that.
    true_rates = random.beta(found + 0.5, positives - found + 0.5, size=draws)
    false_rates = random.beta(wrong + 0.5, negatives - wrong + 0.5, size=draws)
    low, high = np.percentile(precision_at_prevalence(true_rates, false_rates, prevalence), _PERCENTILES)
    return _measure(None if np.isnan(value) else value, low if found else 0.0, high if wrong else 1.0, count)


def _measure_drawn(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    positive: np.ndarray,
    negative: np.ndarray,
    draws: int,
    random: np.random.Generator,
) -> Measure:
    """Measure with an interval by bootstrap, each class drawn by itself."""
    count = positive.size + negative.size
    # Sorted, so that the draws do not depend on the order of the frames.
    classes = np.sort(positive), np.sort(negative)
    value = statistic(*classes)
    if np.isnan(value):
        return _measure(None, None, None, count)
    drawn = [statistic(*(_draw(values, random) for values in classes)) for _ in range(draws)]
    low, high = np.percentile(drawn, _PERCENTILES)
    return _measure(value, low, high, count)


def _draw(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return values[random.integers(values.size, size=values.size)] if values.size else values


def _measure(value: float | None, low: float | None, high: float | None, count: int) -> Measure:
    numbers = {"value": value, "low": low, "high": high}
    return {**{name: None if v is None else float(v) for name, v in numbers.items()}, "count": int(count)}
