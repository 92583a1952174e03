"""Which frames agree with one map of reciprocal space: the map is grown from the frames, each held against the others.

A frame that shows the crystal's diffuse scattering correlates with the map that
others like it make; all other frames correlate with it as noise does. The cost
is linear in the frames, where that of comparing all pairs is quadratic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator

from diffdask.errors import BadParameter
from diffdask.kernels.volume import add_frames, compare_borrowed, compare_frames, locate_frames
from diffdask.models.chance import adjust_p_values, borrow_frames, describe_chance, set_against_chance

#: Frames that a thread handles at once.
_BLOCK = 64

#: Frames at borrowed orientations that tell how scores spread by chance, while the map grows.
_CHANCE_FRAMES = 2000

#: Change of a weight, of the largest, at which the map has settled.
_SETTLED = 1e-3


class MapConsistency(BaseEstimator):
    """A map grown from the frames that agree with it, and every frame's agreement with the map of the others.

    Frames are merged with their weights, every frame is compared with the map
    without its own contribution, and what its score exceeds the threshold by is its weight in
    the next round.

    Parameters
    ----------
    threshold
        Score, in units of chance, that a frame must have to be merged.
    step
        Edge of a voxel, 1/angstrom. Wide ones hold more frames: where the signal is weak, voxels as fine as
        the polar bins find far less.
    size
        Voxels a side of the cube; None for as many as the rings need.
    rounds
        Most rounds.
    prior
        Weight, in units of the largest weight of a frame, of a zero that is
        merged into every voxel: those that few frames saw count less.
    fold_count
        Folds of the significance.
    borrowed
        Orientations that every frame borrows from others, to see what chance gives.
    friedel
        Whether -q has the intensity of q.
    threads
        At once. They change nothing but the time.
    seed
        Of the folds and of the orientations borrowed.

    Attributes
    ----------
    score_ : ndarray (n,)
        Correlation with the map of the others, pooled over all bins, times
        the root of their number: about 1 in spread for frames that do not
        agree. NaN for frames without a rotation or a bin that others saw too.
    weight_ : ndarray (n,)
        Weight of every frame in the map, at most 1. All alike where no frame agrees with the others.
    sums_, weights_ : ndarray (size**3,)
        The map, reduced; see ``diffdask.kernels.volume``.
    size_ : int
        Voxels a side of the cube.
    chance_ : tuple of float
        Mean and standard deviation of scores at borrowed orientations.
    significance_ : ndarray (n,)
        Score against the map that the other folds grew, less the mean and over the standard deviation of
        the same frames' scores at borrowed orientations, against the same map.
    p_value_ : ndarray (n,)
        Share of all scores at borrowed orientations that are as large.
    false_discovery_ : ndarray (n,)
        Expected share of wrong ones among the frames whose p-value is no
        larger (Benjamini and Hochberg), taking all frames for wrong but those found.
    round_count_ : int
        Rounds until the weights settled.
    fold_ : ndarray (n,)
        Fold of every frame; -1 where it can be in no map.
    fold_weight_ : ndarray (fold_count, n)
        Weights of all frames in the map that was grown without those of a fold.

    Notes
    -----
    Orientations are borrowed within a fold: neither the frame nor the lender is
    in the map. Were the lender there, what the detector leaves in both frames
    would agree. The start weights are not cross-fitted: they may know the frame.

    References
    ----------
    Benjamini & Hochberg, J. R. Stat. Soc. B 57, 289 (1995).
    """

    def __init__(
        self,
        threshold: float = 2.0,
        step: float = 0.16,
        size: int | None = None,
        rounds: int = 10,
        prior: float = 10.0,
        fold_count: int = 8,
        borrowed: int = 8,
        friedel: bool = True,
        threads: int = 1,
        seed: int = 0,
    ) -> None:
        self.threshold = threshold
        self.step = step
        self.size = size
        self.rounds = rounds
        self.prior = prior
        self.fold_count = fold_count
        self.borrowed = borrowed
        self.friedel = friedel
        self.threads = threads
        self.seed = seed

    def fit(
        self,
        X: np.ndarray,
        y: None = None,
        *,
        rotation: np.ndarray,
        wavelength: np.ndarray,
        ring_q: np.ndarray,
        rotations: np.ndarray,
        start_weight: np.ndarray | None = None,
    ) -> MapConsistency:
        """Grow the map, and score every frame.

        Parameters
        ----------
        X
            (n, r, a) standardised residual, float32; NaN where missing.
        y
            Not used.
        rotation
            (n, 3, 3) from the laboratory to the crystal's frame; NaN where not indexed.
        wavelength
            (n,) angstrom.
        ring_q
            (r,) 1/angstrom.
        rotations
            (g, 3, 3) of the Laue group in the crystal's frame, from
            :func:`diffdask.symmetry.cartesian_rotations`.
        start_weight
            (n,) weights of the first map, not negative; NaN counts as 0. None,
            or zeros: all frames alike.

        Raises
        ------
        BadParameter
            If shapes do not fit one another, or a weight is negative.
        """
        if self.borrowed < 1:
            raise BadParameter(f"borrowed = {self.borrowed} must be at least 1: chance is seen from it")
        start = _check(X, rotation, wavelength, ring_q, start_weight)
        self.size_ = int(self.size or 2 * int(np.ceil(ring_q.max() / self.step)) + 1)
        frames = self._locate(X, rotation, wavelength, ring_q, rotations)
        known = np.flatnonzero((frames.voxels >= 0).any(axis=(1, 2)))
        random = np.random.default_rng(self.seed)
        lenders = [borrow_frames(known, len(X), random) for _ in range(self.borrowed)]
        fold = np.full(len(X), -1)
        fold[known] = random.permutation(np.arange(known.size) % self.fold_count)
        grown, self.round_count_ = self._grow(frames, start, known, lenders[0])
        self.sums_, self.weights_, self.weight_ = grown
        self.score_ = np.full(len(X), np.nan)
        self.score_[known] = self._score(frames, grown, known)
        strange = self._score(frames, grown, _thin(known), lenders[0])
        self.chance_ = describe_chance(strange)
        self._compare(frames, start, fold, lenders)
        return self

    def _locate(
        self, X: np.ndarray, rotation: np.ndarray, wavelength: np.ndarray, ring_q: np.ndarray, rotations: np.ndarray
    ) -> _Frames:
        exact = (np.ascontiguousarray(part, dtype=float) for part in (rotation, wavelength, ring_q, rotations))
        frames = _Frames(np.ascontiguousarray(X, dtype=np.float32), np.empty(X.shape, np.int32), *exact)
        self._share_out(lambda rows: self._place(frames, rows, rows, frames.voxels[rows[0] : rows[-1] + 1]), len(X))
        return frames

    def _place(self, frames: _Frames, rows: np.ndarray, lenders: np.ndarray, voxels: np.ndarray) -> None:
        """Write the voxels of frames at the orientations of their lenders; wavelengths are their own."""
        turned = frames.rotation[lenders], frames.wavelength[rows]
        locate_frames(*turned, frames.ring_q, frames.rotations, self.friedel, self.step, self.size_, voxels)

    def _grow(self, frames: _Frames, start: np.ndarray, allowed: np.ndarray, lender: np.ndarray) -> tuple[_Map, int]:
        """Map of the frames that are allowed in it, and how many rounds it took."""
        weight = _normalise(start, allowed)
        number = 0
        while number < self.rounds:
            number += 1
            grown = self._merge(frames, weight)
            middle, spread = describe_chance(self._score(frames, grown, _thin(allowed), lender))
            z = (self._score(frames, grown, allowed) - middle) / spread
            evidence = np.zeros(len(weight))
            evidence[allowed] = np.maximum(np.nan_to_num(z) - self.threshold, 0.0)
            before, weight = weight, _normalise(evidence, allowed)
            if np.abs(weight - before).max(initial=0.0) < _SETTLED:
                break
        return self._merge(frames, weight), number

    def _merge(self, frames: _Frames, weight: np.ndarray) -> _Map:
        sums, weights = np.zeros((2, self.size_**3))
        add_frames(frames.values, frames.voxels, weight, sums, weights)
        return _Map(sums, weights, weight)

    def _score(self, frames: _Frames, grown: _Map, chosen: np.ndarray, lender: np.ndarray | None = None) -> np.ndarray:
        """Score the chosen frames against the map of the others, at their own orientations or their lenders'."""
        found = np.empty((chosen.size, 4))

        def compare(part: np.ndarray) -> None:
            own = np.zeros((2, grown.sums.size))
            for block in _blocks(part):
                rows = chosen[block]
                common = (frames.values, frames.voxels, grown.weight, rows)
                against = (grown.sums, grown.weights, self.prior, own, found[block])
                if lender is None:
                    compare_frames(*common, *against)
                    continue
                voxels = np.empty((rows.size, *frames.voxels.shape[1:]), np.int32)
                self._place(frames, rows, lender[rows], voxels)
                compare_borrowed(*common, lender[rows], voxels, *against)

        self._share_out(compare, chosen.size)
        scale = np.sqrt(found[:, 1] * found[:, 2])
        correlation = np.divide(found[:, 0], scale, out=np.full(chosen.size, np.nan), where=scale > 0)
        return np.asarray(correlation * np.sqrt(found[:, 3]))

    def _compare(self, frames: _Frames, start: np.ndarray, fold: np.ndarray, lenders: list[np.ndarray]) -> None:
        """Set each frame's score against the map that other folds grew against scores at borrowed orientations."""
        own, strange = np.full(len(fold), np.nan), np.full((len(lenders), len(fold)), np.nan)
        self.fold_, self.fold_weight_ = fold, np.zeros((self.fold_count, len(fold)))
        for k in range(self.fold_count):
            held_out, allowed = np.flatnonzero(fold == k), np.flatnonzero((fold >= 0) & (fold != k))
            if not held_out.size or not allowed.size:
                continue
            grown, _ = self._grow(frames, start, allowed, lenders[0])
            self.fold_weight_[k] = grown.weight
            own[held_out] = self._score(frames, grown, held_out)
            for number, lender in enumerate(lenders):
                strange[number, held_out] = self._score(frames, grown, held_out, lender)
        self.significance_, self.p_value_ = set_against_chance(own, strange)
        self.false_discovery_ = adjust_p_values(self.p_value_)

    def _share_out(self, task: Callable[[np.ndarray], None], count: int) -> None:
        """Give each thread a stretch of the frames."""
        parts = [part for part in np.array_split(np.arange(count), self.threads) if part.size]
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(task, parts))


