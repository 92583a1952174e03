"""Settings: frames whose camera length, photon energy and beam centre differ too little to matter share one.

Of millions of frames, what is made of their numbers takes gigabytes, so they are looked at some at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from diffdask.errors import BadGeometry

#: Frames closer than this share a setting: m, relative, m. Half a step of the first and the last moves the outermost
#: pixel of a CSPAD by less than 0.6 pixels; half a step of energy changes q by 0.5 %, a third of a polar ring.
_CAMERA_LENGTH_STEP, _ENERGY_STEP, _SHIFT_STEP = 1e-4, 1e-2, 2.5e-5

#: Frames whose numbers are looked at together.
_PIECE = 1 << 18

#: Camera length m, photon energy eV, shift x m, shift y m.
Setting = tuple[float, float, float, float]


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
    groups: list[tuple[np.ndarray, ...]] = []  # of each piece: how many frames, a frame, and how far all are from it
    count = 0
    for rows, numbers in _pieces_of_numbers(camera_length, photon_energy, run, detector_shift):
        numbers = numbers[usable[rows]]
        starts = _find_changes(numbers)
        first, place = _number_rows(_in_steps(numbers[starts], energy_origin))
        place = np.repeat(place, np.diff(starts, append=len(numbers)))
        frame_setting[rows][usable[rows]] = count + place
        count += first.size
        groups.append(_describe_groups(numbers, numbers[starts[first]], place))
    sizes, examples, away = (np.concatenate(column) for column in zip(*groups, strict=True))
    first, place = _number_rows(_in_steps(examples, energy_origin))
    frame_setting[usable] = place[frame_setting[usable]]
    apart = away + sizes[:, None] * (examples - examples[first][place])
    settings = examples[first] + _sum_alike(apart, place, first.size) / np.bincount(place, weights=sizes)[:, None]
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
    is_indexed = np.isfinite(detector_shift[:, 0]) & np.isfinite(detector_shift[:, 1])
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
    starts = _find_changes(keys)
    code = np.zeros(starts.size, dtype=np.int64)
    for column in keys[starts].T:
        values, place = np.unique(column, return_inverse=True)
        _, code = np.unique(code * values.size + place, return_inverse=True)
    _, first = np.unique(code, return_index=True)
    return starts[first], np.repeat(code, np.diff(starts, append=len(keys)))


def _find_changes(rows: np.ndarray) -> np.ndarray:
    """Rows of (row, column) that are not like the one before; the first is not."""
    is_other = np.ones(len(rows), dtype=bool)
    is_other[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return np.flatnonzero(is_other)


def _describe_groups(numbers: np.ndarray, examples: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, ...]:
    """Sizes of groups, their examples, and the sums of what their rows differ from those: zero where all are equal."""
    return np.bincount(place), examples, _sum_alike(numbers - examples[place], place, len(examples))


def _sum_alike(rows: np.ndarray, place: np.ndarray, count: int) -> np.ndarray:
    """Sum rows (row, column) of equal numbers, (number, column)."""
    return np.column_stack([np.bincount(place, weights=column, minlength=count) for column in rows.T])


def _has_setting(camera_length: np.ndarray, photon_energy: np.ndarray) -> np.ndarray:
    return np.isfinite(camera_length) & np.isfinite(photon_energy) & (photon_energy > 0)


def _steps_apart(numbers: np.ndarray, setting: np.ndarray) -> np.ndarray:
    """Distance of frames, (frame, 4), from settings, (frame, 4) or (4,), in the steps of the most different number."""
    energy = np.where(numbers[:, 1] > 0, numbers[:, 1], np.nan)
    apart = (numbers - setting) / (_CAMERA_LENGTH_STEP, 1.0, _SHIFT_STEP, _SHIFT_STEP)
    apart[:, 1] = np.log(energy / setting[..., 1]) / _ENERGY_STEP
    return np.asarray(np.abs(apart).max(axis=1))
