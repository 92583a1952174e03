"""The plan of an unfinished frames store: which shards are to be written, and what goes into each."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import zarr

from diffdask.io.frames_store import open_root
from diffdask.planning import Block, pieces_of


@dataclass(frozen=True)
class Segment:
    """Frames of one file that lie one after the other in the store."""

    path: str
    name: str  #: stands for the file in ``frame_id``; one file, one name
    first: int  #: first frame in the store
    count: int
    size: int  #: bytes of the file when it was read
    mtime: float  #: s, its last change


@dataclass(frozen=True)
class BlockPlan:
    """A shard to write: which frames of which files."""

    block: Block
    kept: int  #: frames up to here are in the store and stay as they are
    pieces: tuple[tuple[str, tuple[str, ...]], ...]  #: (file, events), in order


def stored_segments(root: zarr.Group) -> list[Segment]:
    """Files in a store, planned ones included."""
    return [Segment(**entry) for entry in cast(list[dict[str, Any]], root.attrs["sources"])]


def count_frames(root: zarr.Group) -> tuple[int, int, int]:
    """Frames that are whole, frames that there will be, and frames in a shard."""
    kept, planned = cast(int, root.attrs["frame_count"]), cast(int, root.attrs["planned_frames"])
    return kept, planned, cast(int, root.attrs["block_frames"])


class PlannedFrames:
    """The plan of an unfinished store: which shards, and what goes into each."""

    def __init__(self, root: zarr.Group) -> None:
        self._kept, self._total, self._size = count_frames(root)
        self._is_complete = bool(root.attrs["complete"])
        self._segments = stored_segments(root)
        self._spans = [(segment.first, segment.first + segment.count) for segment in self._segments]
        self._events = cast(zarr.Array, root["event"])
        self._some_events = functools.lru_cache(maxsize=2)(self._read_events)

    def has(self, block: Block) -> bool:
        """Whether a block is a shard of the plan that is to be written."""
        is_shard = block[0] % self._size == 0 and block[1] == min(block[0] + self._size, self._total)
        return is_shard and self._kept < block[1] and not self._is_complete

    def plan(self, block: Block) -> BlockPlan:
        """Say which frames of which files a block takes."""
        fresh = (max(block[0], self._kept), block[1])
        return BlockPlan(block, self._kept, tuple(self._pieces(fresh)))

    def _pieces(self, frames: Block) -> Iterator[tuple[str, tuple[str, ...]]]:
        rows = self._events.chunks[0]
        events, origin = self._some_events(frames[0] // rows), frames[0] // rows * rows  # a shard lies in one chunk
        for number, (first, last) in pieces_of(frames, self._spans):
            yield self._segments[number].path, tuple(events[first - origin : last - origin])

    def _read_events(self, chunk: int) -> np.ndarray:
        rows = self._events.chunks[0]
        return np.asarray(self._events[chunk * rows : (chunk + 1) * rows]).astype(object)


@functools.lru_cache(maxsize=4)
def planned_at(path: str, stamp: Hashable) -> PlannedFrames:
    """Read the plan once a process, until the root changes."""
    return PlannedFrames(open_root(path))
