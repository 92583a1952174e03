"""What a job would do, how long and for how much: ``run --dry-run``. Nothing of the job is begun or changed."""

from __future__ import annotations

import functools
import inspect
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from diffdask.cluster.capacity import Capacity
from diffdask.cluster.kubernetes_resources import memory_needed
from diffdask.errors import BadStore
from diffdask.pipeline.frame_supply import FrameSupply, find_supply
from diffdask.pipeline.hit_sample import sample_hits
from diffdask.pipeline.job_record import read_record
from diffdask.pipeline.sample import Sample, sample_both, sample_screen, stored_bytes
from diffdask.pipeline.work import find_hits, find_work
from diffdask.verbs import verb

_log = logging.getLogger(__name__)

Calls = Mapping[str, Mapping[str, Any]]

#: Memory of a worker for verbs that hold hits, bytes, as measured: docs/performance.md.
_HIT_MEMORY = {"compare": 1_300_000_000, "orient": 1_300_000_000, "haloes": 800_000_000, "extract": 2_500_000_000}

#: What must be done before a verb's hits can be counted; of the others, the screen.
_KNOWN_AFTER = {"merge": "known after compare and rank"}

#: Frames that the job itself makes first.
_SIMULATED = "known after simulate"

#: A shorter earlier run tells of starting and compiling rather than of frames, core-seconds.
_TRUSTED = 600.0

#: Of a verb without any figure.
UNMEASURED = "never measured"

#: Memory of the map and the list of pixels of a detector setting, bytes a pixel.
_SETTING_BYTES = 30


@dataclass(frozen=True)
class VerbPlan:
    """What is left to do for a verb; None where it cannot be known yet, or has no meaning.

    Attributes
    ----------
    unit, left, total
        What it goes through, as "frame" or "hit": how many are left, of how many.
    blocks
        That are left: each is marked once it is done, and never done again.
    tasks
        Tasks on the cluster, at most: small blocks share one. 0 where the verb works in the calling process.
    read_bytes
        Read from storage.
    worker_bytes
        Memory that a worker needs.
    core_seconds
        Of worker threads, for all that is left; ``basis`` says how it was found.
    assumed
        What is taken to be so, since nothing tells.
    """

    unit: str = ""
    left: int | None = None
    total: int | None = None
    blocks: int | None = None
    tasks: int | None = None
    read_bytes: float | None = None
    worker_bytes: int | None = None
    core_seconds: float | None = None
    basis: str = ""
    assumed: str = ""


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
    calls = with_implied(calls)
    plans = {name: _plan_verb(name, calls, supply, capacity.threads) for name in calls}
    plans = _with_rates(plans, calls, folder, supply)
    threads = capacity.workers * capacity.threads
    return {
        "place": {**asdict(capacity), "usable_memory": capacity.usable_memory},
        "verbs": {name: _told(plan, threads) for name, plan in plans.items()},
        "total": _add_up(plans, capacity),
    }


def _add_up(plans: Mapping[str, VerbPlan], capacity: Capacity) -> dict[str, Any]:
    """Hours and cost of all verbs that have a figure, and the memory that the hungriest needs."""
    core_hours = sum(plan.core_seconds or 0.0 for plan in plans.values()) / 3600
    threads = capacity.workers * capacity.threads
    hours = core_hours / threads if threads else None
    held = core_hours if hours is None else hours * capacity.cores  # cores without a worker thread are paid for too
    needed = max((plan.worker_bytes or 0 for plan in plans.values() if plan.left != 0), default=0)
    return {
        "core_hours": core_hours,
        "hours": hours,
        "cost": held * capacity.cost_per_core_hour if capacity.cost_per_core_hour else None,
        "worker_bytes": needed,
        "fits": needed <= capacity.usable_memory if capacity.memory else None,
        "without_hours": [name for name, plan in plans.items() if plan.core_seconds is None and plan.tasks != 0],
    }


def with_implied(calls: Calls) -> Calls:
    """Add the verbs that others run themselves where it was not done: ``compare``, and ``orient`` for ``rank``."""
    made: dict[str, Mapping[str, Any]] = {}
    for name, arguments in calls.items():
        for implied in _implied_by(name, arguments, calls):
            given = {"results": arguments["results"]}
            work = find_work(implied, all_arguments(implied, given))
            if implied not in {*made, *calls} and (work is None or work.done != work.total):
                made[implied] = given
        made[name] = arguments
    return made


def _implied_by(name: str, arguments: Mapping[str, Any], calls: Calls) -> tuple[str, ...]:
    if name == "orient":
        return ("compare",)
    if name != "rank" or arguments.get("ranker") or not _may_be_indexed(arguments["results"], calls):
        return ()
    method = arguments.get("method") or "label-free"
    return {"label-free": ("compare", "orient"), "pairs": ("compare",), "map-consistency": ("compare",)}.get(method, ())


def _may_be_indexed(results: str, calls: Calls) -> bool:
    """Whether there may be orientations, without which ``rank`` compares nothing."""
    from diffdask.pipeline.crystals import find_lattice

    try:
        find_hits(results)
    except BadStore:
        return "ingest" not in calls or calls["ingest"].get("stream") is not None
    try:
        return bool(find_lattice(results))
    except BadStore:
        return False


