"""The verb ``ingest``: files of frames into the frames store.

Files are looked at first, all of them, so that whatever is wrong with one is
said before anything is read; then blocks of frames are copied, in parallel.
"""

from __future__ import annotations

import functools
import glob
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdask.cluster import connect, run_blocks
from diffdask.errors import BadFrames, BadGeometry, DiffdaskError, KilledBlock
from diffdask.io.paths import absolute, as_store, local_path
from diffdask.pipeline.blocks import Marks, run_marked
from diffdask.pipeline.progress import progress_bar

if TYPE_CHECKING:
    import zarr

    from diffdask.io.crystfel_geometry import GeometryFile
    from diffdask.io.crystfel_stream import Chunk
    from diffdask.io.frames_plan import Segment
    from diffdask.io.survey import Survey

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _NewFrames:
    """Frames that are not in the store: whole columns, and the files they come from."""

    segments: list[Segment]
    columns: dict[str, np.ndarray]


def ingest(
    sources: str | Path | Sequence[str | Path],
    *,
    geometry: str | Path,
    stream: str | Path | Sequence[str | Path] | None = None,
    to: str | Path,
    run: int | None = None,
    block_frames: int = 16,
    codec: str = "lz4",
    on: Any = None,
    progress: bool = True,
) -> str | Path:
    """Copy frames from CXI or HDF5 files into a frames store.

    Running it again goes on where it stopped. Files, and frames of files that
    have grown, which the store does not have yet are appended; no frame is
    taken twice. A stream given for frames that are there fills in their
    orientation.

    Parameters
    ----------
    sources
        A file, a glob, or a list of them. Files come in the order given, those
        of a glob by name; frames in the order of the file.
    geometry
        CrystFEL geometry file.
    stream
        CrystFEL stream or streams with orientations. Where a frame has several
        crystals, the one with most reflections counts; where several chunks
        have the frame, the last that is indexed.
    to
        The frames store, new or to be appended to: a folder, or a URL such as ``s3://bucket/frames.zarr``.
    run
        Run number of all files; None to take it from the file
        (``/entry_1/experiment_identifier``), else from its name (``r0003``,
        ``run0003``), else 0.
    block_frames
        Frames in a shard of a new store.
    codec
        Compression of a new store: "lz4" (fast) or "zstd" (smaller).
    on
        Where to run; see :func:`diffdask.cluster.connect`.
    progress
        Show a bar on the terminal.

    Returns
    -------
    pathlib.Path or str
        The store: a path, or a URL.

    Raises
    ------
    BadFrames
        If files cannot be used; all of them are named.
    BadGeometry
        If the geometry cannot be read, or does not fit the frames.
    BadStream
        If a stream cannot be used.
    BadStore
        If ``to`` is something else, has another geometry, or is being written.
    FailedBlocks
        If storage failed, or something unforeseen; the same command goes on.
    LostScheduler
        If the scheduler is gone; the same command goes on.

    Notes
    -----
    A frame that cannot be read, and the frames of a block that takes down its
    workers, become zeros and say so in ``frame_status``; the run goes on.
    ``pixel_is_good`` holds for the whole store: bad regions of the geometry,
    and the masks of all files. Pixels that are NaN are kept.
    """
    from diffdask.io.crystfel_geometry import read_geometry
    from diffdask.io.crystfel_stream import read_stream
    from diffdask.io.frames_plan import stored_segments
    from diffdask.io.frames_writer import create_or_check, only_writer
    from diffdask.pipeline.orientations import changed_orientations, tell_unmatched

    paths = _find(sources)
    layout = read_geometry(geometry)
    chunks = [chunk for path in _listed(stream) for chunk in read_stream(path)]
    to = as_store(to)
    with only_writer(to):
        root = create_or_check(to, layout, block_frames=block_frames, codec=codec)
        with connect(on) as client:
            surveys = _survey(client, paths, geometry, progress=progress)
            new = _new_frames(root, surveys, run)
            is_whole = bool(root.attrs["complete"]) and not new.segments
            if is_whole and not any(True for _ in changed_orientations(root, stored_segments(root), chunks)):
                tell_unmatched(root, chunks)
                return to
            _write(client, root, new, surveys, layout, chunks, progress=progress)
    return to


