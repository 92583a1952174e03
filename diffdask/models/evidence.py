"""Evidence for diffuse scattering over its noise: what of it remains that hits without any do not show.

Two kinds of evidence are alike by chance, and are taken together: pairs and
consistency make one agreement, the weighted sum that tells best (Fisher's). And
hits of structure, whatever it is of, fit any map somewhat: of the search only
counts what the hit's structure does not explain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Columns of the evidence of hits.
EVIDENCE = ("structure", "pairs", "consistency", "search")

#: What they come to.
CARRIERS = ("structure", "agreement", "search")

#: Rise of the search with structure that is expected, and by how much the search's spread grows with it: means over
#: the hits that are not diffuse of sixteen simulated campaigns, which differ little.
_RISE, _GROWTH = 0.35, 0.05

#: Structure beyond this counts by its logarithm where it explains the search.
_BEND = 4.0

#: Hits that what is expected counts as, beside those that are there.
_PRIOR_HITS, _PRIOR_RISE_HITS = 4.0, 20.0

#: Mean pairs and consistency of diffuse hits that are expected, in units of chance as it is given, and the value above
#: which they count as this: strong hits show whatever the weights, so that weak ones shall choose them.
_GAIN, _STRONG = 4.0, 5.0

#: Correlation by chance of pairs and consistency that is expected.
_ALIKE = 0.5

#: Largest correlation by chance of pairs and consistency: were it 1, their difference would decide.
_MOST_ALIKE = 0.8

#: Evidence below this counts as this.
_LOWEST = -8.0


@dataclass(frozen=True)
class EvidenceNoise:
    """What evidence shows by chance."""

    middle: np.ndarray  #: (4,) of each of ``EVIDENCE``; of the search, at no structure
    spread: np.ndarray  #: (4,) likewise
    rise: float  #: of the search with structure, in units of the search for each spread of the structure
    correlation: float  #: of pairs and consistency
    weight: np.ndarray  #: (2,) of pairs and consistency in the agreement, of sum 1

    def reduce(self, X: np.ndarray) -> dict[str, np.ndarray]:
        """Each of ``CARRIERS``, (n,): standard noise in hits that are not diffuse, NaN where missing."""
        structure, pairs, consistency, _ = ((X - self.middle) / self.spread).T
        both = self.weight @ np.stack([pairs, consistency])
        both /= np.sqrt(np.square(self.weight).sum() + 2.0 * self.weight.prod() * self.correlation)
        agreement = np.where(np.isfinite(both), both, np.where(np.isfinite(pairs), pairs, consistency))
        bent = _bend(structure)
        search = (X[:, 3] - self.middle[3] - self.rise * bent) / (self.spread[3] * _widen(bent))
        reduced = {"structure": structure, "agreement": agreement, "search": search}
        return {name: np.maximum(z, _LOWEST) for name, z in reduced.items()}


def expect_noise(X: np.ndarray) -> EvidenceNoise:
    """Tell what chance gives before it is learnt: a spread of 1, or more where the hits below 0 spread more.

    Parameters
    ----------
    X
        (n, 4) in the order of ``EVIDENCE``, NaN where missing.
    """
    squares = np.where(X < 0.0, X, 0.0) ** 2
    spread = np.sqrt((squares.sum(axis=0) + _PRIOR_HITS) / ((X < 0.0).sum(axis=0) + _PRIOR_HITS))
    spread = np.maximum(spread, 1.0)
    return EvidenceNoise(np.zeros(4), spread, _RISE, _ALIKE, _choose_weight(_GAIN / spread[1:3], _ALIKE))


def learn_noise(X: np.ndarray, is_noise: dict[str, np.ndarray], is_signal: np.ndarray) -> EvidenceNoise:
    """Learn what chance gives.

    Parameters
    ----------
    X
        (n, 4) in the order of ``EVIDENCE``, NaN where missing.
    is_noise
        For each of ``CARRIERS`` the probability (n,) that the hit shows there nothing but noise.
    is_signal
        (n,) probability that the hit is diffuse and agrees.
    """
    of_column = [is_noise[name] for name in ("structure", "agreement", "agreement", "search")]
    described = [_describe(column, weight) for column, weight in zip(X.T[:3], of_column[:3], strict=True)]
    bent = _bend((X[:, 0] - described[0][0]) / described[0][1])
    rise, *of_search = _describe_line(bent, X[:, 3], of_column[3])
    middle, spread = np.array([*described, of_search]).T
    both = ((X - middle) / spread)[:, 1:3]
    correlation, weight = _weigh_both(both, is_noise["agreement"], is_signal, _GAIN / np.maximum(spread[1:3], 1.0))
    return EvidenceNoise(middle, spread, rise, correlation, weight)


def _describe(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Weighted mean and spread, some hits of 0 and 1 among them; NaN has no weight."""
    weight = np.where(np.isfinite(values), weight, 0.0)
    values, total = np.nan_to_num(values), weight.sum() + _PRIOR_HITS
    middle = weight @ values / total
    return float(middle), float(np.sqrt((weight @ (values - middle) ** 2 + _PRIOR_HITS) / total))


