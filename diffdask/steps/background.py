"""Photons and residual of whole frames, as lazy arrays."""

from __future__ import annotations

import numpy as np
import xarray as xr

from diffdask.errors import BadParameter
from diffdask.geometry import Geometry
from diffdask.kernels.background import clip_rings
from diffdask.kernels.photons import count_photons, find_zero_peak
from diffdask.pixels import PixelList, list_pixels, photons_per_adu
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
            "ring_count": ds.sizes["ring"],
            "common_mode_share": 0.02 if common_mode == "zero-peak" else -1.0,
            "clipping": (float(clip_low), float(clip_high), float(threshold), int(clip_passes), int(ring_pixels)),
        },
    )
    return wrap(photons=photons, residual=residual, background_profile=profile)


def _background_block(
    adu: np.ndarray,
    setting: np.ndarray,
    gain: np.ndarray,
    *,
    pixels: tuple[PixelList, ...],
    ring_count: int,
    common_mode_share: float,
    clipping: tuple[float, float, float, int, int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    photons = np.full(adu.shape, np.nan, dtype=np.float32)
    residual = np.full(adu.shape, np.nan, dtype=np.float32)
    profile = np.empty((adu.shape[0], ring_count))
    deviation, left = np.empty(ring_count), np.empty(ring_count, dtype=np.int64)
    offset = np.zeros(gain.shape[1], dtype=np.float32)
    for frame in range(adu.shape[0]):
        used = pixels[int(setting[frame])]
        flat = adu[frame].reshape(-1)
        values = np.empty(used.place.size, dtype=np.float32)
        if common_mode_share >= 0:
            find_zero_peak(flat, used.place, used.panel, gain[frame], common_mode_share, offset)
        count_photons(flat, used.place, used.panel, used.correction, offset, gain[frame], values)
        clip_rings(values, used.ring, *clipping, profile[frame], deviation, left)
        photons[frame].reshape(-1)[used.place] = values
        residual[frame].reshape(-1)[used.place] = values - profile[frame][used.ring]
    return photons, residual, profile
