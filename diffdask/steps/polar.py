"""The polar residual of a hit: its background-free intensity on rings and azimuths."""

from __future__ import annotations

import numpy as np
import xarray as xr

from diffdask.errors import BadParameter
from diffdask.geometry import Geometry
from diffdask.kernels.polar import average_cells
from diffdask.kernels.residual import Screening, sum_residual
from diffdask.pixels import PixelList, list_pixels, make_scratch, photons_per_adu
from diffdask.variables import require, wrap


def find_polar_residual(
    ds: xr.Dataset,
    *,
    how: Screening,
    polar_ring_count: int = 60,
    bin_pixels: int = 10,
    pixels: tuple[PixelList, ...] | None = None,
) -> xr.Dataset:
    """Average the residual of hits over polar bins, Bragg peaks left out, lazily.

    Parameters
    ----------
    ds
        Hits: ``adu`` with the geometry, columns and maps of ``lay_out_rings``,
        its frames being the hits.
    how
        As the frames were screened.
    polar_ring_count
        Polar rings; divides the number of rings.
    bin_pixels
        Fewest pixels of a bin.
    pixels
        What :func:`list_pixels` gives for ``ds``, if it is at hand.

    Returns
    -------
    xarray.Dataset
        ``polar_residual`` and ``polar_noise`` (hit, polar_ring, azimuth), photons;
        ``polar_ring_q`` and ``polar_coverage`` (polar_ring).
    """
    require(ds, "adu", "photon_energy", "frame_setting", "pixel_ring", "ring_q")
    rings_per_bin = group_rings(ds.sizes["ring"], polar_ring_count)
    gain = photons_per_adu(Geometry.from_dataset(ds), ds.photon_energy.values)
    residual, noise = xr.apply_ufunc(
        _polar_block,
        ds.adu,
        ds.frame_setting,
        xr.DataArray(gain, dims=("frame", "panel")),
        input_core_dims=[["panel", "ss", "fs"], [], ["panel"]],
        output_core_dims=[["polar_ring", "azimuth"], ["polar_ring", "azimuth"]],
        output_dtypes=[np.float32, np.float32],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"polar_ring": polar_ring_count, "azimuth": ds.sizes["azimuth"]}},
        kwargs={
            "pixels": pixels or list_pixels(ds),
            "cells": (ds.sizes["ring"], ds.sizes["azimuth"]),
            "how": how,
            "rings_per_bin": rings_per_bin,
            "bin_pixels": bin_pixels,
        },
    )
    rings = describe_polar_rings(ds, polar_ring_count=polar_ring_count, bin_pixels=bin_pixels)
    return wrap(polar_residual=residual.data, polar_noise=noise.data).merge(rings)


def describe_polar_rings(ds: xr.Dataset, *, polar_ring_count: int, bin_pixels: int) -> xr.Dataset:
    """Say where polar rings are and how much of them the detector sees.

    Parameters
    ----------
    ds
        Maps of ``lay_out_rings``.
    polar_ring_count, bin_pixels
        As in :func:`find_polar_residual`.

    Returns
    -------
    xarray.Dataset
        ``polar_ring_q`` and ``polar_coverage`` (polar_ring).
    """
    rings_per_bin = group_rings(ds.sizes["ring"], polar_ring_count)
    return wrap(
        polar_ring_q=ds.ring_q.values.reshape(polar_ring_count, rings_per_bin).mean(axis=1),
        polar_coverage=_coverage(ds, polar_ring_count, bin_pixels),
    )


def group_rings(ring_count: int, polar_ring_count: int) -> int:
    """Rings that make one polar ring; raises :class:`BadParameter` unless they divide.

    Examples
    --------
    >>> group_rings(480, 60)
    8
    """
    if polar_ring_count < 1 or ring_count % polar_ring_count:
        raise BadParameter(f"polar_ring_count = {polar_ring_count} must divide ring_count = {ring_count}")
    return ring_count // polar_ring_count


def _coverage(ds: xr.Dataset, polar_ring_count: int, bin_pixels: int) -> np.ndarray:
    """Share of the azimuths of each polar ring that have enough pixels in every setting."""
    rings_per_bin, azimuths = ds.sizes["ring"] // polar_ring_count, ds.sizes["azimuth"]
    shares = []
    for ring, azimuth in zip(ds.pixel_ring.values, ds.pixel_azimuth.values, strict=True):
        used = ring >= 0
        cell = ring[used] // rings_per_bin * azimuths + azimuth[used]
        count = np.bincount(cell, minlength=polar_ring_count * azimuths).reshape(polar_ring_count, azimuths)
        shares.append((count >= bin_pixels).mean(axis=1))
    return np.asarray(np.min(shares, axis=0))


def _polar_block(
    adu: np.ndarray,
    setting: np.ndarray,
    gain: np.ndarray,
    *,
    pixels: tuple[PixelList, ...],
    cells: tuple[int, int],
    how: Screening,
    rings_per_bin: int,
    bin_pixels: int,
) -> tuple[np.ndarray, np.ndarray]:
    shape = (adu.shape[0], cells[0] // rings_per_bin, cells[1])
    residual, noise = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
    first, second, count = np.empty(cells), np.empty(cells), np.empty(cells, dtype=np.int64)
    mean, peaks = np.empty(cells[0]), np.empty((1, 6))
    scratch = make_scratch(pixels, adu.shape[1:], cells[0])
    for frame in range(adu.shape[0]):
        sum_residual(
            adu[frame].reshape(-1), adu.shape[1:], pixels[int(setting[frame])], gain[frame], how, scratch,
            mean, first, second, count, peaks,
        )  # fmt: skip
        average_cells(first, second, count, rings_per_bin, bin_pixels, residual[frame], noise[frame])
    return residual, noise
