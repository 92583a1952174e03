"""Screen every frame: peaks, background level, anisotropy, diffuse excess."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import xarray as xr

from diffdask.errors import BadParameter
from diffdask.geometry import Geometry
from diffdask.kernels.residual import Screening, sum_residual
from diffdask.kernels.screening import COLUMNS, summarise_frame
from diffdask.pixels import PixelList, list_pixels, make_scratch, photons_per_adu
from diffdask.variables import STATUS_OK, require, wrap

#: Status of a frame of which nothing can be said.
NO_RING = "no ring has enough usable pixels: look at the mask and the bad regions"

#: Peaks of a frame that are looked at in detail; all are counted.
_LISTED_PEAKS = 4096

#: Coarse rings in which the diffuse excess is looked for.
_COARSE_RINGS = 60


def screen_frames(
    ds: xr.Dataset,
    *,
    window_q_min: float = 0.0,
    window_q_max: float = 0.0,
    common_mode: str = "zero-peak",
    clip_low: float = 5.0,
    clip_high: float = 5.0,
    clip_passes: int = 3,
    snr: float = 6.0,
    threshold: float = 5.0,
    min_pixels: int = 2,
    max_pixels: int = 30,
    radius: int = 4,
    pixels: tuple[PixelList, ...] | None = None,
    one_by_one: Iterable[np.ndarray] | None = None,
) -> xr.Dataset:
    """Find peaks, background and anisotropy of every frame, lazily.

    Parameters
    ----------
    ds
        ``adu`` with the geometry, columns and maps of ``lay_out_rings``.
    window_q_min, window_q_max
        Rings whose median makes background level and anisotropy, 1/angstrom; 0 for all.
    common_mode
        "zero-peak": each panel's offset from the pixels that caught no photon;
        "none": already taken out.
    clip_low, clip_high, clip_passes
        Sigma clipping of a ring: standard deviations below and above its mean, passes.
    snr
        Of a peak, against its ring and against its neighbourhood.
    threshold
        Photons above the ring mean that each pixel of a peak has.
    min_pixels, max_pixels
        Size of a peak.
    radius
        Half side of a peak's neighbourhood, pixels.
    pixels
        What :func:`list_pixels` gives for ``ds``, if it is at hand.
    one_by_one
        The frames, (panel, ss, fs) each, in place of ``adu``: screened at once,
        each while the processor still has it in its cache.

    Returns
    -------
    xarray.Dataset
        ``frame_peak_count``, ``frame_peak_intensity``, ``frame_background``,
        ``frame_anisotropy``, ``frame_diffuse_excess``, ``frame_status`` (frame),
        ``background_profile``, ``ring_anisotropy`` (frame, ring). Which frames
        are hits is for ``HitFinder`` to say, who has seen the others.

    Raises
    ------
    MissingVariable, BadParameter
        If something is missing or makes no sense.
    """
    require(
        ds,
        *(["adu"] if one_by_one is None else []),
        "photon_energy",
        "frame_status",
        "frame_setting",
        "pixel_ring",
        "ring_q",
    )
    how = screening_parameters(
        common_mode=common_mode, clip_low=clip_low, clip_high=clip_high, clip_passes=clip_passes, snr=snr,
        threshold=threshold, min_pixels=min_pixels, max_pixels=max_pixels, radius=radius,
    )  # fmt: skip
    window = _rings_within(ds.ring_q.values, window_q_min, window_q_max)
    gain = photons_per_adu(Geometry.from_dataset(ds), ds.photon_energy.values)
    options: dict[str, Any] = {
        "pixels": pixels or list_pixels(ds),
        "cells": (ds.sizes["ring"], ds.sizes["azimuth"]),
        "how": how,
        "window": window,
    }
    if one_by_one is not None:
        summary, profile, anisotropy = _screen_block(one_by_one, ds.frame_setting.values, gain, **options)
        return _name_columns(summary, profile, anisotropy, ds.frame_status.data)
    lazy = xr.apply_ufunc(
        _screen_block,
        ds.adu,
        ds.frame_setting,
        xr.DataArray(gain, dims=("frame", "panel")),
        input_core_dims=[["panel", "ss", "fs"], [], ["panel"]],
        output_core_dims=[["column"], ["ring"], ["ring"]],
        output_dtypes=[float, float, float],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"column": len(COLUMNS), "ring": ds.sizes["ring"]}},
        kwargs=options,
    )
    return _name_columns(lazy[0].data, lazy[1].data, lazy[2].data, ds.frame_status.data)


def screening_parameters(
    *,
    common_mode: str,
    clip_low: float,
    clip_high: float,
    clip_passes: int,
    snr: float,
    threshold: float,
    min_pixels: int,
    max_pixels: int,
    radius: int,
    window_q_min: float = 0.0,
    window_q_max: float = 0.0,
) -> Screening:
    """Check parameters and turn them into what compiled code takes; the window is not its business."""
    if common_mode not in ("zero-peak", "none"):
        raise BadParameter(f"common_mode = {common_mode!r}; known: 'zero-peak', 'none'")
    if min(clip_low, clip_high, snr) <= 0 or clip_passes < 0:
        raise BadParameter("clip_low, clip_high and snr must be positive, clip_passes not negative")
    if not 1 <= min_pixels <= max_pixels or radius < 1:
        raise BadParameter(f"a peak has min_pixels {min_pixels} to max_pixels {max_pixels} pixels, radius at least 1")
    return Screening(
        common_mode_share=0.02 if common_mode == "zero-peak" else -1.0,
        clip_low=float(clip_low),
        clip_high=float(clip_high),
        clip_passes=int(clip_passes),
        ring_pixels=20,
        snr=float(snr),
        threshold=float(threshold),
        min_pixels=int(min_pixels),
        max_pixels=int(max_pixels),
        radius=int(radius),
        wing=2,
    )


def _name_columns(summary: Any, profile: Any, anisotropy: Any, status: Any) -> xr.Dataset:
    """Name what was found, NumPy or Dask arrays, and put NaN at frames of which nothing can be said."""
    column = {name: summary[:, index] for index, name in enumerate(COLUMNS)}
    is_ok, has_rings = status == STATUS_OK, column["good_rings"] > 0
    is_usable = is_ok & has_rings

    def usable(values: Any) -> Any:
        return np.where(is_usable[:, None] if values.ndim > 1 else is_usable, values, np.nan)

    return wrap(
        frame_peak_count=np.where(is_usable, column["peak_count"], 0).astype(np.int64),
        frame_peak_intensity=usable(column["peak_intensity"]),
        frame_background=usable(column["background"]),
        frame_anisotropy=usable(column["anisotropy"]),
        frame_diffuse_excess=usable(column["diffuse_excess"]),
        frame_status=np.where(is_ok & ~has_rings, np.array(NO_RING, dtype=object), status),
        background_profile=usable(profile),
        ring_anisotropy=usable(anisotropy),
    )


def _screen_block(
    adu: Iterable[np.ndarray],
    setting: np.ndarray,
    gain: np.ndarray,
    *,
    pixels: tuple[PixelList, ...],
    cells: tuple[int, int],
    how: Screening,
    window: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Screen frames, (panel, ss, fs) each, one after the other in the same scratch memory."""
    frames, rings = setting.size, cells[0]
    summary = np.empty((frames, len(COLUMNS)))
    profile, anisotropy = np.empty((frames, rings)), np.empty((frames, rings))
    first, second, count = np.empty(cells), np.empty(cells), np.empty(cells, dtype=np.int64)
    peaks = np.empty((_LISTED_PEAKS, 6))
    scratch = None
    if isinstance(adu, np.ndarray):
        adu = _in_same_memory(adu)
    for frame, readings in zip(range(frames), adu, strict=True):
        if scratch is None:
            scratch = make_scratch(pixels, readings.shape, rings)
        found = sum_residual(
            readings.reshape(-1), readings.shape, pixels[int(setting[frame])], gain[frame], how, scratch,
            profile[frame], first, second, count, peaks,
        )  # fmt: skip
        summarise_frame(
            first, second, count, profile[frame], peaks, found, max(1, rings // _COARSE_RINGS), window,
            anisotropy[frame], summary[frame],
        )  # fmt: skip
    return summary, profile, anisotropy


def _in_same_memory(block: np.ndarray) -> Iterator[np.ndarray]:
    """Copy frames one by one: the kernel jumps about in them, and does so faster in memory that was just used."""
    memory = np.empty(block.shape[1:], dtype=block.dtype)
    for frame in block:
        np.copyto(memory, frame)
        yield memory


def _rings_within(ring_q: np.ndarray, q_min: float, q_max: float) -> np.ndarray:
    inside = (ring_q >= q_min) & (ring_q <= (q_max or np.inf))
    if not inside.any():
        raise BadParameter(
            f"no ring lies between window_q_min {q_min:g} and window_q_max {q_max:g}; "
            f"the rings go from {ring_q[0]:.3g} to {ring_q[-1]:.3g} 1/angstrom"
        )
    return inside
