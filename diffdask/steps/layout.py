"""Lay out the pixels of a campaign: ring, azimuth and correction of each.

Frames of a campaign differ a little in camera length, photon energy and beam
centre. Frames whose differences do not matter share a *setting*; a setting has
one map from pixel to ring and azimuth. The rings themselves, as ranges of q,
are the same for all settings, so that profiles can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from diffdask.errors import BadGeometry, BadParameter
from diffdask.geometry import (
    Geometry,
    azimuths,
    momentum_transfer,
    pixel_positions,
    polarisation_factor,
    solid_angle_factor,
)
from diffdask.variables import require, wrap

#: Frames closer than this share a setting: m, relative, m. Half a step of the first and the last moves the outermost
#: pixel of a CSPAD by less than 0.6 pixels; half a step of energy changes q by 0.5 %, a third of a polar ring.
_CAMERA_LENGTH_STEP, _ENERGY_STEP, _SHIFT_STEP = 1e-4, 1e-2, 2.5e-5

#: Frames whose numbers are looked at together.
_PIECE = 1 << 18

#: Camera length m, photon energy eV, shift x m, shift y m.
Setting = tuple[float, float, float, float]


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


def group_settings(
    camera_length: np.ndarray, photon_energy: np.ndarray, run: np.ndarray, detector_shift: np.ndarray
) -> tuple[list[Setting], np.ndarray]:
    """Group frames by camera length, photon energy and the beam centre of their run.

    Parameters
    ----------
    camera_length, photon_energy, run
        (frame,) m, eV and number; not finite where a frame is not usable.
    detector_shift
        (frame, xy) m; NaN where not indexed. A run's shift is the median over
        its indexed frames, and zero where it has none.

    Returns
    -------
    list of tuple
        (camera length m, photon energy eV, shift x m, shift y m) of each setting:
        the mean of its frames, so that one setting stays exact.
    numpy.ndarray
        (frame,) index of the frame's setting; frames without energy or camera
        length are given setting 0 and must be told apart by ``frame_status``.
    """
    usable = _has_setting(camera_length, photon_energy)
    if not usable.any():
        raise BadGeometry("no frame has a photon energy and a camera length")
    energy_origin = np.median(photon_energy[usable])
    frame_setting = np.zeros(run.size, dtype=np.int32)
    examples = np.empty((0, 4))  # a frame of each setting of each piece
    for rows, numbers in _pieces_of_numbers(camera_length, photon_energy, run, detector_shift):
        numbers = numbers[usable[rows]]
        first, place = _number_rows(_in_steps(numbers, energy_origin))
        frame_setting[rows][usable[rows]] = len(examples) + place
        examples = np.concatenate([examples, numbers[first]])
    first, place = _number_rows(_in_steps(examples, energy_origin))
    frame_setting[usable] = place[frame_setting[usable]]
    away, size = np.zeros((first.size, 4)), np.zeros(first.size)
    for rows, numbers in _pieces_of_numbers(camera_length, photon_energy, run, detector_shift):
        mine = frame_setting[rows][usable[rows]]
        apart = (numbers[usable[rows]] - examples[first][mine]).T
        away += np.column_stack([np.bincount(mine, weights=one, minlength=first.size) for one in apart])
        size += np.bincount(mine, minlength=first.size)
    settings = examples[first] + away / size[:, None]
    return [tuple(setting) for setting in settings.tolist()], frame_setting


def extend_settings(
    settings: list[Setting],
    frame_setting: np.ndarray,
    camera_length: np.ndarray,
    photon_energy: np.ndarray,
    run: np.ndarray,
    detector_shift: np.ndarray,
) -> tuple[list[Setting], np.ndarray]:
    """Group frames that came after others were grouped: those others, the first ones, keep what they have.

    Grouping all of them again would move the settings of frames that were screened long ago.

    Parameters
    ----------
    settings, frame_setting
        From :func:`group_settings` or this function, for the first frames.
    camera_length, photon_energy, run, detector_shift
        As in :func:`group_settings`, of all frames.

    Returns
    -------
    list of tuple, numpy.ndarray
        As :func:`group_settings`; new settings come last.

    Raises
    ------
    BadGeometry
        If frames are gone, or one of the first frames no longer fits its setting.
    """
    known = frame_setting.size
    if known > run.size:
        raise BadGeometry(f"there are {run.size} frames, fewer than the {known} before")
    columns = (camera_length, photon_energy, run, detector_shift)
    usable = _has_setting(camera_length, photon_energy)
    found = np.zeros(run.size, dtype=np.int32)
    found[:known] = frame_setting
    is_new = np.zeros(run.size, dtype=bool)
    moved = 0
    for rows, numbers in _pieces_of_numbers(*columns):
        before = max(0, known - rows.start)  # rows of the piece that were grouped already
        # a frame is at most a step from the mean of its setting, and a hair for rounding
        apart = _steps_apart(numbers[:before], np.array(settings)[found[rows][:before]])
        moved += int((usable[rows][:before] & (apart > 1.01)).sum())
        nearest = np.full(len(numbers[before:]), 0.5)  # in steps; further away than that is a setting of its own
        is_new[rows][before:] = usable[rows][before:]
        for index, setting in enumerate(settings):
            apart = _steps_apart(numbers[before:], np.array(setting))
            closer = usable[rows][before:] & (apart <= nearest)
            found[rows][before:][closer], nearest[closer] = index, apart[closer]
            is_new[rows][before:][closer] = False
    if moved:
        raise BadGeometry(f"photon energy, camera length or beam centre of {moved} frames changed")
    if not is_new.any():
        return settings, found
    shift = np.concatenate([numbers[is_new[rows], 2:] for rows, numbers in _pieces_of_numbers(*columns)])
    added, found_added = group_settings(camera_length[is_new], photon_energy[is_new], run[is_new], shift)
    found[is_new] = len(settings) + found_added
    return [*settings, *added], found


def setting_columns(ds: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Columns that decide on a frame's setting, as :func:`group_settings` takes them."""
    return ds.camera_length.values, ds.photon_energy.values, ds.run.values, ds.detector_shift.values


