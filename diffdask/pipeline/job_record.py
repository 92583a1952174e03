"""What is written beside a job's results: ``job.json``.

It is there from the start of a job and says how far it came, whatever ends it::

    job, version, versions, place, host      what ran, and where
    state                                    running, finished, failed, ended (by SIGTERM) or interrupted
    started, ended, error
    verbs                                    of each that is finished: arguments, seconds, how much is done, gave
    unfinished                               the same of the verb that runs, or that failed
    rates                                    seconds of worker threads a frame, hit or pair, for the next dry run
    counts, failures                         frames, hits and diffuse; frames and blocks that were left out, and why
    attempts                                 earlier ones that did not finish
"""

from __future__ import annotations

import contextlib
import json
import logging
import platform
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from diffdask.errors import BadStore
from diffdask.interruption import Terminated
from diffdask.io.storage import storage_at
from diffdask.variables import STATUS_OK
from diffdask.version import __version__

#: What computes, stores or brings workers, so that another version can change what comes out, or how fast; a few are
#: there in one of two builds, or only where a place needs them.
_PACKAGES = (
    *("dask", "dask-glm", "dask-jobqueue", "dask-kubernetes", "dask-ml", "distributed", "kr8s"),
    *("gemmi", "keras", "llvmlite", "numba", "numpy", "pillow", "scikit-learn", "scipy", "tensorflow"),
    *("tensorflow-cpu", "h5py", "hdf5plugin", "numcodecs", "obstore", "pandas", "pyarrow", "xarray", "zarr"),
)

Record = dict[str, Any]

NAME = "job.json"

_log = logging.getLogger(__name__)


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
        "versions": find_versions(),
        "host": platform.node(),
        "state": "running",
        "started": _now(),
        "ended": None,
        "error": None,
        "verbs": {},
        "unfinished": {},
        "rates": before.get("rates", {}),
        "counts": {},
        "failures": {},
        "attempts": _earlier(before),
    }
    write_record(folder, record)
    try:
        yield record
    except BaseException as error:
        record |= {"state": _state(error), "error": f"{type(error).__name__}: {error}", "ended": _now()}
        _write_if_possible(folder, record)
        raise
    record |= {"state": "finished", "ended": _now()}
    write_record(folder, record)


def find_versions() -> dict[str, str]:
    """Find the versions of Python and of those packages that are installed; none is imported."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


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


def note_rate(record: Record, name: str, *, unit: str, count: int, seconds: float) -> None:
    """Note what a verb took for so many frames, hits or pairs, if there were any: seconds of worker threads in all."""
    if count > 0 and seconds > 0:
        told = {"unit": unit, "count": count, "core_seconds": round(seconds, 3), "started": record["started"]}
        record["rates"][name] = told


def count_results(results: str | Path) -> tuple[Record, Record]:
    """Count what a results store holds by now, be the screen finished or not.

    Returns
    -------
    tuple
        (counts, failures): frames, hits and diffuse; frames not used by reason, and blocks given up with theirs. Until
        the screen is finished, hits are frames with Bragg peaks, and frames are those of the blocks that are done.
    """
    from diffdask.io.marks import quarantined_blocks
    from diffdask.io.results_store import open_group, open_scores
    from diffdask.pipeline.counts import count_texts

    counts: Record = {}
    failures: Record = {"frames": {}, "blocks": {}}
    with contextlib.suppress(BadStore):  # no store, or one without these groups yet
        screened = open_group(results, "screen")
        if screened is not None:
            counts |= {"frames": screened.sizes["frame"], "hits": int(screened.frame_is_hit.values.sum())}
            counted = Counter(count_texts(screened.frame_status)).most_common()
            failures["frames"] = {reason: number for reason, number in counted if reason != STATUS_OK}
        else:
            counts |= _count_screened(results)
            failures["frames"] = _count_unreadable(results)
        scores = open_scores(results)
        if scores is not None:
            counts["predicted diffuse"] = int((scores.frame_score.values >= scores.attrs["threshold"]).sum())
    for group in ("screen", "hits"):
        given_up = quarantined_blocks(results, group)
        if given_up:
            failures["blocks"][group] = [[*block, told["reason"]] for block, told in given_up.items()]
    return counts, failures


def _count_screened(results: str | Path) -> Record:
    """Count what an unfinished screen has done; nothing where there is none."""
    import zarr

    from diffdask.io.marks import marked_blocks
    from diffdask.pipeline.status import count_screened

    done = marked_blocks(results, "screen")
    if not done:
        return {}
    asked: Any = zarr.open_group(storage_at(results).zarr_store(), mode="r", use_consolidated=False).attrs["asked"]
    found = count_screened(results, done, min_peaks=int(asked["hits"]["min_peaks"]))
    return {"frames": sum(stop - start for start, stop in done), "hits": found["hits"]}


def _count_unreadable(results: str | Path) -> dict[str, int]:
    """Count frames that an unfinished screen found damaged, by reason."""
    from diffdask.pipeline.failed_frames import read_unreadable

    return dict(Counter(read_unreadable(results).values()).most_common())


def _write_if_possible(folder: str | Path, record: Record) -> None:
    """Write a record while an error is under way, which must not be hidden by what storage refuses now."""
    try:
        write_record(folder, record)
    except OSError as error:
        _log.error(
            "%s of '%s' could not be written (%s) and may still say that the job is running; it ended: %s",
            *(NAME, folder, error, record["error"]),
        )


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
