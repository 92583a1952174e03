"""Haloes of hits: diffuse scattering of long correlation length, close about the points of the reciprocal lattice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from diffdask.errors import BadParameter
from diffdask.geometry import Geometry, pixel_positions, positions_on_panels, reciprocal_points, wavelength
from diffdask.kernels.lattice_distance import Lattice, sum_lattice_profile
from diffdask.kernels.lattice_fit import (
    CENTRINGS,
    find_nearest_points,
    find_primitive_axes,
    find_reach,
    measure_widths,
    refine_axes,
)
from diffdask.kernels.residual import Screening, sum_residual
from diffdask.pixels import PixelList, list_pixels, make_scratch, photons_per_adu
from diffdask.variables import require, wrap

#: Bragg peaks of a hit that are used at most, and that must lie on the lattice.
_LISTED_PEAKS, _FEWEST_PEAKS = 4096, 15

#: Share of the peaks that must lie on the lattice: of a wrong orientation's, one in thirty does by chance.
_LEAST_SHARE = 0.3

_COLUMNS = ("hit_halo", "halo_crest", "lattice_share", "hit_mosaicity")

#: Standard deviation of a sharp Bragg spot on the detector, pixels.
_SPOT_PIXELS = 0.8

#: Camera length m, photon energy eV, shift x m, shift y m.
Setting = Sequence[float]


def find_haloes(
    ds: xr.Dataset,
    *,
    how: Screening,
    settings: Sequence[Setting],
    halo_length: float = 100.0,
    spot_guard: float = 3.5,
    halo_q_min: float = 0.5,
    halo_reach: float = 0.005,
    shell_count: int = 20,
    lattice_shift: float = 0.0,
    pixels: tuple[PixelList, ...] | None = None,
    directions: tuple[np.ndarray, ...] | None = None,
) -> xr.Dataset:
    """Find how much brighter indexed hits are close to lattice points than further away, Bragg spots left out, lazily.

    The hit's own peaks turn its lattice to a hundredth of a degree first, and say how far from the Ewald sphere
    lattice points are still excited. All pixels further away than that, in depth or on the detector, are compared
    with others of their polar cell by their distance from the nearest lattice point.

    Parameters
    ----------
    ds
        Hits: ``adu`` with the geometry, columns and maps of ``lay_out_rings``, its frames being the hits;
        ``orientation`` and ``lattice`` as indexing gave them.
    how
        As the frames were screened.
    settings
        Camera length (m), photon energy (eV) and shift x, y (m) of every setting, from ``group_settings``.
    halo_length
        Correlation length of the haloes that are weighed most, angstrom. It need not be known: from half to
        twice of it little changes.
    spot_guard
        Standard deviations of Bragg spots that are left out, in depth and on the detector. With less than three
        the spots themselves are seen; with more, less of the haloes.
    halo_q_min
        Lowest q of a ring that is used, 1/angstrom (with 2 pi).
    halo_reach, shell_count
        The profile's end, 1/angstrom (no 2 pi), and its shells.
    lattice_shift
        0; 0.5 for points half-way between those of the lattice: what chance gives.
    pixels, directions
        What :func:`list_pixels` and :func:`find_directions` give for ``ds``, if they are at hand.

    Returns
    -------
    xarray.Dataset
        ``hit_halo``, of mean 0 and unit variance under counting noise alone, and ``halo_crest`` (hit);
        ``halo_profile`` and ``halo_noise`` (hit, halo_shell) photons, ``halo_distance`` (halo_shell);
        ``refined_orientation``, ``lattice_share`` and ``hit_mosaicity``. NaN for hits that are not indexed, have
        fewer than 15 peaks on their lattice, or less than 0.3 of their peaks: these are misindexed.

    Raises
    ------
    MissingVariable, BadParameter
        If a variable is missing, or a number makes no sense.
    """
    require(ds, "adu", "photon_energy", "frame_setting", "pixel_ring", "ring_q", "orientation", "lattice")
    _check_parameters(halo_length, spot_guard, halo_reach, shell_count, lattice_shift)
    rings = np.flatnonzero(ds.ring_q.values >= halo_q_min)
    if not rings.size:
        raise BadParameter(f"no ring lies above halo_q_min = {halo_q_min:g}; the last is {ds.ring_q.values[-1]:.3g}")
    geometry, pixels = Geometry.from_dataset(ds), pixels or list_pixels(ds)
    detector = _Detector(geometry, pixels, directions or find_directions(geometry, pixels, settings), settings)
    search = _Search(
        rings=np.array([rings[0], rings[-1] + 1]),
        halo=2.0 * math.pi * halo_length,
        guard=spot_guard,
        shift=lattice_shift,
        edges=np.linspace(0.0, halo_reach, shell_count + 1),
    )
    columns, profile, noise, turned = xr.apply_ufunc(
        _haloes_block,
        ds.adu,
        ds.frame_setting,
        xr.DataArray(photons_per_adu(geometry, ds.photon_energy.values), dims=("frame", "panel")),
        ds.photon_energy,
        ds.orientation,
        xr.DataArray(_find_centrings(ds.lattice.values), dims=("frame",)),
        input_core_dims=[["panel", "ss", "fs"], [], ["panel"], [], ["reciprocal_axis", "xyz"], []],
        output_core_dims=[["halo_column"], ["halo_shell"], ["halo_shell"], ["reciprocal_axis", "xyz"]],
        output_dtypes=[float] * 4,
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"halo_column": len(_COLUMNS), "halo_shell": shell_count}},
        kwargs={"detector": detector, "cells": (ds.sizes["ring"], ds.sizes["azimuth"]), "how": how, "search": search},
    )
    return wrap(
        **{name: columns[:, number] for number, name in enumerate(_COLUMNS)},
        halo_profile=profile,
        halo_noise=noise,
        halo_distance=0.5 * (search.edges[:-1] + search.edges[1:]),
        refined_orientation=turned,
    )


def find_directions(
    geometry: Geometry, pixels: tuple[PixelList, ...], settings: Sequence[Setting]
) -> tuple[np.ndarray, ...]:
    """Unit vectors to the listed pixels of every setting, less the beam's: (n, xyz) float32 each."""
    found = []
    for listed, (length, _, x, y) in zip(pixels, settings, strict=True):
        positions = pixel_positions(geometry, camera_length=length, shift=(x, y)).reshape(-1, 3)[listed.place]
        positions /= np.linalg.norm(positions, axis=1, keepdims=True)
        positions[:, 2] -= 1.0
        found.append(positions.astype(np.float32))
    return tuple(found)


