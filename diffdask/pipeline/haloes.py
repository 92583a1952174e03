"""The verb ``haloes``: diffuse scattering of long correlation, looked for about the lattice points of every hit.

Hits are read once more, block by block. The mark of a block keeps a digest of
its hits and of what indexing said of them: a block counts as done only while
both stay the same.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from diffdask.cluster import connect
from diffdask.errors import BadStore
from diffdask.geometry import Geometry
from diffdask.io.frames_store import frames_attributes, take_columns, take_frames
from diffdask.io.marks import mark_block, marked_blocks, read_note
from diffdask.io.paths import absolute, as_store
from diffdask.io.results_store import (
    check_made,
    finish_group,
    frames_path,
    open_features,
    open_screen,
    open_unfinished,
    remove_group,
    stamp_of,
    start_group,
    write_rows,
    write_whole,
)
from diffdask.io.storage import storage_at
from diffdask.kernels.lattice_fit import CENTRINGS
from diffdask.models.chance import standardise_scores
from diffdask.pipeline.blocks import Marks, run_marked
from diffdask.pipeline.layout import load_layout, with_layout
from diffdask.planning import Block, blocks_of
from diffdask.steps.haloes import find_directions, find_haloes
from diffdask.steps.screening import screening_parameters
from diffdask.variables import wrap

GROUP = "haloes"

#: Hits a block, read one by one.
_BLOCK_HITS = 32

#: A row of each for every hit; NaN where the hit has no lattice.
_HIT_VARIABLES = (
    "hit_halo",
    "halo_crest",
    "lattice_share",
    "hit_mosaicity",
    "halo_profile",
    "halo_noise",
    "refined_orientation",
)

_log = logging.getLogger(__name__)


def haloes(
    results: str | Path,
    *,
    halo_length: float = 100.0,
    spot_guard: float = 3.5,
    halo_q_min: float = 0.5,
    halo_reach: float = 0.005,
    shell_count: int = 20,
    overwrite: bool = False,
    on: Any = None,
    progress: bool = True,
) -> str | Path:
    """Look for haloes: diffuse scattering of long correlation, close about the Bragg spots of indexed hits.

    It is finer than the polar bins that all other methods look at. Running it again goes on where it stopped, and
    does again what new frames or new orientations have changed.

    Parameters
    ----------
    results
        The results store, screened.
    halo_length
        Correlation length of the haloes that are weighed most, angstrom. From half to twice of it little changes.
    spot_guard
        Standard deviations of Bragg spots that are left out, in depth and on the detector.
    halo_q_min
        Lowest q of a ring that is used, 1/angstrom.
    halo_reach
        Distance from lattice points where the profile ends, 1/angstrom without 2 pi.
    shell_count
        Shells of the profile.
    overwrite
        Throw away haloes that were found with other parameters.
    on
        Where to run: "laptop", a scheduler's address, or a file of deploy/.
    progress
        Show a bar on the terminal.

    Returns
    -------
    pathlib.Path or str
        The results store: a path, or a URL.

    Raises
    ------
    BadParameter
        If a number makes no sense.
    BadStore
        If there are no features yet, no hit has a lattice, or haloes were found with other parameters.
    """
    results = as_store(results)
    how = {"halo_length": halo_length, "spot_guard": spot_guard, "halo_q_min": halo_q_min}
    how |= {"halo_reach": halo_reach, "shell_count": shell_count}
    numbers = open_features(results).hit_frame.values
    columns = take_columns(frames_path(results), numbers, columns=("orientation", "lattice"))
    _check_lattices(results, columns)
    _look(absolute(results), take_frames(frames_path(results), []), numbers[:0], how)  # mistakes before the work
    if overwrite and not _is_stamped(results, how):
        remove_group(results, GROUP)
    made = _start(results, numbers.size, how)
    blocks = blocks_of(numbers.size, _BLOCK_HITS)
    task = functools.partial(_look_block, results=absolute(results), made=made, how=how)
    with connect(on) as client:
        done = _still_true(results, columns, numbers)
        marks = Marks(absolute(results), GROUP)
        run_marked(client, task, blocks, done, what="haloes", unit="hit", progress=progress, marks=marks)
    _write_columns(results)
    finish_group(results, GROUP)
    return results


def _names_centring(lattice: np.ndarray) -> np.ndarray:
    """Whether texts such as "orthorhombic I *" name a centring that is known, (frame,); a stream need not."""
    words = [text.split() for text in lattice.astype(str)]
    return np.array([len(word) > 1 and word[1] in CENTRINGS for word in words], dtype=bool)


def _check_lattices(results: str | Path, columns: xr.Dataset) -> None:
    """Refuse hits without any lattice, and say how many are left out for their centring."""
    lattice = columns.lattice.values[np.isfinite(columns.orientation.values).all(axis=(1, 2))]
    if not lattice.size:
        raise BadStore(
            f"no hit of '{results}' is indexed, and haloes lie about lattice points: give streams to 'diffdask ingest'"
        )
    unknown = lattice[~_names_centring(lattice)].astype(str)
    told = f"a lattice without a known centring ({', '.join(map(repr, np.unique(unknown).tolist()))})"
    if unknown.size == lattice.size:
        raise BadStore(f"all indexed hits of '{results}' have {told}; it is to be one of {' '.join(CENTRINGS)}")
    if unknown.size:
        _log.warning("%d hits have %s: haloes are not looked for there", unknown.size, told)


def _is_stamped(results: str | Path, how: dict[str, Any]) -> bool:
    try:
        stamp_of(results, GROUP, how)
    except BadStore:
        return False
    return True


def _start(results: str | Path, count: int, how: dict[str, Any]) -> str:
    edges = np.linspace(0.0, how["halo_reach"], how["shell_count"] + 1)
    return start_group(
        results,
        GROUP,
        sizes={"hit": count, "halo_shell": how["shell_count"], "reciprocal_axis": 3, "xyz": 3},
        names=("hit_frame", *_HIT_VARIABLES),
        block=_BLOCK_HITS,
        parameters=how,
        constants=wrap(halo_distance=0.5 * (edges[:-1] + edges[1:])),
    )


def _still_true(results: str | Path, columns: xr.Dataset, numbers: np.ndarray) -> list[Block]:
    """Marked blocks whose hits are still the same, and indexed as they were."""
    return [
        block
        for block in marked_blocks(results, GROUP)
        if read_note(results, GROUP, block) == _digest(columns.isel(frame=slice(*block)), numbers[slice(*block)])
    ]


def _digest(columns: xr.Dataset, numbers: np.ndarray) -> str:
    """Which frames these are and how they are indexed, in 40 letters."""
    lattice = "\n".join(columns.lattice.values.astype(str)).encode()
    told = (numbers.astype(np.int64).tobytes(), columns.orientation.values.astype(float).tobytes(), lattice)
    return hashlib.sha1(b"|".join(told), usedforsecurity=False).hexdigest()


def _look_block(block: Block, *, results: str, made: str, how: dict[str, Any]) -> None:
    """Read, look at, write and mark one block of hits: what a worker does."""
    numbers = open_features(results).hit_frame.values[slice(*block)]
    hits = take_frames(frames_path(results), numbers.tolist())
    found = _look(results, hits, numbers, how)
    write_rows(results, GROUP, block[0], found[list(_HIT_VARIABLES)].merge(wrap(hit_frame=numbers)), made=made)
    check_made(results, GROUP, made)
    mark_block(results, GROUP, block, note=_digest(hits, numbers))


def _look(results: str, hits: xr.Dataset, numbers: np.ndarray, how: dict[str, Any]) -> xr.Dataset:
    """Find the haloes of hits of these frame numbers; a lattice without a known centring counts as none."""
    layout, pixels = load_layout(results)
    known = np.where(_names_centring(hits.lattice.values), hits.lattice.values, "")
    return find_haloes(
        with_layout(hits.assign(wrap(lattice=known)), layout, numbers),
        how=screening_parameters(**open_screen(results).attrs["parameters"]),
        settings=layout.attrs["settings"],
        pixels=pixels,
        directions=_find_directions_once(results, storage_at(results).stamp("layout/zarr.json")),
        **how,
    )


@functools.lru_cache(maxsize=2)
def _find_directions_once(results: str, stamp: Hashable) -> tuple[np.ndarray, ...]:
    """Where the listed pixels look from the crystal: 12 bytes a pixel of every setting, once a process."""
    layout, pixels = load_layout(results)
    geometry = Geometry.from_dataset(take_frames(frames_path(results), []))
    return find_directions(geometry, pixels, layout.attrs["settings"])


def _write_columns(results: str | Path) -> None:
    """Spread over all frames what the catalogue shows."""
    found = open_unfinished(results, GROUP)
    count = int(frames_attributes(frames_path(results))["frame_count"])
    columns = {name: np.full(count, np.nan) for name in ("frame_halo", "frame_lattice_share")}
    columns["frame_halo"][found.hit_frame.values] = standardise_scores(found.hit_halo.values)
    columns["frame_lattice_share"][found.hit_frame.values] = found.lattice_share.values
    write_whole(results, GROUP, wrap(**columns))
