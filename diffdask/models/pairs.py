"""Which frames share a signal: the group of frames that agree with one another, found without labels.

Agreement z of a pair of frames is noise about zero, unless both show the same
signal: then it is e_i e_j, with strengths e >= 0 that are zero for most frames.
So the group is one-sided, z @ w lifts its members and lowers nobody; what the
detector leaves behind is two-sided, for it agrees as often as it disagrees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from diffdask.errors import BadParameter
from diffdask.models.chance import set_against_chance

#: Rows of a matrix read at once: 1024 x 20 000 in single precision are 82 MB.
_BLOCK_ROWS = 1024

#: Candidates are thinned to this many after this many rounds: most starts soon fall in with a few groups.
_KEPT, _FIRST_ROUNDS = 64, 8

#: Frames with the largest hints that are tried as seeds, and the hint that counts as sure.
_HINTED, _SURE = 64, 6.0

#: Largest change of a weight at which the iteration stops.
_TOLERANCE = 1e-5

#: What a frame that is lowered counts against frames that are lifted. A two-sided direction gets less than nothing.
_LOWERED = 2.0

#: Mean of min(x^2, 4) for a standard normal x.
_WITHIN_TWO = 0.9205

#: Largest agreement that enters Fisher's z, which is infinite at 1.
_LARGEST = 0.999


class PairStructure(BaseEstimator):
    """Leading group of a matrix of pair agreements, and every frame's evidence of belonging to it.

    Agreements are put over their noise, w <- max(z @ w / |w| - threshold, 0) is
    iterated from many starts, and the start that lifts most frames and lowers
    fewest is kept: sparse principal components, with non-negative weights.

    Parameters
    ----------
    threshold
        Evidence, in units of its noise, that a frame must have to support others.
    start_count
        Frames with the strongest agreements, each of which is tried as the seed of the group.
    fold_count
        Folds of the significance.
    clip
        Agreements beyond this many times their noise count as that many: no single pair makes a group.
    iterations
        Most rounds.
    seed
        Of the folds.

    Attributes
    ----------
    score_ : ndarray (n,)
        Evidence that the frame shares the signal: its agreement with the
        group, leaving itself out, about 1 in spread for frames that do not;
        NaN for frames without a known pair. For ranking: the choice of the
        group makes it a little too large.
    weight_ : ndarray (n,) float32
        Weight of every frame in the group, of unit norm. All alike where no group holds together.
    significance_ : ndarray (n,)
        Agreement with the group that the other folds found, against the same
        agreement at shuffled orientations, in their standard deviations; NaN
        without null matrices.
    chance_ : tuple of float
        Mean and standard deviation of ``score_`` at shuffled orientations; NaN without null matrices.
    p_value_ : ndarray (n,)
        Share of all shuffled frames whose agreement is as large; NaN likewise.

    Notes
    -----
    ``docs/decisions/one-sided-groups.md`` compares it with other ways.

    References
    ----------
    Journee et al., J. Mach. Learn. Res. 11, 517 (2010), the soft-thresholded
    power method; Montanari & Richard, IEEE Trans. Inf. Theory 62, 1458 (2016),
    non-negative principal components.
    """

    def __init__(
        self,
        threshold: float = 2.0,
        start_count: int = 256,
        fold_count: int = 8,
        clip: float = 5.0,
        iterations: int = 40,
        seed: int = 0,
    ) -> None:
        self.threshold = threshold
        self.start_count = start_count
        self.fold_count = fold_count
        self.clip = clip
        self.iterations = iterations
        self.seed = seed

    def fit(
        self,
        X: Any,
        y: None = None,
        *,
        samples: Any = None,
        null: Sequence[Any] = (),
        null_samples: Sequence[Any] | None = None,
        hint: np.ndarray | None = None,
    ) -> PairStructure:
        """Find the group, and every frame's evidence.

        Parameters
        ----------
        X
            (n, n) agreement, symmetric; NaN where unknown; the diagonal is
            ignored. Anything that gives rows as ``X[start:stop]``.
        y
            Not used.
        samples
            (n, n) number of samples behind each value. With it ``X`` is a
            correlation, and Fisher's z over its noise is used.
        null
            (n, n) each: agreement of the *row's* frame at a shuffled
            orientation with the *column's* at its own. Were the columns
            shuffled as well, the group would no longer hold together, and
            frames would have less in common with it by chance than they have.
            Changes no score.
        null_samples
            (n, n) for each matrix of ``null``.
        hint
            (n,) evidence from elsewhere that a frame has the signal, about 1 in
            spread for frames that do not, such as its own structure; NaN where
            there is none. It adds seeds to the search, and enters no score.

        Raises
        ------
        BadParameter
            If shapes do not fit one another, or samples are given for some matrices only.
        """
        matrices = _pair_up(X, samples, null, null_samples)
        count = len(X)
        noise = measure_noise(*matrices[0])
        agreement = whiten(*matrices[0], noise, clip=self.clip)
        is_known = np.asarray(agreement.any(axis=1))
        hint = np.zeros(count) if hint is None else np.nan_to_num(np.asarray(hint, dtype=float))
        self.weight_ = self._find_group(agreement, is_known, hint)
        self.score_ = np.where(is_known, agreement @ self.weight_, np.nan).astype(float)
        self.significance_ = self.p_value_ = np.full(count, np.nan)
        self.chance_ = (np.nan, np.nan)
        if len(null):
            self._compare(agreement, is_known, hint, (whiten(*other, noise, clip=self.clip) for other in matrices[1:]))
        return self

    def _find_group(self, agreement: np.ndarray, is_allowed: np.ndarray, hint: np.ndarray) -> np.ndarray:
        """Weights (n,) of the group among the frames that are allowed in it."""
        weights = _start(agreement, is_allowed, self.start_count, hint)
        for iteration in range(self.iterations):
            if iteration == _FIRST_ROUNDS:
                weights = self._keep_best(agreement, weights, is_allowed)
            before = weights
            weights = np.maximum(agreement @ weights - np.float32(self.threshold), 0) * is_allowed[:, None]
            weights = _normalise(weights)
            if weights.shape == before.shape and np.abs(weights - before).max(initial=0.0) < _TOLERANCE:
                break
        if weights.shape[1] == 0:
            return _normalise(is_allowed[:, None].astype(np.float32)).sum(axis=1)
        return np.asarray(weights[:, np.argmax(self._rate(agreement, weights, is_allowed))])

    def _keep_best(self, agreement: np.ndarray, weights: np.ndarray, is_allowed: np.ndarray) -> np.ndarray:
        order = np.argsort(-self._rate(agreement, weights, is_allowed), kind="stable")
        return weights[:, np.sort(order[:_KEPT])]

    def _rate(self, agreement: np.ndarray, weights: np.ndarray, is_allowed: np.ndarray) -> np.ndarray:
        """How one-sided each candidate is: what it lifts past the threshold less what it lowers."""
        evidence = (agreement @ weights)[is_allowed]
        lifted = (np.maximum(evidence - self.threshold, 0.0) ** 2).sum(axis=0)
        return np.asarray(lifted - _LOWERED * (np.maximum(-evidence - self.threshold, 0.0) ** 2).sum(axis=0))

    def _compare(
        self, agreement: np.ndarray, is_known: np.ndarray, hint: np.ndarray, null: Iterator[np.ndarray]
    ) -> None:
        """Set a frame's agreement with the group that others form against the same at shuffled orientations."""
        fold = np.arange(len(agreement)) % self.fold_count
        np.random.default_rng(self.seed).shuffle(fold)
        folds = range(self.fold_count)
        weights = [self._find_group(agreement, is_known & (fold != k), hint) for k in folds]
        own = (agreement @ np.column_stack(weights))[np.arange(len(fold)), fold].astype(float)
        all_weights = np.column_stack([*weights, self.weight_])
        strange = np.concatenate([(matrix @ all_weights)[is_known] for matrix in null]).astype(float)
        of_fold = np.resize(fold[is_known], len(strange))
        significance, p_value = set_against_chance(own, strange[np.arange(len(strange)), of_fold])
        self.chance_ = (float(strange[:, -1].mean()), float(strange[:, -1].std()))
        self.significance_, self.p_value_ = np.where(is_known, [significance, p_value], np.nan)


