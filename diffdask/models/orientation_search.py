"""Find the orientation of frames that indexing lost: compare them with slices of the map at all orientations.

An orientation is a direction of the beam in the crystal and a turn about it. One
slice a direction gives all its turns (see :mod:`diffdask.kernels.turns`), as
matrix products. What fits best is refined by small steps.

The best of so many orientations fits somewhat for want of any signal. How well,
tell frames that were twisted: rings turned against one another, by a few
degrees from each to the next. No orientation gives that; the frame's noise,
its gaps and its rings stay as they are. (Its mirror image would not do: by
Friedel's law it is what the map shows from the other side.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from diffdask.errors import BadParameter
from diffdask.kernels.orientations import cut_slice, refine_rotation
from diffdask.kernels.turns import multiply_turned, pick_turns, transform_frames, transform_slices, turns_of_frequencies
from diffdask.kernels.volume import expand_map
from diffdask.models.orientation_grid import make_orientation_grid

#: Bins by which rings are twisted for the null distribution of the best fit.
TWISTS = (2, -2)

#: Frames and directions of the beam compared at once: products of 72 turns of these stay within a core's cache.
_FRAMES, _DIRECTIONS = 64, 64

#: Share of the usual norm of a slice that must lie on bins the frame has.
_LEAST_SHARE = 0.1


@dataclass(frozen=True)
class FoundOrientations:
    """What the search found for each of n frames; NaN, 0 for frames with nothing to compare."""

    rotation: np.ndarray  #: (n, 3, 3) from the laboratory to the crystal's frame; one of its Laue mates
    score: np.ndarray  #: (n,) correlation with the slice there, times the root of the samples
    samples: np.ndarray  #: (n,) int64, bins that both have
    grid_score: np.ndarray  #: (n,) best fit on the grid, in units of the frame's rms
    runner_up: np.ndarray  #: (n,) best fit on the grid with the beam along an entirely other direction
    grid_mean: np.ndarray  #: (n,) of all fits on the grid
    grid_spread: np.ndarray  #: (n,) of all fits on the grid, standard deviation


class OrientationSearch(BaseEstimator):
    """Find how frames are oriented, from a map alone.

    Parameters
    ----------
    count
        Orientations of the grid, about.
    prior
        Weight of a zero with which voxels are merged, as a share of the mean weight of voxels that
        were seen: those that few frames saw count less.
    smoothing
        Standard deviation by which the map is smoothed, 1/angstrom: wide enough to close the gaps between
        bins, for else frames are drawn to where a few others left theirs.
    candidates
        Best directions of each frame that are refined.
    last_angle
        Smallest step of the refinement, deg; 0 leaves the orientations of the grid.

    Attributes
    ----------
    grid_ : OrientationGrid
    density_ : ndarray (size, size, size) float32
        The map, unfolded, merged and smoothed; NaN where nobody saw.
    """

    def __init__(
        self,
        count: int = 30_000,
        prior: float = 1.0,
        smoothing: float = 0.05,
        candidates: int = 3,
        last_angle: float = 0.15,
    ) -> None:
        self.count = count
        self.prior = prior
        self.smoothing = smoothing
        self.candidates = candidates
        self.last_angle = last_angle

    def fit(
        self,
        sums: np.ndarray,
        weights: np.ndarray,
        *,
        rotations: np.ndarray,
        step: float,
        size: int,
        ring_q: np.ndarray,
        azimuths: int,
        wavelength: float,
        friedel: bool = True,
    ) -> OrientationSearch:
        """Cut the slices of a map.

        Parameters
        ----------
        sums, weights
            (size**3,) float64, a reduced map as :mod:`diffdask.kernels.volume` has it.
        rotations
            (g, 3, 3) of the Laue group in the crystal's frame.
        step, size
            Edge of a voxel, 1/angstrom, and voxels a side.
        ring_q
            (r,) 1/angstrom, of the frames.
        azimuths
            Bins of the frames about the beam.
        wavelength
            Angstrom, of the slices: the mean of the frames. Refinement takes each frame's own.
        friedel
            Whether -q has the intensity of q.

        Raises
        ------
        BadParameter
            If a parameter makes no sense, or the map is empty.
        """
        self.check(azimuths=azimuths)
        self.step_, self.ring_q_ = step, np.asarray(ring_q, dtype=np.float64)
        unfolded = expand_map(sums, weights, np.asarray(rotations, dtype=np.float64), friedel, size)
        self.density_ = estimate_density(*unfolded, prior=self.prior, smoothing=self.smoothing / step)
        self.grid_ = make_orientation_grid(self.count, rotations, turns=azimuths)
        slices = cut_slices(self.density_, step, self.grid_.directions, wavelength, self.ring_q_, azimuths)
        self._templates, self._powers = transform_slices(slices)
        self._norms = np.square(slices, where=np.isfinite(slices), out=np.zeros_like(slices)).sum(axis=(1, 2))
        return self

    def check(self, *, azimuths: int) -> None:
        """Raise :class:`BadParameter` if a parameter makes no sense for frames of so many bins about the beam."""
        if self.count < azimuths or self.candidates < 1 or min(self.prior, self.smoothing, self.last_angle) < 0:
            raise BadParameter(
                f"{self}: give a count of at least {azimuths} (bins about the beam), at least 1 candidate, and "
                "nothing below 0"
            )

    def search(self, values: np.ndarray, wavelength: np.ndarray) -> FoundOrientations:
        """Find the orientation of frames.

        Each frame is compared as if it were alone: blocks of frames may be given to several workers.

        Parameters
        ----------
        values
            (n, r, a) residual over noise, about 0 on every ring; NaN where missing.
        wavelength
            (n,) angstrom.

        Raises
        ------
        BadParameter
            If the frames have other bins than the slices.
        """
        check_is_fitted(self)
        if values.shape[1:] != (len(self.ring_q_), self.grid_.turns):
            raise BadParameter(
                f"frames of {values.shape[1:]} rings and azimuths cannot be compared with slices of "
                f"{(len(self.ring_q_), self.grid_.turns)}"
            )
        values = centre_rings(values)
        parts = [
            self._search_block(values[start : start + _FRAMES], wavelength[start : start + _FRAMES])
            for start in range(0, max(len(values), 1), _FRAMES)
        ]
        names = [field.name for field in fields(FoundOrientations)]
        return FoundOrientations(**{name: np.concatenate([part[name] for part in parts]) for name in names})

    def _search_block(self, values: np.ndarray, wavelength: np.ndarray) -> dict[str, np.ndarray]:
        fit, turn, mean, spread = self._compare(values)
        order = np.argsort(-fit, axis=1, kind="stable")[:, : self.candidates]
        best, row = order[:, 0], np.arange(len(fit))
        refined = self._refine(values, wavelength, order, np.take_along_axis(turn, order, axis=1))
        away = np.where(self.grid_.is_apart[best], fit, -np.inf).max(axis=1)
        on_grid = {"grid_score": fit[row, best], "runner_up": away, "grid_mean": mean, "grid_spread": spread}
        return {**refined, **{name: np.where(np.isfinite(found), found, np.nan) for name, found in on_grid.items()}}

    def _compare(self, values: np.ndarray) -> tuple[np.ndarray, ...]:
        """Best fit of frames along each direction, and its turn, (n, m); mean and spread of all fits, (n,)."""
        frames, masks = transform_frames(values)
        shape = len(values), len(self.grid_.directions)
        fit, turn = np.empty(shape, np.float32), np.empty(shape, np.int16)
        total, squares = np.zeros((2, len(values)))
        for start in range(0, shape[1], _DIRECTIONS):
            some = slice(start, start + _DIRECTIONS)
            fit[:, some], turn[:, some], sums, squared_sums = self._compare_directions(frames, masks, some)
            total += sums.sum(axis=1, dtype=float)
            squares += squared_sums.sum(axis=1, dtype=float)
        rms = _measure_rms(values)
        mean = total / len(self.grid_)
        spread = np.sqrt(np.maximum(squares / len(self.grid_) - mean**2, 0.0))
        return fit / rms[:, None], turn, mean / rms, spread / rms

    def _compare_directions(self, frames: np.ndarray, masks: np.ndarray, some: slice) -> tuple[np.ndarray, ...]:
        """Best fit, its turn, and sums of fits and of their squares over turns, of some directions: (n, m) each."""
        back = turns_of_frequencies(self.grid_.turns)
        shape = frames.shape[1] // 2, len(self._norms[some])
        least = np.tile(np.maximum(_LEAST_SHARE * self._norms[some], 1e-30), shape[0]).astype(np.float32)
        best, total, squares = np.empty((3, least.size), np.float32)
        turn = np.empty(least.size, np.int16)
        products = multiply_turned(frames, self._templates[:, :, some], back)
        norms = multiply_turned(masks, self._powers[:, :, some], back)
        pick_turns(products, norms, least, best, turn, total, squares)
        return best.reshape(shape), turn.reshape(shape), total.reshape(shape), squares.reshape(shape)

    def _refine(
        self, values: np.ndarray, wavelength: np.ndarray, direction: np.ndarray, turn: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Refine the candidates (n, c) of each frame, and keep the best."""
        rotation = np.full((len(values), 3, 3), np.nan)
        score, samples = np.full(len(values), np.nan), np.zeros(len(values), np.int64)
        starts = self.grid_.at(direction, turn)
        # A step that never gets as small as the last is none at all.
        angles = math.radians(self.grid_.covering_angle / 2.0), math.radians(self.last_angle or 360.0)
        for row, frame in enumerate(values):
            where = self.density_, self.step_
            for candidate in starts[row, turn[row] >= 0]:
                fit, count = refine_rotation(
                    frame, *where, candidate, float(wavelength[row]), self.ring_q_, angles[0], angles[1]
                )
                if count > 0 and not fit <= score[row]:
                    rotation[row], score[row], samples[row] = candidate, fit, count
        return {"rotation": rotation, "score": score, "samples": samples}


