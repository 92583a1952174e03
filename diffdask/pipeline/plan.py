"""What a job would do, how long and for how much: ``run --dry-run``. Nothing of the job is begun or changed."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from diffdask.cluster.capacity import Capacity
from diffdask.cluster.kubernetes_resources import memory_needed
from diffdask.errors import BadStore
from diffdask.pipeline.frame_supply import FrameSupply, find_supply
from diffdask.pipeline.job_record import read_record
from diffdask.pipeline.sample import Sample, sample_both, sample_screen
from diffdask.planning import blocks_of
from diffdask.verbs import verb

_log = logging.getLogger(__name__)

Calls = Mapping[str, Mapping[str, Any]]

#: Hits that one task takes, for verbs that go through hits one by one.
_HITS_A_TASK = {"haloes": 32, "extract": 32, "merge": 64, "orient": 256}

#: Memory of a worker for verbs that hold hits, bytes, as measured: docs/performance.md.
_HIT_MEMORY = {"compare": 1_300_000_000, "orient": 1_300_000_000, "haloes": 800_000_000, "extract": 2_500_000_000}


#: A shorter earlier run tells of starting and compiling rather than of frames, core-seconds.
_TRUSTED = 600.0


@dataclass(frozen=True)
class VerbPlan:
    """What is left to do for a verb; None where it cannot be known yet, or has no meaning.

    Attributes
    ----------
    unit, left, total
        What it goes through, as "frame" or "hit": how many are left, of how many.
    tasks
        Tasks on the cluster; 0 where the verb works in the calling process.
    read_bytes
        Read from storage.
    worker_bytes
        Memory that a worker needs.
    core_seconds
        Of all that is left, and ``basis`` says how it was found.
    """

    unit: str = ""
    left: int | None = None
    total: int | None = None
    tasks: int | None = None
    read_bytes: float | None = None
    worker_bytes: int | None = None
    core_seconds: float | None = None
    basis: str = ""


def plan_job(calls: Calls, folder: str | Path, capacity: Capacity) -> dict[str, Any]:
    """Plan all verbs of a job.

    Parameters
    ----------
    calls
        Verb to its arguments, in order.
    folder
        Of the job: what it did before is in ``job.json`` there.
    capacity
        Of the place.

    Returns
    -------
    dict
        ``place``, ``verbs`` and ``total``; JSON-able.
    """
    supply = find_supply(calls)
    plans = {name: _plan_verb(name, calls, supply, capacity.threads) for name in calls}
    plans = _with_rates(plans, calls, folder, supply)
    known = [plan.core_seconds for plan in plans.values() if plan.core_seconds is not None]
    threads = capacity.workers * capacity.threads
    hours = sum(known) / 3600 / threads if threads else None
    needed = max((plan.worker_bytes or 0 for plan in plans.values()), default=0)
    return {
        "place": asdict(capacity),
        "verbs": {name: _told(plan, threads) for name, plan in plans.items()},
        "total": {
            "core_hours": sum(known) / 3600,
            "hours": hours,
            "cost": hours * capacity.cores * capacity.cost_per_core_hour if hours is not None else None,
            "worker_bytes": needed,
            "fits": None if not capacity.memory else needed <= capacity.memory,
            "without_hours": [name for name, plan in plans.items() if plan.core_seconds is None and plan.tasks != 0],
        },
    }


def all_arguments(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a verb with its defaults."""
    parameters = inspect.signature(verb(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty} | dict(given)


def frames_done(name: str, arguments: Mapping[str, Any]) -> int | None:
    """Frames that a verb has done so far; None for verbs that do not go frame by frame."""
    if name == "screen":
        return _marked(arguments["results"], "screen")
    if name == "ingest":
        from diffdask.io.frames_store import frames_attributes

        try:
            return int(frames_attributes(arguments["to"])["frame_count"])
        except BadStore:
            return 0
    return None


def _plan_verb(name: str, calls: Calls, supply: FrameSupply | None, threads: int) -> VerbPlan:
    given = all_arguments(name, calls[name])
    if name == "simulate":
        left = 0 if (Path(given["to"]) / "campaign.stream").exists() else given["frames"]
        return VerbPlan("frame", left, given["frames"], tasks=given["runs"] if left else 0, read_bytes=0)
    if name == "ingest" and supply:
        count = supply.new
        return VerbPlan(
            *("frame", count, supply.count),
            tasks=math.ceil(count / supply.block) + len(supply.files),
            read_bytes=supply.new_bytes,
            worker_bytes=memory_needed(threads=threads, block_bytes=supply.block_bytes, settings=0),
        )
    if name == "screen" and supply:
        left = max(0, supply.count - (frames_done(name, given) or 0))
        return VerbPlan(
            *("frame", left, supply.count),
            tasks=math.ceil(left / supply.block),
            read_bytes=left * (supply.stored_bytes or supply.frame_bytes),
            worker_bytes=memory_needed(
                supply.block_bytes, threads=threads, settings=supply.settings, setting_bytes=30 * supply.pixels
            ),
        )
    if "on" in inspect.signature(verb(name)).parameters:
        return _plan_hits(name, given["results"])
    return VerbPlan(tasks=0)


def _plan_hits(name: str, results: str) -> VerbPlan:
    """Plan a verb that goes through hits; how many there are, only the screen will tell."""
    memory = _HIT_MEMORY.get(name)
    hits = _hit_count(results)
    if hits is None:
        return VerbPlan("hit", worker_bytes=memory, basis="known after the screen")
    if name == "compare":
        from diffdask.pipeline.compare import tile_side

        side = len(blocks_of(hits, tile_side(hits)))
        return VerbPlan("pair", hits * (hits - 1) // 2, tasks=side * (side + 1) // 2, worker_bytes=memory)
    return VerbPlan("hit", hits, hits, tasks=math.ceil(hits / _HITS_A_TASK.get(name, 32)), worker_bytes=memory)


def _with_rates(
    plans: dict[str, VerbPlan], calls: Calls, folder: str | Path, supply: FrameSupply | None
) -> dict[str, VerbPlan]:
    """Add what the work will take: by what the job did before, else by a sample."""
    record = read_record(folder)
    measured = None
    made = dict(plans)
    for name, plan in plans.items():
        if plan.left == 0:
            made[name] = replace(plan, core_seconds=0.0, basis="done")
        elif (left := plan.left) is not None and plan.tasks != 0:
            rate, basis = _recorded_rate(record, name)
            if rate is None and name in ("ingest", "screen"):
                measured = _measure(calls, supply) if measured is None else measured
                if name in measured:
                    rate, basis = measured[name].core_seconds, f"a sample of {measured[name].frames} frames"
            stored = measured["ingest"].stored_bytes if measured and "ingest" in measured else None
            if name == "screen" and stored and supply and not supply.stored_bytes:
                plan = replace(plan, read_bytes=left * stored)
            made[name] = replace(plan, core_seconds=None if rate is None else rate * left, basis=basis)
    return made


def _recorded_rate(record: dict[str, Any], name: str) -> tuple[float | None, str]:
    """Core-seconds a frame as the last run of the job had them."""
    rate = record.get("rates", {}).get(name)
    if not rate or rate["core_seconds"] < _TRUSTED:
        return None, ""
    return rate["core_seconds"] / rate["frames"], f"{rate['frames']:,} frames of the run of {rate['started']}"


def _measure(calls: Calls, supply: FrameSupply | None) -> dict[str, Sample]:
    """Ingest and screen a few frames, in a folder that is thrown away, or screen a few of the store."""
    if supply is None:
        return {}
    screen = all_arguments("screen", calls["screen"]) if "screen" in calls else {}
    if "ingest" in calls and supply.files:
        _log.info("measuring: a few frames of '%s' are ingested and screened, and thrown away", supply.files[0])
        ingest, screened = sample_both(supply.files[0], all_arguments("ingest", calls["ingest"]), screen)
        return {"ingest": ingest, "screen": screened}
    if screen and supply.store is not None:
        _log.info("measuring: a few frames of '%s' are screened, nothing is written", supply.store)
        return {"screen": sample_screen(supply.store, screen)}
    return {}


def _marked(results: str, group: str) -> int:
    from diffdask.io.marks import marked_blocks
    from diffdask.io.results_store import open_group

    try:
        finished = open_group(results, group)
    except BadStore:
        return 0
    done = sum(stop - start for start, stop in marked_blocks(results, group))
    return max(done, finished.sizes["frame"] if finished is not None else 0)


def _hit_count(results: str) -> int | None:
    from diffdask.io.results_store import open_group

    try:
        hits = open_group(results, "hits")
    except BadStore:
        return None
    return None if hits is None else int(hits.sizes["hit"])


def _told(plan: VerbPlan, threads: int) -> dict[str, Any]:
    hours = plan.core_seconds / 3600 / threads if plan.core_seconds is not None and threads else None
    return {**asdict(plan), "hours": hours}