class _Detector(NamedTuple):
    """The detector in all its settings."""

    geometry: Geometry
    pixels: tuple[PixelList, ...]
    directions: tuple[np.ndarray, ...]
    settings: Sequence[Setting]


class _Search(NamedTuple):
    """What is looked for: see :func:`~diffdask.kernels.lattice_distance.sum_lattice_profile`."""

    rings: np.ndarray
    halo: float
    guard: float
    shift: float
    edges: np.ndarray


def _haloes_block(
    adu: np.ndarray,
    setting: np.ndarray,
    gain: np.ndarray,
    photon_energy: np.ndarray,
    orientation: np.ndarray,
    centring: np.ndarray,
    *,
    detector: _Detector,
    cells: tuple[int, int],
    how: Screening,
    search: _Search,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    frames, shape = adu.shape[0], adu.shape[1:]
    columns, turned = np.full((frames, len(_COLUMNS)), np.nan), np.full((frames, 3, 3), np.nan)
    profile, noise = np.full((2, frames, search.edges.size - 1), np.nan)
    first, second, count = np.empty(cells), np.empty(cells), np.empty(cells, dtype=np.int64)
    mean, peaks, sums = np.empty(cells[0]), np.empty((_LISTED_PEAKS, 6)), np.empty((search.edges.size, 4))
    scratch = make_scratch(detector.pixels, shape, cells[0])
    for frame in range(frames):
        if not (centring[frame] and np.isfinite(orientation[frame]).all() and photon_energy[frame] > 0):
            continue
        number = int(setting[frame])
        flat, pixels = np.ascontiguousarray(adu[frame]).reshape(-1), detector.pixels[number]
        found = sum_residual(flat, shape, pixels, gain[frame], how, scratch, mean, first, second, count, peaks)
        points = _place_peaks(peaks[: min(found, _LISTED_PEAKS)], detector, number, photon_energy[frame])
        axes = find_primitive_axes(orientation[frame], str(centring[frame]))
        refined, near = refine_axes(points, axes)
        columns[frame, 2] = near.mean() if near.size else np.nan
        if near.sum() < _FEWEST_PEAKS or columns[frame, 2] < _LEAST_SHARE:
            continue
        seen = _describe_lattice(points[near], refined, detector, number, photon_energy[frame], search)
        sum_lattice_profile(
            flat, shape, pixels, detector.directions[number], gain[frame], how, scratch, mean, search.rings, seen,
            search.halo, search.edges, sums,
        )  # fmt: skip
        total, weight, variance = sums[:, :3].T
        columns[frame, :2] = _divide(total[-1], variance[-1] ** 0.5), _divide(total[-1], weight[-1])
        columns[frame, 3] = seen.mosaicity
        profile[frame] = _divide(total[:-1], weight[:-1])
        noise[frame] = _divide(variance[:-1] ** 0.5, weight[:-1])
        turned[frame] = orientation[frame] @ np.linalg.inv(axes) @ refined
    return columns, profile, noise, turned


def _describe_lattice(
    points: np.ndarray,
    axes: np.ndarray,
    detector: _Detector,
    setting: int,
    photon_energy: float,
    search: _Search,
) -> Lattice:
    """Primitive axes, (3, 3) rows in 1/angstrom, with the widths of the spots that peaks at (n, 3) show."""
    length, pitch = wavelength(photon_energy), float(np.linalg.norm(detector.geometry.fs_step[0]))
    widths = measure_widths(find_nearest_points(points, axes), length, find_reach(axes))
    return Lattice(
        direct=np.ascontiguousarray(np.linalg.inv(axes).T),
        reciprocal=np.ascontiguousarray(axes),
        wavelength=length,
        size_width=float(widths[0]),
        mosaicity=float(widths[1]),
        spot_width=_SPOT_PIXELS * pitch / (detector.settings[setting][0] * length),
        guard=search.guard,
        shift=search.shift,
    )


def _find_centrings(lattice: np.ndarray) -> np.ndarray:
    """Centrings, (frame,) a letter each, of texts such as "orthorhombic I *"; empty where not indexed."""
    found = []
    for text in lattice.astype(str):
        words = text.split()
        if words and (len(words) < 2 or words[1] not in CENTRINGS):
            raise BadParameter(f"lattice '{text}' names no centring: it is to be like 'orthorhombic I *'")
        found.append(words[1] if words else "")
    return np.array(found, dtype="U1")


def _place_peaks(peaks: np.ndarray, detector: _Detector, setting: int, photon_energy: float) -> np.ndarray:
    """Points of reciprocal space, (n, xyz) 1/angstrom, of rows of peaks: panel, and indices along ss and fs."""
    length, _, x, y = detector.settings[setting]
    panel, ss, fs = peaks[:, 0].astype(int), peaks[:, 1] + 0.5, peaks[:, 2] + 0.5
    positions = positions_on_panels(detector.geometry, panel, ss, fs, camera_length=length, shift=(x, y))
    return reciprocal_points(positions, photon_energy)


def _divide(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Quotient, NaN where ``other`` is not above 0."""
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    return np.divide(one, other, out=np.full(one.shape, np.nan), where=other > 0)


def _check_parameters(length: float, guard: float, reach: float, shells: int, shift: float) -> None:
    if not (length > 0 and guard > 0 and reach > 0 and shells >= 1):
        raise BadParameter(
            f"halo_length = {length}, spot_guard = {guard}, halo_reach = {reach}, shell_count = {shells}: "
            "all must be above 0"
        )
    if not 0.0 <= shift < 1.0:
        raise BadParameter(f"lattice_shift = {shift} is a part of a step of the lattice: 0, or 0.5 for chance")
