"""The verb ``run``: a whole analysis from one job file."""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffdask.cluster import connect, find_place, page_link, report_performance, tell_counts, warm_up
from diffdask.errors import BadJob, nearest
from diffdask.io.paths import as_store, is_url, join
from diffdask.io.storage import storage_at
from diffdask.pipeline.job_record import Record, count_results, keep_record, note_rate, write_record
from diffdask.pipeline.plan import Calls, all_arguments, plan_job
from diffdask.pipeline.reach import check_reach
from diffdask.pipeline.room import ask_room
from diffdask.pipeline.work import Work, find_work
from diffdask.verbs import VERBS, verb

_log = logging.getLogger(__name__)

#: How long a scheduler may take to say how many threads it has, s.
_SOON = 5.0

#: Verbs a job may have, in the order in which they are done.
JOB_VERBS = (
    *("simulate", "ingest", "screen", "compare", "haloes", "orient", "extract", "train", "rank"),
    *("merge", "evaluate", "methods", "report", "catalogue", "export"),
)


def run(
    job: str | Path,
    *,
    on: Any = None,
    folder: str | Path | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Do all that a job file says, in the order of an analysis.

    A job is a TOML file with a section for each verb to be done; the keys of a
    section are the verb's options. Where the verbs read and write is settled by
    the job's ``folder``: ``frames.zarr``, ``results.zarr``, ``ranker.zarr``,
    ``map.zarr``, ``methods.json``, ``report/``, ``catalogue.parquet``, ``picks.lst`` and ``job.json`` in it.
    Running a job again goes on where it stopped. ``job.json`` says what ran, where, with what versions and
    parameters, how long it took and what was left out; ``performance.html`` is Dask's report of it.

    Parameters
    ----------
    job
        The job file.
    on
        Where to run: "laptop", a scheduler's address, or a file of deploy/.
    folder
        In place of the job's own ``folder``: a folder, or a URL such as ``s3://bucket/campaign``.
    dry_run
        Say what would be done, in how long and for how much, and do nothing. What a frame, hit or pair takes is known
        from an earlier run, or measured: a few are done, and thrown away.
    progress
        Show bars on the terminal.

    Returns
    -------
    dict
        What each verb gave, JSON-able; also written to ``job.json``. Of a dry run, the plan.

    Raises
    ------
    BadJob
        If the file is no TOML, or has a verb or an option that is not known, or workers cannot see what it names.
    """
    sections = read_job(job)
    where = as_store(folder if folder is not None else sections.pop("folder", "."))
    sections.pop("folder", None)
    calls = plan_calls(sections, where)
    place = _told_place(on)
    check_reach(calls, place)
    if dry_run:
        return plan_job(calls, where, ask_room(place, on))
    if isinstance(where, Path):
        where.mkdir(parents=True, exist_ok=True)
    with keep_record(where, job=str(job), place=place) as record:
        _do(calls, record, where, on=on, progress=progress)
    return record


def _do(calls: Calls, record: Record, where: str | Path, *, on: Any, progress: bool) -> None:
    """Call verb after verb, and write down after each what was done."""
    for_cluster = [name for name in calls if "on" in inspect.signature(verb(name)).parameters]
    last = list(calls).index(for_cluster[-1]) if for_cluster else -1
    with contextlib.ExitStack() as stack:
        client = None
        if for_cluster:
            client = stack.enter_context(connect(on))
            warm_up(client, VERBS[for_cluster[0]].module)
            told = stack.enter_context(_report_file(where))
            stack.enter_context(report_performance(client, told, title=Path(record["job"]).read_text()))
            if client.dashboard_link:
                _log.info("dashboard: %s", page_link(client))
        for number, (name, arguments) in enumerate(calls.items()):
            used = client if name in for_cluster else None
            given = {"on": client, "progress": progress} if name in for_cluster else {}
            done: dict[str, Any] = {}
            record["unfinished"] = {name: done}
            with _noted(record, name, arguments, used, done):
                _call(name, {**arguments, **given}, done)
            record["verbs"][name], record["unfinished"] = done, {}
            write_record(where, record)
            if client is not None:
                counts = record["counts"]
                tell_counts(client, hits=counts.get("hits"), diffuse=counts.get("predicted diffuse"))
            if number == last:
                stack.close()  # what is left works on what is small by now


@contextlib.contextmanager
def _noted(
    record: Record, name: str, arguments: Mapping[str, Any], client: Any, done: dict[str, Any]
) -> Iterator[None]:
    """Note how far a verb came and how fast, also where it fails."""
    before, threads = find_work(name, all_arguments(name, arguments)), _count_threads(client)

    def note() -> None:
        if client is not None:
            most = max(threads, _count_threads(client))  # on SLURM, workers come while it runs
            done.update(_note_rate(record, name, arguments, before, done["seconds"] * most))
        if "results" in arguments and (client is not None or not record["counts"]):
            record["counts"], record["failures"] = count_results(arguments["results"])

    try:
        yield
    except BaseException:
        try:
            note()
        except Exception as error:  # whatever it is, the error that ended the verb is the one to be told
            _log.warning("what '%s' did could not be counted: %s", name, error)
        raise
    note()


def _note_rate(
    record: Record, name: str, arguments: Mapping[str, Any], before: Work | None, seconds: float
) -> dict[str, Any]:
    """Note what a verb took, seconds of worker threads, and give how far it is."""
    work = find_work(name, all_arguments(name, arguments))
    if work is None:
        return {}
    note_rate(record, name, unit=work.unit, count=work.done - (before.done if before else 0), seconds=seconds)
    return {"unit": work.unit, "done": work.done, "of": work.total}


def _count_threads(client: Any) -> int:
    """Worker threads that there are; 0 where the scheduler is gone or slow to answer."""
    if client is None or client.status != "running":
        return 0
    try:
        return sum(client.sync(client.scheduler.ncores, workers=None, callback_timeout=_SOON).values())
    except (OSError, TimeoutError, RuntimeError) as error:
        _log.debug("how many threads there are is not known: %s", error)
        return 0


@contextlib.contextmanager
def _report_file(where: str | Path) -> Iterator[str | Path]:
    """Give the file of Dask's report; of a job in a bucket it is put there in the end, if there is one."""
    to = join(where, "performance.html")
    if not is_url(to):
        yield to
        return
    with tempfile.TemporaryDirectory(prefix="diffdask-") as folder:
        made = Path(folder) / "performance.html"
        try:
            yield made
        finally:
            if made.is_file():
                with contextlib.suppress(OSError):  # a report is not worth an error
                    storage_at(where).put_file(made.name, made)


def read_job(path: str | Path) -> dict[str, Any]:
    """Read a job file and check all its keys.

    Raises
    ------
    BadJob
        If the file is absent or no TOML, or a key is not known.
    """
    path = Path(path)
    if not path.is_file():
        raise BadJob(f"no job at '{path}'; jobs/ of the project holds examples")
    try:
        job = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise BadJob(f"'{path}' is not valid TOML: {error}") from error
    for key, section in job.items():
        if key == "folder":
            if not isinstance(section, str):
                raise BadJob(f"'{path}': folder = {section!r} is no path")
            continue
        if key not in JOB_VERBS:
            raise BadJob(f"'{path}': unknown section '{key}'; {nearest(key, ('folder', *JOB_VERBS))}")
        if not isinstance(section, dict):
            raise BadJob(f"'{path}': '{key}' is a section: write [{key}]")
        known = job_keys(key)
        for option, value in section.items():
            if option not in known:
                raise BadJob(f"'{path}': [{key}] has no option '{option}'; {nearest(option, known)}")
            if not _fits(value, str(known[option].annotation)):
                raise BadJob(f"'{path}': [{key}] {option} = {value!r} is not of the type {known[option].annotation}")
    return job


def job_keys(name: str) -> dict[str, inspect.Parameter]:
    """Options that a verb's section may have: what it works on and all its options, but not where it runs."""
    parameters = inspect.signature(verb(name)).parameters
    return {key: parameter for key, parameter in parameters.items() if key not in ("on", "progress")}


def plan_calls(sections: dict[str, Any], folder: str | Path) -> dict[str, dict[str, Any]]:
    """Fill in where verbs read and write; what a section says itself wins.

    Parameters
    ----------
    sections
        Verb to options.
    folder
        Of the job.

    Returns
    -------
    dict
        Verb to all its arguments, in the order of an analysis.
    """

    def at(*names: str) -> str:
        return str(join(folder, *names))

    labels = {"labels": at("simulated", "labels.csv")} if "simulate" in sections else {}
    results, volume = at("results.zarr"), at("map.zarr")
    merged = {"map": sections["merge"].get("to", volume)} if "merge" in sections else {}
    told = at("methods.json")
    compared = {"methods": sections["methods"].get("to", told)} if "methods" in sections else {}
    defaults: dict[str, dict[str, Any]] = {
        "simulate": {"to": at("simulated")},
        "ingest": {"to": at("frames.zarr")},
        "screen": {"frames": at("frames.zarr"), "results": results},
        "train": {"results": results, "to": at("ranker.zarr"), **labels},
        "compare": {"results": results},
        "orient": {"results": results},
        "haloes": {"results": results},
        "extract": {"results": results},
        "rank": {"results": results, **({"ranker": at("ranker.zarr")} if "train" in sections else {})},
        "merge": {"results": results, "to": volume},
        "evaluate": {"results": results, **labels},
        "methods": {"results": results, "to": told, **labels},
        "report": {"results": results, "to": at("report"), **labels, **merged, **compared},
        "catalogue": {"results": results, "to": at("catalogue.parquet")},
        "export": {"results": results, "to": at("picks.lst")},
    }
    if "simulate" in sections:
        defaults["ingest"] |= {
            "sources": at("simulated", "r*.cxi"),
            "geometry": at("simulated", "campaign.geom"),
            "stream": at("simulated", "campaign.stream"),
        }
    calls = {name: {**defaults[name], **sections[name]} for name in JOB_VERBS if name in sections}
    for name, arguments in calls.items():
        missing = [
            p.name
            for p in inspect.signature(verb(name)).parameters.values()
            if p.default is inspect.Parameter.empty and p.name not in arguments
        ]
        if missing:
            raise BadJob(f"[{name}] lacks {', '.join(missing)}")
    return calls


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value of a TOML file is of a parameter's annotated type; an integer will do for a float."""
    if isinstance(value, list):
        return "Sequence" in annotation and all(
            isinstance(item, int if "[int]" in annotation else str) for item in value
        )
    kinds = {"int": int, "float": int | float, "bool": bool, "str": str}
    taken = [kind for word, kind in kinds.items() if re.search(rf"\b{word}\b", annotation)]
    return any(isinstance(value, kind) for kind in taken) and (not isinstance(value, bool) or bool in taken)


def _told_place(on: Any) -> dict[str, Any]:
    """Where it runs, to be written down; a mistake in a place is told before anything is done."""
    is_named = on is None or isinstance(on, str | Path)
    return find_place(on) if is_named else find_place(on.scheduler.address)


def _call(name: str, arguments: dict[str, Any], done: dict[str, Any]) -> None:
    """Call a verb, and fill in what is known of it, be it all or not."""
    _log.info("%s: %s", name, VERBS[name].sentence)
    defaults = {key: p.default for key, p in job_keys(name).items() if p.default is not inspect.Parameter.empty}
    done["arguments"] = {**defaults, **{key: told for key, told in arguments.items() if key not in ("on", "progress")}}
    function = verb(name)
    first, *_ = inspect.signature(function).parameters
    options = {key: value for key, value in arguments.items() if key != first}
    started = time.perf_counter()
    try:
        done["gave"] = function(arguments[first], **options)
    finally:
        done["seconds"] = round(time.perf_counter() - started, 3)
