"""What the hits of a campaign share in the detector's frame, and hits without it.

A hit is a row of polar bins. Its run's median is taken off, each ring is put to
unit spread, and the rows of each fold are gathered in a sketch of a few hundred
rows (:mod:`diffdask.models.sketch`). The components that do not know a fold's
hits are those of the other folds' sketches, so that cross-fitting costs little
more than one fit, hits to come can be learnt, and memory does not grow.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from diffdask.errors import BadParameter
from diffdask.models.sketch import combine_rows, compress_rows, leading_directions, leading_eigenvectors

#: Runs with fewer hits borrow the median of all hits: a median of few frames would carry their own signal.
_MEDIAN_HITS = 8

#: Hits of a run that come in small batches wait until there are so many: a median of few is skewed by streaks.
_WAITING_HITS = 32

#: Components per training hit: more would describe single frames.
_HITS_PER_COMPONENT = 4

#: Most components that "auto" takes out: common modes of 64 panels, and as much again.
_MOST_COMPONENTS = 128

#: "auto" takes a component out where hits that did not help to find it vary along it this many times as much as
#: along the bulk of directions: where there is as much nuisance as counting noise.
_VARIANCE_RATIO = 2.0

#: Rows that describe a fold.
_SKETCH_ROWS = 256

#: Hits handled at once: with 64 x 72 bins in single precision 9 MB, several times over.
_BLOCK = 512

#: Times that the missing bins of a fold's first hits are filled in; later hits find components to go by.
_FILL_ROUNDS = 3

#: Ridge of the least squares over the bins present; keeps frames with few bins tame.
_RIDGE = 1e-3


class NuisanceComponents(TransformerMixin, BaseEstimator):
    """Median and leading principal components of hits in the detector's frame.

    The crystal turns from frame to frame and the detector does not: shadows,
    jet streaks, common modes, beam shift and gain are what hits share, bin by bin.

    Parameters
    ----------
    component_count
        Components taken out beside the median, or "auto": as many as carry more
        nuisance than counting noise in hits that did not help to find them.
        Never more than a quarter of the hits they are fitted to.
    clip
        Bins further than this from the run's median, in counting noise, count as missing.
    fold_count
        Folds of :meth:`fit_transform`: no frame is cleaned with components that it helped to find.
    seed
        Of the folds.

    Attributes
    ----------
    run_median_ : dict of int to ndarray (r, a)
        Median of each run that had hits enough.
    overall_median_ : ndarray (r, a)
        Median of all hits, for runs of few hits and runs that were not seen.
    components_ : ndarray (k, r * a)
        Orthonormal components, the strongest first.
    fold_components_ : list of ndarray (k, r * a)
        Components that do not know the hits of each fold.
    component_count_ : int
        Components asked for, or chosen; fewer hits may have given fewer.
    held_out_variance_ : ndarray (m,)
        Variance of the hits along the components that the other folds gave,
        over that along the bulk of directions. "auto" goes by it.
    hit_count_ : ndarray (f,)
        Hits that each fold has learnt from.

    Notes
    -----
    Memory beside input and output: about 0.2 GB for 64 x 72 bins in single
    precision, whatever the number of hits. Fitting and cleaning is done in
    the precision of the input.
    """

    run_median_: dict[int, np.ndarray]
    run_hits_: dict[int, int]  # that the median of the run stands for
    waiting_: dict[int, np.ndarray]  # hits of a run that are not in its median yet
    overall_median_: np.ndarray
    sketches_: list[np.ndarray]
    lost_: np.ndarray  # sums of squares that the sketches lack
    hit_count_: np.ndarray

    def __init__(
        self, component_count: int | str = "auto", clip: float = 4.5, fold_count: int = 5, seed: int = 0
    ) -> None:
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

        Raises
        ------
        BadParameter
            If the number of components is neither a whole number nor "auto", or there are fewer than two folds.
        """
        self._start(X)
        return self.partial_fit(X, runs)

    def partial_fit(self, X: np.ndarray, runs: np.ndarray) -> NuisanceComponents:
        """Learn from more hits, of runs that are known or new; the first call begins a fit.

        Medians are averaged over batches of a run, so that they and the
        components come near those of one fit to all hits, but not to the last
        digit. Clean hits before they are learnt, or they help to remove themselves.

        Parameters
        ----------
        X, runs
            As in :meth:`fit`; any number of hits, of the same polar bins.

        Raises
        ------
        BadParameter
            As in :meth:`fit`, and if the hits have other polar bins than those before.
        """
        if not hasattr(self, "sketches_"):
            self._start(X)
        if X.shape[1:] != self.overall_median_.shape:
            raise BadParameter(
                f"hits of {X.shape[1:]} polar bins cannot be learnt beside those of {self.overall_median_.shape}"
            )
        everything = np.ones(len(X), bool)
        seen = int(self.hit_count_.sum())
        self.overall_median_ = _average(self.overall_median_, seen, _median_of_hits(X, everything), len(X))
        for run in np.unique(runs).tolist():
            self._update_median(run, X, runs == run)
        self._learn(X, runs)
        return self

    def transform(self, X: np.ndarray, runs: np.ndarray) -> np.ndarray:
        """Take median and components out of hits, (n, r, a); bins past the clip are NaN."""
        check_is_fitted(self, "components_")
        cleaned: np.ndarray = np.empty(X.shape, _precision(X))
        for block in _blocks(np.arange(len(X))):
            cleaned[block] = self._remove(self._prepare(X[block], runs[block]), self.components_)
        return cleaned

    def fit_transform(self, X: np.ndarray, runs: np.ndarray) -> np.ndarray:
        """Fit, and clean every hit with components found on the hits of the other folds."""
        self.fit(X, runs)
        cleaned: np.ndarray = np.empty(X.shape, _precision(X))
        folds = self._assign_folds(len(X), seen=0)
        for fold, components in enumerate(self.fold_components_):
            for block in _blocks(np.flatnonzero(folds == fold)):
                cleaned[block] = self._remove(self._prepare(X[block], runs[block]), components)
        return cleaned

    def _start(self, X: np.ndarray) -> None:
        is_number = isinstance(self.component_count, int | np.integer) and self.component_count >= 0
        if not is_number and self.component_count != "auto":
            raise BadParameter(f"component_count = {self.component_count!r} must be a whole number, or 'auto'")
        if self.fold_count < 2:
            raise BadParameter(f"fold_count = {self.fold_count} must be at least 2: the folds learn from each other")
        bins = int(np.prod(X.shape[1:]))
        self.run_median_ = {}
        self.run_hits_ = {}
        self.waiting_ = {}
        self.overall_median_ = np.full(X.shape[1:], np.nan, _precision(X))
        self.sketches_ = [np.empty((0, bins), _precision(X)) for _ in range(self.fold_count)]
        self.lost_ = np.zeros(self.fold_count)
        self.hit_count_ = np.zeros(self.fold_count, int)

    def _update_median(self, run: int, X: np.ndarray, is_chosen: np.ndarray) -> None:
        waiting = self.waiting_.pop(run, X[:0])
        known, count = self.run_hits_.get(run, 0), len(waiting) + int(is_chosen.sum())
        if count < (_WAITING_HITS if known else _MEDIAN_HITS):
            self.waiting_[run] = np.concatenate([waiting, X[is_chosen]])
            return
        before = self.run_median_.get(run, self.overall_median_)
        self.run_median_[run] = _average(before, known, _median_of_hits(X, is_chosen, waiting), count)
        self.run_hits_[run] = known + count

    def _assign_folds(self, count: int, *, seen: int) -> np.ndarray:
        folds = np.empty(count, int)
        order = np.random.default_rng((self.seed, seen)).permutation(count)
        folds[order] = (np.arange(count) + seen) % self.fold_count
        return folds

    def _learn(self, X: np.ndarray, runs: np.ndarray) -> None:
        folds = self._assign_folds(len(X), seen=int(self.hit_count_.sum()))
        for fold in range(self.fold_count):
            for block in _blocks(np.flatnonzero(folds == fold)):
                self._add(fold, _flatten(self._prepare(X[block], runs[block])))
        self._find_components()

    def _prepare(self, X: np.ndarray, runs: np.ndarray) -> np.ndarray:
        """Take medians off and put rings to unit spread; (n, r, a), NaN past the clip."""
        centred: np.ndarray = np.array(X, dtype=_precision(X))
        for run in np.unique(runs).tolist():
            centred[runs == run] -= self.run_median_.get(run, self.overall_median_)
        spread = 1.4826 * _median(np.abs(centred - _median(centred, axis=2)[:, :, None]), axis=2)
        centred /= np.maximum(np.nan_to_num(spread, nan=1.0), 1.0)[:, :, None]
        centred[~(np.abs(centred) <= self.clip)] = np.nan
        return centred

    def _add(self, fold: int, rows: np.ndarray) -> None:
        """Add prepared hits (n, p) to the sketch of a fold."""
        present = np.isfinite(rows)
        squares = np.nansum(rows**2, axis=1)
        loudness = np.sqrt(squares / np.maximum(present.sum(axis=1), 1))
        weight = (1.0 / np.maximum(loudness, 1.0)).astype(rows.dtype)[:, None]  # a loud frame must own no component
        self.hit_count_[fold] += len(rows)
        count = min(self._most_components(), int(self.hit_count_[fold]) // _HITS_PER_COMPONENT)
        weighted = _fill_in(rows * weight, self.sketches_[fold], count)
        self.sketches_[fold], lost = compress_rows(np.concatenate([self.sketches_[fold], weighted]), _SKETCH_ROWS)
        self.lost_[fold] += lost

    def _most_components(self) -> int:
        return _MOST_COMPONENTS if self.component_count == "auto" else int(self.component_count)

    def _find_components(self) -> None:
        """Find the components of all folds but one, how much that one varies along them, and those of all."""
        rows = np.concatenate(self.sketches_)
        owner = np.repeat(np.arange(self.fold_count), [len(sketch) for sketch in self.sketches_])
        gram, bins = rows @ rows.T, max(int(rows.any(axis=0).sum()), 1)
        hits, most = int(self.hit_count_.sum()), max(_MOST_COMPONENTS, self._most_components())
        found, along = [], []
        for fold, own_hits in enumerate(self.hit_count_.tolist()):
            own = owner == fold
            count = min(most, (hits - own_hits) // _HITS_PER_COMPONENT)
            squared, vectors = leading_eigenvectors(gram[np.ix_(~own, ~own)], count)
            found.append((rows[~own], vectors, squared))
            products = gram[np.ix_(own, ~own)] @ (vectors / np.sqrt(squared))
            along.append((products**2).sum(axis=0) + self.lost_[fold] / bins)
        shared = min(len(energy) for energy in along)
        energy = np.sum([energy[:shared] for energy in along], axis=0)
        rest = float(np.trace(gram)) + self.lost_.sum() - energy.sum()
        self.held_out_variance_ = energy * (bins - shared) / rest if rest > 0.0 else np.zeros(shared)
        self.component_count_ = self._choose_count()
        self.fold_components_ = [
            combine_rows(basis, vectors[:, : self.component_count_], squared[: self.component_count_])
            for basis, vectors, squared in found
        ]
        self.components_ = leading_directions(rows, min(self.component_count_, hits // _HITS_PER_COMPONENT))[0]

    def _choose_count(self) -> int:
        if self.component_count != "auto":
            return int(self.component_count)
        return int((self.held_out_variance_ >= _VARIANCE_RATIO).sum())

    def _remove(self, prepared: np.ndarray, components: np.ndarray) -> np.ndarray:
        flat = _flatten(prepared)
        return (flat - _fit_amplitudes(flat, components) @ components).reshape(prepared.shape)


def _fill_in(rows: np.ndarray, sketch: np.ndarray, count: int) -> np.ndarray:
    """Fill missing bins of rows (n, p) with what the components of the fold say: zero would make them too weak there.

    The fold's own components, and not all: else a hit would have a hand in the components that clean it.
    """
    present = np.isfinite(rows)
    filled = np.where(present, rows, rows.dtype.type(0))
    for _ in range(1 if len(sketch) else _FILL_ROUNDS):
        directions = leading_directions(sketch if len(sketch) else filled, count)[0]
        filled = np.where(present, rows, _fit_amplitudes(rows, directions) @ directions)
    return filled


def _fit_amplitudes(rows: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Least squares over the bins present: rows (n, p), NaN where missing, as (n, k) times directions (k, p).

    The Gram matrix of the bins present is the whole one less that of the bins missing, which are fewer.
    """
    present = np.isfinite(rows)
    by_bin = np.ascontiguousarray(directions.T)
    whole = directions @ by_bin + _RIDGE * np.eye(len(directions), dtype=directions.dtype)
    gram = np.empty((len(rows), *whole.shape), directions.dtype)
    for row, is_there in enumerate(present):
        lacking = by_bin[~is_there]
        gram[row] = whole - lacking.T @ lacking
    projected = np.where(present, rows, 0).astype(directions.dtype) @ by_bin
    return np.asarray(np.linalg.solve(gram, projected[:, :, None])[:, :, 0])


def _flatten(hits: np.ndarray) -> np.ndarray:
    return hits.reshape(len(hits), int(np.prod(hits.shape[1:])))


def _blocks(numbers: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(numbers), _BLOCK):
        yield numbers[start : start + _BLOCK]


def _precision(values: np.ndarray) -> type:
    return np.float32 if values.dtype == np.float32 else np.float64


def _average(old: np.ndarray, old_weight: int, new: np.ndarray, new_weight: int) -> np.ndarray:
    """Weighted mean of two maps; where one of them is NaN or weighs nothing, the other."""
    mean = (old * old_weight + new * new_weight) / max(old_weight + new_weight, 1)
    if not old_weight:
        return np.where(np.isfinite(new), new, old)
    return np.where(np.isfinite(mean), mean, np.where(np.isfinite(new), new, old))


def _median_of_hits(X: np.ndarray, is_chosen: np.ndarray, more: np.ndarray | None = None) -> np.ndarray:
    """Median of chosen hits and of ``more``, (r, a); ring by ring, as sorting takes a copy."""
    more = X[:0] if more is None else more
    rings = [_median(np.concatenate([more[:, ring], X[is_chosen, ring]])) for ring in range(X.shape[1])]
    return np.stack(rings).astype(_precision(X))


def _median(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Median of what is present; NaN where nothing is."""
    if values.shape[axis] == 0:
        return np.full(np.delete(values.shape, axis), np.nan, _precision(values))
    ordered = np.sort(np.moveaxis(values, axis, -1), axis=-1)  # NaN comes last
    count = np.isfinite(values).sum(axis=axis)[..., None]
    low = np.take_along_axis(ordered, np.maximum((count - 1) // 2, 0), axis=-1)
    high = np.take_along_axis(ordered, np.minimum(count // 2, ordered.shape[-1] - 1), axis=-1)
    return np.where(count > 0, (low + high) / 2, np.nan)[..., 0]
