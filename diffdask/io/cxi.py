"""CXI and HDF5 files of frames, as Cheetah, psocake, OM and European XFEL write them.

A ``.geom`` says where the pixels lie (:mod:`diffdask.io.crystfel_geometry`); a
frame is addressed by its event, written as CrystFEL does: ``//12`` is number 12
along the ``%`` axis, ``name//`` the group that stands for ``%`` in the path,
``name//12`` both, ``//`` the only frame of a file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers the compression filters
import numpy as np

from diffdask.errors import BadFrames, BadGeometry
from diffdask.io.crystfel_geometry import GeometryFile, file_frame_shape, take_panels
from diffdask.io.crystfel_stream import NO_EVENT
from diffdask.planning import runs_of

#: Stacked CSPAD panels and the slab that Cheetah makes of them: quadrants side by side, 8 panels below each other.
_CSPAD_STACK, _CSPAD_SLAB = (32, 185, 388), (1480, 1552)

#: What h5py raises, of damage and of storage alike; HDF5 writes the number of the system's error into its message.
_OF_HDF5 = (OSError, RuntimeError, ValueError, KeyError)
_NUMBER = re.compile(r"errno = (\d+)")


def read_frames(path: str | Path, layout: GeometryFile, events: Sequence[str], out: np.ndarray) -> dict[int, str]:
    """Read frames of one file into panels.

    Parameters
    ----------
    path
        CXI or HDF5 file.
    layout
        The geometry.
    events
        Which frames.
    out
        (frame, panel, ss, fs), filled; zeros where a frame cannot be read.

    Returns
    -------
    dict
        Position in ``events`` to the reason, for frames that cannot be read.

    Raises
    ------
    BadFrames
        If the whole file is of no use: damaged, or not as the geometry says.
    OSError
        If storage does not give the file, or a part of it: that says nothing of the frames.
    """
    reasons: dict[int, str] = {}
    out[...] = 0
    with open_file(path) as file:
        for data_path in dict.fromkeys(layout.data_path):
            which = [index for index, one in enumerate(layout.data_path) if one == data_path]
            for positions, read in _readings(file, layout, which[0], events):
                _read_into(out, positions, read, layout, which, reasons)
    for position in reasons:
        out[position] = 0
    return reasons


def list_events(file: h5py.File, layout: GeometryFile) -> list[str]:
    """List the events of an open file in order, as CrystFEL writes them."""
    names = _names_in_path(file, layout.data_path[0])
    if "%" not in layout.dims[0]:
        return [f"{name}{NO_EVENT}" for name in names]
    return [f"{name}//{number}" for name in names for number in range(_frame_count(file, layout, name))]


@contextlib.contextmanager
def open_file(path: str | Path) -> Iterator[h5py.File]:
    """Open a file for reading, and tell what fails until it is closed.

    Raises
    ------
    BadFrames
        If the file is truncated, or no HDF5 file.
    OSError
        If storage does not give it, when it is opened or later; with the system's number, and the file's name.
    """
    try:
        with _opened(path) as file:
            yield file
    except _OF_HDF5 as error:
        number = _storage_error(error)
        if number is None or getattr(error, "filename", None):  # named already: it was a mask's file
            raise
        raise OSError(number, os.strerror(number), os.fspath(path)) from error


def dataset_at(file: h5py.File, where: str) -> h5py.Dataset | None:
    """Dataset at a path, links followed; None if there is none."""
    try:
        found = file[where]
    except KeyError as error:
        if _storage_error(error) is not None:
            raise
        return None
    return found if isinstance(found, h5py.Dataset) else None


def data_of(file: h5py.File, layout: GeometryFile, panel: int, name: str) -> h5py.Dataset:
    """Dataset with a panel's pixels; ``name`` stands for a '%' in its path."""
    where = layout.data_path[panel].replace("%", name, 1)
    found = dataset_at(file, where)
    if found is None:
        raise BadFrames(
            f"'{file.filename}' has no dataset '{where}', where the geometry looks for frames. "
            f"It has {_told_datasets(file)}: change 'data' in the geometry"
        )
    _check_parts(found)
    return found


