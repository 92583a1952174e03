"""The frames store: frames as recorded, and what is known of them, in one Zarr v3 group.

``adu`` (frame, panel, ss, fs) has a chunk a frame inside shards of
``block_frames`` frames; the columns (dim ``frame``) and the detector (dims
``panel``, ``ss``, ``fs``, ``xyz``) lie beside it. The root's attribute
``complete`` is the only thing that makes a store whole: it is set after the
last block. Written by :mod:`diffdask.io.frames_writer`, read-only from then on.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr
import zarr

from diffdask.errors import BadFrames, BadParameter, BadStore
from diffdask.io.crystfel_geometry import GeometryFile, parse_geometry
from diffdask.io.marks import marked_blocks
from diffdask.io.paths import is_url
from diffdask.io.storage import storage_at
from diffdask.io.zarr_format import check_format
from diffdask.planning import align
from diffdask.variables import STATUS_OK, VARIABLES, wrap

KIND = "diffdask frames"

#: Group of the marks in :mod:`diffdask.io.marks`.
MARKS = "frames"

#: Bytes of frames that are read at a time where they are wanted one by one.
_CACHED_BYTES = 10_000_000

_MISSING = "frame {} of '{}' is missing: put '{}' back there, or ingest the frame's file into a new store"

#: A row per frame, beside ``adu``.
FRAME_COLUMNS = tuple(
    name
    for name, variable in VARIABLES.items()
    if variable.made_by == "ingest" and variable.dims[0] == "frame" and name != "adu"
)

#: The detector: no frame dim.
DETECTOR_VARIABLES = tuple(
    name for name, variable in VARIABLES.items() if variable.made_by == "ingest" and variable.dims[0] != "frame"
)


def open_frames(path: str | Path, *, chunks: int | None = None, columns: Sequence[str] = FRAME_COLUMNS) -> xr.Dataset:
    """Open a frames store lazily.

    Parameters
    ----------
    path
        The frames store.
    chunks
        Frames in a Dask chunk of ``adu``; None for a shard, the cheapest to
        read. A chunk never splits a frame.
    columns
        Those that are wanted: of millions of frames, text takes gigabytes.

    Returns
    -------
    xarray.Dataset
        ``adu`` (frame, panel, ss, fs) as a Dask array of the recorded type;
        the columns, and every variable without frames, as NumPy arrays.

    Raises
    ------
    BadStore
        If nothing, something else or an unfinished store lies there.
    """
    import dask.array as da

    store = _opened(path)
    adu = store.arrays["adu"]
    size = adu.shards[0] if chunks is None and adu.shards else chunks
    if size is None or size < 1:
        raise BadParameter(f"chunks must be at least 1 frame, got {size}")
    lazy = da.from_array(adu, chunks=(size, *adu.shape[1:]), inline_array=True)
    return wrap(adu=lazy, **{name: _loaded(store.arrays[name], slice(None)) for name in columns}, **store.detector)


def read_frame_block(path: str | Path, start: int, stop: int, *, columns: Sequence[str] = FRAME_COLUMNS) -> xr.Dataset:
    """Read frames ``start`` to ``stop`` (exclusive) into memory, with their columns and the detector.

    What a task of the screen does: no graph, and the store is opened once a
    process. The variables are those of :func:`open_frames`, of the columns
    those asked for: text costs more to read than numbers.

    Raises
    ------
    BadStore
        As :func:`open_frames`.
    BadParameter
        If the store has no such frames.
    """
    return _opened_with(path, start, stop).read(slice(start, stop), ("adu", *columns))


def read_frame_columns(
    path: str | Path, start: int, stop: int, *, columns: Sequence[str] = FRAME_COLUMNS
) -> xr.Dataset:
    """Read all but ``adu`` of frames ``start`` to ``stop`` (exclusive); as :func:`read_frame_block`."""
    return _opened_with(path, start, stop).read(slice(start, stop), columns)


def each_frame(path: str | Path, start: int, stop: int, *, status: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Read frames ``start`` to ``stop`` (exclusive) one after the other, (panel, ss, fs) each.

    A few are read at a time, as many as a processor keeps in its cache: a whole
    block costs half as much again, for it comes in memory that is new each time.

    Parameters
    ----------
    path
        The frames store.
    start, stop
        Which frames.
    status
        Their statuses, (frame,) of texts, changed in place: a frame whose chunk is damaged, or whose shard is missing,
        comes as zeros, and its status says so. None to have that raised.

    Raises
    ------
    BadStore, BadParameter
        As :func:`read_frame_block`, when the first frame is asked for.
    BadFrames
        If a frame's chunk is damaged or its shard missing, and there is no ``status``.
    OSError
        If the store cannot be reached: that says nothing of its frames.
    """
    adu = _opened_with(path, start, stop).arrays["adu"]
    storage, size = storage_at(path), _shard_size(adu)
    for shard in range(start // size * size, stop, size):
        first, last = max(shard, start), min(shard + size, stop)
        with storage.holding(_shard_of(adu, shard)) as is_there:
            if is_there:
                yield from _read_few(adu, path, first, last, status, start)
            else:
                storage.stamp("zarr.json")  # a store that is gone says nothing of its frames
                yield from (_tell_missing(adu, path, frame, status, frame - start) for frame in range(first, last))
    storage.stamp("zarr.json")  # what is not there reads as zeros: so must not all of the store


def take_frames(path: str | Path, frames: Sequence[int]) -> xr.Dataset:
    """Read single frames into memory, in the order given; as :func:`read_frame_block`.

    Raises
    ------
    BadFrames
        If a frame is missing.
    """
    store, numbers = _opened_of(path, frames)
    adu = store.arrays["adu"]
    read = store.read(numbers, ("adu", *FRAME_COLUMNS))
    for frame, pixels in zip(numbers.tolist(), read.adu.values, strict=True):
        if not pixels.any() and not storage_at(path).exists(_shard_of(adu, frame)):  # what is not there reads as zeros
            storage_at(path).stamp("zarr.json")
            raise BadFrames(_MISSING.format(frame, path, _shard_of(adu, frame)))
    return read


def take_columns(path: str | Path, frames: Sequence[int] | np.ndarray, *, columns: Sequence[str]) -> xr.Dataset:
    """Read all but ``adu`` of single frames, in the order given: of columns, only the chunks that those are in."""
    store, numbers = _opened_of(path, frames)
    return store.read(numbers, columns)


def read_layout(path: str | Path) -> GeometryFile:
    """Read the geometry that the frames were ingested with."""
    return layout_of(str(frames_attributes(path)["geometry_file"]))


@functools.lru_cache(maxsize=4)
def layout_of(text: str) -> GeometryFile:
    """Parse a geometry once a process."""
    return parse_geometry(text)


def frames_attributes(path: str | Path) -> dict[str, Any]:
    """Attributes of a frames store: frame counts, codec, versions, sources; of an unfinished one too.

    Raises
    ------
    BadStore
        If there is no frames store.
    """
    return dict(open_root(path).attrs)


def open_root(path: str | Path, *, mode: str = "r") -> zarr.Group:
    """Open the root of a frames store, finished or not; raises :class:`BadStore` if there is none."""
    storage = storage_at(path)
    if not storage.exists("zarr.json"):
        raise BadStore(f"no frames store at '{path}'; make one with: diffdask ingest FILES --geometry GEOM --to {path}")
    root = zarr.open_group(storage.zarr_store(), mode=cast(Any, mode), use_consolidated=False)
    check_format(root, path)
    if root.attrs.get("kind") != KIND:
        raise BadStore(f"'{path}' is a Zarr store of kind {root.attrs.get('kind')!r}, expected {KIND!r}")
    return root


def column_chunk(block_frames: int) -> int:
    """Rows a chunk of a column: few files for a campaign, and little to decode for a block."""
    return align(16384, block_frames)


class _Opened:
    """A finished store: its arrays, and the detector once it was asked for."""

    def __init__(self, root: zarr.Group) -> None:
        self.arrays = {name: cast(zarr.Array, root[name]) for name in ("adu", *FRAME_COLUMNS, *DETECTOR_VARIABLES)}
        self._kept: dict[str, tuple[int, np.ndarray]] = {}

    @functools.cached_property
    def detector(self) -> dict[str, np.ndarray]:
        return {name: _loaded(self.arrays[name], slice(None)) for name in DETECTOR_VARIABLES}

    def read(self, rows: slice | np.ndarray, names: Sequence[str]) -> xr.Dataset:
        read = {name: self._rows(name, rows) for name in names}
        return wrap(**read, **self.detector)

    def _rows(self, name: str, rows: slice | np.ndarray) -> np.ndarray:
        """Read rows; the last chunk of each column is kept, for the next block of frames is mostly in it too."""
        array = self.arrays[name]
        size = array.chunks[0]
        if name == "adu" or not isinstance(rows, slice) or rows.start // size != max(rows.start, rows.stop - 1) // size:
            return _loaded(array, rows)
        number = rows.start // size
        kept = self._kept.get(name)
        if kept is None or kept[0] != number:
            kept = self._kept[name] = (number, _loaded(array, slice(number * size, (number + 1) * size)))
        return kept[1][rows.start - number * size : rows.stop - number * size].copy()


def _shard_size(adu: zarr.Array) -> int:
    """Frames in a file or object."""
    return (adu.shards or adu.chunks)[0]


def _shard_of(adu: zarr.Array, frame: int) -> str:
    """Name of the file or object that a frame is in; the writer makes one for every shard, also of zeros."""
    number = (frame // _shard_size(adu), *[0] * (adu.ndim - 1))
    return f"adu/{cast(Any, adu.metadata).encode_chunk_key(number)}"


def _read_few(
    adu: zarr.Array, path: str | Path, start: int, stop: int, status: np.ndarray | None, origin: int
) -> Iterator[np.ndarray]:
    """Read frames of one shard, a few at a time; ``origin`` is the frame of the first status."""
    few = max(1, _CACHED_BYTES // max(1, adu.dtype.itemsize * math.prod(adu.shape[1:])))
    for first in range(start, stop, few):
        last = min(first + few, stop)
        try:
            read = np.asarray(adu[first:last])
        except OSError:
            raise
        except Exception:  # whatever a decoder says of damaged bytes; one by one it is seen which
            yield from (_read_or_tell(adu, path, frame, status, frame - origin) for frame in range(first, last))
        else:
            yield from read


def _tell_missing(
    adu: zarr.Array, path: str | Path, frame: int, status: np.ndarray | None, position: int
) -> np.ndarray:
    """Zeros for a frame whose shard is not there, and its status says so."""
    if status is None:
        raise BadFrames(_MISSING.format(frame, path, _shard_of(adu, frame)))
    _put_first(status, position, "unreadable: missing in the frames store")
    return np.zeros(adu.shape[1:], dtype=adu.dtype)


def _put_first(status: np.ndarray, position: int, told: str) -> None:
    """Tell what is wrong with a frame, before what was wrong with it already."""
    status[position] = told if status[position] == STATUS_OK else f"{told}; {status[position]}"


def _read_or_tell(
    adu: zarr.Array, path: str | Path, frame: int, status: np.ndarray | None, position: int
) -> np.ndarray:
    """Read a frame; zeros, and why in its status, where its chunk is damaged."""
    try:
        return np.asarray(adu[frame])
    except OSError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if status is None:
            raise BadFrames(
                f"frame {frame} of '{path}' is damaged: {reason}; ingest its file into a new store"
            ) from error
        _put_first(status, position, f"unreadable: damaged in the frames store ({reason})")
        return np.zeros(adu.shape[1:], dtype=adu.dtype)


def _opened_with(path: str | Path, start: int, stop: int) -> _Opened:
    """Open a finished store that has these frames."""
    store = _opened(path)
    count = store.arrays["adu"].shape[0]
    if not 0 <= start <= stop <= count:
        raise BadParameter(f"frames {start} to {stop} were asked of '{path}', which has {count}")
    return store


def _opened_of(path: str | Path, frames: Sequence[int] | np.ndarray) -> tuple[_Opened, np.ndarray]:
    """Open a finished store that has these single frames; also their numbers as an array."""
    store, numbers = _opened(path), np.asarray(frames, dtype=np.int64)
    count = store.arrays["adu"].shape[0]
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < count):
        raise BadParameter(f"frames {numbers.min()} to {numbers.max()} were asked of '{path}', which has {count}")
    return store, numbers


def _opened(path: str | Path) -> _Opened:
    """Open a finished store, once a process until the store changes."""
    resolved = str(path) if is_url(path) else os.path.abspath(path)
    try:
        stamp = storage_at(resolved).stamp("zarr.json")
    except (FileNotFoundError, NotADirectoryError):
        return _open_once(resolved, None)
    return _open_once(resolved, stamp)


@functools.lru_cache(maxsize=8)
def _open_once(path: str, stamp: Hashable) -> _Opened:
    root = open_root(path)
    if not root.attrs.get("complete"):
        done, planned = len(marked_blocks(path, MARKS)), root.attrs.get("planned_frames", 0)
        raise BadStore(
            f"'{path}' is unfinished ({done} blocks written, {planned} frames planned): "
            "run the same 'diffdask ingest' again, it goes on where it stopped"
        )
    return _Opened(root)


def _loaded(array: zarr.Array, rows: slice | np.ndarray) -> np.ndarray:
    if isinstance(rows, slice):
        values = np.asarray(array[rows])
    elif array.shards is None:
        values = np.asarray(array.oindex[rows])
    else:  # zarr 3.1 decodes far more than the chunks asked for where a shard is indexed by numbers
        values = np.empty((len(rows), *array.shape[1:]), dtype=array.dtype)
        for position, row in enumerate(rows):
            values[position] = array[int(row)]
    return values.astype(object) if values.dtype.kind == "T" else values
