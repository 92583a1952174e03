"""The verb ``merge``: the diffuse hits in one map of reciprocal space."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffdask.cluster import connect
from diffdask.errors import BadParameter, BadStore, nearest
from diffdask.io.paths import absolute, as_store, name_of, parent, suffix_of, with_suffix
from diffdask.io.results_store import open_features, open_hits, open_scores, open_screen
from diffdask.io.storage import storage_at
from diffdask.io.volume_store import (
    add_blocks,
    remove_blocks,
    save_volume,
    stamp_of_volume,
    start_blocks,
    write_block,
    write_ccp4,
    written_blocks,
)
from diffdask.pipeline.blocks import run_marked
from diffdask.pipeline.crystals import is_oriented, open_crystals
from diffdask.pipeline.oriented_hits import find_rotations, find_symmetry, load_oriented_hits
from diffdask.planning import Block, blocks_of
from diffdask.steps.merge import MapGrid, embed_hits, merge_halves, plan_grid, plan_shells
from diffdask.variables import wrap
from diffdask.version import __version__

#: Hits a block: its part of the map is written, so that blocks should share voxels, and reading is by the hundred.
_BLOCK_HITS = 64

#: What puts hits on one scale.
SCALES = ("background", "none")


class ChosenHits(NamedTuple):
    """Hits to be merged."""

    rows: np.ndarray  #: (n,) of the groups of hits, rising
    rotation: np.ndarray  #: (n, 3, 3) from the laboratory to the crystal's frame
    frames: np.ndarray  #: (n,) their frame numbers
    half: np.ndarray  #: (n,) 0 or 1: half map that each goes to
    scale: np.ndarray  #: (n,) brightness, over the usual one


def merge(
    results: str | Path,
    *,
    to: str | Path,
    size: int = 200,
    q_min: float = 0.0,
    q_max: float = 0.0,
    top: int = 0,
    scale: str = "background",
    orientations: str = "best",
    shells: int = 20,
    seed: int = 0,
    overwrite: bool = False,
    on: Any = None,
    progress: bool = True,
) -> str | Path:
    """Merge the hits that are predicted diffuse into a map of reciprocal space.

    The map has the crystal's Laue symmetry and Friedel's law as ``compare`` was told them, and its indexing ambiguity
    as it resolved it. Intensities are photons a pixel above the ring's mean, with what the run shares taken out,
    averaged with inverse counting variances, on the scale of the median hit. Running it again goes on where it stopped.

    Parameters
    ----------
    results
        The results store, compared and ranked.
    to
        The map, a Zarr store such as map.zarr, here or at a URL; map.ccp4 is written beside it.
    size
        Voxels along a side of the cube.
    q_min, q_max
        Range of the map, 1/angstrom; q_max is where the cube ends, along each axis. 0 for what the polar rings cover.
    top
        How many hits, by score, of those that are indexed; 0 for all that are predicted diffuse.
    scale
        "background": hits are put on one scale by their isotropic background, which grows with the pulse and the
        crystal as the diffuse intensity does. "none": they are taken as they are.
    orientations
        "best": hits that indexing lost join at the orientation that ``orient`` found for them, if it was run.
        "indexing": no hit does.
    shells
        Shells of resolution in which the maps of two halves of the hits are correlated.
    seed
        Of the choice of halves.
    overwrite
        Replace a map that was made with other parameters.
    on
        Where to run: "laptop", a scheduler's address, or a file of deploy/.
    progress
        Show a bar on the terminal.

    Returns
    -------
    pathlib.Path or str
        The map: a path, or a URL.

    Raises
    ------
    BadParameter
        If a number makes no sense.
    BadStore
        If hits are not ranked or not compared yet, fewer than two can be merged, or ``to`` holds something else.
    """
    results, to = as_store(results), as_store(to)
    if suffix_of(to) == ".ccp4":
        raise BadParameter(f"'{to}' must be the Zarr store, such as map.zarr; the .ccp4 is written beside it")
    chosen = choose_hits(results, top=top, scale=scale, orientations=orientations, seed=seed)
    grid = plan_grid(size=size, q_max=q_max or _outermost_q(results))
    plan_shells(grid, shell_count=shells, q_min=q_min)  # a mistake is told before the work
    how = _describe(results, chosen, grid) | {
        "q_min": q_min,
        "top": top,
        "scale": scale,
        "orientations": orientations,
        "shells": shells,
        "seed": seed,
    }
    beside = with_suffix(to, ".ccp4")
    if _is_made(to, how, overwrite) and storage_at(parent(beside)).exists(name_of(beside)):
        return to
    folder = start_blocks(to, how)
    blocks = blocks_of(chosen.rows.size, _BLOCK_HITS)
    task = functools.partial(_merge_block, results=absolute(results), folder=absolute(folder), chosen=chosen, how=how)
    with connect(on) as client:
        run_marked(client, task, blocks, written_blocks(folder), what="merge", unit="hit", progress=progress)
    symmetry = find_symmetry(how["laue"], how["lattice"], (cell := np.array(how["cell"])))
    volume = merge_halves(
        *add_blocks(folder, blocks, size),
        grid=grid,
        rotations=symmetry.rotations,
        friedel=how["friedel"],
        shell_count=shells,
        q_min=q_min,
    )
    volume = volume.merge(wrap(merged_frame=chosen.frames, merged_half=chosen.half, crystal_cell=cell))
    attributes = {"step": grid.step, "laue": how["laue"], "hit_count": chosen.rows.size, "parameters": how}
    write_ccp4(beside, volume.map_intensity.values, step=grid.step)
    save_volume(to, volume, attributes)
    remove_blocks(to)
    return to


def choose_hits(results: str | Path, *, top: int, scale: str, orientations: str = "best", seed: int) -> ChosenHits:
    """Choose the hits to be merged: of known orientation, and predicted diffuse or of the highest scores.

    Parameters
    ----------
    results
        The results store, compared and ranked.
    top
        How many; 0 for all whose score reaches the threshold of their method.
    scale
        "background" or "none".
    orientations
        "best" or "indexing".
    seed
        Of the halves, which differ by one hit at most.

    Raises
    ------
    BadParameter
        If ``top`` is negative, or the scale is not known.
    BadStore
        If hits are not ranked or not compared yet, or fewer than two are left.
    """
    if scale not in SCALES:
        raise BadParameter(f"scale '{scale}' is not known; {nearest(scale, SCALES)}")
    if top < 0:
        raise BadParameter(f"top = {top} must be a number of hits, or 0 for all that are predicted diffuse")
    scores = open_scores(results)
    if scores is None:
        raise BadStore(f"the hits of '{results}' are not ranked yet; run: diffdask rank {results}")
    frames = open_crystals(results).hit_frame.values
    brightness = open_screen(results).frame_background.values[frames] if scale == "background" else np.ones(frames.size)
    rotation = find_rotations(results, orientations=orientations)
    score = np.where(is_oriented(rotation) & (brightness > 0.0), scores.frame_score.values[frames], np.nan)
    if top:
        best = np.argsort(-score, kind="stable")[: min(top, np.isfinite(score).sum())]
        rows = np.sort(best)
    else:
        rows = np.flatnonzero(score >= scores.attrs["threshold"])
    if rows.size < 2:
        raise BadStore(
            f"{rows.size} of {frames.size} hits of '{results}' are oriented and predicted diffuse (a score "
            f"of at least {scores.attrs['threshold']}); a map needs two: give --top N for the N best"
        )
    half = np.random.default_rng(seed).permutation(np.arange(rows.size) % 2)
    usual = float(np.median(brightness[rows]))
    return ChosenHits(
        rows=rows, rotation=rotation[rows], frames=frames[rows], half=half, scale=brightness[rows] / usual
    )


def _outermost_q(results: str | Path) -> float:
    """Outer edge of the outermost polar ring, 1/angstrom."""
    ring_q = open_hits(results).polar_ring_q.values
    return float(ring_q[-1] + (ring_q[-1] - ring_q[-2]) / 2)


def _describe(results: str | Path, chosen: ChosenHits, grid: MapGrid) -> dict[str, Any]:
    """All that decides what a map is made of: JSON-able."""
    crystals, features = open_crystals(results), open_features(results)
    told = crystals.attrs["parameters"]
    made_of = (chosen.frames, chosen.half, chosen.scale, chosen.rotation)
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(one).tobytes() for one in made_of))
    return {
        "size": grid.size,
        "q_max": grid.q_max,
        "step": grid.step,
        **{name: told[name] for name in ("laue", "lattice", "friedel")},
        "cell": crystals.crystal_cell.values.tolist(),
        "hits": digest.hexdigest(),
        "hits_parameters": open_hits(results).attrs["parameters"],
        "features_parameters": features.attrs["parameters"],
    }


def _is_made(to: str | Path, how: dict[str, Any], overwrite: bool) -> bool:
    """Whether this very map is there.

    Raises
    ------
    BadStore
        If another one is, and must not be replaced.
    """
    stamp = stamp_of_volume(to)
    if stamp is None or stamp == {"parameters": how, "version": __version__}:
        return stamp is not None
    if not overwrite:
        before = stamp["parameters"] or {}
        changed = [
            f"{key}: {before.get(key)!r} there, {how.get(key)!r} asked"
            for key in sorted({*before, *how} - {"hits", "cell"})
            if before.get(key) != how.get(key)
        ]
        raise BadStore(
            f"'{to}' was merged with other parameters ({'; '.join(changed) or 'other hits, or another version'}); "
            "give --overwrite to merge anew, or another --to"
        )
    return False


def _merge_block(block: Block, *, results: str, folder: str, chosen: ChosenHits, how: dict[str, Any]) -> None:
    """Embed the hits of a block, each in its half, and write what they add: what a worker does."""
    grid = MapGrid(size=how["size"], step=how["step"])
    rotations = find_symmetry(how["laue"], how["lattice"], np.array(how["cell"])).rotations
    hits = load_oriented_hits(results, chosen.rows[slice(*block)], orientations=how["orientations"])
    # intensity and its noise are divided by the scale; the significance is not
    hits["polar_noise"] = hits.polar_noise / chosen.scale[slice(*block), None, None]
    halves = (hits.isel(hit=np.flatnonzero(chosen.half[slice(*block)] == half)) for half in range(2))
    embed = functools.partial(embed_hits, grid=grid, rotations=rotations, friedel=how["friedel"], q_min=how["q_min"])
    write_block(folder, block, map(embed, halves))
