"""The verb ``status``: how far a run is, from what it has written; whoever started it, wherever it runs.

Nothing is asked of the cluster, so it works from any machine that sees the
store, also after the run has ended in whatever way. The folder of marks is
listed once; of the data, metadata and a bounded number of blocks are read.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr

from diffdask.errors import BadParameter, BadStore
from diffdask.io import frames_store, results_store
from diffdask.io.marks import marked_groups, quarantined_blocks, timed_blocks
from diffdask.io.paths import as_store, parent
from diffdask.io.storage import storage_at
from diffdask.io.zarr_format import check_format
from diffdask.pace import pause_of, recent_rate, time_left
from diffdask.pipeline.failed_frames import read_unreadable
from diffdask.pipeline.job_record import read_record
from diffdask.pipeline.status_table import format_status
from diffdask.planning import Block
from diffdask.variables import SIMILARITIES

#: Stages in the order of an analysis; others come after them.
_ORDER = ("frames", "screen", "hits", "haloes", "images", "vgg16", *SIMILARITIES, "search")

#: Arrays of which a chunk is a block, where that is not ``hit_frame``.
_CHUNKED_BY_BLOCK = {"screen": "frame_peak_count", "search": "search_score"}

#: Blocks of the screen whose hits are counted, evenly spread; of more, the rest is estimated.
_MOST_READ = 1000

#: Blocks given up that are told one by one.
_NAMED = 10

#: Ends a screen of the terminal and begins a new one.
_CLEAR = "\033[H\033[2J\033[3J"


def status(store: str | Path, *, watch: float = 0.0) -> dict[str, Any]:
    """Say how far a run is: blocks, frames, rate, time left, failures and hits so far.

    It works for a run that someone else started, from the store alone, and for
    one that stopped: it says when the last block was done.

    Parameters
    ----------
    store
        The results store of the run, or the frames store of an ingest.
    watch
        Look again every so many seconds, until the run is finished or Ctrl-C; 0 to look once.

    Returns
    -------
    dict
        For each stage blocks, units done, rate, seconds left and since the last block; failures; hits and diffuse.

    Raises
    ------
    BadStore
        If ``store`` is neither.
    """
    if not 0 <= watch < math.inf:
        raise BadParameter(f"watch = {watch} must be a number of seconds, or 0")
    found = _look(as_store(store))
    while watch and found["state"] != "finished":
        sys.stdout.write((_CLEAR if sys.stdout.isatty() else "") + format_status(found) + "\n\n")
        sys.stdout.flush()
        time.sleep(watch)
        found = _look(as_store(store))
    return found


def _look(store: str | Path) -> dict[str, Any]:
    storage = storage_at(store)
    if not storage.exists("zarr.json"):
        raise BadStore(f"no Zarr store at '{store}'")
    root = zarr.open_group(storage.zarr_store(), mode="r", use_consolidated=False)
    check_format(root, store)
    if root.attrs.get("kind") not in (frames_store.KIND, results_store.KIND):
        raise BadStore(f"'{store}' is of kind {root.attrs.get('kind')!r}: give a results store or a frames store")
    now, marked = time.time(), set(marked_groups(store))
    if root.attrs.get("kind") == frames_store.KIND:
        marked.add("frames")
    names = [name for name in _ORDER if name in marked] + sorted(marked - set(_ORDER))
    stages, times = {}, {name: timed_blocks(store, name) for name in names}
    for name in names:
        size = _size_of(root, name)
        if size is not None:
            stages[name] = _describe(size, times[name], now)
    found: dict[str, Any] = {"store": str(store), "state": _state(stages), "stages": stages}
    if "screen" in stages:
        found |= {"failures": _failures(store, stages), **_count_hits(root, stages, times["screen"])}
        found["diffuse"] = count_diffuse(store)
    job = read_record(parent(store))
    if job:
        found["job"] = {key: job.get(key) for key in ("job", "state", "started", "ended", "error")}
    return found


def _size_of(root: zarr.Group, name: str) -> dict[str, Any] | None:
    """How much there is to do in a stage, from metadata alone; None if nothing has been planned."""
    if name == "frames":
        total, size = int(root.attrs.get("planned_frames", 0)), int(root.attrs["block_frames"])  # type: ignore[arg-type]
        return {"unit": "frame", "total": total, "blocks": -(-total // size), "complete": root.attrs.get("complete")}
    if name not in root or "parameters" not in root[name].attrs:
        return None
    complete = bool(root[name].attrs.get("complete"))
    if name in SIMILARITIES:
        from diffdask.pipeline.compare import tile_side
        from diffdask.planning import tiles_of

        count = _array(root, f"{name}/hit_frame").shape[0]
        tiles = len(tiles_of(count, tile_side(count)))
        return {"unit": "tile", "total": tiles, "blocks": tiles, "complete": complete}
    array = _array(root, f"{name}/{_CHUNKED_BY_BLOCK.get(name, 'hit_frame')}")
    total, blocks = array.shape[0], -(-array.shape[0] // array.chunks[0])
    if name == "search":  # its rows are blocks with gaps
        total = _array(root, "features/hit_frame").shape[0] if "features" in root else total
    return {"unit": "frame" if name == "screen" else "hit", "total": total, "blocks": blocks, "complete": complete}


def _array(root: zarr.Group, name: str) -> zarr.Array:
    return cast(zarr.Array, root[name])


def _describe(size: dict[str, Any], marks: Sequence[tuple[float, Block]], now: float) -> dict[str, Any]:
    """What there is to say of a stage, from its size and when its blocks were done."""
    times, sizes = [moment for moment, _ in marks], [stop - start for _, (start, stop) in marks]
    since = max(0.0, now - times[-1]) if times else None
    is_done = bool(size["complete"])
    is_stalled = not is_done and len(marks) < size["blocks"] and since is not None and since > pause_of(times)
    rate = recent_rate(times, sizes)
    left = max(0, size["total"] - sum(sizes))
    return {
        "unit": size["unit"],
        "state": "finished" if is_done else "no block for a while" if is_stalled else "going on",
        "blocks_done": len(marks),
        "blocks": size["blocks"],
        "done": sum(sizes),
        "total": size["total"],
        "rate": rate,
        "seconds_left": 0.0 if is_done else None if is_stalled else time_left(left, rate),
        "last_block": times[-1] if times else None,
        "seconds_since_last_block": since,
    }


def _state(stages: dict[str, Any]) -> str:
    states = [stage["state"] for stage in stages.values()]
    if not states:
        return "not begun"
    unfinished = [state for state in states if state != "finished"]
    # hits are known once the screen is finished, and come right after it
    awaits_hits = "screen" in stages and "hits" not in stages
    if not unfinished:
        return "going on" if awaits_hits else "finished"
    return unfinished[-1]


def _failures(store: str | Path, stages: dict[str, Any]) -> dict[str, Any]:
    damaged = read_unreadable(store)
    given_up = {name: quarantined_blocks(store, name) for name in stages}
    told = [
        {"stage": name, "block": list(block), "reason": record["reason"], "time": record["time"]}
        for name, records in given_up.items()
        for block, record in records.items()
    ]
    frames = sum(stop - start for start, stop in given_up["screen"])
    return {
        "damaged_frames": len(damaged),
        "blocks_given_up": len(told),
        "frames": len(damaged) + frames,
        "given_up": told[:_NAMED],
    }


def _count_hits(
    root: zarr.Group, stages: dict[str, Any], marks: Sequence[tuple[float, Block]]
) -> dict[str, int | bool | None]:
    """Hits: all of them once that is known; before, frames with so many peaks in the blocks that are done."""
    if stages["screen"]["state"] == "finished" and "hits" in stages:
        return {"hits": stages["hits"]["total"], "hits_are_estimated": False}
    asked: Any = root.attrs.get("asked")
    if asked is None:
        return {"hits": None, "hits_are_estimated": False}
    return dict(
        zip(
            ("hits", "hits_are_estimated"),
            count_peaky_frames(root, [block for _, block in marks], int(asked["hits"]["min_peaks"])),
            strict=True,
        )
    )


def count_peaky_frames(root: zarr.Group, blocks: Sequence[Block], min_peaks: int) -> tuple[int, bool]:
    """Count frames with Bragg peaks in blocks that are done: hits so far, but for those by diffuse excess alone.

    Of more than a thousand blocks some are looked at, evenly spread.

    Returns
    -------
    tuple
        (count, whether it is an estimate).
    """
    if not blocks:
        return 0, False
    looked = sorted(blocks)
    if len(looked) > _MOST_READ:
        looked = [looked[int(at)] for at in np.linspace(0, len(looked) - 1, _MOST_READ)]
    counts = _array(root, "screen/frame_peak_count")
    seen = sum(int((np.asarray(counts[slice(*block)]) >= min_peaks).sum()) for block in looked)
    share = sum(b - a for a, b in blocks) / sum(b - a for a, b in looked)
    return round(seen * share), len(looked) < len(blocks)


def count_screened(results: str | Path, done: Collection[Block], *, min_peaks: int) -> dict[str, int]:
    """Count what an earlier run of the screen found in the blocks that it did: ``hits`` and ``damaged`` frames."""
    root = zarr.open_group(storage_at(results).zarr_store(), mode="r", use_consolidated=False)
    check_format(root, results)
    damaged = len(read_unreadable(results, among=done))
    return {"hits": count_peaky_frames(root, list(done), min_peaks)[0], "damaged": damaged}


def count_diffuse(store: str | Path) -> int | None:
    """Hits that are predicted diffuse; None if nothing is ranked."""
    try:
        scores = results_store.open_scores(store)
    except BadStore:
        return None
    return None if scores is None else int((scores.frame_score.values >= scores.attrs["threshold"]).sum())
