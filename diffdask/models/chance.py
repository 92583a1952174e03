"""What chance gives: scores of hits set against those of the same hits where nothing can be found."""

from __future__ import annotations

import numpy as np


def borrow_frames(known: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Another one for every frame that is known, (n,): one cycle, so that nobody borrows from itself."""
    lender = np.arange(count)
    order = random.permutation(known)
    lender[order] = np.roll(order, 1)
    return lender


def describe_chance(strange: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of scores by chance, NaN left out; 0 and 1 where there are too few."""
    known = strange[np.isfinite(strange)]
    if known.size < 2 or not known.std() > 0:
        return 0.0, 1.0
    return float(known.mean()), float(known.std())


def set_against_chance(score: np.ndarray, chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Set scores against what chance gives.

    Parameters
    ----------
    score
        (n,), NaN where nothing was compared.
    chance
        Any shape: scores at orientations that were borrowed, or of frames that were twisted.

    Returns
    -------
    tuple
        Significance (n,): the score less the mean of chance, in its standard deviations; and p-value (n,): the share
        of chance that is as large, the score itself counted. NaN where there is no chance to set against.
    """
    others = np.sort(chance[np.isfinite(chance)])
    if others.size < 2 or not others.std() > 0:
        return np.full(score.shape, np.nan), np.full(score.shape, np.nan)
    as_large = others.size - np.searchsorted(others, score, side="left")
    p_value = np.where(np.isfinite(score), (1.0 + as_large) / (1.0 + others.size), np.nan)
    return (score - others.mean()) / others.std(), p_value


def adjust_p_values(p_value: np.ndarray) -> np.ndarray:
    """Smallest false discovery rates at which each frame is found, (n,); NaN where the p-value is.

    References
    ----------
    Benjamini & Hochberg, J. R. Stat. Soc. B 57, 289 (1995).

    Examples
    --------
    >>> adjust_p_values(np.array([0.01, 0.5, 0.02, np.nan])).tolist()
    [0.03, 0.5, 0.03, nan]
    """
    adjusted = np.full(len(p_value), np.nan)
    known = np.flatnonzero(np.isfinite(p_value))
    order = known[np.argsort(-p_value[known], kind="stable")]
    ranks = np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum.accumulate(np.minimum(p_value[order] * order.size / ranks, 1.0))
    return adjusted


def standardise_scores(score: np.ndarray) -> np.ndarray:
    """Put scores, (n,), over those of hits that are not diffuse, however many are diffuse.

    Hits without the signal lie close together; those with it lie above, far and
    wide. So zero is the middle of the shortest interval with a quarter of all
    hits, and one the spread of the hits below it. NaN stays NaN.

    Examples
    --------
    >>> standardise_scores(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 60.0, 90.0, 500.0])).round(2).tolist()
    [-0.67, 0.0, 0.67, 1.35, 2.02, 39.12, 59.36, 335.9]
    """
    known = np.sort(score[np.isfinite(score)])
    if known.size == 0:
        return score
    inside = max(-(-known.size // 4), min(3, known.size))
    shortest = int(np.argmin(known[inside - 1 :] - known[: known.size - inside + 1]))
    middle = np.median(known[shortest : shortest + inside])
    below = middle - known[known < middle]
    spread = np.median(below) / 0.6745 if below.size else 0.0
    return np.asarray((score - middle) / (spread if spread > 0 else 1.0))
