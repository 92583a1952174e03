"""What a frame costs here: a few frames are ingested and screened, and thrown away."""

from __future__ import annotations

import inspect
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Frames of a sample, at most.
FRAMES = 16


@dataclass(frozen=True)
class Sample:
    """What was measured.

    Attributes
    ----------
    count
        Frames, hits or pairs that were taken.
    core_seconds
        Of each, in one thread, of CPU: waiting for storage is not in it.
    stored_bytes
        A frame in the frames store, compressed; None where it was not seen.
    """

    count: int
    core_seconds: float
    stored_bytes: float | None = None


def sample_ingest(path: str, arguments: dict[str, Any], *, to: Path) -> Sample:
    """Copy the first frames of a file into a frames store.

    Parameters
    ----------
    path
        CXI or HDF5 file.
    arguments
        Of the verb ``ingest``.
    to
        The store, new.
    """
    from diffdask.io.crystfel_geometry import read_geometry
    from diffdask.io.frames_plan import BlockPlan, Segment
    from diffdask.io.frames_store import open_root
    from diffdask.io.frames_writer import create_or_check, finish, plan_frames, write_block
    from diffdask.io.survey import survey_file

    layout = read_geometry(arguments["geometry"])
    survey = survey_file(path, layout, geometry_folder=os.path.dirname(os.path.abspath(arguments["geometry"])))
    count = min(FRAMES, len(survey.events))
    root = create_or_check(to, layout, block_frames=count, codec=arguments["codec"])
    columns = {name: getattr(survey, name)[:count] for name in ("run", "photon_energy", "camera_length")}
    segment = Segment(path, Path(path).stem, 0, count, survey.size, survey.mtime)
    plan_frames(root, [segment], {**columns, "frame_status": survey.status[:count]}, layout=layout, dtype=survey.dtype)
    plan = BlockPlan((0, count), 0, ((path, tuple(survey.events[:count])),))
    seconds = cpu_seconds(lambda: write_block(plan, path=str(to)))
    finish(open_root(to, mode="r+"))
    return Sample(count, seconds / count, stored_bytes(to) / count)


def sample_screen(frames: str | Path, arguments: dict[str, Any]) -> Sample:
    """Screen the first frames of a store, and write nothing.

    Parameters
    ----------
    frames
        The frames store, finished.
    arguments
        Of the verb ``screen``, all of them.
    """
    import numpy as np

    from diffdask.io.frames_store import each_frame, frames_attributes, read_frame_columns
    from diffdask.pipeline.layout import with_layout
    from diffdask.pixels import list_pixels
    from diffdask.steps.layout import lay_out_rings
    from diffdask.steps.screening import screen_frames

    count = min(FRAMES, int(frames_attributes(frames)["frame_count"]))
    columns = read_frame_columns(frames, 0, count)
    layout = lay_out_rings(columns, **options_of(lay_out_rings, arguments))
    pixels = list_pixels(layout)
    needed = read_frame_columns(frames, 0, count, columns=("photon_energy", "frame_status"))
    ds = with_layout(needed, layout, np.arange(count))
    how = options_of(screen_frames, arguments)

    def screen_all() -> None:
        screen_frames(ds, pixels=pixels, one_by_one=each_frame(frames, 0, count), **how)

    screen_all()  # compiles
    return Sample(count, cpu_seconds(screen_all) / count)


def sample_both(path: str, ingest: dict[str, Any], screen: dict[str, Any]) -> tuple[Sample, Sample]:
    """Ingest the first frames of a file into a folder that is thrown away, and screen them there."""
    with tempfile.TemporaryDirectory(prefix="diffdask-sample-") as folder:
        to = Path(folder) / "frames.zarr"
        return sample_ingest(path, ingest, to=to), sample_screen(to, screen)


def stored_bytes(frames: str | Path, *, most: int = 1000) -> float:
    """Bytes of the frames of a store; of very many blocks, a part is looked at and the rest taken to be alike."""
    from diffdask.io.frames_store import frames_attributes
    from diffdask.io.paths import as_store

    store = as_store(frames)
    if isinstance(store, str):
        from diffdask.io.object_storage import mean_size

        known = frames_attributes(store)
        return mean_size(store, "adu/c", most=most) * -(-int(known["frame_count"]) // int(known["block_frames"]))
    paths = [os.path.join(where, name) for where, _, names in os.walk(store / "adu") for name in names]
    seen = paths[:: max(1, len(paths) // most)]
    return sum(os.path.getsize(path) for path in seen) * len(paths) / max(1, len(seen))


def options_of(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments that a function has."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in arguments.items() if name in known}


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of this process for some work, s."""
    before = time.process_time()
    work()
    return time.process_time() - before
