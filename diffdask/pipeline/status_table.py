"""How far a run is, as a table for the terminal."""

from __future__ import annotations

from typing import Any

from diffdask.pace import tell_count, tell_rate, tell_time

#: Stages as the verbs that do them say it.
_NAMES = {"frames": "ingest", "vgg16": "VGG16", "search": "orient", "common-arc": "compare"}


def format_status(found: dict[str, Any]) -> str:
    """Write as text what :func:`~diffdask.pipeline.status.status` gave."""
    rows: list[tuple[str, ...]] = [("stage", "blocks", "done", "", "rate", "left", "last block", "")]
    rows += [_row(name, stage) for name, stage in found["stages"].items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(
            cell.rjust(width) if n in (1, 2, 3, 4, 5, 6) else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines = [f"{found['store']}: {found['state']}"]
    if found["stages"]:
        lines += ["", *table]
    return "\n".join([*lines, *_counts(found)])


def _row(name: str, stage: dict[str, Any]) -> tuple[str, ...]:
    is_done = stage["state"] == "finished"
    share = stage["done"] / stage["total"] if stage["total"] else 1.0
    since = stage["seconds_since_last_block"]
    return (
        _NAMES.get(name, name),
        f"{tell_count(stage['blocks_done'])} of {tell_count(stage['blocks'])}",
        f"{tell_count(stage['done'])} of {_many(stage['total'], stage['unit'])}",
        f"{100 * share:.0f} %",
        f"{tell_rate(stage['rate'])}/s" if stage["rate"] else "",
        "" if is_done else tell_time(stage["seconds_left"]),
        "" if since is None else f"{tell_time(since)} ago",
        stage["state"],
    )


def _counts(found: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    if "failures" in found:
        hits, diffuse = found["hits"], found["diffuse"]
        about = "about " if found["hits_are_estimated"] else ""
        told = "not known yet" if hits is None else f"{about}{tell_count(hits)}"
        ranked = "not ranked yet" if diffuse is None else tell_count(diffuse)
        lines += ["", f"hits: {told}; predicted diffuse: {ranked}", _failures(found["failures"])]
        lines += [
            f"  {one['stage']} {one['block'][0]} to {one['block'][1]}, {one['time']}: {one['reason']}"
            for one in found["failures"]["given_up"]
        ]
    job = found.get("job")
    if job:
        ended = f", {job['state']} {job['ended']}" if job["ended"] else ""
        lines.append(f"job: {job['job']}, started {job['started']}{ended}{': ' + job['error'] if job['error'] else ''}")
    return lines


def _failures(told: dict[str, Any]) -> str:
    if not told["frames"] and not told["blocks_given_up"]:
        return "failures: none"
    frames, blocks = _many(told["frames"], "frame"), _many(told["blocks_given_up"], "block")
    return f"failures: {frames}: {tell_count(told['damaged_frames'])} damaged, the others in {blocks} given up"


def _many(count: int, unit: str) -> str:
    return f"{tell_count(count)} {unit}{'' if count == 1 else 's'}"
