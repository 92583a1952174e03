"""Evidence that is noise and, in some hits, an amount on top: how likely it is, and how much of it is the amount.

Amounts of diffuse hits have a gamma distribution of shape 2, so that few have almost none; what other hits show
(streaks, ice) an exponential one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr

_LOG_ROOT = 0.5 * np.log(2.0 * np.pi)


@dataclass(frozen=True)
class Amounts:
    """What one kind of evidence shows beside its noise; in units of the noise."""

    diffuse: float  #: mean amount of the diffuse hits that show any
    shown: float  #: share of the diffuse hits that show any, unless they are faint
    left: float  #: mean amount of the other hits that have any
    left_share: float  #: share of the other hits that have any


class Split(NamedTuple):
    """Of what evidence may be made."""

    ratio: np.ndarray  #: (n,) logarithm of how much more likely it is in a diffuse hit than in another
    shown: np.ndarray  #: (n,) probability that a diffuse hit that is not faint shows an amount
    left: np.ndarray  #: (n,) probability that another hit has an amount


class SplitPair(NamedTuple):
    """The same of two kinds of evidence."""

    one: Split  #: its ratio is that of the first, had it come alone
    other: Split  #: its ratio is what the other adds
    faint: np.ndarray  #: (n,) probability that a diffuse hit is faint, so that neither shows it
    left: np.ndarray  #: (n, 2, 2) probability that another hit has no amount, or one, in the first; and in the other


def split_evidence(z: np.ndarray, amounts: Amounts) -> Split:
    """Hold what evidence would be in a diffuse hit against what it would be in another.

    The ratio rises with z as long as the mean amount of diffuse hits is at least twice that of others.

    Parameters
    ----------
    z
        (n,) in units of its noise; NaN where missing, which tells nothing.
    amounts
        What it shows.
    """
    noise, left, signal = _log_densities(z, amounts)
    other = _mix(amounts.left_share, left, noise)
    diffuse = _mix(amounts.shown, signal, other)
    shown = np.log(amounts.shown) + signal - diffuse
    return Split(diffuse - other, np.exp(shown), np.exp(np.log(amounts.left_share) + left - other))


def split_pair(
    one: tuple[np.ndarray, Amounts], other: tuple[np.ndarray, Amounts], left_shares: np.ndarray, faint: float
) -> SplitPair:
    """Hold two kinds of evidence against what they would be, where hits that show something else show it in both.

    Parameters
    ----------
    one, other
        (n,) evidence and what it shows; the shares of other hits with an amount are those of the table.
    left_shares
        (2, 2) shares of the hits that are not diffuse with no amount, or one, in the first; and in the other.
    faint
        Share of the diffuse hits that are so faint that neither shows them.
    """
    shares = float(left_shares[1].sum()), float(left_shares[:, 1].sum())
    kinds = [(z, replace(amounts, left_share=share)) for (z, amounts), share in zip((one, other), shares, strict=True)]
    first, second = (split_evidence(*kind) for kind in kinds)
    of_first, of_second = (_log_densities(*kind)[:2].T for kind in kinds)  # (n, 2): noise, and with an amount
    parts = np.log(left_shares) + of_first[:, :, None] + of_second[:, None, :]
    others = np.logaddexp.reduce(parts.reshape(-1, 4), axis=1)
    as_if_apart = np.logaddexp.reduce(of_first + np.log(left_shares.sum(axis=1)), axis=1)
    as_if_apart += np.logaddexp.reduce(of_second + np.log(left_shares.sum(axis=0)), axis=1)
    diffuse = _mix(faint, others, as_if_apart + first.ratio + second.ratio)
    alone = _mix(faint, np.zeros_like(others), first.ratio)
    return SplitPair(
        first._replace(ratio=alone, left=np.exp(parts[:, 1] - others[:, None]).sum(axis=1)),
        second._replace(ratio=diffuse - others - alone, left=np.exp(parts[:, :, 1] - others[:, None]).sum(axis=1)),
        np.exp(np.log(faint) + others - diffuse),
        np.exp(parts - others[:, None, None]),
    )


def log_density(z: np.ndarray, mean: float, *, shape: int) -> np.ndarray:
    """Logarithm of the density at z of standard noise and an amount of this mean, gamma distributed.

    With t = mean / shape and x = z - 1/t, completing the square gives exp(1/(2 t^2) - z/t) / t Phi(x) for shape 1, and
    for shape 2 that times (x + phi(x) / Phi(x)) / t, the mean over t of the normal about x cut off at 0.
    """
    scale = mean / shape
    density = 0.5 / scale**2 - z / scale - np.log(scale) + log_ndtr(z - 1.0 / scale)
    return density if shape == 1 else density + np.log(_cut_mean(z - 1.0 / scale) / scale)


def expect_amount(z: np.ndarray, mean: float, *, shape: int) -> np.ndarray:
    """Mean amount of hits of z that have one: the first moment of the cut normal, or the second over the first."""
    centre = z - shape / mean
    first = _cut_mean(centre)
    return first if shape == 1 else (1.0 + centre * first) / first


def _log_densities(z: np.ndarray, amounts: Amounts) -> np.ndarray:
    """Of noise alone, of noise and what is left, of noise and the diffuse amount, (3, n); all 0 where missing."""
    known = np.nan_to_num(z)
    noise = -0.5 * known**2 - _LOG_ROOT
    left, diffuse = log_density(known, amounts.left, shape=1), log_density(known, amounts.diffuse, shape=2)
    return np.where(np.isfinite(z), [noise, left, diffuse], 0.0)


def _mix(share: float, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Logarithm of share * exp(one) + (1 - share) * exp(other)."""
    return np.asarray(np.logaddexp(np.log(share) + one, np.log1p(-share) + other))


def _cut_mean(centre: np.ndarray) -> np.ndarray:
    """Mean of the normal distribution about a centre, cut off below 0."""
    hazard = np.exp(-0.5 * centre**2 - _LOG_ROOT - log_ndtr(centre))
    return np.asarray(np.maximum(centre + hazard, 1e-9))
