"""Azimuthal features: what a hit's polar residual looks like, whatever way the crystal was turned about the beam."""

from __future__ import annotations

import itertools

import numpy as np
import xarray as xr

from diffdask.errors import BadParameter
from diffdask.kernels.azimuthal import correlate_neighbours, find_angular_power
from diffdask.kernels.polar import find_seen_rings
from diffdask.variables import require, wrap

#: (ring lag, azimuthal lag) of the pairs of bins whose correlation is a feature: at most about 40 degrees apart.
_LAGS = (
    *((0, lag) for lag in range(1, 9)),
    *((1, lag) for lag in range(-4, 5)),
    *((2, lag) for lag in range(-4, 5)),
)
_HARMONICS = 12


def find_azimuthal_features(ds: xr.Dataset, *, ring_groups: int = 4, feature_q_min: float = 0.5) -> xr.Dataset:
    """Correlate the polar bins of cleaned hits with their neighbours, and find their angular power.

    Parameters
    ----------
    ds
        ``cleaned_residual`` (hit, polar_ring, azimuth): in units of its counting
        noise, what the run shares taken out; ``polar_ring_q`` and
        ``polar_coverage``: rings that are seen badly are left out.
    ring_groups
        Groups of neighbouring polar rings that are looked at one by one, beside all rings at once.
    feature_q_min
        Lowest q of a ring that is used, 1/angstrom: nearer the beam rings have
        few pixels and are ruled by shadows.

    Returns
    -------
    xarray.Dataset
        ``azimuthal_features`` (hit, feature): for all rings, and then for each
        group (halved, as it has fewer pairs): correlations at 26 lags and the
        power of 12 harmonics, through arcsinh(10 x), which is linear below a
        tenth of the counting noise and tames loud frames above.

    Raises
    ------
    MissingVariable, BadParameter
        If the residual is missing, or a group would have fewer than three rings.
    """
    require(ds, "cleaned_residual")
    features = xr.apply_ufunc(
        _features_of_block,
        ds.cleaned_residual,
        input_core_dims=[["polar_ring", "azimuth"]],
        output_core_dims=[["feature"]],
        output_dtypes=[float],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"feature": (1 + ring_groups) * (len(_LAGS) + _HARMONICS)}},
        kwargs={"groups": group_seen_rings(ds, ring_groups=ring_groups, feature_q_min=feature_q_min)},
    )
    return wrap(azimuthal_features=features)


def group_seen_rings(ds: xr.Dataset, *, ring_groups: int, feature_q_min: float) -> list[slice]:
    """Group the polar rings whose features are found: all of them, then ``ring_groups`` parts.

    Parameters
    ----------
    ds
        ``polar_ring_q`` and ``polar_coverage`` (polar_ring).
    ring_groups, feature_q_min
        As in :func:`find_azimuthal_features`.

    Returns
    -------
    list of slice
        From the first to the last ring above ``feature_q_min`` of which at least
        half as much is seen as of the best one.
    """
    require(ds, "polar_ring_q", "polar_coverage")
    q = ds.polar_ring_q.values
    rings = find_seen_rings(q, ds.polar_coverage.values, feature_q_min)
    if rings is None:
        raise BadParameter(
            f"no polar ring above feature_q_min = {feature_q_min:g} 1/angstrom is seen well enough; "
            f"the rings go from {q[0]:.3g} to {q[-1]:.3g}"
        )
    first, count = rings.start, rings.stop - rings.start
    return [slice(s.start + first, s.stop + first) for s in split_rings(count, ring_groups)]


def split_rings(ring_count: int, ring_groups: int) -> list[slice]:
    """All rings, then groups of neighbouring rings of nearly equal number.

    Examples
    --------
    >>> split_rings(7, 2)
    [slice(0, 7, None), slice(0, 4, None), slice(4, 7, None)]
    """
    if ring_groups < 1 or ring_count < 3 * ring_groups:
        raise BadParameter(
            f"ring_groups = {ring_groups} leaves fewer than three of the {ring_count} well-seen polar rings a group; "
            "give fewer groups, or more polar rings"
        )
    edges = [-(-ring_count * group // ring_groups) for group in range(ring_groups + 1)]
    return [slice(0, ring_count), *(slice(a, b) for a, b in itertools.pairwise(edges))]


def _features_of_block(cleaned: np.ndarray, *, groups: list[slice]) -> np.ndarray:
    near = np.stack([correlate_neighbours(cleaned, groups, *lag) for lag in _LAGS], axis=2)
    bins = cleaned.shape[2]
    along = np.stack([correlate_neighbours(cleaned, groups, 0, lag) for lag in range(1, bins // 2 + 1)], axis=2)
    features = np.arcsinh(10.0 * np.concatenate([near, find_angular_power(along, bins, _HARMONICS)], axis=2))
    features[:, 1:] /= 2.0
    return np.asarray(features.reshape(cleaned.shape[0], int(np.prod(features.shape[1:]))))