def _pieces_of_numbers(
    camera_length: np.ndarray, photon_energy: np.ndarray, run: np.ndarray, detector_shift: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
    """Numbers that make a setting, some frames at a time: of millions, what is made of them takes gigabytes.

    Yields
    ------
    tuple
        (frames, numbers (frame, 4): camera length m, photon energy eV, shift x and y m of the frame's run).
    """
    runs, shifts = _run_shifts(run, detector_shift)
    for start in range(0, run.size, _PIECE):
        rows = slice(start, start + _PIECE)
        shift = shifts[np.searchsorted(runs, run[rows])]
        yield rows, np.column_stack([camera_length[rows], photon_energy[rows], shift])


def _run_shifts(run: np.ndarray, detector_shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs in order, and the median shift of each, (run, xy) m; zero where none of its frames is indexed."""
    runs = np.unique(run)
    shifts = np.zeros((runs.size, 2))
    is_indexed = np.isfinite(detector_shift).all(axis=1)
    of_indexed, seen = run[is_indexed], detector_shift[is_indexed]
    for number in np.unique(of_indexed):
        shifts[np.searchsorted(runs, number)] = np.median(seen[of_indexed == number], axis=0)
    return runs, shifts


def _in_steps(numbers: np.ndarray, energy_origin: float) -> np.ndarray:
    """Whole steps that make a setting, (frame, 4), of usable frames."""
    length, energy, shift = numbers[:, 0], numbers[:, 1], numbers[:, 2:]
    ratio = np.log(energy / energy_origin)
    return np.round(np.column_stack([length / _CAMERA_LENGTH_STEP, ratio / _ENERGY_STEP, shift / _SHIFT_STEP]))


def _number_rows(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number rows of keys (row, column), equal ones alike, in the order of the keys.

    As ``np.unique(..., axis=0)``, but fast, also where rows are mostly like the one before.

    Returns
    -------
    tuple
        (a row of each number, the number of each row).
    """
    changes = np.any(keys[1:] != keys[:-1], axis=1)
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(keys)), dtype=bool), changes]))
    code = np.zeros(starts.size, dtype=np.int64)
    for column in keys[starts].T:
        values, place = np.unique(column, return_inverse=True)
        _, code = np.unique(code * values.size + place, return_inverse=True)
    _, first = np.unique(code, return_index=True)
    return starts[first], np.repeat(code, np.diff(starts, append=len(keys)))


def _has_setting(camera_length: np.ndarray, photon_energy: np.ndarray) -> np.ndarray:
    return np.isfinite(camera_length) & np.isfinite(photon_energy) & (photon_energy > 0)


def _steps_apart(numbers: np.ndarray, setting: np.ndarray) -> np.ndarray:
    """Distance of frames, (frame, 4), from settings, (frame, 4) or (4,), in the steps of the most different number."""
    energy = np.where(numbers[:, 1] > 0, numbers[:, 1], np.nan)
    apart = (numbers - setting) / (_CAMERA_LENGTH_STEP, 1.0, _SHIFT_STEP, _SHIFT_STEP)
    apart[:, 1] = np.log(energy / setting[..., 1]) / _ENERGY_STEP
    return np.asarray(np.abs(apart).max(axis=1))


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
