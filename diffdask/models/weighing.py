"""How much other evidence counts, judged by agreement: regression of the false discovery rate.

What chance gives is known of agreement (hits at borrowed orientations), and only assumed of structure and search. So
these are trusted as far as they foretell which hits agree. The odds that a hit is diffuse, before its agreement is
seen, are a logistic function of what the others say; what a diffuse hit's agreement amounts to is left open (weights
on a row of amounts), so that hits that are all alike, or of several strengths, are told from chance alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from diffdask.models.amounts import Amounts, log_density

#: Amounts of agreement that diffuse hits may show, in units of chance: less is no signal to speak of.
_AMOUNTS = np.concatenate([np.arange(1.0, 6.0, 0.5), np.arange(6.0, 31.0)])

#: Least amount of many hits that proves anything, mean amounts where they differ, and how many shares are tried.
_LEAST_AMOUNT, _MEANS, _SHARES = 2.0, (4.0, 8.0, 16.0), 25

#: Shares of the hits that are not diffuse that may show something in agreement, beside what is expected. In simulated
#: campaigns, nuisances left in or not, at most 2 % do, of a mean of 1; up to here nothing is proved.
_OTHER_SHARES = (0.02, 0.03, 0.05)

#: Hits that what is expected of the others counts as, against a larger share.
_PRIOR_OTHERS = 50.0

#: Agreement at which likelihoods are held; between, they are interpolated, and beyond the ends they stay.
_GRID = np.linspace(-8.0, 32.0, 401)

#: Mean amount, and share of the diffuse hits that agree, that are expected; and how many hits that counts as.
_MEAN, _SHOWN, _PRIOR_HITS = 6.0, 0.85, 10.0

#: Weights are expected to be 1, with a standard deviation of one half.
_STIFFNESS = 4.0

#: Log ratios beyond this count as this where weights are learnt: some hits are beyond doubt.
_SURE = 30.0

#: Log odds before any evidence are kept within these.
_LEAST_ODDS, _MOST_ODDS = -12.0, 1.4

_ROUNDS, _SETTLED = 30, 1e-3


@dataclass(frozen=True)
class Weighing:
    """How much the kinds of evidence count."""

    bias: float  #: log odds of a hit of which nothing is known
    speaking_for: np.ndarray  #: (k,) weights, 0 to 1, of the other kinds where they speak for diffuse
    speaking_against: np.ndarray  #: (k,) likewise where they speak against
    shown: float  #: share of the diffuse hits that agree with the others
    shares: np.ndarray  #: of the diffuse hits that agree, with each amount of agreement
    other: Amounts  #: what hits that are not diffuse show in agreement

    def weigh(self, ratios: np.ndarray) -> np.ndarray:
        """Log ratios (n, k) as far as they are to be trusted."""
        return np.asarray(np.maximum(ratios, 0.0) * self.speaking_for + np.minimum(ratios, 0.0) * self.speaking_against)

    def rate(self, agreement: np.ndarray) -> np.ndarray:
        """Log ratio (n,) of agreement, which rises with it; 0 where missing."""
        by_chance = _expect_others(self.other)
        ratio = np.logaddexp(np.log(self.shown) + _expect_diffuse(self.shares), np.log1p(-self.shown) + by_chance)
        rising = np.maximum.accumulate(ratio - by_chance)
        found = np.interp(np.nan_to_num(agreement), _GRID, rising)
        return np.where(np.isfinite(agreement), found, 0.0)

    def expect_shown(self, agreement: np.ndarray) -> np.ndarray:
        """Probability (n,) that a diffuse hit of this agreement agrees by more than chance."""
        shows = np.log(self.shown) + _expect_diffuse(self.shares)
        does_not = np.log1p(-self.shown) + _expect_others(self.other)
        return np.asarray(np.interp(agreement, _GRID, expit(shows - does_not)))


def learn_weighing(
    ratios: np.ndarray, agreement: np.ndarray, *, other: Amounts, least_shown: float, share: float = 0.05
) -> Weighing:
    """Learn from hits of which agreement is known how much the other kinds of evidence count.

    Parameters
    ----------
    ratios
        (n, k) log likelihood ratios of the other kinds of evidence, as they would be had they been learnt rightly; 0
        where missing.
    agreement
        (n,) in units of its noise; NaN where missing.
    other
        Amounts of agreement that are expected of the hits that are not diffuse.
    least_shown
        Least share of the diffuse hits that agree.
    share
        Share of the hits that are diffuse, where no agreement is known that could tell it.

    References
    ----------
    Scott, Kelly, Smith, Zhou & Kass, J. Am. Stat. Assoc. 110, 459 (2015), false discovery rate regression.
    """
    known = np.isfinite(agreement)
    agreement, ratios = agreement[known], np.clip(ratios[known], -_SURE, _SURE)
    parts = np.column_stack([np.maximum(ratios, 0.0), np.minimum(ratios, 0.0)])
    half = ratios.shape[1]
    best = _try_all(_count_on_grid(agreement), other)  # from a share of 0, or amounts far too large, none is learnt
    shares = 0.5 * (_expect_shares() + best.shares)
    share = best.share if agreement.size else share
    now = Weighing(float(logit(share)), np.ones(half), np.ones(half), _SHOWN, shares, best.other)
    for _ in range(_ROUNDS):
        before, now = now, _learn_amounts(_learn_weights(now, parts, agreement), parts, agreement, least_shown)
        if np.abs(_parameters_of(now) - _parameters_of(before)).max() < _SETTLED:
            break
    return now


def find_existence(agreement: np.ndarray, other: Amounts) -> float:
    """Find how surely some hits agree by more than chance: the logarithm of the largest likelihood ratio there is.

    All amounts and shares of diffuse hits are tried, for weak hits may all agree a little where few agree well; and so
    is what the others may show, with diffuse hits and without: a tail that is longer than expected proves nothing.

    Parameters
    ----------
    agreement
        (n,) in units of its noise, of hits that did not make what they are compared with; NaN where missing.
    other
        Amounts that are expected of the hits that are not diffuse.
    """
    counts = _count_on_grid(agreement[np.isfinite(agreement)])
    without = max(_expect(one, other) + float(counts @ _expect_others(one)) for one in _vary(other))
    return max(_try_all(counts, other).likelihood - without, 0.0)


@dataclass(frozen=True)
class _Tried:
    """What explains all agreement best."""

    likelihood: float  #: logarithm
    share: float  #: of the hits that are diffuse
    shares: np.ndarray  #: of these, with each of ``_AMOUNTS``
    other: Amounts  #: what the other hits show


def _try_all(counts: np.ndarray, other: Amounts) -> _Tried:
    """Try diffuse hits of one amount, or of a mean amount, at all shares, beside others of all kinds."""
    planned = _plan_diffuse()
    tried = (_try(counts, planned, one, _expect(one, other)) for one in _vary(other))
    return max(tried, key=lambda found: found.likelihood)


def _try(
    counts: np.ndarray, planned: Sequence[tuple[np.ndarray, np.ndarray]], other: Amounts, expected: float
) -> _Tried:
    shares = np.geomspace(0.5 / max(counts.sum(), 1.0), 0.5, _SHARES)
    by_chance = np.log1p(-shares)[:, None] + _expect_others(other)
    best = _Tried(-np.inf, float(shares[0]), planned[0][1], other)
    for density, amounts in planned:
        likelihood = np.logaddexp(np.log(shares)[:, None] + density, by_chance) @ counts + expected
        if likelihood.max() > best.likelihood:
            best = _Tried(float(likelihood.max()), float(shares[likelihood.argmax()]), amounts, other)
    return best


def _plan_diffuse() -> list[tuple[np.ndarray, np.ndarray]]:
    """Logarithms of the densities on the grid of diffuse hits that are tried, and the shares of their amounts."""
    planned = []
    for amount in _AMOUNTS[_AMOUNTS >= _LEAST_AMOUNT]:
        density = -0.5 * (_GRID - amount) ** 2 - 0.5 * np.log(2.0 * np.pi)
        planned.append((density, (amount == _AMOUNTS).astype(float)))
    return planned + [(log_density(_GRID, mean, shape=2), _expect_shares(mean)) for mean in _MEANS]


def _vary(other: Amounts) -> list[Amounts]:
    """What hits that are not diffuse may show."""
    return [other, *(replace(other, left_share=share) for share in _OTHER_SHARES)]


def _expect(other: Amounts, expected: Amounts) -> float:
    """Logarithm of how much a share is expected, against the one that is expected most."""
    one, most = other.left_share, expected.left_share
    return float(_PRIOR_OTHERS * (most * np.log(one / most) + (1.0 - most) * np.log((1.0 - one) / (1.0 - most))))


def _count_on_grid(agreement: np.ndarray) -> np.ndarray:
    """Hits at each point of the grid, of agreement rounded to it; beyond, at its ends."""
    place = np.rint((agreement - _GRID[0]) / (_GRID[1] - _GRID[0]))
    return np.bincount(np.clip(place, 0, _GRID.size - 1).astype(int), minlength=_GRID.size).astype(float)


def _lose(parameters: np.ndarray, parts: np.ndarray, ratio: np.ndarray) -> tuple[float, np.ndarray]:
    """Minus the logarithm of the likelihood of all agreement, and of the weights; and the gradient."""
    odds, off = parameters[0] + parts @ parameters[1:], parameters[1:] - 1.0
    diffuse, others = -np.logaddexp(0.0, -odds), -np.logaddexp(0.0, odds)
    total = np.logaddexp(diffuse + ratio, others)
    slope = np.exp(diffuse + ratio - total) - np.exp(diffuse)
    gradient = np.concatenate([[-slope.sum()], _STIFFNESS * off - parts.T @ slope])
    return 0.5 * _STIFFNESS * float(off @ off) - float(total.sum()), gradient


def _learn_weights(now: Weighing, parts: np.ndarray, agreement: np.ndarray) -> Weighing:
    """Maximise the likelihood of all agreement over the weights."""
    count, start, data = parts.shape[1], _parameters_of(now), (parts, now.rate(agreement))
    bounds = [(_LEAST_ODDS, _MOST_ODDS), *[(0.0, 1.0)] * count]
    found = minimize(_lose, start, args=data, jac=True, method="L-BFGS-B", bounds=bounds).x
    return replace(
        now,
        bias=float(found[0]),
        speaking_for=found[1 : 1 + count // 2],
        speaking_against=found[1 + count // 2 :],
    )


def _learn_amounts(now: Weighing, parts: np.ndarray, agreement: np.ndarray, least_shown: float) -> Weighing:
    """Learn how many of the diffuse hits agree, and how much: one round of expectation maximisation."""
    weights = _parameters_of(now)
    probability = expit(weights[0] + parts @ weights[1:] + now.rate(agreement))
    is_signal = probability * now.expect_shown(agreement)
    fit = np.log(now.shares) - 0.5 * (np.minimum(agreement, _AMOUNTS[-1])[:, None] - _AMOUNTS) ** 2
    fit = np.exp(fit - fit.max(axis=1, keepdims=True))
    counts = _PRIOR_HITS * _expect_shares() + is_signal @ (fit / fit.sum(axis=1, keepdims=True))
    shown = (_PRIOR_HITS * _SHOWN + is_signal.sum()) / (_PRIOR_HITS + probability.sum())
    return replace(now, shares=counts / counts.sum(), shown=float(np.clip(shown, least_shown, 0.99)))


def _parameters_of(weighing: Weighing) -> np.ndarray:
    return np.concatenate([[weighing.bias], weighing.speaking_for, weighing.speaking_against])


def _expect_shares(mean: float = _MEAN) -> np.ndarray:
    """Shares of the amounts before any hit is seen: a gamma distribution of shape 2."""
    density = _AMOUNTS * np.exp(-2.0 * _AMOUNTS / mean) * np.gradient(_AMOUNTS)
    return np.asarray(density / density.sum())


def _expect_diffuse(shares: np.ndarray) -> np.ndarray:
    """Logarithm of the density on the grid of diffuse hits that agree."""
    parts = np.log(shares) - 0.5 * (_GRID[:, None] - _AMOUNTS) ** 2 - 0.5 * np.log(2.0 * np.pi)
    return np.asarray(np.logaddexp.reduce(parts, axis=1))


def _expect_others(other: Amounts) -> np.ndarray:
    """Logarithm of the density on the grid of hits that are not diffuse."""
    noise = -0.5 * _GRID**2 - 0.5 * np.log(2.0 * np.pi)
    left = log_density(_GRID, other.left, shape=1)
    return np.asarray(np.logaddexp(np.log(other.left_share) + left, np.log1p(-other.left_share) + noise))
