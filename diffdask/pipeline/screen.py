"""The verb ``screen``: every frame once, then the hits.

Four groups of the results store are made, each from the one before: ``layout``
(pixels), ``screen`` (frames, block by block), ``hits`` (polar residuals, block
by block) and ``features``. A group is kept while its parameters stay the same.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from diffdask.cluster import connect, count, tell_counts
from diffdask.errors import BadStore
from diffdask.io.frames_store import each_frame, frames_attributes, read_frame_columns
from diffdask.io.marks import mark_block, marked_blocks, noted_blocks
from diffdask.io.paths import absolute, as_store
from diffdask.io.results_store import check_made, create_results, remove_group, stamp_of, start_group, write_rows
from diffdask.io.storage import storage_at
from diffdask.pipeline.blocks import Marks, run_marked
from diffdask.pipeline.failed_frames import flag_block, note_unreadable, tell_unreadable
from diffdask.pipeline.hits import GONE_ON_WITH, OUTDATED, average_hits, decide_hits, find_features
from diffdask.pipeline.layout import load_layout, make_layout, with_layout
from diffdask.pipeline.status import count_screened
from diffdask.planning import Block, blocks_of
from diffdask.steps.azimuthal import group_seen_rings
from diffdask.steps.polar import describe_polar_rings, group_rings
from diffdask.steps.screening import screen_frames, screening_parameters

#: Groups in the order in which they are made; undoing one undoes those after it.
GROUPS = ("layout", "screen", "hits", "features")

#: Groups made from those.
_LATER = ("nuisance", *OUTDATED, *GONE_ON_WITH)

Parameters = dict[str, dict[str, Any]]

#: Columns of the frames store that the screen of a block looks at.
_COLUMNS = ("photon_energy", "frame_status")

_SCREEN_VARIABLES = (
    "frame_is_hit",
    "frame_peak_count",
    "frame_peak_intensity",
    "frame_background",
    "frame_anisotropy",
    "frame_diffuse_excess",
    "frame_status",
    "background_profile",
    "ring_anisotropy",
)


def screen(
    frames: str | Path,
    *,
    results: str | Path,
    ring_count: int = 480,
    azimuth_count: int = 72,
    q_min: float = 0.0,
    q_max: float = 0.0,
    polarisation_fraction: float = 0.98,
    polarisation_angle: float = 0.0,
    wide_columns: str = "leave-out",
    min_peaks: int = 5,
    min_excess: float = 6.0,
    window_q_min: float = 0.0,
    window_q_max: float = 0.0,
    common_mode: str = "zero-peak",
    clip_low: float = 5.0,
    clip_high: float = 5.0,
    clip_passes: int = 3,
    snr: float = 6.0,
    threshold: float = 5.0,
    min_pixels: int = 2,
    max_pixels: int = 30,
    radius: int = 4,
    polar_ring_count: int = 60,
    bin_pixels: int = 10,
    component_count: int | str = "auto",
    ring_groups: int = 4,
    feature_q_min: float = 0.5,
    seed: int = 0,
    overwrite: bool = False,
    retry: bool = False,
    on: Any = None,
    progress: bool = True,
) -> str | Path:
    """Find hits, background and anisotropy of every frame, and the features of the hits.

    Running it again goes on where it stopped; frames ingested since are added.
    A frame that is damaged, and the frames of a block that fails or takes down
    its workers, are flagged in ``frame_status``, and the others go on.

    Parameters
    ----------
    frames
        The frames store.
    results
        The results store, new or to be gone on with.
    ring_count
        Rings of the background, equal in q.
    azimuth_count
        Azimuthal bins.
    q_min, q_max
        Range of the rings, 1/angstrom; 0 for what the detector covers.
    polarisation_fraction
        Degree of linear polarisation of the beam, -1 to 1.
    polarisation_angle
        Direction of the polarisation from +x, degrees: 0 horizontal (LCLS before Run 18), 90 vertical.
    wide_columns
        CSPAD's wide pixels: "leave-out", or "divide" by their area.
    min_peaks
        Bragg peaks that make a frame a hit.
    min_excess
        Diffuse excess that makes a frame a hit even without peaks: robust standard deviations above the frames
        of its run without peaks.
    window_q_min, window_q_max
        Rings whose median makes background level and anisotropy, 1/angstrom; 0 for all.
    common_mode
        "zero-peak": each panel's offset from its pixels that caught no photon; "none": already taken out.
    clip_low, clip_high, clip_passes
        Sigma clipping of a ring: standard deviations below and above its mean, and passes.
    snr
        Signal-to-noise ratio of a peak, against its ring and against its neighbourhood.
    threshold
        Photons above the ring mean that each pixel of a peak has.
    min_pixels, max_pixels
        Size of a peak.
    radius
        Half side of a peak's neighbourhood, pixels.
    polar_ring_count
        Rings of the polar residual; divides ring_count.
    bin_pixels
        Fewest pixels of a polar bin.
    component_count
        Components of what hits share in the detector's frame that are taken out; "auto" for all along which hits vary
        twice as much as counting noise does.
    ring_groups
        Groups of polar rings whose features are found one by one, beside all at once.
    feature_q_min
        Lowest q of the features, 1/angstrom.
    seed
        Of the folds in which the components are found.
    overwrite
        Throw away what was made with other parameters.
    retry
        Try blocks of frames again that failed before, and those with frames that were damaged or missing.
    on
        Where to run: "laptop", a scheduler's address, or a file of deploy/.
    progress
        Show bars on the terminal.

    Returns
    -------
    pathlib.Path or str
        The results store: a path, or a URL.

    Raises
    ------
    BadStore
        If the frames are unfinished, or results were made with other parameters.
    BadParameter, BadGeometry
        If a number makes no sense for these frames.
    FailedBlocks
        If storage failed, or blocks of hits; the same command goes on.
    LostScheduler
        If the scheduler is gone; the same command goes on.
    """
    frames, results = as_store(frames), as_store(results)
    group_rings(ring_count, polar_ring_count)
    parameters: Parameters = {
        "layout": {
            "ring_count": ring_count,
            "azimuth_count": azimuth_count,
            "q_min": q_min,
            "q_max": q_max,
            "polarisation_fraction": polarisation_fraction,
            "polarisation_angle": polarisation_angle,
            "wide_columns": wide_columns,
        },
        "screen": {
            "window_q_min": window_q_min,
            "window_q_max": window_q_max,
            "common_mode": common_mode,
            "clip_low": clip_low,
            "clip_high": clip_high,
            "clip_passes": clip_passes,
            "snr": snr,
            "threshold": threshold,
            "min_pixels": min_pixels,
            "max_pixels": max_pixels,
            "radius": radius,
        },
        "hits": {
            "min_peaks": min_peaks,
            "min_excess": min_excess,
            "polar_ring_count": polar_ring_count,
            "bin_pixels": bin_pixels,
        },
        "features": {
            "component_count": component_count,
            "ring_groups": ring_groups,
            "feature_q_min": feature_q_min,
            "seed": seed,
        },
    }
    screening_parameters(**parameters["screen"])
    create_results(results, frames=frames)
    _check_parameters(results, parameters, overwrite=overwrite)
    make_layout(results, frames, parameters["layout"])
    _check_rings(results, parameters)
    _note_asked(results, parameters)
    with connect(on) as client:
        _screen_frames(client, frames, results, parameters, retry=retry, progress=progress)
        decide_hits(frames, results, parameters["hits"])
        average_hits(client, frames, results, parameters, progress=progress)
    find_features(frames, results, parameters["features"])
    return results


def _check_parameters(results: str | Path, parameters: Parameters, *, overwrite: bool) -> None:
    """Refuse groups made with other parameters, or remove them and all that was made from them."""
    for position, group in enumerate(GROUPS):
        try:
            stamp_of(results, group, parameters[group])
        except BadStore:
            if not overwrite:
                raise
            for later in (*GROUPS[position:], *_LATER):
                remove_group(results, later)
            return


def _note_asked(results: str | Path, parameters: Parameters) -> None:
    """Note what is being made, for those who look on before it is there: ``status`` counts hits by it."""
    zarr.open_group(storage_at(results).zarr_store(), mode="r+", use_consolidated=False).attrs["asked"] = parameters


def _check_rings(results: str | Path, parameters: Parameters) -> None:
    """Find out now, and not after hours, whether features can be found on these rings."""
    layout, _ = load_layout(results)
    hits, features = parameters["hits"], parameters["features"]
    rings = describe_polar_rings(layout, polar_ring_count=hits["polar_ring_count"], bin_pixels=hits["bin_pixels"])
    group_seen_rings(rings, ring_groups=features["ring_groups"], feature_q_min=features["feature_q_min"])


def _screen_frames(
    client: Any, frames: str | Path, results: str | Path, parameters: Parameters, *, retry: bool, progress: bool
) -> None:
    how, min_peaks = parameters["screen"], parameters["hits"]["min_peaks"]
    size = int(frames_attributes(frames)["block_frames"])
    count = int(frames_attributes(frames)["frame_count"])
    layout, _ = load_layout(results)
    made = start_group(
        results,
        "screen",
        sizes={"frame": count, "ring": layout.sizes["ring"]},
        names=_SCREEN_VARIABLES,
        block=size,
        parameters=how,
        constants=layout[["ring_q"]],
    )
    task = functools.partial(
        _screen_block, frames=absolute(frames), results=absolute(results), made=made, how=how, min_peaks=min_peaks
    )
    stale = set(noted_blocks(results, "screen")) if retry else set()
    done = marked_blocks(results, "screen") - stale
    tell_counts(client, **count_screened(results, done, min_peaks=min_peaks))
    flag = functools.partial(flag_block, results=absolute(results))
    marks = Marks(absolute(results), "screen", flag=flag, retry=retry, stale=stale)
    run_marked(client, task, blocks_of(count, size), done, what="screen", unit="frame", progress=progress, marks=marks)
    tell_unreadable(results)


def _screen_block(block: Block, *, frames: str, results: str, made: str, how: dict[str, Any], min_peaks: int) -> None:
    """Read, screen, write and mark one block of frames: what a worker does, as long as the group is as it was made."""
    layout, pixels = load_layout(results)
    ds = with_layout(read_frame_columns(frames, *block, columns=_COLUMNS), layout, np.arange(*block))
    status = ds.frame_status.values
    before = status.copy()
    readings = each_frame(frames, *block, status=status)
    screened = screen_frames(ds, pixels=pixels, one_by_one=readings, **how)
    write_rows(results, "screen", block[0], screened, made=made)
    check_made(results, "screen", made)  # the mark would count for a group made anew since
    mark_block(results, "screen", block, note=note_unreadable(status, before, block[0]))
    peaky = int((screened.frame_peak_count.values >= min_peaks).sum())
    count(hits=peaky, damaged=int((status != before).sum()))
