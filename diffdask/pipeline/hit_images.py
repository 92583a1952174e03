"""The group ``images``: a picture of every hit, drawn block by block.

The mark of a block keeps a digest of its hits and of what is taken out of
them: a block counts as done only while both stay the same.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from diffdask.errors import BadParameter, nearest
from diffdask.image_map import ImageMap, plan_images
from diffdask.io.frames_store import take_frames
from diffdask.io.marks import mark_block, marked_blocks, read_note
from diffdask.io.nuisance_store import load_nuisance
from diffdask.io.paths import absolute, join
from diffdask.io.results_store import (
    check_made,
    finish_group,
    frames_path,
    open_features,
    open_hits,
    open_screen,
    start_group,
    write_rows,
)
from diffdask.io.storage import storage_at
from diffdask.models.nuisance import NuisanceComponents
from diffdask.pipeline.blocks import Marks, run_marked
from diffdask.pipeline.layout import load_layout, with_layout
from diffdask.planning import Block, blocks_of
from diffdask.steps.images import CONTENTS, find_polar_nuisance, render_images, render_polar_images
from diffdask.steps.screening import screening_parameters
from diffdask.variables import wrap

GROUP = "images"

#: Hits a block, read one by one.
_BLOCK_HITS = 32

#: Pictures of the polar residual, which is there already; all others are drawn from the frames.
POLAR = "polar"


def check_drawing(results: str | Path, how: dict[str, Any]) -> None:
    """Find out now, and not after hours, whether pictures can be drawn like this.

    Raises
    ------
    BadParameter
        If a parameter is not known or makes no sense.
    """
    if how["content"] not in (*CONTENTS, POLAR):
        raise BadParameter(f"content '{how['content']}' is not known; {nearest(how['content'], (*CONTENTS, POLAR))}")
    _draw(absolute(results), (0, 0), np.empty(0, dtype=np.int64), {**how, "cleaned": False})  # no hit: nothing to clean


def draw_images(client: Any, results: str | Path, numbers: np.ndarray, how: dict[str, Any], *, progress: bool) -> None:
    """Draw all hits, or those that are not drawn yet, into the group.

    Parameters
    ----------
    client
        From ``connect``.
    results
        The results store.
    numbers
        (n,) frame numbers of the hits.
    how
        ``content``, ``cleaned``, ``normalise`` and ``size`` of the pictures.
    progress
        Show a bar on the terminal.
    """
    made = start_group(
        results,
        GROUP,
        sizes={
            "hit": numbers.size,
            "image_row": how["size"],
            "image_column": how["size"],
            "image_channel": 3 if how["content"] == "three-channels" else 1,
        },
        names=("hit_frame", "hit_image"),
        block=_BLOCK_HITS,
        parameters=how,
    )
    taken_out = digest_taken_out(results, how)
    task = functools.partial(_draw_block, results=absolute(results), made=made, how=how, taken_out=taken_out)
    blocks, done = blocks_of(numbers.size, _BLOCK_HITS), still_true(results, GROUP, numbers, taken_out)
    marks = Marks(absolute(results), GROUP)
    run_marked(client, task, blocks, done, what="pictures", unit="hit", progress=progress, marks=marks)
    finish_group(results, GROUP)


def digest_taken_out(results: str | Path, how: dict[str, Any]) -> str:
    """What is taken out of cleaned pictures, in 40 letters; it changes with the hits of a run."""
    if not how["cleaned"]:
        return ""
    model = load_nuisance(join(results, "nuisance"))
    digest = hashlib.sha1(usedforsecurity=False)
    medians = [model.run_median_[run] for run in sorted(model.run_median_)]
    for values in (model.overall_median_, *medians, model.components_, *model.fold_components_):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def still_true(results: str | Path, group: str, numbers: np.ndarray, taken_out: str) -> list[Block]:
    """Marked blocks of the group whose hits, and what is taken out of these, are still the same."""
    return [
        block
        for block in marked_blocks(results, group)
        if read_note(results, group, block) == note_of(numbers[slice(*block)], taken_out)
    ]


def note_of(numbers: np.ndarray, taken_out: str) -> str:
    """Which hits these are and what is taken out of them, in 40 letters."""
    return hashlib.sha1(numbers.astype(np.int64).tobytes() + taken_out.encode(), usedforsecurity=False).hexdigest()


def _draw_block(block: Block, *, results: str, made: str, how: dict[str, Any], taken_out: str) -> None:
    """Read, draw, write and mark one block of hits: what a worker does."""
    numbers = open_features(results).hit_frame.values[slice(*block)]
    drawn = _draw(results, block, numbers, how)
    write_rows(results, GROUP, block[0], drawn.merge(wrap(hit_frame=numbers)), made=made)
    check_made(results, GROUP, made)
    mark_block(results, GROUP, block, note=note_of(numbers, taken_out))


def _draw(results: str, block: Block, numbers: np.ndarray, how: dict[str, Any]) -> xr.Dataset:
    """Draw the hits of a block, of these frame numbers."""
    polar = open_hits(results)[["polar_residual", "polar_noise"]]
    polar = polar.merge(open_features(results)[["cleaned_residual"]]).isel(hit=slice(*block)).load()
    shown = {name: how[name] for name in ("cleaned", "normalise")}
    if how["content"] == POLAR:
        return render_polar_images(polar, size=how["size"], **shown)
    frames = take_frames(frames_path(results), numbers.tolist())
    layout, pixels = load_layout(results)
    hits = with_layout(frames, layout, numbers).merge(polar)
    if how["cleaned"]:
        hits = hits.merge(find_polar_nuisance(hits, model=_load_nuisance_once(results, _state(results, "nuisance"))))
    return render_images(
        hits,
        how=screening_parameters(**open_screen(results).attrs["parameters"]),
        maps=_plan_once(results, how["size"], _state(results, "layout")),
        content=how["content"],
        pixels=pixels,
        **shown,
    )


def _state(results: str, group: str) -> Hashable:
    """What changes when a group is replaced."""
    return storage_at(results).stamp(f"{group}/zarr.json")


@functools.lru_cache(maxsize=2)
def _plan_once(results: str, size: int, stamp: Hashable) -> tuple[ImageMap, ...]:
    """Which pixels lie in which cells: some 40 MB a setting for a CSPAD, once a process."""
    layout, _ = load_layout(results)
    columns = take_frames(frames_path(results), [])
    settings: Sequence[Sequence[float]] = layout.attrs["settings"]
    planned = with_layout(columns, layout, np.empty(0, dtype=np.int64))
    return plan_images(planned, [tuple(setting) for setting in settings], size=size)  # type: ignore[misc]


@functools.lru_cache(maxsize=2)
def _load_nuisance_once(results: str, stamp: Hashable) -> NuisanceComponents:
    return load_nuisance(join(results, "nuisance"))
