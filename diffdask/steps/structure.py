"""Structure of the single frame: a score without labels, orientations or other frames."""

from __future__ import annotations

import numpy as np
import xarray as xr

from diffdask.errors import BadParameter
from diffdask.kernels.polar import find_seen_rings
from diffdask.kernels.structure import find_structure_significance, weigh_pairs
from diffdask.variables import require, wrap


def find_structure(ds: xr.Dataset, *, feature_q_min: float = 0.5, structure_scale: float = 0.07) -> xr.Dataset:
    """Find how much more neighbouring polar bins of cleaned hits agree than bins further apart.

    Parameters
    ----------
    ds
        ``cleaned_residual`` (hit, polar_ring, azimuth): in units of its counting
        noise, what the run shares taken out; ``polar_ring_q`` and
        ``polar_coverage``: rings that are seen badly are left out.
    feature_q_min
        Lowest q of a ring that is used, 1/angstrom: nearer the beam rings have
        few pixels and are ruled by shadows.
    structure_scale
        Width of the features looked for, 1/angstrom: bins agree out to about
        twice as far. From 0.05 to 0.1 little changes on the campaigns it was tried on.

    Returns
    -------
    xarray.Dataset
        ``hit_structure`` (hit): 0 on average and of unit variance under counting
        noise alone, so that it counts in standard deviations; NaN where a hit has no bins.

    Raises
    ------
    MissingVariable, BadParameter
        If a variable is missing, no ring is seen well enough, or no two bins are as near as the scale.
    """
    require(ds, "cleaned_residual", "polar_ring_q", "polar_coverage")
    q = ds.polar_ring_q.values.astype(float)
    rings = find_seen_rings(q, ds.polar_coverage.values, feature_q_min)
    if rings is None:
        raise BadParameter(
            f"no polar ring above feature_q_min = {feature_q_min:g} 1/angstrom is seen well enough; "
            f"the rings go from {q[0]:.3g} to {q[-1]:.3g}"
        )
    q = q[rings]
    lags, weights = weigh_pairs(q, ds.sizes["azimuth"], structure_scale)
    if not (weights > 0.0).any():
        raise BadParameter(
            f"structure_scale = {structure_scale:g} 1/angstrom is finer than the polar bins, "
            f"which are {np.diff(q).min() if q.size > 1 else np.nan:.3g} 1/angstrom apart; give a larger one"
        )
    structure = xr.apply_ufunc(
        _structure_of_block,
        ds.cleaned_residual,
        input_core_dims=[["polar_ring", "azimuth"]],
        output_core_dims=[[]],
        output_dtypes=[float],
        dask="parallelized",
        kwargs={"rings": rings, "lags": lags, "weights": weights},
    )
    return wrap(hit_structure=structure)


def _structure_of_block(cleaned: np.ndarray, *, rings: slice, lags: np.ndarray, weights: np.ndarray) -> np.ndarray:
    found = [find_structure_significance(np.ascontiguousarray(hit[rings]), lags, weights) for hit in cleaned]
    return np.asarray(found, dtype=float)
