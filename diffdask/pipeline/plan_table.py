"""A plan as a table for the terminal."""

from __future__ import annotations

import math
from typing import Any

from diffdask.cluster.capacity import PAUSES_AT
from diffdask.pipeline.plan import UNMEASURED

#: Columns of text; the others are numbers.
_TEXT = (0, 7)


def format_plan(plan: dict[str, Any]) -> str:
    """Write as text what :func:`~diffdask.pipeline.plan.plan_job` gave."""
    rows = [("", "left", "blocks", "tasks", "to read", "a worker", "time", "by")]
    for name, told in plan["verbs"].items():
        rows.append(
            (
                name,
                _left(told),
                "" if told["tasks"] == 0 else _number(told["blocks"]),
                "here" if told["tasks"] == 0 and told["basis"] != "done" else _number(told["tasks"]),
                _bytes(told["read_bytes"]),
                _bytes(told["worker_bytes"]),
                _time(told["hours"]),
                told["basis"],
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(_aligned(cell, width, n) for n, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]
    return "\n".join([f"place: {_place(plan['place'])}", "", *table, "", *_totals(plan)])


def _place(place: dict[str, Any]) -> str:
    if not place["workers"]:
        return f"{place['told']}; how many workers it will have is not known: core hours only"
    threads = "a thread" if place["threads"] == 1 else f"{place['threads']} threads"
    memory = f" and {_bytes(place['memory'])}" if place["memory"] else ""
    return f"{place['told']}; {place['workers']} workers of {threads}{memory}"


def _totals(plan: dict[str, Any]) -> list[str]:
    verbs = plan["verbs"].values()
    return [
        *_memory(plan["place"], plan["total"]),
        *(f"assumed: {told['assumed']}" for told in verbs if told["assumed"]),
        *_time_and_cost(plan),
        *_not_in_it(plan),
    ]


def _memory(place: dict[str, Any], total: dict[str, Any]) -> list[str]:
    if total["fits"] is not False:
        return []
    return [
        f"TOO LITTLE MEMORY: a worker needs {_bytes(total['worker_bytes'])} and can use "
        f"{_bytes(place['usable_memory'])}: it has {_bytes(place['memory'])}, and Dask pauses it at {PAUSES_AT:.0%}; "
        "take fewer threads, more memory or a smaller block_frames"
    ]


def _time_and_cost(plan: dict[str, Any]) -> list[str]:
    place, total, verbs = plan["place"], plan["total"], plan["verbs"].values()
    if not any(told["core_seconds"] is not None for told in verbs):
        return []
    lines = [f"in all: {total['core_hours']:.3g} core hours"]
    if total["hours"] is not None:
        lines[0] += f", {_time(total['hours'])} there"
        read = sum(told["read_bytes"] or 0 for told in verbs if told["core_seconds"])
        if total["hours"] and read:
            lines[0] += f", if storage gives {_bytes(read / total['hours'] / 3600)} a second"
    if total["cost"] is not None:
        held = f"{place['cores']} cores" if total["hours"] is not None else "each core hour"
        lines.append(f"cost: {total['cost']:.2f} ({held} at {place['cost_per_core_hour']} an hour)")
    return lines


def _not_in_it(plan: dict[str, Any]) -> list[str]:
    """Verbs without a figure, by why it is missing, and what to do about it."""
    why: dict[str, list[str]] = {}
    for name in plan["total"]["without_hours"]:
        why.setdefault(plan["verbs"][name]["basis"], []).append(name)
    advice = {
        UNMEASURED: "; run the job for some ten minutes and end it with Ctrl-C: what was done stays, and the next dry "
        "run knows how long it takes"
    }
    return [f"not in it: {', '.join(names)}, {basis}{advice.get(basis, '')}" for basis, names in why.items()]


def _left(told: dict[str, Any]) -> str:
    if told["left"] is None:
        return f"{told['unit']}s" if told["unit"] else ""
    of = f" of {told['total']:,}" if told["total"] not in (None, told["left"]) else ""
    return f"{told['left']:,}{of} {told['unit']}s"


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column in _TEXT else cell.rjust(width)


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _time(hours: float | None) -> str:
    if hours is None:
        return ""
    for size, unit in ((1.0, "h"), (1 / 60, "min")):
        if hours >= size:
            return f"{hours / size:,.0f} {unit}" if hours >= 10 * size else f"{hours / size:.1f} {unit}"
    return f"{hours * 3600:.0f} s"


def _bytes(value: float | None) -> str:
    if value is None:
        return ""
    units = ("B", "kB", "MB", "GB", "TB")
    step = min(len(units) - 1, int(math.log10(max(value, 1)) // 3))
    return f"{value / 1000**step:.3g} {units[step]}"
