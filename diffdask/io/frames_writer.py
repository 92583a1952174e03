"""Writing the frames store, so that what looks whole is whole.

The order of writing is what makes it safe:

1. the root says ``complete: false``;
2. arrays grow, columns of the new frames are written;
3. the root takes the plan: its sources and how many frames there will be. This
   is one small file, put in place at once; without it, 2 counts for nothing;
4. tasks write shards, each whole and put in place at once, and mark them; shards of nothing but zeros too, so that
   one that is missing is known to be lost;
5. what only reading could tell (unreadable frames) goes into the columns, and
   the root says ``complete: true``.

Stopped anywhere, the same ingest goes on: frames below ``frame_count`` are
whole, marked blocks need not be done again, all others are.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from diffdask.errors import BadParameter, BadStore
from diffdask.io.crystfel_geometry import GeometryFile
from diffdask.io.crystfel_geometry_text import standard_lines
from diffdask.io.cxi import read_frames
from diffdask.io.frames_plan import BlockPlan, Segment, count_frames, planned_at, stored_segments
from diffdask.io.frames_store import DETECTOR_VARIABLES, FRAME_COLUMNS, KIND, MARKS, column_chunk, layout_of, open_root
from diffdask.io.marks import mark_block, marked_blocks, noted_blocks, quarantined_blocks, remove_marks
from diffdask.io.paths import is_url
from diffdask.io.storage import storage_at
from diffdask.planning import Block, blocks_to_write
from diffdask.variables import STATUS_OK, VARIABLES
from diffdask.version import __version__

CODECS = {"lz4": ("lz4", 5), "zstd": ("zstd", 3)}

_DTYPE = {"float": np.float64, "integer": np.int64, "boolean": np.bool_, "text": str}
_FILL = {"float": np.nan, "integer": 0, "boolean": False, "text": ""}


@contextlib.contextmanager
def only_writer(path: str | Path) -> Iterator[None]:
    """Hold a store against a second ingest; the lock goes with the process.

    Raises
    ------
    BadStore
        If another ingest is writing the store.
    """
    if is_url(path):  # such has no locks
        yield
        return
    if Path(path).exists() and not Path(path).is_dir():
        raise BadStore(f"'{path}' is a file, no frames store: choose another place with --to")
    Path(path).mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadStore(f"another ingest is writing '{path}': wait for its end, or stop it") from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


def create_or_check(path: str | Path, layout: GeometryFile, *, block_frames: int, codec: str) -> zarr.Group:
    """Make an empty, unfinished store, or check that an existing one has this geometry.

    Raises
    ------
    BadStore
        If something else lies there, or a store with another geometry.
    """
    storage = storage_at(path)
    if codec not in CODECS:
        raise BadParameter(f"codec must be one of {', '.join(CODECS)}, got '{codec}'")
    if block_frames < 1:
        raise BadParameter(f"block_frames must be at least 1, got {block_frames}")
    if not storage.exists("zarr.json"):
        if not storage.is_empty():
            raise BadStore(f"'{path}' is there and is no frames store: choose another place with --to")
        attributes = {
            "kind": KIND,
            "version": __version__,
            "identity": uuid.uuid4().hex,  # frame_id is unique within a store; this tells stores apart
            "complete": False,
            "frame_count": 0,
            "planned_frames": 0,
            "block_frames": block_frames,
            "codec": codec,
            "geometry_file": layout.text,
            "sources": [],
        }
        return zarr.create_group(storage.zarr_store(), zarr_format=3, attributes=cast(Any, attributes))
    root = open_root(path, mode="r+")
    if root.attrs["planned_frames"] == 0:
        root.update_attributes({"geometry_file": layout.text, "block_frames": block_frames, "codec": codec})
    elif standard_lines(str(root.attrs["geometry_file"])) != standard_lines(layout.text):
        raise BadStore(
            f"'{path}' was made with another geometry: give the same .geom, or ingest into another store (--to); "
            "the geometry of a store is its attribute 'geometry_file'"
        )
    return root


def stored_dtype(root: zarr.Group) -> str | None:
    """Type of the pixels; None where no frame was planned yet."""
    return str(cast(zarr.Array, root["adu"]).dtype) if root.attrs["planned_frames"] else None


def stored_column(root: zarr.Group, name: str, segment: Segment) -> np.ndarray:
    """Rows of a column for the frames of a segment; text as objects."""
    values = np.asarray(cast(zarr.Array, root[name])[segment.first : segment.first + segment.count])
    return values.astype(object) if values.dtype.kind == "T" else values


def plan_frames(
    root: zarr.Group, segments: Sequence[Segment], columns: dict[str, np.ndarray], *, layout: GeometryFile, dtype: str
) -> None:
    """Grow the store by new frames: columns first, then the plan, at once.

    Parameters
    ----------
    root
        The store.
    segments
        New files' frames, following those already planned.
    columns
        New rows of frame columns.
    layout, dtype
        Geometry, and type of the pixels.
    """
    path = store_path(root)
    if root.attrs["complete"]:
        remove_marks(path, MARKS)
    root.update_attributes({"complete": False})
    planned = cast(int, root.attrs["planned_frames"])
    if not segments:
        return
    if planned == 0:
        _create_arrays(root, layout, dtype)
    total = planned + sum(segment.count for segment in segments)
    for name in ("adu", *FRAME_COLUMNS):
        array = cast(zarr.Array, root[name])
        array.resize((total, *array.shape[1:]))
        if name in columns:
            array[planned:total] = columns[name]
    sources = [asdict(segment) for segment in (*stored_segments(root), *segments)]
    root.update_attributes({"sources": sources, "planned_frames": total})


def store_path(root: zarr.Group) -> str:
    """Where a store lies: a path, or a URL."""
    store = cast(Any, root.store)
    return str(getattr(store, "location", None) or store.root)


def planned_blocks(root: zarr.Group) -> tuple[list[Block], set[Block], set[Block]]:
    """Give the shards with new frames, those of them that are done, and marks that are of none by now."""
    blocks = blocks_to_write(*count_frames(root))
    marked = marked_blocks(store_path(root), MARKS)
    return blocks, marked & set(blocks), marked - set(blocks)


def write_planned(block: Block, *, path: str) -> int:
    """Write a shard as the store's plan says, and mark it; what a worker does. As :func:`write_block`.

    Raises
    ------
    BadStore
        If the plan has no such shard by now: the ingest that asked for it was outlived by this worker.
    """
    planned = planned_at(path, storage_at(path).stamp("zarr.json"))
    if not planned.has(block):
        raise BadStore(f"frames {block[0]} to {block[1]} of '{path}' are not to be written: another ingest went on")
    return write_block(planned.plan(block), path=path)


def write_blank(block: Block, reason: str, *, path: str) -> None:
    """Write the new frames of a shard as zeros: what the driver does with one that takes down its workers."""
    root = open_root(path, mode="r+")
    _pixels(root)[max(block[0], count_frames(root)[0]) : block[1]] = 0


def write_block(plan: BlockPlan, *, path: str) -> int:
    """Read a block's frames from their files, write its shard and mark it; runs on a worker.

    Returns
    -------
    int
        Frames read.
    """
    root = open_root(path, mode="r+")
    layout = layout_of(str(root.attrs["geometry_file"]))
    adu = _pixels(root)
    start, stop = plan.block
    frames = np.zeros((stop - start, *adu.shape[1:]), dtype=adu.dtype)
    row = max(plan.kept - start, 0)
    if row:
        frames[:row] = adu[start : start + row]
    unreadable: dict[str, str] = {}
    for source, events in plan.pieces:
        reasons = read_frames(source, layout, events, frames[row : row + len(events)])
        unreadable |= {str(start + row + position): reason for position, reason in reasons.items()}
        row += len(events)
    adu[start:stop] = frames
    mark_block(path, MARKS, plan.block, note=json.dumps(unreadable) if unreadable else "")
    return sum(len(events) for _, events in plan.pieces)


def update_column(root: zarr.Group, name: str, start: int, values: np.ndarray) -> None:
    """Write rows of a column from ``start`` on."""
    cast(zarr.Array, root[name])[start : start + len(values)] = values


def update_good_pixels(root: zarr.Group, pixel_is_good: np.ndarray) -> int:
    """Take pixels out that further files call bad; say how many, of those good so far."""
    array = cast(zarr.Array, root["pixel_is_good"])
    before = np.asarray(array[:])
    after = before & pixel_is_good
    lost = int(before.sum() - after.sum())
    if lost:
        array[:] = after
    return lost


def finish(root: zarr.Group) -> int:
    """Write down which frames were unreadable, and call the store complete; gives their number."""
    path = store_path(root)
    kept, planned, size = count_frames(root)
    unreadable: dict[int, str] = {}
    written = set(blocks_to_write(kept, planned, size))
    for block, note in noted_blocks(path, MARKS).items():
        if block in written:
            unreadable |= {int(frame): reason for frame, reason in json.loads(note).items()}
    for block, record in quarantined_blocks(path, MARKS).items():
        if block in written:
            unreadable |= dict.fromkeys(range(max(block[0], kept), block[1]), record["reason"])
    status = cast(zarr.Array, root["frame_status"])
    rows = np.asarray(status[kept:planned]).astype(object)
    for frame, reason in unreadable.items():
        before, told = rows[frame - kept], f"unreadable: {reason}"
        if not before.startswith(told):  # it does where an earlier ingest stopped right here
            rows[frame - kept] = told if before == STATUS_OK else f"{told}; {before}"
    if unreadable:
        status[kept:planned] = rows
    root.update_attributes({"complete": True, "frame_count": planned})
    remove_marks(path, MARKS)
    if not is_url(path):
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(path, "marks"))  # no part of a Zarr hierarchy: gone as soon as it is empty
    return len(unreadable)


def _pixels(root: zarr.Group) -> zarr.Array:
    """Open ``adu`` for writing; Zarr would leave out what is nothing but zeros."""
    return cast(zarr.Array, root["adu"]).with_config({"write_empty_chunks": True})


def _create_arrays(root: zarr.Group, layout: GeometryFile, dtype: str) -> None:
    """Make all arrays without frames, and write the detector."""
    block_frames, codec = cast(int, root.attrs["block_frames"]), str(root.attrs["codec"])
    image = (layout.geometry.panel_count, *layout.geometry.shape)
    name, level = CODECS[codec]
    _create(
        root,
        "adu",
        shape=(0, *image),
        chunks=(1, *image),
        shards=(block_frames, *image),
        dtype=dtype,
        fill_value=0,
        compressors=BloscCodec(cname=cast(Any, name), clevel=level, shuffle="bitshuffle"),
    )
    rows = column_chunk(block_frames)
    sizes = {"reciprocal_axis": 3, "xyz": 3, "xy": 2}
    for column in FRAME_COLUMNS:
        declared = VARIABLES[column]
        rest = tuple(sizes[dim] for dim in declared.dims[1:])
        _create(
            root,
            column,
            shape=(0, *rest),
            chunks=(rows, *rest),
            dtype=_DTYPE[declared.kind],
            fill_value=_FILL[declared.kind],
        )
    detector = {
        **{str(key): variable.values for key, variable in layout.geometry.to_dataset().data_vars.items()},
        "pixel_is_good": layout.pixel_is_good,
        "pixel_is_wide": layout.pixel_is_wide,
    }
    for key in DETECTOR_VARIABLES:
        kind = VARIABLES[key].kind
        values = detector[key]
        array = _create(root, key, shape=values.shape, chunks=values.shape, dtype=_DTYPE[kind], fill_value=_FILL[kind])
        array[...] = values


def _create(root: zarr.Group, name: str, **options: Any) -> zarr.Array:
    declared = VARIABLES[name]
    return root.create_array(
        name,
        dimension_names=declared.dims,
        attributes={"units": declared.units, "meaning": declared.meaning},
        overwrite=True,
        **options,
    )
