"""The verb ``orient``: hits whose orientation indexing lost, found in the map that the others make.

A hit is searched in a map that was grown without it, with one fold of the hits
left out; hits without an orientation are in no map, and are searched in that of
all. Blocks hold hits of one fold, so that a worker keeps one map at a time.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from diffdask.cluster import connect
from diffdask.errors import BadStore
from diffdask.io.frames_store import frames_attributes
from diffdask.io.marks import mark_block, marked_blocks
from diffdask.io.paths import absolute, as_store
from diffdask.io.results_store import (
    check_made,
    finish_group,
    frames_path,
    open_group,
    open_unfinished,
    remove_group,
    replace_group,
    stamp_of,
    start_group,
    write_rows,
)
from diffdask.models.chance import adjust_p_values, set_against_chance
from diffdask.models.map_search import search_in_map_of
from diffdask.models.orientation_grid import judge_orientations, measure_misorientation
from diffdask.models.orientation_search import TWISTS, OrientationSearch, twist_rings
from diffdask.pipeline.blocks import Marks, run_marked
from diffdask.pipeline.compare import ensure_compared
from diffdask.pipeline.crystals import open_crystals
from diffdask.pipeline.grow import grow_map
from diffdask.pipeline.oriented_hits import find_symmetry, load_oriented_hits
from diffdask.planning import Block, blocks_of
from diffdask.steps.similarity import prepare_hits
from diffdask.variables import wrap

#: Groups of the results store: what was found for each hit, in the order of the search; and a row for every frame.
_SEARCH, GROUP = "search", "orientations"

#: Hits a block, and hits that are twisted to see what chance gives.
_BLOCK_HITS, _CHANCE_HITS = 256, 2000

#: Consistency, in units of chance, of a hit that is oriented rightly.
_AGREEING = 4.0

#: Angle up to which two orientations are the same, deg.
_SAME_ANGLE = 3.0


def orient(
    results: str | Path,
    *,
    orientation_count: int = 30_000,
    significance: float = 6.0,
    seed: int = 0,
    overwrite: bool = False,
    on: Any = None,
    progress: bool = True,
) -> str | Path:
    """Find how hits are oriented, from the map that the others make.

    Every hit is compared with slices of the map at all orientations, and the best is refined. A hit that fits
    there, and was not indexed or does not agree with the map at the orientation from indexing, takes the one that was
    found: ``merge`` lets it join the map. The catalogue says what was found for every hit, how significant it is, and
    which of the two it has. Running it again goes on where it stopped.

    Parameters
    ----------
    results
        The results store, screened; ``compare`` is run if it was not.
    orientation_count
        Orientations of the grid, about.
    significance
        Of the best fit, in units of chance, for a hit to take the orientation that was found.
    seed
        Of the folds.
    overwrite
        Throw away a search that was made with other parameters.
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
        If no hit is indexed: there is no map without some that are; or a search was made with other parameters.
    """
    results = as_store(results)
    OrientationSearch(count=orientation_count).check(azimuths=1)  # a mistake is told before the work
    ensure_compared(results, on=on, progress=progress)
    grown = grow_map(results, seed=seed)
    how = {"orientation_count": orientation_count, "map": grown.attrs["parameters"]}
    order, blocks = plan_search(grown.hit_fold.values)
    if not _is_searched(results, how, overwrite=overwrite):
        made = _start(results, grown.hit_frame.values[order], blocks, how)
        task = functools.partial(
            _search_block, results=absolute(results), made=made, order=order, blocks=blocks, how=how
        )
        with connect(on) as client:
            done, marks = marked_blocks(results, _SEARCH), Marks(absolute(results), _SEARCH)
            run_marked(client, task, blocks, done, what="orient", unit="hit", progress=progress, marks=marks)
        finish_group(results, _SEARCH)
    _write_orientations(results, grown, order, find_rows(blocks), significance, how)
    return results


def open_oriented(results: str | Path) -> xr.Dataset:
    """What the search found, dim ``frame``.

    Raises
    ------
    BadStore
        If it is not there, or of another map than there is now.
    """
    found = open_group(results, GROUP)
    grown = open_group(results, "consistency")
    if found is None or grown is None or found.attrs["parameters"]["map"] != grown.attrs["parameters"]:
        raise BadStore(f"the hits of '{results}' are not searched in their map yet; run: diffdask orient {results}")
    return found


def plan_search(fold: np.ndarray) -> tuple[np.ndarray, list[Block]]:
    """Order in which hits are searched, (n,), and blocks of that order, none with hits of two folds.

    Examples
    --------
    >>> order, blocks = plan_search(np.array([1, -1, 0, 1]))
    >>> order.tolist(), blocks
    ([1, 2, 0, 3], [(0, 1), (1, 2), (2, 4)])
    """
    order = np.argsort(fold, kind="stable")
    edges = np.flatnonzero(np.diff(fold[order], prepend=np.nan, append=np.nan))
    blocks = [
        (first + start, first + stop)
        for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        for start, stop in blocks_of(last - first, _BLOCK_HITS)
    ]
    return order, blocks


def find_rows(blocks: list[Block]) -> np.ndarray:
    """Row of every searched hit, (n,): a block begins a chunk of its own, since no two may write to the same.

    Examples
    --------
    >>> find_rows([(0, 2), (2, 3)]).tolist()
    [0, 1, 256]
    """
    return np.concatenate(
        [number * _BLOCK_HITS + np.arange(stop - start) for number, (start, stop) in enumerate(blocks)]
    )


def _is_searched(results: str | Path, how: dict[str, Any], *, overwrite: bool) -> bool:
    """Whether these very hits were searched in this very map; a search in a map that is no more is thrown away."""
    if overwrite or _map_searched(results) != how["map"]:
        remove_group(results, _SEARCH)
    stamp_of(results, _SEARCH, how)
    return open_group(results, _SEARCH) is not None


def _map_searched(results: str | Path) -> dict[str, Any] | None:
    """What made the map of the search that is there; None without one."""
    try:
        parameters = open_unfinished(results, _SEARCH).attrs.get("parameters", {})
    except (FileNotFoundError, KeyError):
        return None
    found: dict[str, Any] | None = parameters.get("map")
    return found


def _start(results: str | Path, frames: np.ndarray, blocks: list[Block], how: dict[str, Any]) -> str:
    searched = np.full(len(blocks) * _BLOCK_HITS, -1)
    searched[find_rows(blocks)] = frames
    return start_group(
        results,
        _SEARCH,
        sizes={"hit": searched.size, "twist": len(TWISTS), "crystal_xyz": 3, "xyz": 3},
        names=("found_rotation", "search_score", "twisted_score"),
        block=_BLOCK_HITS,
        parameters=how,
        constants=wrap(hit_frame=searched),
    )


def _search_block(
    block: Block, *, results: str, made: str, order: np.ndarray, blocks: list[Block], how: dict[str, Any]
) -> None:
    """Search, write and mark one block of hits of a fold: what a worker does."""
    grown = _open_grown(results)
    rows = order[slice(*block)]
    sorting = np.argsort(rows)
    fold = int(grown.hit_fold.values[rows[0]])
    hits = _load(results, rows[sorting], how)
    back = np.argsort(sorting)
    values, wavelength = hits.standardised_residual.values[back], hits.hit_wavelength.values[back]
    search = _fit_search(results, fold, how["orientation_count"], str(grown.attrs["parameters"]))
    if search is not None:
        found = search.search(values, wavelength)
        twisted = np.full((rows.size, len(TWISTS)), np.nan)
        thinned = np.flatnonzero(np.isin(rows, _thin(order.size)))
        for number, bins in enumerate(TWISTS):
            twisted[thinned, number] = search.search(twist_rings(values[thinned], bins), wavelength[thinned]).score
        columns = wrap(found_rotation=found.rotation, search_score=found.score, twisted_score=twisted)
        write_rows(results, _SEARCH, blocks.index(block) * _BLOCK_HITS, columns, made=made)
    check_made(results, _SEARCH, made)
    mark_block(results, _SEARCH, block)


def _thin(count: int) -> np.ndarray:
    """At most so many hits, spread evenly, as tell what chance gives."""
    return np.unique(np.linspace(0, count - 1, min(count, _CHANCE_HITS)).astype(int))


@functools.lru_cache(maxsize=1)
def _fit_search(results: str, fold: int, count: int, made: str) -> OrientationSearch | None:
    """The search in the map grown without a fold, -1 for that of all: once a process, for all blocks of the fold.

    None if no hit is in that map.
    """
    grown, crystals = _open_grown(results), open_crystals(results)
    told = crystals.attrs["parameters"]
    weight = grown.hit_weight.values if fold < 0 else grown.fold_weight.values[fold]
    if not (weight > 0).any():
        return None
    hits = _load(results, np.flatnonzero(weight > 0), {"map": grown.attrs["parameters"]})
    return search_in_map_of(
        hits.standardised_residual.values,
        rotation=hits.crystal_rotation.values,
        wavelength=hits.hit_wavelength.values,
        weight=weight[weight > 0],
        ring_q=hits.similarity_ring_q.values,
        rotations=find_symmetry(told["laue"], told["lattice"], crystals.crystal_cell.values).rotations,
        mean_wavelength=float(crystals.hit_wavelength.mean()),
        friedel=told["friedel"],
        search=OrientationSearch(count=count),
    )


def _load(results: str, rows: np.ndarray, how: dict[str, Any]) -> xr.Dataset:
    """Hits as the map was grown from, rows rising."""
    hits = load_oriented_hits(results, rows)
    told = how["map"]
    prepared = prepare_hits(hits, q_min=told["compare_q_min"], q_max=told["compare_q_max"] or np.inf)
    return prepared.merge(hits[["crystal_rotation", "hit_wavelength"]])


def _open_grown(results: str | Path) -> xr.Dataset:
    return open_unfinished(results, "consistency")


def _write_orientations(
    results: str | Path,
    grown: xr.Dataset,
    order: np.ndarray,
    rows: np.ndarray,
    significance: float,
    how: dict[str, Any],
) -> None:
    """Decide which orientation each hit has, judge those that were found by those that are known, and write both."""
    searched, crystals = open_unfinished(results, _SEARCH).load(), open_crystals(results)
    told, cell = crystals.attrs["parameters"], crystals.crystal_cell.values
    rotations = find_symmetry(told["laue"], told["lattice"], cell).rotations
    back = rows[np.argsort(order)]
    found, score = searched.found_rotation.values[back], searched.search_score.values[back]
    height, p_value = set_against_chance(score, searched.twisted_score.values)
    given = load_oriented_hits(results, np.arange(order.size)).crystal_rotation.values
    angle = measure_misorientation(found, given, rotations)
    is_agreeing = np.nan_to_num(grown.hit_consistency.values) >= _AGREEING
    is_known = np.isfinite(given).all(axis=(1, 2))
    takes = (height >= significance) & ~is_agreeing & ~(angle <= _SAME_ANGLE)
    right_share, right_angle = judge_orientations(found[is_agreeing], given[is_agreeing], rotations)
    columns = {
        "frame_search": height,
        "frame_search_p_value": p_value,
        "frame_search_false_discovery": adjust_p_values(p_value),
        "frame_search_angle": np.where(is_known, angle, np.nan),
        "frame_is_misindexed": takes & is_known,
        "frame_orientation_source": np.where(takes, "map", np.where(is_known, "indexing", "none")).astype(object),
        "found_orientation": cell[None] @ found,
    }
    attributes = {
        "parameters": {**how, "significance": significance},
        "judged_count": int(is_agreeing.sum()),
        "right_share": None if np.isnan(right_share) else right_share,
        "right_angle": None if np.isnan(right_angle) else right_angle,
    }
    of_frames = _spread(results, grown.hit_frame.values, columns)
    of_hits = wrap(hit_frame=grown.hit_frame.values, found_rotation=found)
    replace_group(results, GROUP, of_frames.merge(of_hits), attributes)


def _spread(results: str | Path, hit_frame: np.ndarray, columns: dict[str, np.ndarray]) -> xr.Dataset:
    """Rows of hits as rows of all frames."""
    count = int(frames_attributes(frames_path(results))["frame_count"])
    nothing = {"O": "not a hit", "b": False, "f": np.nan}
    spread = {}
    for name, values in columns.items():
        spread[name] = np.full((count, *values.shape[1:]), nothing[values.dtype.kind], dtype=values.dtype)
        spread[name][hit_frame] = values
    return wrap(**spread)
