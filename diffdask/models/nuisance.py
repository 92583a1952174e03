"""What the hits of a run share in the detector's frame, and hits without it."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

#: Runs with fewer hits borrow the median of all hits: a median of few frames would carry their own signal.
_MEDIAN_HITS = 8

#: Components per training hit: more would describe single frames.
_HITS_PER_COMPONENT = 4

#: Ridge of the least squares over the bins present; keeps frames with few bins tame.
_RIDGE = 1e-3


class NuisanceComponents(TransformerMixin, BaseEstimator):
    """Median and leading principal components of hits in the detector's frame.

    The crystal turns from frame to frame and the detector does not: shadows,
    jet streaks, ice, beam shift and gain are what hits share, bin by bin.

    Parameters
    ----------
    component_count
        Components taken out beside the median; at most a quarter of the hits they are fitted to.
    clip
        Bins further than this from the run's median, in counting noise, count as missing.
    fold_count
        Folds of :meth:`fit_transform`: no frame is cleaned with components that it helped to find.
    seed
        Of the folds.

    Attributes
    ----------
    run_median_ : dict of int to ndarray (r, a)
        Median of each run.
    overall_median_ : ndarray (r, a)
        Median of all hits, for runs of few hits and runs that were not seen.
    components_ : ndarray (k, r * a)
        Orthonormal components.
    """

    def __init__(self, component_count: int = 16, clip: float = 4.5, fold_count: int = 5, seed: int = 0) -> None:
        self.component_count = component_count
        self.clip = clip
        self.fold_count = fold_count
        self.seed = seed

    def fit(self, X: np.ndarray, runs: np.ndarray) -> NuisanceComponents:
        """Find each run's median and the components of all runs.

        Parameters
        ----------
        X
            (n, r, a) polar residual over its counting noise; NaN where missing.
        runs
            (n,) run numbers.
        """
        self._fit_medians(X, runs)
        self.components_ = self._find_components(self._prepare(X, runs))
        return self

    def transform(self, X: np.ndarray, runs: np.ndarray) -> np.ndarray:
        """Take median and components out of hits, (n, r, a); bins past the clip are NaN."""
        check_is_fitted(self)
        return self._remove(self._prepare(X, runs), self.components_)

    def fit_transform(self, X: np.ndarray, runs: np.ndarray) -> np.ndarray:
        """Fit, and clean every hit with components found on the hits of the other folds."""
        self.fit(X, runs)
        prepared = self._prepare(X, runs)
        cleaned = np.full_like(prepared, np.nan)
        order = np.random.default_rng(self.seed).permutation(len(X))
        for fold in range(min(self.fold_count, len(X))):
            held_out = order[fold :: self.fold_count]
            others = np.setdiff1d(order, held_out)
            cleaned[held_out] = self._remove(prepared[held_out], self._find_components(prepared[others]))
        return cleaned

    def _fit_medians(self, X: np.ndarray, runs: np.ndarray) -> None:
        overall = _median(X)
        self.overall_median_ = overall
        self.run_median_ = {
            int(run): _median(X[runs == run]) if (runs == run).sum() >= _MEDIAN_HITS else overall
            for run in np.unique(runs)
        }

    def _prepare(self, X: np.ndarray, runs: np.ndarray) -> np.ndarray:
        centred = np.array(X, dtype=float)
        for run in np.unique(runs):
            centred[runs == run] -= self.run_median_.get(int(run), self.overall_median_)
        spread = 1.4826 * _median(np.abs(centred - _median(centred, axis=2)[:, :, None]), axis=2)[:, :, None]
        scaled = centred / np.maximum(np.nan_to_num(spread, nan=1.0), 1.0)
        return np.where(np.abs(scaled) <= self.clip, scaled, np.nan)

    def _find_components(self, prepared: np.ndarray) -> np.ndarray:
        count = min(self.component_count, len(prepared) // _HITS_PER_COMPONENT)
        flat = prepared.reshape(len(prepared), int(np.prod(prepared.shape[1:])))
        present = np.isfinite(flat)
        filled = np.where(present, flat, 0.0)
        loudness = np.sqrt((filled**2).sum(axis=1) / np.maximum(present.sum(axis=1), 1))
        weighted = filled / np.maximum(loudness, 1.0)[:, None]  # a loud frame must own no component
        return _leading_directions(weighted, count)

    def _remove(self, prepared: np.ndarray, components: np.ndarray) -> np.ndarray:
        flat = prepared.reshape(len(prepared), int(np.prod(prepared.shape[1:])))
        cleaned = np.empty_like(flat)
        for hit, values in enumerate(flat):
            present = np.isfinite(values)
            basis = components[:, present]
            gram = basis @ basis.T + _RIDGE * np.eye(len(components))
            cleaned[hit] = values
            cleaned[hit, present] -= np.linalg.solve(gram, basis @ values[present]) @ basis
        return cleaned.reshape(prepared.shape)


def _leading_directions(rows: np.ndarray, count: int) -> np.ndarray:
    """Leading right singular vectors of rows (n, p), at most ``count``, from the smaller of the two Gram matrices."""
    from scipy.linalg import eigh

    size = min(rows.shape)
    count = min(count, size)
    if count == 0 or not rows.any():
        return np.empty((0, rows.shape[1]))
    gram = rows @ rows.T if len(rows) == size else rows.T @ rows
    squared, vectors = eigh(gram, subset_by_index=(size - count, size - 1))
    kept = squared[::-1] > 1e-12 * squared[-1]
    directions = vectors.T[::-1][kept]
    if len(rows) == size:
        directions = directions @ rows / np.sqrt(squared[::-1][kept, None])
    return np.asarray(directions)


def _median(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Median of what is present; NaN where nothing is."""
    if values.shape[axis] == 0:
        return np.full(np.delete(values.shape, axis), np.nan)
    present = np.isfinite(values)
    ordered = np.sort(np.where(present, values, np.inf), axis=axis)
    count = present.sum(axis=axis, keepdims=True)
    low = np.take_along_axis(ordered, np.maximum((count - 1) // 2, 0), axis=axis)
    high = np.take_along_axis(ordered, np.minimum(count // 2, values.shape[axis] - 1), axis=axis)
    return np.where(count > 0, (low + high) / 2, np.nan).squeeze(axis)