def _describe_line(bent: np.ndarray, search: np.ndarray, weight: np.ndarray) -> tuple[float, float, float]:
    """Rise of the search with structure, and its middle and spread where there is none."""
    weight = np.where(np.isfinite(search), weight, 0.0) / _widen(bent) ** 2
    search, total = np.nan_to_num(search), weight.sum() + _PRIOR_HITS
    middle, middle_bent = weight @ search / total, weight @ bent / total
    off = bent - middle_bent
    up = weight @ (off * (search - middle)) + _PRIOR_RISE_HITS * _RISE
    rise = float(np.clip(up / (weight @ off**2 + _PRIOR_RISE_HITS), 0.0, 1.0))
    start = middle - rise * middle_bent
    squares = weight @ (search - start - rise * bent) ** 2 + _PRIOR_HITS
    return rise, float(start), float(np.sqrt(squares / (weight @ _widen(bent) ** 2 + _PRIOR_HITS)))


def _weigh_both(
    both: np.ndarray, is_noise: np.ndarray, is_signal: np.ndarray, expected: np.ndarray
) -> tuple[float, np.ndarray]:
    """Correlation by chance of pairs and consistency (n, 2), and the weights that tell diffuse hits best.

    Expected are the means of diffuse hits in units of the spread there is: where folds find a group each, pairs
    spread by more than the chance they were set against, and are worth less from the start.
    """
    has_both = np.isfinite(both).all(axis=1)
    both, is_noise, is_signal = both[has_both], is_noise[has_both], is_signal[has_both]
    covariance = (both * is_noise[:, None]).T @ both + _PRIOR_HITS * np.array([[1.0, _ALIKE], [_ALIKE, 1.0]])
    correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    correlation = float(np.clip(correlation, 0.0, _MOST_ALIKE))
    gain = (_PRIOR_HITS * expected + is_signal @ np.minimum(both, _STRONG)) / (_PRIOR_HITS + is_signal.sum())
    return correlation, _choose_weight(gain, correlation)


def _choose_weight(gain: np.ndarray, correlation: float) -> np.ndarray:
    """Weights (2,) of sum 1 of two kinds of evidence by what each gains in diffuse hits: Fisher's, none below 0."""
    weight = np.maximum(gain - correlation * gain[::-1], 0.0)
    return weight / weight.sum() if weight.any() else np.array([0.5, 0.5])


def _bend(structure: np.ndarray) -> np.ndarray:
    """Structure as far as the search rises with it; 0 where missing."""
    known = np.maximum(np.nan_to_num(structure), -3.0)
    return np.where(known < _BEND, known, _BEND + np.log1p(np.maximum(known - _BEND, 0.0)))


def _widen(bent: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 + _GROWTH * np.maximum(bent, 0.0))