def _check_parts(dataset: h5py.Dataset) -> None:
    """Check that the files of a virtual dataset are there: what is not there would read as zeros.

    Raises
    ------
    FileNotFoundError
        If one is not.
    """
    if not dataset.is_virtual:
        return
    folder = os.path.dirname(dataset.file.filename)
    for name in dict.fromkeys(part.file_name for part in dataset.virtual_sources()):
        path = os.path.join(folder, name)
        if name != "." and "%" not in name and not os.path.isfile(path):  # "%b" stands for a number: any may be absent
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _opened(path: str | Path) -> h5py.File:
    try:
        # A large chunk cache: some writers put many frames into one chunk.
        return h5py.File(path, "r", locking="best-effort", rdcc_nbytes=64 * 1024**2)
    except OSError as error:
        if _storage_error(error) is not None:
            raise
        is_short = "truncated" in str(error)
        told = "is truncated: copy it again, or leave it out" if is_short else "is no HDF5 file that can be opened"
        raise BadFrames(f"'{path}' {told} ({error})") from error


def _storage_error(error: Exception) -> int | None:
    """Give the system's number where storage failed; None where what it gave is damaged, or not there.

    Examples
    --------
    >>> _storage_error(KeyError("Unable to open object (file read failed: errno = 116, ...)"))
    116
    >>> _storage_error(OSError("Can't read data (filter returned failure during read)"))
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _NUMBER.search(str(error))
    return int(found[1]) if found else None


def _names_in_path(file: h5py.File, data_path: str) -> list[str]:
    """Names that the '%' of a path stands for; one empty name where there is no '%'."""
    if "%" not in data_path:
        return [""]
    folder, _, rest = data_path.partition("%")
    parent, _, start = folder.rpartition("/")
    end, _, below = rest.partition("/")
    group = file.get(parent or "/")
    pattern = re.compile(re.escape(start) + "(.+)" + re.escape(end))
    matches = [match for match in map(pattern.fullmatch, group or ()) if match]
    names = [m[1] for m in matches if dataset_at(file, "/".join(filter(None, [parent, m[0], below]))) is not None]
    if not names:
        raise BadFrames(
            f"'{file.filename}' has no dataset like '{data_path}', where the geometry looks for frames. "
            f"It has {_told_datasets(file)}: change 'data' in the geometry"
        )
    return names


def _frame_count(file: h5py.File, layout: GeometryFile, name: str) -> int:
    dataset = data_of(file, layout, 0, name)
    _check_rank(dataset, layout, 0)
    return int(dataset.shape[layout.dims[0].index("%")])


def _check_rank(dataset: h5py.Dataset, layout: GeometryFile, panel: int) -> None:
    dims = layout.dims[panel]
    if dataset.ndim == len(dims) or (dataset.ndim == len(dims) + 1 and len(dims) - dims.count("%") == 2):
        return
    told = ", ".join(f"dim{number} = {dim}" for number, dim in enumerate(dims))
    raise BadGeometry(
        f"'{dataset.file.filename}': '{dataset.name}' has shape {dataset.shape}, but the geometry says {told}: "
        "give a 'dim' line for every axis, '%' for the axis of frames"
    )


def check_fit(file: h5py.File, layout: GeometryFile, events: list[str]) -> str:
    """Check that every dataset of the first event is large enough for the panels; give the pixels' dtype."""
    dtypes = set()
    for panel in dict.fromkeys(layout.data_path.index(one) for one in layout.data_path):
        name, _ = split_event(events[0]) if events else ("", None)
        dataset = data_of(file, layout, panel, name)
        _check_rank(dataset, layout, panel)
        which = [index for index, one in enumerate(layout.data_path) if one == layout.data_path[panel]]
        shape = frame_shape(dataset, layout, panel)
        try:
            blank = np.broadcast_to(np.zeros((), dataset.dtype), shape)
            take_panels(as_slab(blank, layout, panel), layout, panels=which)
        except BadGeometry as error:
            raise BadGeometry(f"'{file.filename}': {error}") from error
        dtypes.add(dataset.dtype.newbyteorder("="))
    if len(dtypes) > 1 or next(iter(dtypes)).kind not in "iuf":
        raise BadFrames(
            f"'{file.filename}' holds pixels of type {', '.join(map(str, dtypes))}; expected one of numbers"
        )
    return str(dtypes.pop())


