"""Hits merged into a map of reciprocal space, and how well two halves of them agree.

A polar bin is put into the voxels of the crystal's frame that it covers, in
photons, weighted by its inverse counting variance. Mates (the Laue group, and
Friedel's law) share a voxel, so that averaging over them is exact; see
:mod:`diffdask.kernels.volume`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from diffdask.errors import BadParameter
from diffdask.kernels.volume import expand_map, locate_voxels
from diffdask.variables import require, wrap

#: Voxels along a side: a flat index must fit 32 bits.
_MOST_VOXELS = 1024

#: A hit on its own in the cube: flat indices of the voxels it fills, rising, and its mean in each.
_Embedding = tuple[np.ndarray, np.ndarray]

#: Fewest voxels that give a shell a correlation.
_FEWEST_VOXELS = 20


@dataclass(frozen=True)
class MapGrid:
    """A cube of voxels about the origin of reciprocal space."""

    size: int  #: voxels along a side; number size // 2 has its centre at the origin
    step: float  #: edge of a voxel, 1/angstrom

    @property
    def q_max(self) -> float:
        """Outer face of the last voxel that is filled, 1/angstrom; both sides of the origin alike."""
        return ((self.size - 1) // 2 + 0.5) * self.step


def plan_grid(*, size: int, q_max: float) -> MapGrid:
    """Cut -q_max to q_max into voxels.

    Where ``size`` is even there is one voxel more below the origin than above; it stays empty.

    Raises
    ------
    BadParameter
        If there are too few voxels or too many, or q_max is not positive.

    Examples
    --------
    >>> plan_grid(size=201, q_max=2.01).step
    0.02
    """
    if not 8 <= size <= _MOST_VOXELS:
        raise BadParameter(f"size = {size} must be from 8 to {_MOST_VOXELS} voxels a side")
    if not 0.0 < q_max < math.inf:
        raise BadParameter(f"q_max = {q_max} must be positive, in 1/angstrom")
    return MapGrid(size=size, step=q_max / ((size - 1) // 2 + 0.5))


def plan_shells(grid: MapGrid, *, shell_count: int, q_min: float = 0.0) -> np.ndarray:
    """Edges of shells of equal thickness from ``q_min`` to the cube's q_max, (shell_count + 1,) 1/angstrom.

    Raises
    ------
    BadParameter
        If there is no shell, or q_min is not below q_max.
    """
    if shell_count < 1 or not 0.0 <= q_min < grid.q_max:
        raise BadParameter(f"no shells: {shell_count} from q_min = {q_min} to q_max = {grid.q_max:.4g} 1/angstrom")
    return np.linspace(q_min, grid.q_max, shell_count + 1)


def embed_hits(
    ds: xr.Dataset, *, grid: MapGrid, rotations: np.ndarray, friedel: bool = True, q_min: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Put hits into the voxels they reach.

    Parameters
    ----------
    ds
        ``cleaned_residual``, ``polar_noise``, ``polar_ring_q``, ``crystal_rotation`` and ``hit_wavelength``.
    grid
        The cube.
    rotations
        (g, 3, 3) of the Laue group in the crystal's frame.
    friedel
        Whether -q has the intensity of q.
    q_min
        Innermost ring, 1/angstrom.

    Returns
    -------
    tuple
        Sum of weight times intensity (1/photon) and of weight (1/photon^2), (size**3,) float64 each, of the
        reduced map. A bin's intensity is its ``cleaned_residual`` times its noise, its weight the inverse square
        of the noise; both are shared alike among points in the bin, which are at most a voxel apart.

    Raises
    ------
    BadParameter
        If the rings are not evenly spaced.
    """
    require(ds, "cleaned_residual", "polar_noise", "polar_ring_q", "crystal_rotation", "hit_wavelength")
    ring_q = np.asarray(ds.polar_ring_q.values, dtype=float)
    along, around = points_per_bin(ring_q, ds.sizes["azimuth"], grid)
    is_kept = ring_q >= q_min
    point_q, azimuths = _split_rings(ring_q, along)[np.repeat(is_kept, along)], ds.sizes["azimuth"] * around
    voxels = np.empty((point_q.size, azimuths), dtype=np.int32)
    rotations = np.ascontiguousarray(rotations, dtype=float)
    sums, weights = np.zeros(grid.size**3), np.zeros(grid.size**3)
    axes = np.ascontiguousarray(ds.crystal_rotation.values, dtype=float)
    for hit, wavelength in enumerate(np.asarray(ds.hit_wavelength.values, dtype=float)):
        residual, noise = (ds[name].values[hit, is_kept].astype(float) for name in ("cleaned_residual", "polar_noise"))
        locate_voxels(axes[hit], wavelength, point_q, azimuths, rotations, friedel, grid.step, grid.size, voxels)
        is_there = np.isfinite(residual) & (noise > 0.0)
        weight = np.divide(1.0, noise**2 * (along * around), out=np.zeros_like(noise), where=is_there)
        value = np.where(is_there, residual, 0.0) * np.where(is_there, noise, 0.0) * weight
        for total, given in ((sums, value), (weights, weight)):
            spread = np.repeat(np.repeat(given, along, axis=0), around, axis=1)
            is_inside = (voxels >= 0) & (spread != 0.0)
            np.add.at(total, voxels[is_inside], spread[is_inside])
    return sums, weights