class _Frames(NamedTuple):
    values: np.ndarray  #: (n, r, a) float32
    voxels: np.ndarray  #: (n, r, a) int32
    rotation: np.ndarray  #: (n, 3, 3)
    wavelength: np.ndarray  #: (n,) angstrom
    ring_q: np.ndarray  #: (r,) 1/angstrom
    rotations: np.ndarray  #: (g, 3, 3)


class _Map(NamedTuple):
    sums: np.ndarray  #: (size**3,)
    weights: np.ndarray  #: (size**3,)
    weight: np.ndarray  #: (n,) of the frames in it


def _check(
    X: np.ndarray, rotation: np.ndarray, wavelength: np.ndarray, ring_q: np.ndarray, start_weight: np.ndarray | None
) -> np.ndarray:
    """Start weights (n,), if all shapes fit."""
    count = len(X)
    wanted = {"rotation": (rotation, (count, 3, 3)), "wavelength": (wavelength, (count,))}
    wanted |= {"ring_q": (ring_q, X.shape[1:2])}
    if start_weight is not None:
        wanted |= {"start_weight": (start_weight, (count,))}
    for name, (given, shape) in wanted.items():
        if np.shape(given) != shape:
            raise BadParameter(f"'{name}' of {count} frames {X.shape} must be {shape}, got {np.shape(given)}")
    start = np.ones(count) if start_weight is None else np.nan_to_num(np.asarray(start_weight, dtype=float))
    if (start < 0).any():
        raise BadParameter(f"a start weight is {start.min():g}: weights must not be negative")
    return start


def _thin(known: np.ndarray) -> np.ndarray:
    """At most so many frames, spread evenly, as tell what chance gives."""
    return known[np.linspace(0, known.size - 1, min(known.size, _CHANCE_FRAMES)).astype(int)]


def _blocks(part: np.ndarray) -> Iterator[slice]:
    for start in range(int(part[0]), int(part[-1]) + 1, _BLOCK):
        yield slice(start, min(start + _BLOCK, int(part[-1]) + 1))


def _normalise(weight: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Weights of the allowed frames, the largest 1; all alike where there is none."""
    kept = np.zeros(len(weight))
    kept[allowed] = weight[allowed]
    largest = kept.max(initial=0.0)
    if largest > 0:
        return np.asarray(kept / largest)
    kept[allowed] = 1.0
    return kept
