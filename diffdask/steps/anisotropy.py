"""Anisotropy features: how strongly a hit depends on azimuth, group of rings by group of rings."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr

from diffdask.errors import BadParameter
from diffdask.variables import require, wrap


def find_anisotropy_features(ds: xr.Dataset, *, band_count: int = 60, feature_q_min: float = 0.5) -> xr.Dataset:
    """Bring the anisotropy of rings together in bands, as an amplitude.

    Parameters
    ----------
    ds
        ``ring_anisotropy`` (frame, ring): azimuthal variance of the corrected residual beyond counting noise, over
        the squared ring mean, Bragg peaks left out. ``ring_q`` (ring).
    band_count
        Groups of neighbouring rings; must divide the number of rings.
    feature_q_min
        Lowest q of a band that is used, 1/angstrom: nearer the beam rings have few pixels and are ruled by shadows.

    Returns
    -------
    xarray.Dataset
        ``anisotropy_features`` (frame, ring_band): the root of the median over the band's rings, in units of the
        isotropic background; the sign of the median is kept, since below zero is noise as above. 0 in bands that are
        not used or have no estimate; NaN for frames that have none at all.

    Raises
    ------
    MissingVariable, BadParameter
        If the anisotropy is missing, or the bands would differ in their rings.

    Notes
    -----
    A variance goes with the square of a feature's strength: its root is the relative amplitude itself, so that loud
    frames do not rule.
    """
    require(ds, "ring_anisotropy", "ring_q")
    if band_count < 1 or ds.sizes["ring"] % band_count:
        raise BadParameter(f"band_count = {band_count} must divide the {ds.sizes['ring']} rings")
    features = xr.apply_ufunc(
        _find_amplitudes,
        ds.ring_anisotropy,
        input_core_dims=[["ring"]],
        output_core_dims=[["ring_band"]],
        output_dtypes=[float],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"ring_band": band_count}},
        kwargs={"is_used": ds.ring_q.values.reshape(band_count, -1).mean(axis=1) >= feature_q_min},
    )
    return wrap(anisotropy_features=features)


def _find_amplitudes(anisotropy: np.ndarray, is_used: np.ndarray) -> np.ndarray:
    """Amplitudes, (n, b), of the anisotropy of rings, (n, r); bands (b,) that are not used are 0."""
    bands = np.asarray(anisotropy, dtype=float).reshape(len(anisotropy), is_used.size, -1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # filled below
        median = np.nanmedian(bands, axis=2)
    is_known = np.isfinite(median) & is_used
    amplitude = np.where(is_known, np.sign(median) * np.sqrt(np.abs(median)), 0.0)
    return np.where(is_known.any(axis=1, keepdims=True), amplitude, np.nan)
