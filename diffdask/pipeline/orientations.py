"""Orientations from streams into the frames store.

A chunk belongs to the frame with its event in the file with its image's name;
see :func:`diffdask.io.crystfel_stream.match_images`.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import zarr

from diffdask.io.crystfel_stream import Chunk, match_images
from diffdask.io.frames_plan import Segment, stored_segments
from diffdask.io.frames_writer import stored_column

_log = logging.getLogger(__name__)


def changed_orientations(
    root: zarr.Group, segments: list[Segment], chunks: list[Chunk]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Rows of orientation, detector shift and lattice that the streams change: (first row, columns)."""
    by_source = _chunks_by_source(segments, chunks)
    for segment in segments:
        rows = {event: row for row, event in enumerate(stored_column(root, "event", segment).tolist())}
        columns = {name: stored_column(root, name, segment) for name in ("orientation", "detector_shift", "lattice")}
        before = {name: values.copy() for name, values in columns.items()}
        for chunk in by_source.get(segment.path, ()):
            row, crystal = rows.get(chunk.event), chunk.best_crystal
            if row is not None and crystal is not None:
                columns["orientation"][row] = crystal.orientation
                columns["detector_shift"][row] = crystal.detector_shift
                columns["lattice"][row] = crystal.lattice
        if any(not _same(columns[name], before[name]) for name in columns):
            yield segment.first, columns


def tell_unmatched(root: zarr.Group, chunks: list[Chunk]) -> None:
    """Log how many chunks of the streams belong to no frame, and how many frames are named twice."""
    segments = stored_segments(root)
    events: dict[str, set[str]] = defaultdict(set)
    by_source = _chunks_by_source(segments, chunks)
    for segment in segments:
        if segment.path in by_source:
            events[segment.path].update(stored_column(root, "event", segment).tolist())
    named = [(path, chunk.event) for path, found in by_source.items() for chunk in found if chunk.event in events[path]]
    if len(named) < len(chunks):
        _log.warning("%d of %d chunks of the streams belong to no frame", len(chunks) - len(named), len(chunks))
    indexed = [(path, chunk.event) for path, found in by_source.items() for chunk in found if chunk.crystals]
    if len(set(indexed)) < len(indexed):
        _log.warning("%d frames are indexed more than once; the last counts", len(indexed) - len(set(indexed)))


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))


def _chunks_by_source(segments: list[Segment], chunks: list[Chunk]) -> dict[str, list[Chunk]]:
    sources = match_images({chunk.image for chunk in chunks}, [segment.path for segment in segments])
    found: dict[str, list[Chunk]] = defaultdict(list)
    for chunk in chunks:
        source = sources[chunk.image]
        if source is not None:
            found[source].append(chunk)
    return found