def estimate_density(sums: np.ndarray, weights: np.ndarray, *, prior: float, smoothing: float) -> np.ndarray:
    """Merge an unfolded map, smoothed.

    Parameters
    ----------
    sums, weights
        (size, size, size).
    prior
        Weight of a zero, as a share of the mean weight of the voxels that were seen.
    smoothing
        Standard deviation in voxels; rounded so that its square is a multiple of a half.

    Returns
    -------
    numpy.ndarray
        (size, size, size) float32, sums / (weights + prior); NaN where nobody saw a voxel or those near it.

    Raises
    ------
    BadParameter
        If nobody saw any voxel.
    """
    if not (weights > 0).any():
        raise BadParameter("the map is empty: there are no slices to compare frames with; merge some frames first")
    passes = round(2.0 * smoothing**2)
    smooth_sums, smooth_weights = (_smooth(part.astype(np.float32), passes) for part in (sums, weights))
    is_seen = smooth_weights > 1e-6 * float(weights.max())
    floor = prior * float(smooth_weights[is_seen].mean(dtype=float))
    density = np.full(weights.shape, np.nan, np.float32)
    np.divide(smooth_sums, smooth_weights + np.float32(floor), out=density, where=is_seen)
    return density


def cut_slices(
    density: np.ndarray, step: float, rotations: np.ndarray, wavelength: float, ring_q: np.ndarray, azimuths: int
) -> np.ndarray:
    """Cut slices of an unfolded map, each ring about its mean.

    Parameters
    ----------
    density, step
        (size, size, size) float32, NaN where nobody saw, and the edge of a voxel, 1/angstrom.
    rotations
        (m, 3, 3) from the laboratory to the crystal's frame.
    wavelength
        Angstrom.
    ring_q, azimuths
        (r,) 1/angstrom, and number a of bins about the beam.

    Returns
    -------
    numpy.ndarray
        (m, r, a) float32, NaN outside of the map.
    """
    slices = np.empty((len(rotations), len(ring_q), azimuths), np.float32)
    for rotation, cut in zip(np.ascontiguousarray(rotations, dtype=np.float64), slices, strict=True):
        cut_slice(density, step, rotation, wavelength, ring_q, cut)
    return centre_rings(slices)