def _write(
    client: Any,
    root: zarr.Group,
    new: _NewFrames,
    surveys: list[Survey],
    layout: GeometryFile,
    chunks: list[Chunk],
    *,
    progress: bool,
) -> None:
    from diffdask.io.frames_plan import stored_segments
    from diffdask.io.frames_writer import finish, plan_frames, update_column
    from diffdask.pipeline.orientations import changed_orientations, tell_unmatched

    plan_frames(root, new.segments, new.columns, layout=layout, dtype=surveys[0].dtype)
    _check_planned(root)
    _update_good_pixels(root, surveys, layout)
    for start, columns in changed_orientations(root, stored_segments(root), chunks):
        for name, values in columns.items():
            update_column(root, name, start, values)
    tell_unmatched(root, chunks)
    _write_blocks(client, root, progress=progress)
    unreadable = finish(root)
    if unreadable:
        _log.warning("%d frames could not be read; 'frame_status' says why", unreadable)


def _write_blocks(client: Any, root: zarr.Group, *, progress: bool) -> None:
    """Write all shards that are not there yet, on the cluster."""
    from diffdask.io.frames_store import MARKS
    from diffdask.io.frames_writer import planned_blocks, store_path, write_blank, write_planned

    path = absolute(store_path(root))
    blocks, done, stale = planned_blocks(root)
    marks = Marks(
        path,
        MARKS,
        flag=functools.partial(write_blank, path=path),
        flagged=KilledBlock,  # else a mistake of ours that the next version mends would cost raw frames
        stale=stale,
        remedy="their files can be ingested into a new store",
    )
    task = functools.partial(write_planned, path=path)
    run_marked(client, task, blocks, done, what="ingest", unit="frame", progress=progress, marks=marks)


def _find(sources: str | Path | Sequence[str | Path]) -> list[str]:
    """Files in order, each once; a glob's by name."""
    found: dict[str, str] = {}
    for given in _listed(sources):
        source = str(local_path(given, what="a file of frames"))
        matches = [source] if os.path.exists(source) else sorted(glob.glob(source, recursive=True))
        if not matches:
            raise BadFrames(f"no file matches '{source}'")
        for match in matches:
            if os.path.isdir(match):
                raise BadFrames(f"'{match}' is a folder: give its files, as in '{os.path.join(match, '*.cxi')}'")
            found.setdefault(os.path.realpath(match), os.path.abspath(match))
    if not found:
        raise BadFrames("no sources: give at least one file")
    return list(found.values())


def _listed(paths: str | Path | Sequence[str | Path] | None) -> list[str]:
    if paths is None:
        return []
    return [os.fspath(paths)] if isinstance(paths, str | Path) else [os.fspath(path) for path in paths]


def _survey(client: Any, paths: list[str], geometry: str | Path, *, progress: bool) -> list[Survey]:
    """Look at all files, and complain of all bad ones at once."""
    task = functools.partial(_survey_one, geometry=os.path.abspath(geometry))
    found: dict[str, Survey | DiffdaskError] = {}
    with progress_bar(len(paths), what="look at files", unit="file", shown=progress) as bar:
        for path, result in run_blocks(client, task, paths):
            found[path] = result
            bar.update(1)
    errors = [found[path] for path in paths if isinstance(found[path], DiffdaskError)]
    if errors:
        kind = BadFrames if any(isinstance(error, BadFrames) for error in errors) else BadGeometry
        told = "\n".join(str(error) for error in errors)
        raise kind(told if len(errors) == 1 else f"{len(errors)} of {len(paths)} files cannot be used:\n{told}")
    return [result for result in map(found.__getitem__, paths) if not isinstance(result, DiffdaskError)]


def _survey_one(path: str, *, geometry: str) -> Survey | DiffdaskError:
    from diffdask.io.survey import survey_file

    stat = os.stat(geometry)
    layout = _read_once(geometry, stat.st_mtime_ns)
    try:
        return survey_file(path, layout, geometry_folder=os.path.dirname(geometry))
    except DiffdaskError as error:
        return error


@functools.lru_cache(maxsize=2)
def _read_once(geometry: str, changed: int) -> GeometryFile:
    from diffdask.io.crystfel_geometry import read_geometry

    return read_geometry(geometry)