def all_arguments(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a verb with its defaults."""
    parameters = inspect.signature(verb(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty} | dict(given)


def _plan_verb(name: str, calls: Calls, supply: FrameSupply | None, threads: int) -> VerbPlan:
    given = all_arguments(name, calls[name])
    if name == "rank" or "on" not in inspect.signature(verb(name)).parameters:
        return VerbPlan(blocks=0, tasks=0)
    if name == "ingest" and supply:
        return _plan_ingest(given, supply, threads)
    if name == "screen" and supply:
        return _plan_screen(given, supply, threads)
    return _plan_hits(name, given)


def _plan_ingest(given: Mapping[str, Any], supply: FrameSupply, threads: int) -> VerbPlan:
    work = find_work("ingest", given)
    left = max(0, supply.count - (work.done if work else 0))
    blocks = math.ceil(left / supply.block)
    return VerbPlan(
        *("frame", left, supply.count, blocks),
        tasks=blocks + len(supply.files),
        read_bytes=supply.new_bytes * left / max(supply.new, 1),
        worker_bytes=memory_needed(threads=threads, block_bytes=supply.block_bytes, settings=0),
    )


def _plan_screen(given: Mapping[str, Any], supply: FrameSupply, threads: int) -> VerbPlan:
    work = find_work("screen", given)
    left = max(0, supply.count - (work.done if work else 0))
    blocks = math.ceil(left / supply.block)
    setting_bytes = _SETTING_BYTES * supply.pixels
    assumed = f"{supply.settings} detector setting{'s'[: supply.settings != 1]}, as new files are not looked through"
    return VerbPlan(
        *("frame", left, supply.count, blocks, blocks),
        read_bytes=left * (supply.stored_bytes or supply.frame_bytes),
        worker_bytes=memory_needed(
            supply.block_bytes, threads=threads, settings=supply.settings, setting_bytes=setting_bytes
        ),
        assumed=""
        if supply.settings_are_known or not left
        else f"{assumed}: each more takes {setting_bytes / 1e6:.3g} MB a worker",
    )


def _plan_hits(name: str, given: Mapping[str, Any]) -> VerbPlan:
    """Plan a verb whose stores say how much there is; of hits, only the screen will tell."""
    memory, work = _HIT_MEMORY.get(name), find_work(name, given)
    if work is None or work.total is None:
        unit = "pair" if name == "compare" else "hit"
        return VerbPlan(unit, worker_bytes=memory, basis=_KNOWN_AFTER.get(name, "known after the screen"))
    left = work.total - work.done
    reads_frames = name == "haloes" or (name == "extract" and given["content"] != "polar")
    return VerbPlan(
        *(work.unit, left, work.total, work.blocks, work.blocks),
        read_bytes=left * _frame_bytes(given["results"]) if reads_frames else None,
        worker_bytes=memory,
    )


def _frame_bytes(results: str) -> float:
    """Of a frame in the store that results came from, compressed."""
    from diffdask.io.frames_store import frames_attributes
    from diffdask.io.results_store import frames_path

    frames = frames_path(results)
    return stored_bytes(frames) / max(1, int(frames_attributes(frames)["frame_count"]))


# how long --------------------------------------------------------------------------------------------------


def _with_rates(
    plans: dict[str, VerbPlan], calls: Calls, folder: str | Path, supply: FrameSupply | None
) -> dict[str, VerbPlan]:
    """Add what the work will take: by what was done in the folder before, else by a sample."""
    rates, of_frames = read_record(folder).get("rates", {}), functools.cache(lambda: _measure(calls, supply))
    made = dict(plans)
    for name, plan in plans.items():
        if plan.left == 0:
            made[name] = replace(plan, core_seconds=0.0, basis="done")
        elif plan.left is not None and plan.tasks != 0:
            rate, basis = _recorded_rate(rates, name, plan.unit)
            if rate is None:
                rate, basis = _sampled_rate(name, plan, calls, of_frames)
            if rate is None:
                rate, basis = _recorded_rate(rates, name, plan.unit, least=0.0)
            seconds = None if rate is None else rate * plan.left
            made[name] = replace(plan, core_seconds=seconds, basis=basis or _missing(name, supply))
    stored = of_frames()["ingest"].stored_bytes if of_frames.cache_info().currsize and "ingest" in of_frames() else None
    if stored and supply and not supply.stored_bytes and "screen" in made:  # else frames count as they are in memory
        made["screen"] = replace(made["screen"], read_bytes=(made["screen"].left or 0) * stored)
    return made


def _missing(name: str, supply: FrameSupply | None) -> str:
    """Say why a verb has no figure."""
    if name == "simulate":
        return "known after a first run"  # it notes nothing before its end
    is_made_first = name in ("ingest", "screen") and supply is not None and not (supply.store or supply.files)
    return _SIMULATED if is_made_first else UNMEASURED


def _recorded_rate(
    rates: Mapping[str, Any], name: str, unit: str, *, least: float = _TRUSTED
) -> tuple[float | None, str]:
    """Core-seconds a frame, hit or pair in the last run that took at least so many core-seconds."""
    rate = rates.get(name)
    if not rate or rate.get("unit") != unit or rate["core_seconds"] < least:
        return None, ""
    told = f"{rate['count']:,} {unit}s of the run of {rate['started']}"
    short = ", short: its start is in it" if rate["core_seconds"] < _TRUSTED else ""
    return rate["core_seconds"] / rate["count"], told + short


def _sampled_rate(
    name: str, plan: VerbPlan, calls: Calls, of_frames: Callable[[], dict[str, Sample]]
) -> tuple[float | None, str]:
    """Core-seconds as a few frames, hits or pairs take them here."""
    if plan.unit == "frame":
        sample = of_frames().get(name) if name in ("ingest", "screen") else None
    else:
        sample = sample_hits(name, all_arguments(name, calls[name]))
    return (sample.core_seconds, f"a sample of {sample.count:,} {plan.unit}s") if sample else (None, "")


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


def _told(plan: VerbPlan, threads: int) -> dict[str, Any]:
    hours = plan.core_seconds / 3600 / threads if plan.core_seconds is not None and threads else None
    return {**asdict(plan), "hours": hours}