def centre_rings(values: np.ndarray) -> np.ndarray:
    """Take from each ring its mean over the bins that are there: (n, r, a) float32."""
    is_there = np.isfinite(values)
    count = np.maximum(is_there.sum(axis=2, keepdims=True), 1)
    mean = np.sum(values, axis=2, keepdims=True, where=is_there, dtype=float) / count
    return np.asarray(values - mean, dtype=np.float32)


def twist_rings(values: np.ndarray, bins: int) -> np.ndarray:
    """Turn each ring against the one before by some bins: frames (n, r, a) that no orientation explains.

    By one bin, a strong frame keeps some likeness with the map; by three, a
    noisy one loses what neighbouring rings of its noise have in common. ``TWISTS``
    are between.
    """
    rings, azimuths = values.shape[1:]
    source = (np.arange(azimuths) - bins * np.arange(rings)[:, None]) % azimuths
    return np.take_along_axis(values, np.broadcast_to(source, values.shape), axis=2)


def _measure_rms(values: np.ndarray) -> np.ndarray:
    """Root mean square of frames (n, r, a) over the bins they have, (n,); NaN where that is nothing."""
    is_there = np.isfinite(values)
    squares = np.sum(np.square(values, dtype=float), axis=(1, 2), where=is_there)
    rms = np.full(len(values), np.nan)
    np.divide(squares, is_there.sum(axis=(1, 2)), out=rms, where=squares > 0)
    return np.sqrt(rms)


def _smooth(cube: np.ndarray, passes: int) -> np.ndarray:
    """Spread every voxel over its neighbours, a quarter to each side along each axis, several times."""
    for axis in (0, 1, 2) * passes:
        moved = np.moveaxis(cube, axis, 0)
        spread = np.float32(0.5) * moved
        spread[1:] += np.float32(0.25) * moved[:-1]
        spread[:-1] += np.float32(0.25) * moved[1:]
        cube = np.moveaxis(spread, 0, axis)
    return np.ascontiguousarray(cube)
