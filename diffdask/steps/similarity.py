"""How much pairs of hits agree: as pictures on the detector, or along the arcs their Ewald spheres share.

Three similarities, each exp(``pair_agreement``) of two blocks of hits:

- euclidean, exp(-d^2 / sigma): :func:`find_euclidean_agreement`
- correlation, exp(cc): :func:`find_correlation_agreement`
- common arc, exp(cc along the arcs): :func:`find_arc_agreement`

Blocks are in memory; which blocks there are is planned by
:func:`diffdask.planning.tiles_of`.
"""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from diffdask.errors import BadParameter
from diffdask.geometry import EV_ANGSTROM
from diffdask.kernels.arcs import pack_frames, sum_arcs
from diffdask.kernels.similarity import correlate_bins, count_shared, mean_squared_difference
from diffdask.symmetry import crystal_rotations
from diffdask.variables import require, wrap


def prepare_hits(
    ds: xr.Dataset,
    *,
    q_min: float = 0.0,
    q_max: float = math.inf,
    ring_share: float = 0.2,
    spread_floor: float = 1.0,
) -> xr.Dataset:
    """Choose the rings that are compared and standardise each of them over azimuth, lazily.

    Parameters
    ----------
    ds
        Hits: ``cleaned_residual`` and ``polar_ring_q``.
    q_min, q_max
        Rings that are compared, 1/angstrom.
    ring_share
        Smallest share of azimuths a hit must have of a ring; less, and the ring
        is missing there.
    spread_floor
        Rings that spread less than this, in counting noise, are divided by it
        instead: noise that cleaning has taken down is not blown up. 0 gives
        every ring unit variance.

    Returns
    -------
    xarray.Dataset
        ``standardised_residual`` (hit, similarity_ring, azimuth) float32, NaN
        where missing, and ``similarity_ring_q`` (similarity_ring).

    Raises
    ------
    BadParameter
        If no ring is left.
    """
    require(ds, "cleaned_residual", "polar_ring_q")
    q = np.asarray(ds.polar_ring_q.values, dtype=float)
    chosen = np.flatnonzero((q >= q_min) & (q <= q_max))
    if len(chosen) == 0:
        raise BadParameter(f"no ring lies between q_min = {q_min} and q_max = {q_max}: {_span(q)}")
    residual = xr.apply_ufunc(
        _standardise,
        ds.cleaned_residual.isel(polar_ring=chosen),
        input_core_dims=[["polar_ring", "azimuth"]],
        output_core_dims=[["polar_ring", "azimuth"]],
        output_dtypes=[np.float32],
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True},
        kwargs={"ring_share": ring_share, "spread_floor": spread_floor},
    )
    return wrap(standardised_residual=residual.data, similarity_ring_q=q[chosen])


def orient_hits(ds: xr.Dataset, *, cell: np.ndarray) -> xr.Dataset:
    """Put hits into the crystal's frame.

    Parameters
    ----------
    ds
        ``orientation`` and ``photon_energy``, its frames being the hits.
    cell
        (3, 3) from :func:`diffdask.symmetry.mean_cell`.

    Returns
    -------
    xarray.Dataset
        ``crystal_rotation`` (hit, crystal_xyz, xyz), NaN where not indexed, and
        ``hit_wavelength`` (hit), angstrom.
    """
    require(ds, "orientation", "photon_energy")
    return wrap(
        crystal_rotation=crystal_rotations(np.asarray(ds.orientation.values, dtype=float), cell),
        hit_wavelength=EV_ANGSTROM / np.asarray(ds.photon_energy.values, dtype=float),
    )


def find_squared_distance(rows: xr.Dataset, columns: xr.Dataset) -> np.ndarray:
    """Mean squared difference, (hit, other_hit), over the bins that both have; NaN where there are none.

    Its median over pairs is a scale for :func:`find_euclidean_agreement`.
    """
    return np.asarray(mean_squared_difference(_flat(rows), _flat(columns)))


