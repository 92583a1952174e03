"""What is written beside a job's results: ``job.json``.

It is there from the start of a job and says how far it came, whatever ends it::

    job, version, versions, place, host      what ran, and where
    state                                    running, finished, failed, ended (by SIGTERM) or interrupted
    started, ended, error
    verbs                                    of each: arguments, seconds, what it gave
    rates                                    core-seconds a frame, for the next dry run
    counts, failures                         frames, hits and diffuse; frames and blocks that were left out, and why
    attempts                                 earlier ones that did not finish
"""

from __future__ import annotations

import contextlib
import json
import platform
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdask.errors import BadStore
from diffdask.interruption import Terminated
from diffdask.io.storage import storage_at
from diffdask.variables import STATUS_OK
from diffdask.version import __version__

if TYPE_CHECKING:
    import xarray as xr

#: Packages whose versions can change what comes out, or how fast.
_PACKAGES = ("dask", "distributed", "numba", "numpy", "scikit-learn", "scipy", "xarray", "zarr")

Record = dict[str, Any]

NAME = "job.json"

_ROWS_AT_ONCE = 1 << 17


@contextlib.contextmanager
def keep_record(folder: str | Path, **known: Any) -> Iterator[Record]:
    """Write ``job.json`` now, and when the context ends; say in it how that was.

    Parameters
    ----------
    folder
        Of the job.
    known
        What to begin with, such as ``job``; JSON-able.

    Yields
    ------
    dict
        The record, to be added to; :func:`write_record` writes it in between.
    """
    before = read_record(folder)
    record: Record = {
        **known,
        "version": __version__,
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}},
        "host": platform.node(),
        "state": "running",
        "started": _now(),
        "ended": None,
        "error": None,
        "verbs": {},
        "rates": before.get("rates", {}),
        "counts": {},
        "failures": {},
        "attempts": _earlier(before),
    }
    write_record(folder, record)
    try:
        yield record
        record["state"] = "finished"
    except BaseException as error:
        record["state"] = _state(error)
        record["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        record["ended"] = _now()
        write_record(folder, record)


def write_record(folder: str | Path, record: Record) -> None:
    """Write a record whole, in place of the one before."""
    storage_at(folder).write_text(NAME, json.dumps(record, indent=2, default=str) + "\n")


def read_record(folder: str | Path) -> Record:
    """Read the record of a job's folder; empty where there is none that can be read."""
    try:
        record = json.loads(storage_at(folder).read_text(NAME))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def note_rate(record: Record, name: str, *, frames: int, seconds: float) -> None:
    """Note what a verb took for its frames, if there were any: core-seconds in all."""
    if frames > 0:
        record["rates"][name] = {"frames": frames, "core_seconds": round(seconds, 3), "started": record["started"]}


def count_results(results: str | Path) -> tuple[Record, Record]:
    """Count what a results store holds by now.

    Returns
    -------
    tuple
        (counts, failures): frames, hits and diffuse; frames not used by reason, and blocks given up with theirs.
    """
    from diffdask.io.marks import quarantined_blocks
    from diffdask.io.results_store import open_group, open_scores

    counts: Record = {}
    failures: Record = {"frames": {}, "blocks": {}}
    with contextlib.suppress(BadStore):  # no store, or one without these groups yet
        screened = open_group(results, "screen")
        if screened is not None:
            counts |= {"frames": screened.sizes["frame"], "hits": int(screened.frame_is_hit.values.sum())}
            failures["frames"] = _count_reasons(screened.frame_status)
        scores = open_scores(results)
        if scores is not None:
            counts["predicted diffuse"] = int((scores.frame_score.values >= scores.attrs["threshold"]).sum())
    for group in ("screen", "hits"):
        given_up = quarantined_blocks(results, group)
        if given_up:
            failures["blocks"][group] = [[*block, told["reason"]] for block, told in given_up.items()]
    return counts, failures


def _count_reasons(status: xr.DataArray) -> dict[str, int]:
    """Count frames that are not fine, by reason; piece by piece, as there may be millions."""
    counted: Counter[str] = Counter()
    for start in range(0, status.size, _ROWS_AT_ONCE):
        counted.update(status[start : start + _ROWS_AT_ONCE].values.tolist())
    return {reason: number for reason, number in counted.most_common() if reason != STATUS_OK}


def _state(error: BaseException) -> str:
    if isinstance(error, Terminated):
        return "ended"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


def _earlier(record: Record) -> list[Record]:
    """Earlier attempts at a job, the last included, as long as it did not finish."""
    if not record or record.get("state") == "finished":
        return []
    told = ("started", "ended", "state", "error")
    return [*record.get("attempts", []), {name: record.get(name) for name in told}]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
