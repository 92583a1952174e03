"""The Bragg peaks of hits, one by one."""

from __future__ import annotations

import numpy as np
import xarray as xr

from diffdask.geometry import Geometry
from diffdask.kernels.residual import Screening, sum_residual
from diffdask.pixels import PixelList, list_pixels, make_scratch, photons_per_adu
from diffdask.variables import require, wrap

#: Peaks of a hit that are listed.
LISTED_PEAKS = 2048

_COLUMNS = ("peak_panel", "peak_ss", "peak_fs", "peak_intensity", "peak_snr")


def find_peaks(ds: xr.Dataset, *, how: Screening, pixels: tuple[PixelList, ...] | None = None) -> xr.Dataset:
    """List the Bragg peaks of hits, lazily.

    Parameters
    ----------
    ds
        Hits: ``adu`` with the geometry, columns and maps of ``lay_out_rings``,
        its frames being the hits.
    how
        As the frames were screened.
    pixels
        What :func:`list_pixels` gives for ``ds``, if it is at hand.

    Returns
    -------
    xarray.Dataset
        ``hit_peak_count`` (hit) and, for each peak, ``peak_panel``,
        ``peak_ss``, ``peak_fs`` (centre of mass; the centre of the first pixel
        is 0.5), ``peak_intensity`` in photons and ``peak_snr`` (hit, peak); -1
        and NaN past the last. Of more than 2048 peaks the first are listed.
    """
    require(ds, "adu", "photon_energy", "frame_setting", "pixel_ring", "ring_q")
    gain = photons_per_adu(Geometry.from_dataset(ds), ds.photon_energy.values)
    count, *columns = xr.apply_ufunc(
        _peaks_block,
        ds.adu,
        ds.frame_setting,
        xr.DataArray(gain, dims=("frame", "panel")),
        input_core_dims=[["panel", "ss", "fs"], [], ["panel"]],
        output_core_dims=[[], *[["peak"]] * len(_COLUMNS)],
        output_dtypes=[np.int64, np.int64, *[np.float32] * (len(_COLUMNS) - 1)],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"peak": LISTED_PEAKS}},
        kwargs={
            "pixels": pixels or list_pixels(ds),
            "cells": (ds.sizes["ring"], ds.sizes["azimuth"]),
            "how": how,
        },
    )
    found = {name: column.data for name, column in zip(_COLUMNS, columns, strict=True)}
    return wrap(hit_peak_count=count.data, **found)


def _peaks_block(
    adu: np.ndarray,
    setting: np.ndarray,
    gain: np.ndarray,
    *,
    pixels: tuple[PixelList, ...],
    cells: tuple[int, int],
    how: Screening,
) -> tuple[np.ndarray, ...]:
    frames = adu.shape[0]
    count = np.empty(frames, dtype=np.int64)
    panel = np.full((frames, LISTED_PEAKS), -1, dtype=np.int64)
    numbers = np.full((4, frames, LISTED_PEAKS), np.nan, dtype=np.float32)
    first, second, cell_pixels = np.empty(cells), np.empty(cells), np.empty(cells, dtype=np.int64)
    mean, peaks = np.empty(cells[0]), np.empty((LISTED_PEAKS, 6))
    scratch = make_scratch(pixels, adu.shape[1:], cells[0])
    for frame in range(frames):
        count[frame] = sum_residual(
            adu[frame].reshape(-1), adu.shape[1:], pixels[int(setting[frame])], gain[frame], how, scratch,
            mean, first, second, cell_pixels, peaks,
        )  # fmt: skip
        listed = min(count[frame], LISTED_PEAKS)
        panel[frame, :listed] = peaks[:listed, 0]
        numbers[0, frame, :listed] = peaks[:listed, 1] + 0.5
        numbers[1, frame, :listed] = peaks[:listed, 2] + 0.5
        numbers[2:, frame, :listed] = peaks[:listed, 3:5].T
    return count, panel, *numbers