def find_euclidean_agreement(rows: xr.Dataset, columns: xr.Dataset, *, sigma: float) -> xr.Dataset:
    """Compare hits by their distance on the detector.

    Parameters
    ----------
    rows, columns
        Two blocks of hits with ``standardised_residual``.
    sigma
        Squared distance at which the similarity is 1 / e, for instance the
        median of :func:`find_squared_distance` over some hits of the run.

    Returns
    -------
    xarray.Dataset
        ``pair_agreement`` (hit, other_hit) float32, -d^2 / sigma with d^2 the mean
        squared difference over the bins that both have; ``pair_samples``.

    Raises
    ------
    BadParameter
        If sigma is not positive.
    """
    if not sigma > 0:
        raise BadParameter(f"sigma = {sigma} must be positive: the squared distance at which similarity is 1 / e")
    agreement = -find_squared_distance(rows, columns) / sigma
    return wrap(
        pair_agreement=agreement.astype(np.float32),
        pair_samples=count_shared(_flat(rows), _flat(columns)).astype(np.int32),
    )


def find_correlation_agreement(rows: xr.Dataset, columns: xr.Dataset) -> xr.Dataset:
    """Compare hits by their correlation on the detector.

    Parameters
    ----------
    rows, columns
        Two blocks of hits with ``standardised_residual``.

    Returns
    -------
    xarray.Dataset
        ``pair_agreement`` (hit, other_hit) float32, the correlation over the bins
        that both have; ``pair_samples``.
    """
    return wrap(
        pair_agreement=correlate_bins(_flat(rows), _flat(columns)).astype(np.float32),
        pair_samples=count_shared(_flat(rows), _flat(columns)).astype(np.int32),
    )


def find_arc_agreement(
    rows: xr.Dataset,
    columns: xr.Dataset,
    *,
    rotations: np.ndarray,
    friedel: bool = True,
    is_diagonal: bool = False,
    oversampling: int = 4,
    min_angle: float = 5.0,
    min_samples: int = 64,
) -> xr.Dataset:
    """Compare hits along the arcs where their Ewald spheres meet.

    Parameters
    ----------
    rows, columns
        Two blocks of hits with ``standardised_residual``, ``similarity_ring_q``,
        ``crystal_rotation`` and ``hit_wavelength``.
    rotations
        (g, 3, 3) of the Laue group in the crystal's frame, from
        :func:`diffdask.symmetry.cartesian_rotations`.
    friedel
        Whether -q has the intensity of q.
    is_diagonal
        Rows and columns are the same hits: only pairs above the diagonal are
        computed, and mirrored; a hit has no agreement with itself.
    oversampling
        Steps of the linear interpolation within an azimuthal bin; 1 takes the nearest bin.
    min_angle
        Beams closer than this in the crystal's frame, in degrees, give no arc: its direction is
        too uncertain.
    min_samples
        Fewest samples of an agreement.

    Returns
    -------
    xarray.Dataset
        ``pair_agreement`` (hit, other_hit) float32: one correlation pooled over all
        arcs, sum x y / sqrt(sum x^2 sum y^2); NaN where there are too few
        samples, or a hit is not indexed. ``pair_samples``.
    """
    sums = _sum_over_tile(rows, columns, rotations, friedel, is_diagonal, oversampling, min_angle)
    if is_diagonal:
        sums += sums.transpose(1, 0, 2)
    agreement, samples = _pool(sums, min_samples)
    return wrap(pair_agreement=agreement, pair_samples=samples)


def find_ambiguity_agreement(
    rows: xr.Dataset,
    columns: xr.Dataset,
    *,
    rotations: np.ndarray,
    ambiguities: np.ndarray,
    friedel: bool = True,
    is_diagonal: bool = False,
    oversampling: int = 4,
    min_angle: float = 5.0,
    min_samples: int = 64,
) -> xr.Dataset:
    """Compare hits along their common arcs under each labelling of the column's axes.

    Parameters
    ----------
    rows, columns, rotations, friedel, is_diagonal, oversampling, min_angle, min_samples
        As in :func:`find_arc_agreement`. On the diagonal all pairs but those of
        a hit with itself are computed: exchanging two hits inverts the labelling.
    ambiguities
        (m, 3, 3) of :func:`diffdask.symmetry.ambiguity_rotations`, in the
        crystal's frame; applied to the columns.

    Returns
    -------
    xarray.Dataset
        ``ambiguity_agreement`` and ``ambiguity_samples`` (ambiguity, hit, other_hit).
    """
    found = []
    for ambiguity in ambiguities:
        sums = _sum_over_tile(rows, columns, rotations @ ambiguity, friedel, False, oversampling, min_angle)
        if is_diagonal:
            sums[np.diag_indices(len(sums))] = 0
        found.append(_pool(sums, min_samples))
    return wrap(
        ambiguity_agreement=np.stack([agreement for agreement, _ in found]),
        ambiguity_samples=np.stack([samples for _, samples in found]),
    )


