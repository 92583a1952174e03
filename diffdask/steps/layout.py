"""Lay out the pixels of a campaign: ring, azimuth and correction of each.

Frames of a campaign differ a little in camera length, photon energy and beam
centre. Frames whose differences do not matter share a *setting*; a setting has
one map from pixel to ring and azimuth. The rings themselves, as ranges of q,
are the same for all settings, so that profiles can be compared.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from diffdask.errors import BadGeometry, BadParameter
from diffdask.frame_settings import Setting, group_settings, setting_columns
from diffdask.geometry import (
    Geometry,
    azimuths,
    momentum_transfer,
    pixel_positions,
    polarisation_factor,
    solid_angle_factor,
)
from diffdask.variables import require, wrap


def lay_out_rings(
    ds: xr.Dataset,
    *,
    ring_count: int = 480,
    azimuth_count: int = 72,
    q_min: float = 0.0,
    q_max: float = 0.0,
    polarisation_fraction: float = 0.98,
    polarisation_angle: float = 0.0,
    wide_columns: str = "leave-out",
    grouped: tuple[list[Setting], np.ndarray] | None = None,
) -> xr.Dataset:
    """Assign every pixel its ring, its azimuth and its correction, for each setting of the campaign.

    Parameters
    ----------
    ds
        Needs the geometry, ``pixel_is_good`` and the columns ``photon_energy``,
        ``camera_length``, ``run`` and ``detector_shift`` of **all** frames of the
        campaign.
    ring_count
        Number of rings, equal in q.
    azimuth_count
        Number of azimuthal bins.
    q_min, q_max
        Range of the rings, 1/angstrom; 0 for what the detector covers.
    polarisation_fraction
        Degree of linear polarisation, -1 to 1.
    polarisation_angle
        Its direction from +x, degrees: 0 horizontal (LCLS before Run 18), 90 vertical.
    wide_columns
        CSPAD's wide pixels: "leave-out" or "divide" by their area.
    grouped
        What :func:`group_settings` or :func:`extend_settings` gives, if not what the first would give now.

    Returns
    -------
    xarray.Dataset
        ``frame_setting`` (frame), ``pixel_ring``, ``pixel_azimuth``,
        ``pixel_correction`` (setting, panel, ss, fs), ``ring_q`` (ring),
        ``azimuth`` (azimuth); the attribute ``q_range``. A correction is what corrected photons are
        multiplied by: 1 / (polarisation x solid angle x relative area).

    Raises
    ------
    BadParameter, BadGeometry
        If a number makes no sense, or no pixel is left.
    """
    _check_parameters(ring_count, azimuth_count, q_min, q_max, polarisation_fraction, wide_columns)
    require(ds, "pixel_is_good", "photon_energy", "camera_length", "run", "detector_shift")
    geometry = Geometry.from_dataset(ds)
    settings, frame_setting = grouped or group_settings(*setting_columns(ds))
    good = ds.pixel_is_good.values & _usable_columns(ds, wide_columns)
    if not good.any():
        raise BadGeometry("no pixel is good: look at the mask and at the bad regions of the geometry file")
    area = np.where(ds.pixel_is_wide.values, 2.5, 1.0) if "pixel_is_wide" in ds else 1.0
    placed = [_place(geometry, setting) for setting in settings]
    q_range = _q_range([q[good] for q, _, _ in placed], q_min, q_max)
    edges = np.linspace(q_range[0], q_range[1] * (1 + 1e-9), ring_count + 1)
    maps = [
        (
            _bin_rings(q, good, edges),
            _bin_azimuths(angle, azimuth_count),
            (
                1.0
                / polarisation_factor(positions, fraction=polarisation_fraction, angle=polarisation_angle)
                / solid_angle_factor(geometry, positions, camera_length=setting[0])
                / area
            ).astype(np.float32),
        )
        for setting, (q, angle, positions) in zip(settings, placed, strict=True)
    ]
    ring, azimuth, correction = (np.stack(column) for column in zip(*maps, strict=True))
    layout = wrap(
        frame_setting=frame_setting,
        pixel_ring=ring,
        pixel_azimuth=azimuth,
        pixel_correction=correction,
        ring_q=(edges[1:] + edges[:-1]) / 2,
        azimuth=(np.arange(azimuth_count) + 0.5) * 2 * np.pi / azimuth_count,
    )
    layout.attrs["q_range"] = q_range
    return layout


def _place(geometry: Geometry, setting: Setting) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    length, energy, x, y = setting
    if length <= 0:
        raise BadGeometry(f"camera length {length:g} m: clen plus coffset must be positive; look at both in the .geom")
    positions = pixel_positions(geometry, camera_length=length, shift=(x, y))
    return momentum_transfer(positions, energy), azimuths(positions), positions


def _q_range(q: list[np.ndarray], q_min: float, q_max: float) -> tuple[float, float]:
    low = q_min or min(float(values.min()) for values in q)
    high = q_max or max(float(values.max()) for values in q)
    if not low < high:
        raise BadParameter(f"q_min {low:g} must be below q_max {high:g} (1/angstrom)")
    return low, high


def _bin_rings(q: np.ndarray, good: np.ndarray, edges: np.ndarray) -> np.ndarray:
    ring = np.floor((q - edges[0]) / (edges[1] - edges[0])).astype(np.int32)
    ring[(ring < 0) | (ring >= edges.size - 1) | ~good] = -1
    return ring


def _bin_azimuths(angle: np.ndarray, azimuth_count: int) -> np.ndarray:
    return np.minimum((angle / (2 * np.pi) * azimuth_count).astype(np.int32), azimuth_count - 1)


def _usable_columns(ds: xr.Dataset, wide_columns: str) -> np.ndarray:
    if "pixel_is_wide" in ds and wide_columns == "leave-out":
        return ~ds.pixel_is_wide.values
    return np.ones(ds.pixel_is_good.shape, dtype=bool)


def _check_parameters(
    ring_count: int, azimuth_count: int, q_min: float, q_max: float, polarisation_fraction: float, wide_columns: str
) -> None:
    if ring_count < 1 or azimuth_count < 16:  # with fewer, azimuthal features would pair a bin with itself
        raise BadParameter(f"ring_count = {ring_count} and azimuth_count = {azimuth_count}: give at least 1 and 16")
    if q_min < 0 or q_max < 0:
        raise BadParameter(f"q_min = {q_min} and q_max = {q_max} must not be negative (1/angstrom; 0 for all)")
    if not -1 <= polarisation_fraction <= 1:
        raise BadParameter(f"polarisation_fraction = {polarisation_fraction} must lie between -1 and 1")
    if wide_columns not in ("leave-out", "divide"):
        raise BadParameter(f"wide_columns = {wide_columns!r}; known: 'leave-out', 'divide'")
