"""The frames that a job will go through: those in its store, and those of files that are not in it yet."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffdask.errors import BadFrames, BadStore
from diffdask.io.paths import as_store
from diffdask.io.storage import storage_at

#: Files that are looked into; the frames of the others are taken to be as large.
_LOOKED_INTO = 3


@dataclass(frozen=True)
class FrameSupply:
    """Frames of a job, as far as they can be told before it.

    Attributes
    ----------
    store
        The frames store, if there are frames in it.
    stored, new
        Frames in it, and frames to come.
    block
        Frames a block.
    pixels, item_bytes
        Pixels of a frame, and bytes of one.
    files, new_bytes
        Files that are not in the store, and their size.
    stored_bytes
        A frame in the store, compressed; None without a store.
    settings
        Detector settings that have to be laid out, those of files that are not in the store left out: 1 where nobody
        knows.
    settings_are_known
        Whether that is all.
    """

    store: str | Path | None
    stored: int
    new: int
    block: int
    pixels: int
    item_bytes: int
    files: tuple[str, ...] = ()
    new_bytes: float = 0.0
    stored_bytes: float | None = None
    settings: int = 1
    settings_are_known: bool = False

    @property
    def count(self) -> int:
        """All frames."""
        return self.stored + self.new

    @property
    def frame_bytes(self) -> int:
        """Of a frame in memory."""
        return self.pixels * self.item_bytes

    @property
    def block_bytes(self) -> int:
        """Of a block in memory."""
        return self.frame_bytes * self.block


def find_supply(calls: Mapping[str, Mapping[str, Any]]) -> FrameSupply | None:
    """Look at files and stores that a job names.

    Parameters
    ----------
    calls
        Verb to its arguments.

    Returns
    -------
    FrameSupply or None
        None if the job neither ingests nor screens.

    Raises
    ------
    BadFrames, BadGeometry
        If a file that is looked into cannot be used, or a glob matches none.
    BadStore
        If the job begins with a store that is not there.
    """
    if "ingest" not in calls and "screen" not in calls:
        return None
    ingest = calls.get("ingest", {})
    path = as_store(ingest["to"] if ingest else calls["screen"]["frames"])
    stored = _look_at_store(path)
    if not ingest:
        if stored is None:
            raise BadStore(
                f"no frames store at '{path}'; make one with: diffdask ingest FILES --geometry GEOM --to {path}"
            )
        return stored
    if "simulate" in calls and not glob.glob(str(ingest["sources"])):
        return _simulated(calls["simulate"], ingest)
    return _with_files(stored, ingest)


def _look_at_store(path: str | Path) -> FrameSupply | None:
    from diffdask.io.frames_store import frames_attributes, open_root
    from diffdask.pipeline.sample import stored_bytes

    try:
        known = frames_attributes(path)
    except BadStore:
        if storage_at(path).is_there():
            raise
        return None
    count = int(known["frame_count"])
    if not count:
        return None
    adu: Any = open_root(path)["adu"]
    settings = _count_settings(path)
    return FrameSupply(
        store=path,
        stored=count,
        new=0,
        block=int(known["block_frames"]),
        pixels=math.prod(adu.shape[1:]),
        item_bytes=adu.dtype.itemsize,
        stored_bytes=stored_bytes(path) / count,
        settings=settings or 1,
        settings_are_known=settings > 0,
    )


def _count_settings(path: str | Path) -> int:
    """Count the settings of frames in a store; 0 where it cannot be known."""
    from diffdask.frame_settings import group_settings, setting_columns
    from diffdask.pipeline.layout import read_setting_columns

    try:
        return len(group_settings(*setting_columns(read_setting_columns(path)))[0])
    except BadStore:  # an ingest stopped half-way
        return 0


def _with_files(stored: FrameSupply | None, ingest: Mapping[str, Any]) -> FrameSupply:
    """Add the files that the store does not have."""
    import numpy as np

    from diffdask.io.crystfel_geometry import read_geometry
    from diffdask.io.frames_store import frames_attributes
    from diffdask.io.survey import survey_file

    known = frames_attributes(stored.store)["sources"] if stored and stored.store else []
    there = {os.path.realpath(source["path"]) for source in known}
    files = [path for path in _find(ingest["sources"]) if os.path.realpath(path) not in there]
    if not files:
        if stored is None:
            raise BadFrames("no sources: give at least one file")
        return stored
    layout = read_geometry(ingest["geometry"])
    folder = os.path.dirname(os.path.abspath(ingest["geometry"]))
    surveys = [
        survey_file(path, layout, geometry_folder=folder) for path in files[:: max(1, len(files) // _LOOKED_INTO)]
    ]
    frames, size = sum(len(survey.events) for survey in surveys), sum(survey.size for survey in surveys)
    total = sum(os.path.getsize(path) for path in files)
    return FrameSupply(
        store=stored.store if stored else None,
        stored=stored.stored if stored else 0,
        new=frames if len(surveys) == len(files) else round(frames / size * total),
        block=stored.block if stored else int(ingest.get("block_frames", 16)),
        pixels=layout.pixel_is_good.size,
        item_bytes=np.dtype(surveys[0].dtype).itemsize,
        files=tuple(files),
        new_bytes=float(total),
        settings=stored.settings if stored else 1,
    )


def _simulated(simulate: Mapping[str, Any], ingest: Mapping[str, Any]) -> FrameSupply:
    """Frames that the job itself will simulate first."""
    from diffdask.io.crystfel_geometry import parse_geometry, read_geometry
    from diffdask.simulate import cspad_geometry_text

    detector = simulate.get("detector", "cspad")
    layout = parse_geometry(cspad_geometry_text()) if detector == "cspad" else read_geometry(detector)
    pixels, frames = layout.pixel_is_good.size, int(simulate.get("frames", 300))
    return FrameSupply(
        *(None, 0, frames),
        block=int(ingest.get("block_frames", 16)),
        pixels=pixels,
        item_bytes=2,
        new_bytes=2.0 * pixels * frames,
    )


def _find(sources: Any) -> list[str]:
    listed = [sources] if isinstance(sources, str | Path) else list(sources)
    found: list[str] = []
    for source in map(str, listed):
        matches = [source] if os.path.exists(source) else sorted(glob.glob(source, recursive=True))
        if not matches:
            raise BadFrames(f"no file matches '{source}'")
        found += matches
    return found
