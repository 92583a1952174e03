"""How much a verb has to do in its stores, and how much of that is done: for plans, rates and the record of a job.

Found from marks and metadata. That the orientations of hits have changed since,
or what is taken out of them, is not looked at: such blocks count as done here,
and the verb itself does them again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdask.errors import BadParameter, BadStore
from diffdask.planning import Block, blocks_of, tiles_of, to_do

if TYPE_CHECKING:
    import numpy as np

Arguments = Mapping[str, Any]

#: Hits a block, of verbs that go through hits.
_BLOCK_HITS = {"haloes": 32, "images": 32, "orient": 256, "merge": 64}


@dataclass(frozen=True)
class Work:
    """What a verb goes through.

    Attributes
    ----------
    unit
        "frame", "hit" or "pair".
    done
        How many are done.
    total
        Of how many; None where only files could tell.
    blocks
        Blocks that are left, each marked once it is done; None likewise.
    """

    unit: str
    done: int
    total: int | None = None
    blocks: int | None = None


def find_work(name: str, arguments: Arguments) -> Work | None:
    """Find how far a verb is.

    Parameters
    ----------
    name
        Of the verb.
    arguments
        All of them, defaults as well.

    Returns
    -------
    Work or None
        None where it cannot be known yet, or the verb is done as a whole or not at all.
    """
    finders: dict[str, Callable[[Arguments], Work]] = {
        "simulate": _find_simulated,
        "ingest": _find_ingested,
        "screen": _find_screened,
        "compare": _find_compared,
        "haloes": lambda given: _find_hits(given, "haloes"),
        "extract": _find_extracted,
        "orient": _find_oriented,
        "merge": _find_merged,
    }
    try:
        return finders[name](arguments) if name in finders else None
    except (BadStore, BadParameter):  # not there yet; or a mistake, which the verb itself tells
        return None


def find_hits(results: str | Path) -> np.ndarray:
    """Frame numbers of all hits.

    Raises
    ------
    BadStore
        If the hits are not known yet.
    """
    from diffdask.io.results_store import open_features

    return open_features(results).hit_frame.values


# frames ----------------------------------------------------------------------------------------------------


def _find_simulated(given: Arguments) -> Work:
    left = not (Path(given["to"]) / "campaign.stream").exists()
    return Work("frame", 0 if left else given["frames"], given["frames"], blocks=given["runs"] if left else 0)


def _find_ingested(given: Arguments) -> Work:
    """Frames in a store: those that are whole, and those of blocks that an unfinished ingest has written."""
    from diffdask.io.frames_store import frames_attributes
    from diffdask.io.marks import marked_blocks

    try:
        known = frames_attributes(given["to"])
    except BadStore:
        return Work("frame", 0)
    kept = int(known["frame_count"])
    fresh = sum(stop - max(start, kept) for start, stop in marked_blocks(given["to"], "frames"))
    return Work("frame", kept + fresh)


def _find_screened(given: Arguments) -> Work:
    from diffdask.io.marks import marked_blocks
    from diffdask.io.results_store import open_group

    try:
        finished = open_group(given["results"], "screen")
    except BadStore:
        return Work("frame", 0)
    done = _size(marked_blocks(given["results"], "screen"))
    return Work("frame", max(done, finished.sizes["frame"] if finished is not None else 0))


# hits ------------------------------------------------------------------------------------------------------


def _find_hits(given: Arguments, group: str, size: int = 0) -> Work:
    """Hits of a group that is written block by block."""
    from diffdask.io.marks import marked_blocks
    from diffdask.io.results_store import open_group

    numbers = find_hits(given["results"])
    blocks = blocks_of(numbers.size, size or _BLOCK_HITS[group])
    finished = open_group(given["results"], group)
    is_done = finished is not None and _are_same(finished.hit_frame.values, numbers)
    left = [] if is_done else to_do(blocks, marked_blocks(given["results"], group))
    return Work("hit", numbers.size - _size(left), numbers.size, blocks=len(left))


def _find_extracted(given: Arguments) -> Work:
    """Pictures, and what the network sees in them: a hit is done when both are."""
    drawn = _find_hits(given, "images")
    if given["weights"] == "none":
        return drawn
    seen = _find_hits(given, "vgg16", max(given["batch"], 1))
    return Work("hit", seen.done, seen.total, blocks=(drawn.blocks or 0) + (seen.blocks or 0))


def _find_compared(given: Arguments) -> Work:
    """Pairs of hits; those of a tile that is marked count as its share of all."""
    from diffdask.io.marks import marked_blocks
    from diffdask.io.results_store import open_group
    from diffdask.pipeline.compare import tile_side

    results, similarity = given["results"], given["similarity"]
    numbers, most = find_hits(results), given["most"] if similarity == "common-arc" else 0
    count = min(numbers.size, most or numbers.size)
    pairs, tiles = math.comb(count, 2), len(tiles_of(count, tile_side(count)))
    finished = open_group(results, similarity)
    whole = open_group(results, "crystals") if similarity == "common-arc" else finished
    if finished is not None and whole is not None and _are_same(whole.hit_frame.values, numbers):
        return Work("pair", pairs, pairs, blocks=0)
    done = min(tiles, len(marked_blocks(results, similarity)))
    return Work("pair", pairs * done // max(tiles, 1), pairs, blocks=tiles - done)


def _find_oriented(given: Arguments) -> Work:
    from diffdask.io.marks import marked_blocks
    from diffdask.pipeline.orient import open_oriented

    count = find_hits(given["results"]).size
    try:
        open_oriented(given["results"])
    except BadStore:
        done = min(count, _size(marked_blocks(given["results"], "search")))
        return Work("hit", done, count, blocks=math.ceil((count - done) / _BLOCK_HITS["orient"]))
    return Work("hit", count, count, blocks=0)


def _find_merged(given: Arguments) -> Work:
    """Hits that go into a map, as they are ranked now."""
    from diffdask.io.volume_store import open_volume, stamp_of_volume
    from diffdask.pipeline.merge import choose_hits

    options = {name: given[name] for name in ("top", "scale", "orientations", "seed")}
    chosen = choose_hits(given["results"], **options)
    stamp = stamp_of_volume(given["to"])
    told = (stamp or {}).get("parameters") or {}
    options |= {name: given[name] for name in ("size", "q_min", "shells")}
    is_made = all(told.get(name) == value for name, value in options.items())
    if is_made and _are_same(open_volume(given["to"]).merged_frame.values, chosen.frames):
        return Work("hit", chosen.rows.size, chosen.rows.size, blocks=0)
    return Work("hit", 0, chosen.rows.size, blocks=math.ceil(chosen.rows.size / _BLOCK_HITS["merge"]))


def _are_same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool((one == other).all())


def _size(blocks: Collection[Block]) -> int:
    return sum(stop - start for start, stop in blocks)
