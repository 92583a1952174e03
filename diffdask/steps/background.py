"""Photons and residual of whole frames, as lazy arrays."""

from __future__ import annotations

import numpy as np
import xarray as xr

from diffdask.errors import BadParameter
from diffdask.geometry import Geometry
from diffdask.kernels.residual import Screening, subtract_rings
from diffdask.pixels import PixelList, list_pixels, make_scratch, photons_per_adu
from diffdask.variables import require, wrap


def remove_background(
    ds: xr.Dataset,
    *,
    common_mode: str = "zero-peak",
    clip_low: float = 5.0,
    clip_high: float = 5.0,
    clip_passes: int = 3,
    threshold: float = 5.0,
    ring_pixels: int = 20,
    pixels: tuple[PixelList, ...] | None = None,
) -> xr.Dataset:
    """Correct frames and take their isotropic background off, lazily.

    Parameters
    ----------
    ds
        ``adu`` with the geometry, columns and maps of ``lay_out_rings``.
    common_mode
        "zero-peak" or "none".
    clip_low, clip_high, clip_passes
        Sigma clipping: standard deviations below and above the ring's mean, passes.
    threshold
        Photons above the ring's mean up to which no pixel is an outlier: dark rings would lose their counts.
    ring_pixels
        Fewest pixels of a ring that has an estimate.
    pixels
        What :func:`list_pixels` gives for ``ds``, if it is at hand.

    Returns
    -------
    xarray.Dataset
        ``photons`` and ``residual`` (frame, panel, ss, fs), photons, NaN where
        the pixel is not used or its ring has no estimate; ``background_profile``
        (frame, ring). Bragg peaks stay in the residual.

    Raises
    ------
    MissingVariable, BadParameter
        If something is missing or makes no sense.
    """
    if common_mode not in ("zero-peak", "none"):
        raise BadParameter(f"common_mode = {common_mode!r}; known: 'zero-peak', 'none'")
    require(ds, "adu", "photon_energy", "frame_setting", "pixel_ring", "ring_q")
    gain = photons_per_adu(Geometry.from_dataset(ds), ds.photon_energy.values)
    image = ["panel", "ss", "fs"]
    photons, residual, profile = xr.apply_ufunc(
        _background_block,
        ds.adu,
        ds.frame_setting,
        xr.DataArray(gain, dims=("frame", "panel")),
        input_core_dims=[image, [], ["panel"]],
        output_core_dims=[image, image, ["ring"]],
        output_dtypes=[np.float32, np.float32, float],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"ring": ds.sizes["ring"]}},
        kwargs={
            "pixels": pixels or list_pixels(ds),
            "cells": (ds.sizes["ring"], ds.sizes["azimuth"]),
            "how": Screening(
                common_mode_share=0.02 if common_mode == "zero-peak" else -1.0,
                clip_low=float(clip_low),
                clip_high=float(clip_high),
                clip_passes=int(clip_passes),
                ring_pixels=int(ring_pixels),
                threshold=float(threshold),
            ),
        },
    )
    return wrap(photons=photons, residual=residual, background_profile=profile)


def _background_block(
    adu: np.ndarray,
    setting: np.ndarray,
    gain: np.ndarray,
    *,
    pixels: tuple[PixelList, ...],
    cells: tuple[int, int],
    how: Screening,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    photons = np.full(adu.shape, np.nan, dtype=np.float32)
    residual = np.full(adu.shape, np.nan, dtype=np.float32)
    profile = np.empty((adu.shape[0], cells[0]))
    scratch = make_scratch(pixels, adu.shape[1:], cells[0])
    for frame in range(adu.shape[0]):
        subtract_rings(
            adu[frame].reshape(-1), adu.shape[1:], pixels[int(setting[frame])], cells[1], gain[frame], how, scratch,
            profile[frame], photons[frame].reshape(-1), residual[frame].reshape(-1),
        )  # fmt: skip
    return photons, residual, profile