def points_per_bin(ring_q: np.ndarray, azimuths: int, grid: MapGrid) -> tuple[int, int]:
    """Points along q and about the beam that put no two neighbours of a bin more than a voxel apart.

    Raises
    ------
    BadParameter
        If the rings, (r,) in 1/angstrom, are not evenly spaced.

    Examples
    --------
    >>> points_per_bin(np.array([0.5, 0.7, 0.9]), 36, MapGrid(size=21, step=0.1))
    (2, 2)
    """
    steps = np.diff(ring_q)
    if steps.size == 0 or steps[0] <= 0 or np.abs(steps - steps[0]).max() > 1e-3 * steps[0]:
        raise BadParameter("merging needs two polar rings or more, evenly spaced and rising")
    around = min(ring_q[-1], grid.q_max) * 2.0 * math.pi / azimuths
    # rounding must not make two of one
    return math.ceil(steps[0] / grid.step - 1e-6), math.ceil(around / grid.step - 1e-6)


def merge_halves(
    sums: np.ndarray,
    weights: np.ndarray,
    *,
    grid: MapGrid,
    rotations: np.ndarray,
    friedel: bool = True,
    shell_count: int = 20,
    q_min: float = 0.0,
) -> xr.Dataset:
    """Make a map of two half maps, and see how well they agree.

    Parameters
    ----------
    sums, weights
        (2, size**3) of the halves, each from :func:`embed_hits`.
    grid, rotations, friedel, q_min
        As there.
    shell_count
        Shells from ``q_min`` to the cube's q_max.

    Returns
    -------
    xarray.Dataset
        ``map_intensity`` (photon, NaN where no hit reaches) and ``map_weight`` (map_x, map_y, map_z) float32, and what
        :func:`correlate_halves` gives.
    """
    every = np.ascontiguousarray(rotations, dtype=float)
    all_sums, all_weights = expand_map(sums.sum(axis=0), weights.sum(axis=0), every, friedel, grid.size)
    mean = np.divide(all_sums, all_weights, out=np.full(all_sums.shape, np.nan), where=all_weights > 0.0)
    shells = correlate_halves(sums, weights, grid=grid, shell_count=shell_count, q_min=q_min)
    return shells.merge(wrap(map_intensity=mean.astype(np.float32), map_weight=all_weights.astype(np.float32)))


def correlate_halves(
    sums: np.ndarray, weights: np.ndarray, *, grid: MapGrid, shell_count: int = 20, q_min: float = 0.0
) -> xr.Dataset:
    """Correlate two half maps in shells of resolution.

    Parameters
    ----------
    sums, weights, grid, shell_count, q_min
        As for :func:`merge_halves`.

    Returns
    -------
    xarray.Dataset
        ``half_map_correlation`` (map_shell): over the voxels that both fill, mates counted once, about the shell's
        mean, a voxel weighted by the inverse variance of the halves' difference; NaN below 20 voxels.
        ``half_map_voxels`` and ``map_shell_q``.

    Raises
    ------
    BadParameter
        If there is no shell, or q_min is not below q_max.
    """
    edges = plan_shells(grid, shell_count=shell_count, q_min=q_min)
    shared = np.flatnonzero((weights[0] > 0.0) & (weights[1] > 0.0))
    one, other = sums[:, shared] / weights[:, shared]
    joint = weights[0, shared] * weights[1, shared] / weights[:, shared].sum(axis=0)
    place = np.array(np.unravel_index(shared, (grid.size,) * 3)) - grid.size // 2
    shell = np.searchsorted(edges, np.sqrt((place**2).sum(axis=0)) * grid.step, side="right") - 1
    correlation, count = np.full(shell_count, np.nan), np.zeros(shell_count, dtype=np.int64)
    for number in range(shell_count):
        inside = shell == number
        count[number] = inside.sum()
        if count[number] >= _FEWEST_VOXELS:
            correlation[number] = _correlate(one[inside], other[inside], joint[inside])
    centres = (edges[1:] + edges[:-1]) / 2
    return wrap(map_shell_q=centres, half_map_correlation=correlation, half_map_voxels=count)


