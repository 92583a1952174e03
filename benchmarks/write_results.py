"""Turn what pytest-benchmark measured into the table of benchmarks/RESULTS.md.

Usage: python write_results.py MEASURED.json RESULTS.md COMMAND
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

_LIBRARIES = ("diffdask", "numpy", "numba", "zarr", "numcodecs", "dask", "pyFAI", "ondamonitor")

_ABOUT = """\
Made by `{command}`; do not edit. What is measured, and how: [performance](../docs/performance.md).

*ratio* is a time over that of the group's reference just before it: the median of all turns and, in brackets, the
least and the greatest. The first row of a group is its reference, unless a name says otherwise. Ratios can be compared
between machines, times cannot; where turns differ much, the machine did something else meanwhile.
"""


def main(measured: str, target: str, command: str) -> None:
    """Write the table, and show it."""
    content = json.loads(Path(measured).read_text())
    text = write_table(content["benchmarks"], command)
    Path(target).write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def write_table(benchmarks: list[dict[str, Any]], command: str) -> str:
    """Write a section for every group, in the order in which they ran."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in benchmarks:
        groups[one["group"]].append(one)
    lines = ["# Results of the benchmarks", "", _ABOUT.format(command=command), *_machine(), ""]
    for group, members in groups.items():
        lines += [f"## {group}", "", *_rows(members), ""]
    if not any(one["name"].startswith("OM ") for one in benchmarks):
        lines += ["OM's peakfinder8 was absent: `pip install 'diffdask[bench]'`.", ""]
    return "\n".join(lines)


def _rows(members: list[dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(name for one in members for name in one["extra_info"]["columns"]))
    per_frame = "frames_per_call" in columns
    further = [name for name in columns if name != "frames_per_call"]
    heads = ["", "median, ms", *(["frames/s"] if per_frame else []), "ratio", *further, "asked", "met"]
    rows = [heads, ["---", *["---:"] * (len(heads) - 3), "---", "---"]]
    for one in members:
        info, stats = one["extra_info"], one["stats"]
        ratios = [time / reference for time, reference in zip(stats["data"], info["reference_s"], strict=False)] or [
            1.0
        ]
        ratio = statistics.median(ratios)
        rate = [f"{info['columns']['frames_per_call'] / stats['median']:.0f}"] if per_frame else []
        found = [str(info["columns"].get(name, "")) for name in further]
        met = "" if info["asked"] is None else "yes" if ratio <= info["asked"] else "**no**"
        rows.append(
            [one["name"], _milliseconds(stats["median"]), *rate, _with_spread(ratios), *found, info["words"], met]
        )
    return ["| " + " | ".join(row) + " |" for row in rows]


def _with_spread(ratios: list[float]) -> str:
    spread = f" ({min(ratios):.3g} to {max(ratios):.3g})" if max(ratios) > min(ratios) else ""
    return f"{statistics.median(ratios):.3g}{spread}"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.3g}"


def _machine() -> list[str]:
    versions = [f"{name} {_version(name)}" for name in _LIBRARIES]
    return [
        f"- {datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        f"- {_processor()}, {len(os.sched_getaffinity(0))} cores, {platform.system()}",
        f"- Python {platform.python_version()}, {', '.join(versions)}",
        f"- load when done: {statistics.fmean(os.getloadavg()):.1f}",
    ]


def _processor() -> str:
    """Model of the CPU, with what the kernels were compiled for: a virtual machine may hide the former."""
    import llvmlite.binding

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()} ({llvmlite.binding.get_host_cpu_name()})"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    main(*sys.argv[1:])