def _new_frames(root: zarr.Group, surveys: list[Survey], run: int | None) -> _NewFrames:
    """Find the frames that the store does not have, and make their columns."""
    from diffdask.io.frames_plan import Segment, stored_segments
    from diffdask.io.frames_writer import stored_dtype

    _check_dtypes(surveys, stored_dtype(root))
    stored = stored_segments(root)
    names = {os.path.realpath(segment.path): segment.name for segment in stored}
    first = sum(segment.count for segment in stored)
    segments: list[Segment] = []
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    for survey in surveys:
        identity = os.path.realpath(survey.path)
        known = _stored_events(root, [s for s in stored if os.path.realpath(s.path) == identity])
        rows = np.flatnonzero([event not in known for event in survey.events])
        if not len(survey.events):
            _log.warning("'%s' holds no frames", survey.path)
        if not len(rows):
            continue
        name = names.setdefault(identity, _unused_name(Path(survey.path).stem, names.values()))
        segments.append(Segment(survey.path, name, first, len(rows), survey.size, survey.mtime))
        first += len(rows)
        for column, values in _columns(survey, rows, name, len(known), run).items():
            parts[column].append(values)
    if not segments and not stored:
        raise BadFrames("the files hold no frames")
    return _NewFrames(segments, {column: np.concatenate(values) for column, values in parts.items()})


def _columns(survey: Survey, rows: np.ndarray, name: str, known: int, run: int | None) -> dict[str, np.ndarray]:
    runs = survey.run[rows] if run is None else np.full(len(rows), run, dtype=np.int64)
    numbers = range(known, known + len(rows))
    return {
        "frame_id": np.array([f"r{r:04d}-{name}-{n:06d}" for r, n in zip(runs, numbers, strict=True)], dtype=object),
        "run": runs,
        "event": survey.events[rows],
        "source": np.full(len(rows), survey.path, dtype=object),
        "photon_energy": survey.photon_energy[rows],
        "camera_length": survey.camera_length[rows],
        "frame_status": survey.status[rows],
    }


def _check_dtypes(surveys: list[Survey], stored: str | None) -> None:
    expected = stored or surveys[0].dtype
    other = [f"'{survey.path}' {survey.dtype}" for survey in surveys if survey.dtype != expected]
    if other:
        where = "the store has" if stored else f"'{surveys[0].path}' has"
        raise BadFrames(
            f"{where} pixels of type {expected}, but: {', '.join(other)}. Raw and calibrated frames do not mix: "
            "ingest each type into its own store (--to)"
        )


def _stored_events(root: zarr.Group, segments: list[Segment]) -> set[str]:
    from diffdask.io.frames_writer import stored_column

    events: set[str] = set()
    for segment in segments:
        events.update(stored_column(root, "event", segment).tolist())
    return events


def _unused_name(stem: str, taken: Iterable[str]) -> str:
    """Name for a file that no other file of the store has: its stem, or the stem and a number."""
    taken = set(taken)
    candidates = (stem if number == 1 else f"{stem}.{number}" for number in range(1, len(taken) + 2))
    return next(name for name in candidates if name not in taken)


def _check_planned(root: zarr.Group) -> None:
    """Raise if a file whose frames are still to be read is gone."""
    from diffdask.io.frames_plan import stored_segments

    kept = int(root.attrs["frame_count"])  # type: ignore[arg-type]
    gone = [s.path for s in stored_segments(root) if s.first + s.count > kept and not os.path.isfile(s.path)]
    if gone:
        raise BadFrames(f"an ingest that stopped still needs {', '.join(gone)}: put them back, or begin a new store")


def _update_good_pixels(root: zarr.Group, surveys: list[Survey], layout: GeometryFile) -> None:
    from diffdask.io.frames_writer import update_good_pixels

    good = layout.pixel_is_good.copy()
    for survey in surveys:
        good &= np.unpackbits(survey.good_bits, count=good.size).astype(bool).reshape(good.shape)
    lost = update_good_pixels(root, good)
    if lost and int(root.attrs["frame_count"]):  # type: ignore[arg-type]
        _log.warning("%d pixels good so far are masked in further files, and are now bad for all frames", lost)