def frame_shape(dataset: h5py.Dataset, layout: GeometryFile, panel: int) -> tuple[int, ...]:
    """Shape of one frame in a dataset."""
    dims = layout.dims[panel]
    axis = dims.index("%") if "%" in dims else None
    return tuple(size for number, size in enumerate(dataset.shape) if number != axis)


def as_slab(frame: np.ndarray, layout: GeometryFile, panel: int) -> np.ndarray:
    """Lay stacked panels out as the slab that the geometry describes; anything else stays as it is.

    CSPAD: Cheetah's rule, ``slab[seg*185:(seg+1)*185, quad*388:(quad+1)*388] =
    panel[quad*8 + seg]``. Other detectors: panels below each other.
    """
    if frame.ndim != 3 or len(layout.dims[panel]) - layout.dims[panel].count("%") != 2:
        return frame
    if frame.shape == _CSPAD_STACK and file_frame_shape(layout)[1] > _CSPAD_STACK[2]:
        return frame.reshape(4, 8, 185, 388).transpose(1, 2, 0, 3).reshape(_CSPAD_SLAB)
    return frame.reshape(-1, frame.shape[-1])


def split_event(event: str) -> tuple[str, int | None]:
    """Take an event apart: name in the path, number along the '%' axis.

    Examples
    --------
    >>> split_event("//12"), split_event("tag-7//"), split_event("//")
    (('', 12), ('tag-7', None), ('', None))
    """
    name, _, number = event.partition("//")
    return name, int(number) if number else None


Reading = tuple[h5py.Dataset, tuple[Any, ...], int | None]


def _readings(
    file: h5py.File, layout: GeometryFile, panel: int, events: Sequence[str]
) -> Iterator[tuple[list[int], Reading]]:
    """Cut events into reads of neighbouring frames: positions, and (dataset, index, frame axis)."""
    by_name: dict[str, list[int]] = {}
    for position, event in enumerate(events):
        by_name.setdefault(split_event(event)[0], []).append(position)
    dims = layout.dims[panel]
    axis = dims.index("%") if "%" in dims else None
    for name, positions in by_name.items():
        dataset = data_of(file, layout, panel, name)
        if axis is None:
            yield positions, (dataset, (), None)
            continue
        numbers = [split_event(events[position])[1] or 0 for position in positions]
        for a, b in runs_of(numbers):
            frames = slice(numbers[a], numbers[b - 1] + 1)
            yield positions[a:b], (dataset, (*[slice(None)] * axis, frames), axis)


def _read_into(
    out: np.ndarray,
    positions: list[int],
    read: Reading,
    layout: GeometryFile,
    which: list[int],
    reasons: dict[int, str],
) -> None:
    """Read neighbouring frames at once; where that fails, one by one, and tell which fail."""
    dataset, index, axis = read
    try:
        block = dataset[index]
    except (OSError, RuntimeError, ValueError) as error:
        if _storage_error(error) is not None:
            raise  # says nothing of the frames
        if len(positions) == 1:
            reasons[positions[0]] = " ".join(str(error).split())
            return
        first = index[-1].start
        for number, position in enumerate(positions):
            one = (*index[:-1], slice(first + number, first + number + 1))
            _read_into(out, [position], (dataset, one, axis), layout, which, reasons)
        return
    frames = [block] if axis is None else np.moveaxis(block, axis, 0)
    if len(frames) != len(positions):
        raise BadFrames(f"'{dataset.file.filename}' holds fewer frames than it did when it was looked at first")
    for position, frame in zip(positions, frames, strict=True):
        take_panels(as_slab(frame, layout, which[0]), layout, panels=which, out=out[position])


def _told_datasets(file: h5py.File) -> str:
    found: list[str] = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim >= 2:
            found.append(f"'/{name}' {item.shape}")

    file.visititems(note)
    return ", ".join(found) or "no dataset with two axes or more"
