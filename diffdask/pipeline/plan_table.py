"""A plan as a table for the terminal."""

from __future__ import annotations

import math
from typing import Any


def format_plan(plan: dict[str, Any]) -> str:
    """Write as text what :func:`~diffdask.pipeline.plan.plan_job` gave."""
    rows = [("", "left", "tasks", "to read", "a worker", "time", "by")]
    for name, told in plan["verbs"].items():
        rows.append(
            (
                name,
                _left(told),
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
        return f"{place['told']}; how many workers it has, only it knows"
    threads = "a thread" if place["threads"] == 1 else f"{place['threads']} threads"
    return f"{place['told']}; {place['workers']} workers of {threads} and {_bytes(place['memory'])}"


def _totals(plan: dict[str, Any]) -> list[str]:
    place, total = plan["place"], plan["total"]
    if total["without_hours"] and not total["core_hours"]:
        return ["how long it takes cannot be said before there are frames to be measured"]
    lines = [f"in all: {total['core_hours']:.3g} core hours"]
    if total["hours"] is not None:
        lines[0] += f", {_time(total['hours'])} there"
        read = sum(told["read_bytes"] or 0 for told in plan["verbs"].values() if told["core_seconds"])
        if total["hours"] and read:
            lines[0] += f", if storage gives {_bytes(read / total['hours'] / 3600)} a second"
    if total["cost"] and place["cost_per_core_hour"]:
        lines.append(f"cost: {total['cost']:.2f} ({place['cores']} cores at {place['cost_per_core_hour']} an hour)")
    if total["without_hours"]:
        lines.append(f"not in it: {', '.join(total['without_hours'])}")
    if total["fits"] is False:
        lines.append(
            f"TOO LITTLE MEMORY: a worker needs {_bytes(total['worker_bytes'])} and has {_bytes(place['memory'])}; "
            "take fewer threads, more memory or a smaller block_frames"
        )
    return lines


def _left(told: dict[str, Any]) -> str:
    if told["left"] is None:
        return f"{told['unit']}s" if told["unit"] else ""
    of = f" of {told['total']:,}" if told["total"] not in (None, told["left"]) else ""
    return f"{told['left']:,}{of} {told['unit']}s"


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column in (0, 6) else cell.rjust(width)


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