def _standardise(values: np.ndarray, *, ring_share: float, spread_floor: float) -> np.ndarray:
    is_there = ~np.isnan(values)
    count = is_there.sum(axis=-1, keepdims=True)
    is_seen = (count >= ring_share * values.shape[-1]) & (count > 1)
    share = np.where(is_seen, 1.0 / np.maximum(count, 1), np.nan)
    centred = values - np.nansum(values, axis=-1, keepdims=True, dtype=float) * share
    spread = np.sqrt(np.nansum(centred**2, axis=-1, keepdims=True) * share)
    spread = np.maximum(spread, spread_floor)
    return np.asarray(centred / np.where(spread > 0.0, spread, np.nan), dtype=np.float32)


def _flat(ds: xr.Dataset) -> np.ndarray:
    require(ds, "standardised_residual")
    values = np.asarray(ds.standardised_residual.values, dtype=np.float32)
    return values.reshape(len(values), -1)


def _sum_over_tile(
    rows: xr.Dataset,
    columns: xr.Dataset,
    rotations: np.ndarray,
    friedel: bool,
    is_diagonal: bool,
    oversampling: int,
    min_angle: float,
) -> np.ndarray:
    """Sums of xy, xx, yy and the number of samples, (hit, other_hit, 4)."""
    for ds in (rows, columns):
        require(ds, "standardised_residual", "similarity_ring_q", "crystal_rotation", "hit_wavelength")
    if oversampling < 1:
        raise BadParameter(f"oversampling = {oversampling} must be at least 1")
    row_values, row_axes, row_sines = _packed(rows, oversampling)
    column_values, column_axes, column_sines = _packed(columns, oversampling)
    sums = np.empty((len(row_values), len(column_values), 4), dtype=np.int64)
    # Within half a bin of the plane of the two beams both branches fall into the same bins, and the arc runs
    # along the ring: such points are left out.
    limits = np.array([math.sin(math.radians(min_angle)), math.cos(math.pi / rows.sizes["azimuth"])])
    skip = 1 if is_diagonal else -len(row_values)
    sum_arcs(
        *(row_values, column_values, row_axes, column_axes, row_sines, column_sines),
        *(np.ascontiguousarray(rotations, dtype=float), friedel, limits, skip, sums),
    )
    return sums


def _packed(ds: xr.Dataset, oversampling: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    axes = np.ascontiguousarray(ds.crystal_rotation.values, dtype=float)
    sines = np.outer(ds.hit_wavelength.values, ds.similarity_ring_q.values) / (4.0 * math.pi)
    if (sines >= 1.0).any():
        q, wavelength = float(ds.similarity_ring_q.max()), float(ds.hit_wavelength.max())
        raise BadParameter(f"no beam of {wavelength:.3f} angstrom reaches q = {q:.3f} 1/angstrom: lower q_max")
    return pack_frames(np.asarray(ds.standardised_residual.values, dtype=np.float32), oversampling), axes, sines


def _pool(sums: np.ndarray, min_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Pooled correlation, float32 with NaN below ``min_samples``, and the number of samples."""
    samples = sums[..., 3].astype(np.int32)
    scale = np.sqrt(sums[..., 1].astype(float) * sums[..., 2])
    is_enough = (samples >= max(min_samples, 1)) & (scale > 0.0)
    agreement = np.divide(sums[..., 0], scale, out=np.full(scale.shape, np.nan), where=is_enough)
    return agreement.astype(np.float32), samples


def _span(q: np.ndarray) -> str:
    return f"polar rings lie from {q.min():.3f} to {q.max():.3f} 1/angstrom"