def measure_noise(matrix: Any, samples: Any = None) -> tuple[float, np.ndarray]:
    """Measure level and spread of agreements, for values of one mean and of variance s_i s_j.

    Some frames are loud (a streak, ice): they agree and disagree strongly with
    all others. The group itself is no noise, so spreads are those of the bulk:
    what lies beyond two spreads by the median absolute deviation counts as two.

    Parameters
    ----------
    matrix, samples
        (n, n) agreement, and number of samples or None.

    Returns
    -------
    tuple
        The mean, float, and s (n,).
    """
    middle, variance = np.full((2, len(matrix)), np.nan)
    for rows, z in _read_rows(matrix, samples):
        for row, values in enumerate(z, rows.start):
            known = values[np.isfinite(values)]
            if known.size:
                middle[row] = np.median(known)
                variance[row] = _bulk_variance(known - middle[row])
    is_known = variance > 0
    if not is_known.any():
        return 0.0, np.ones(len(variance))
    relative = variance / np.sqrt(variance[is_known].mean())
    return float(np.median(middle[is_known])), np.where(is_known, relative, 1.0)


def whiten(matrix: Any, samples: Any, noise: tuple[float, np.ndarray], *, clip: float) -> np.ndarray:
    """Put agreements over their noise: (n, n) float32, 0 on the diagonal and where unknown.

    Parameters
    ----------
    matrix, samples
        (n, n) agreement, and number of samples or None.
    noise
        From :func:`measure_noise`.
    clip
        Largest absolute value.
    """
    level, variance = noise
    scale = (1.0 / np.sqrt(variance)).astype(np.float32)
    whitened = np.empty((len(scale), len(scale)), dtype=np.float32)
    for rows, z in _read_rows(matrix, samples):
        whitened[rows] = np.nan_to_num(np.clip((z - np.float32(level)) * scale[rows, None] * scale, -clip, clip))
    return whitened


