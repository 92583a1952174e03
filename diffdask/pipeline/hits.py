"""The groups ``hits`` and ``features``: what is done with hits only."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from diffdask.cluster import tell_counts
from diffdask.io.frames_store import frames_attributes, read_frame_columns, take_columns, take_frames
from diffdask.io.marks import mark_block, marked_blocks, unmark_blocks
from diffdask.io.nuisance_store import save_nuisance
from diffdask.io.paths import absolute, join
from diffdask.io.results_store import (
    check_made,
    finish_group,
    open_group,
    open_hits,
    open_unfinished,
    read_column,
    remove_group,
    reopen_group,
    replace_group,
    start_group,
    write_rows,
)
from diffdask.models.hits import HitFinder
from diffdask.models.nuisance import NuisanceComponents
from diffdask.pipeline.blocks import Marks, run_marked
from diffdask.pipeline.layout import load_layout, with_layout
from diffdask.planning import Block, blocks_of
from diffdask.steps.azimuthal import find_azimuthal_features
from diffdask.steps.peaks import LISTED_PEAKS, find_peaks
from diffdask.steps.polar import describe_polar_rings, find_polar_residual
from diffdask.steps.screening import screening_parameters
from diffdask.steps.structure import find_structure
from diffdask.variables import SIMILARITIES, wrap

_HIT_VARIABLES = (
    "hit_frame",
    "polar_residual",
    "polar_noise",
    "hit_peak_count",
    "peak_panel",
    "peak_ss",
    "peak_fs",
    "peak_intensity",
    "peak_snr",
)

#: Groups made from all hits together, which are worth nothing once there are others.
OUTDATED = (*SIMILARITIES, "consistency", "search", "orientations", "scores")

#: Groups made from hits one by one: once there are others, their verbs go on.
GONE_ON_WITH = ("haloes", "images", "vgg16")

#: Hits a block: read one by one, so that a block costs about what a block of frames costs.
_BLOCK_HITS = 32

#: Hits a chunk of cleaned residuals, which are small and read by the hundred.
_FEATURE_HITS = 128


def decide_hits(frames: str | Path, results: str | Path, how: dict[str, Any]) -> None:
    """Write ``frame_is_hit`` for all frames, now that it is known what is usual; with that the screen is finished.

    Features and scores of other hits than these are thrown away; haloes and pictures are to be gone on with.
    """
    count = int(frames_attributes(frames)["frame_count"])
    run = read_frame_columns(frames, 0, count, columns=("run",)).run.values
    excess = read_column(results, "screen", "frame_diffuse_excess")
    seen = (read_column(results, "screen", "frame_peak_count", dtype=np.int32), excess, run)
    finder = HitFinder(min_peaks=how["min_peaks"], min_excess=how["min_excess"]).fit(*seen)
    is_hit = finder.predict(*seen)
    write_rows(results, "screen", 0, wrap(frame_is_hit=is_hit))
    features = open_group(results, "features")
    if features is not None and not np.array_equal(features.hit_frame.values, np.flatnonzero(is_hit)):
        for outdated in (*OUTDATED, "features"):
            remove_group(results, outdated)
        for later in GONE_ON_WITH:
            reopen_group(results, later)
    finish_group(results, "screen")


def average_hits(
    client: Any, frames: str | Path, results: str | Path, parameters: dict[str, dict[str, Any]], *, progress: bool
) -> None:
    """Average the residual of all hits over polar bins and list their Bragg peaks, block by block."""
    layout, _ = load_layout(results)
    numbers = np.flatnonzero(read_column(results, "screen", "frame_is_hit"))
    polar = {name: parameters["hits"][name] for name in ("polar_ring_count", "bin_pixels")}
    made = start_group(
        results,
        "hits",
        sizes={
            "hit": numbers.size,
            "polar_ring": polar["polar_ring_count"],
            "azimuth": layout.sizes["azimuth"],
            "peak": LISTED_PEAKS,
        },
        names=_HIT_VARIABLES,
        block=_BLOCK_HITS,
        parameters=parameters["hits"],
        constants=describe_polar_rings(layout, **polar),
    )
    task = functools.partial(
        _average_block,
        frames=absolute(frames),
        results=absolute(results),
        made=made,
        screening=parameters["screen"],
        polar=polar,
    )
    done = _still_true(results, numbers)
    unmark_blocks(results, "hits", marked_blocks(results, "hits") - done)  # before what says that they no longer hold
    write_rows(results, "hits", 0, wrap(hit_frame=numbers))
    tell_counts(client, hits=int(numbers.size))
    blocks, marks = blocks_of(numbers.size, _BLOCK_HITS), Marks(absolute(results), "hits")
    run_marked(client, task, blocks, done, what="hits", unit="hit", progress=progress, marks=marks)
    finish_group(results, "hits")


def find_features(frames: str | Path, results: str | Path, how: dict[str, Any]) -> None:
    """Clean the hits of what they share, and find their azimuthal features and their structure."""
    hits = open_hits(results)
    if open_group(results, "features") is not None:
        return
    noise = hits.polar_noise.values
    nothing = np.full(noise.shape, np.nan, dtype=noise.dtype)
    significance = np.divide(hits.polar_residual.values, noise, out=nothing, where=noise > 0)
    model = NuisanceComponents(component_count=how["component_count"], seed=how["seed"])
    cleaned = wrap(
        cleaned_residual=model.fit_transform(
            significance, take_columns(frames, hits.hit_frame.values, columns=("run",)).run.values
        ),
        polar_ring_q=hits.polar_ring_q.values,
        polar_coverage=hits.polar_coverage.values,
    )
    found = find_azimuthal_features(cleaned, ring_groups=how["ring_groups"], feature_q_min=how["feature_q_min"])
    found = found.merge(find_structure(cleaned, feature_q_min=how["feature_q_min"]))
    kept = wrap(
        hit_frame=hits.hit_frame.values,
        cleaned_residual=cleaned.cleaned_residual,
        nuisance_component=model.components_.reshape(-1, *significance.shape[1:]),
    )
    for outdated in OUTDATED:
        remove_group(results, outdated)
    save_nuisance(join(results, "nuisance"), model)
    replace_group(results, "features", found.merge(kept), {"parameters": how}, block=_FEATURE_HITS)


def _average_block(
    block: Block, *, frames: str, results: str, made: str, screening: dict[str, Any], polar: dict[str, Any]
) -> None:
    """Read single hits, average their residual over polar bins, list their peaks, write and mark."""
    layout, pixels = load_layout(results)
    numbers = open_unfinished(results, "hits").hit_frame[slice(*block)].values
    ds = with_layout(take_frames(frames, numbers.tolist()), layout, numbers)
    how = screening_parameters(**screening)
    found = find_polar_residual(ds, how=how, pixels=pixels, **polar)
    peaks = find_peaks(ds, how=how, pixels=pixels)
    write_rows(results, "hits", block[0], found[["polar_residual", "polar_noise"]].merge(peaks), made=made)
    check_made(results, "hits", made)
    mark_block(results, "hits", block)


def _still_true(results: str | Path, numbers: np.ndarray) -> set[Block]:
    """Marked blocks whose hits are still the same: frames added since can change what is usual, and so the hits."""
    stored = open_unfinished(results, "hits").hit_frame.values
    return {
        block
        for block in marked_blocks(results, "hits")
        if block[1] <= numbers.size and np.array_equal(stored[slice(*block)], numbers[slice(*block)])
    }