def find_volume_agreement(
    rows: xr.Dataset,
    columns: xr.Dataset,
    *,
    grid: MapGrid,
    rotations: np.ndarray,
    friedel: bool = True,
    is_diagonal: bool = False,
    min_samples: int = 64,
) -> xr.Dataset:
    """Compare hits as the reference study did, each embedded in the cube on its own: slow, a check on the arcs.

    Parameters
    ----------
    rows, columns
        Two blocks of hits with ``standardised_residual``, ``similarity_ring_q``, ``crystal_rotation`` and
        ``hit_wavelength``.
    grid
        The cube; the study's has 200 voxels a side.
    rotations, friedel
        As for :func:`embed_hits`.
    is_diagonal
        Rows and columns are the same hits: each pair is computed once, and a hit has no agreement with itself.
    min_samples
        Fewest voxels of an agreement.

    Returns
    -------
    xarray.Dataset
        ``pair_agreement`` (hit, other_hit) float32: the correlation of the two embeddings, mates sharing a voxel,
        over the voxels that both fill; NaN where these are too few, or a hit is not indexed. ``pair_samples``:
        these voxels.

    Raises
    ------
    BadParameter
        If the rings are not evenly spaced.

    Notes
    -----
    Where beams are nearly parallel the two spheres share most of their voxels, at the same places of the
    detector, and what the detector leaves in both agrees; the arcs leave such pairs out.
    """
    row_parts = _embed_alone(rows, grid, rotations, friedel)
    column_parts = row_parts if is_diagonal else _embed_alone(columns, grid, rotations, friedel)
    agreement = np.full((len(row_parts), len(column_parts)), np.nan, dtype=np.float32)
    samples = np.zeros(agreement.shape, dtype=np.int32)
    for row, one in enumerate(row_parts):
        for column in range(row + 1 if is_diagonal else 0, len(column_parts)):
            x, y = _share_voxels(one, column_parts[column])
            samples[row, column] = x.size
            if x.size >= max(min_samples, 2):
                agreement[row, column] = _correlate(x, y, np.ones(x.size))
            if is_diagonal:
                agreement[column, row], samples[column, row] = agreement[row, column], x.size
    return wrap(pair_agreement=agreement, pair_samples=samples)


def _embed_alone(ds: xr.Dataset, grid: MapGrid, rotations: np.ndarray, friedel: bool) -> list[_Embedding]:
    """Embed each hit in a cube of its own."""
    require(ds, "standardised_residual", "similarity_ring_q", "crystal_rotation", "hit_wavelength")
    ring_q = np.asarray(ds.similarity_ring_q.values, dtype=float)
    along, around = points_per_bin(ring_q, ds.sizes["azimuth"], grid)
    point_q, azimuths = _split_rings(ring_q, along), ds.sizes["azimuth"] * around
    voxels = np.empty((point_q.size, azimuths), dtype=np.int32)
    axes = np.ascontiguousarray(ds.crystal_rotation.values, dtype=float)
    turns = np.ascontiguousarray(rotations, dtype=float)
    parts = []
    for hit, wavelength in enumerate(np.asarray(ds.hit_wavelength.values, dtype=float)):
        locate_voxels(axes[hit], wavelength, point_q, azimuths, turns, friedel, grid.step, grid.size, voxels)
        values = np.repeat(np.repeat(ds.standardised_residual.values[hit], along, axis=0), around, axis=1)
        is_there = (voxels >= 0) & np.isfinite(values)
        filled, place = np.unique(voxels[is_there], return_inverse=True)
        parts.append((filled, np.bincount(place, weights=values[is_there]) / np.maximum(np.bincount(place), 1)))
    return parts


def _share_voxels(one: _Embedding, other: _Embedding) -> tuple[np.ndarray, np.ndarray]:
    """Values of two hits in the voxels that both fill."""
    _, in_one, in_other = np.intersect1d(one[0], other[0], assume_unique=True, return_indices=True)
    return one[1][in_one], other[1][in_other]


def _correlate(one: np.ndarray, other: np.ndarray, weight: np.ndarray) -> float:
    """Weighted correlation; NaN where either does not vary."""
    one, other = one - np.average(one, weights=weight), other - np.average(other, weights=weight)
    norm = math.sqrt(float((weight * one**2).sum()) * float((weight * other**2).sum()))
    return float((weight * one * other).sum()) / norm if norm > 0.0 else math.nan


def _split_rings(ring_q: np.ndarray, parts: int) -> np.ndarray:
    """Centres of so many equal parts of every ring."""
    offsets = (np.arange(parts) + 0.5) / parts - 0.5
    return np.asarray((ring_q[:, None] + offsets * (ring_q[1] - ring_q[0])).ravel())