def _pair_up(X: Any, samples: Any, null: Sequence[Any], null_samples: Sequence[Any] | None) -> list[tuple[Any, Any]]:
    """Agreement with its samples, the matrix first and then the null matrices."""
    if len(null) and (samples is None) != (null_samples is None):
        raise BadParameter("samples are given for the matrix or for the null matrices only: give both or neither")
    counts = [None] * len(null) if null_samples is None else null_samples
    if len(counts) != len(null):
        raise BadParameter(f"{len(null)} null matrices need as many matrices of samples, got {len(counts)}")
    matrices = [(X, samples), *zip(null, counts, strict=True)]
    for shape in (np.shape(part) for matrix in matrices for part in matrix if part is not None):
        if shape != (len(X), len(X)):
            raise BadParameter(f"agreements and samples of {len(X)} frames must be ({len(X)}, {len(X)}), got {shape}")
    return matrices


def _read_rows(matrix: Any, samples: Any) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of the agreement, as Fisher's z over its noise where samples are known; NaN on the diagonal."""
    for start in range(0, len(matrix), _BLOCK_ROWS):
        rows = slice(start, min(start + _BLOCK_ROWS, len(matrix)))
        z = np.array(matrix[rows], dtype=np.float32)
        if samples is not None:
            freedom = np.asarray(samples[rows], dtype=np.float32) - 3
            z = np.arctanh(np.clip(z, -_LARGEST, _LARGEST)) * np.sqrt(np.where(freedom > 0, freedom, np.nan))
        z[np.arange(len(z)), np.arange(rows.start, rows.stop)] = np.nan
        yield rows, z


def _bulk_variance(values: np.ndarray) -> float:
    """Variance of values about 0, of the bulk alone."""
    spread = 1.4826 * float(np.median(np.abs(values)))
    return float(np.mean(np.minimum(values**2, (2.0 * spread) ** 2), dtype=float)) / _WITHIN_TWO


def _start(agreement: np.ndarray, is_allowed: np.ndarray, count: int, hint: np.ndarray) -> np.ndarray:
    """Candidates (n, c), unit columns: a frame that agrees strongly with some, and those it agrees with.

    And the same of frames with the largest hints, where those that they agree with count by their hints.
    """
    strength = np.zeros(len(agreement))
    for start in range(0, len(agreement), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        strength[rows] = (np.maximum(agreement[rows], 0.0) ** 3) @ is_allowed.astype(np.float32)
    first = np.argsort(np.where(is_allowed, -strength, np.inf), kind="stable")[: min(count, int(is_allowed.sum()))]
    weights = np.maximum(agreement[:, first], 0.0) * is_allowed[:, None]
    hinted = np.argsort(-hint, kind="stable")[:_HINTED]
    hinted = hinted[(hint[hinted] > 0.0) & is_allowed[hinted]]
    sure = (np.clip(hint, 0.0, _SURE) * is_allowed).astype(np.float32)
    weights = np.concatenate([weights, np.maximum(agreement[:, hinted], 0.0) * sure[:, None]], axis=1)
    first = np.concatenate([first, hinted])
    weights[first, np.arange(len(first))] = weights.max(axis=0, initial=0.0)
    return _normalise(weights)


def _normalise(weights: np.ndarray) -> np.ndarray:
    """Columns of unit norm; columns of zeros are left out."""
    norm = np.linalg.norm(weights, axis=0)
    return np.asarray(weights[:, norm > 0] / norm[norm > 0], dtype=np.float32)
