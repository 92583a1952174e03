"""SLURM: worker jobs that follow the load, and are submitted again when they end before the work does.

The scheduler lives in the process that calls, on a login node or in a job of
its own (``deploy/slurm.sh``); workers are jobs that connect back to it.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

from diffdask.cluster.capacity import Capacity
from diffdask.cluster.demand import Demand
from diffdask.cluster.keys import Key
from diffdask.cluster.laptop import ANY_PORT, LOCAL_LINK, MALLOC
from diffdask.cluster.security import security_in
from diffdask.cluster.slurm_jobs import JOB_NAME, JobKeeper, is_hopeless
from diffdask.errors import BadJob

_log = logging.getLogger(__name__)

KEYS = {
    "queue": Key("", "partition of the worker jobs; empty: the cluster's default"),
    "account": Key("", "account that is charged; empty: your default"),
    "jobs": Key(1, "most worker jobs; those that end while there is work are submitted again"),
    "fewest_jobs": Key(1, "worker jobs that stay when there is little to do; as many as jobs: all of them"),
    "idle_timeout": Key(600, "seconds after which jobs that there is nothing to do for are given up"),
    "cores": Key(1, "cores of a job"),
    "memory": Key("4GB", "memory of a job, shared by its workers"),
    "processes": Key(0, "workers of a job; 0: one a core"),
    "walltime": Key("01:00:00", "longest time of a job, [days-]hours:minutes:seconds"),
    "directives": Key([], 'further options of sbatch, as in ["--constraint=rome", "--exclusive"]'),
    "prologue": Key([], 'shell lines run before a worker starts, as in ["module load python"]'),
    "python": Key("", "Python that runs the workers; empty: the one that runs this"),
    "interface": Key("", "network interface of workers and scheduler, as in ib0; empty: Dask's choice"),
    "host": Key("", "address of this machine as workers reach it; empty: that of the interface"),
    "shared_folder": Key(".", "folder that all nodes see: the cluster's key and certificate lie there while it lives"),
    "local_folder": Key("", "folder of a node's own, for what workers spill, as in $TMPDIR; empty: the job's folder"),
    "log_folder": Key("slurm-logs", "folder that all nodes see, for what worker jobs print"),
    "death_timeout": Key(120, "seconds after which a worker ends that finds no scheduler"),
    "dashboard": Key(ANY_PORT, "address of the dashboard; port 0: any that is free"),
    "tls": Key(True, "TLS between client, scheduler and workers"),
}

#: A worker retires this share of the walltime, at most these seconds, before its job is killed.
_MARGIN = (0.1, 300.0)

#: Workers of one age retire over this share of the walltime on either side: far longer than a new job takes to start,
#: so that never all of them are gone at once.
_STAGGER = 0.15

#: Until it is first told that no worker is there yet, and between two times, s.
_TOLD_FIRST, _TOLD_EVERY = 30.0, 300.0

#: How long a SLURM that does not do as asked is borne before there is any worker, s.
_PATIENCE = 900.0


def open_client(place: dict[str, Any], stack: contextlib.ExitStack) -> Any:
    """Start a scheduler here, submit the worker jobs, and wait for the first worker.

    Raises
    ------
    BadJob
        If dask-jobqueue or SLURM is not there, SLURM refuses the jobs, or none of them will ever start.
    """
    import dask
    import distributed

    options = cluster_options(place)
    cluster_type = _cluster_type()
    if not shutil.which("sbatch"):
        raise BadJob("no 'sbatch' here: run this on a node from which SLURM takes jobs, or choose another place")
    for folder in ("shared_folder", "log_folder"):
        Path(place[folder]).expanduser().mkdir(mode=0o700, parents=True, exist_ok=True)
    stack.enter_context(dask.config.set(LOCAL_LINK))
    security = (
        stack.enter_context(security_in(Path(place["shared_folder"]).expanduser().absolute())) if place["tls"] else None
    )
    cluster = stack.enter_context(cluster_type(security=security, **options))
    client = stack.enter_context(distributed.Client(cluster, set_as_default=False))
    keeper = JobKeeper(cluster, demand_of(place))
    keeper.submit()
    stack.enter_context(keeper.keeping())
    _await_first_worker(client, keeper, log_folder=options["log_directory"])
    return client


def capacity(place: dict[str, Any]) -> Capacity:
    """How much the place can do at once."""
    from dask.utils import parse_bytes

    processes = place["processes"] or place["cores"]
    where = f" in queue '{place['queue']}'" if place["queue"] else ""
    return Capacity(
        told=f"SLURM: {place['jobs']} jobs of {place['cores']} cores and {place['memory']}{where}",
        workers=place["jobs"] * processes,
        threads=max(1, place["cores"] // processes),
        memory=parse_bytes(place["memory"]) // processes,
        cores=place["jobs"] * place["cores"],
        cost_per_core_hour=place["cost_per_core_hour"],
    )


def cluster_options(place: dict[str, Any]) -> dict[str, Any]:
    """Say a place in the words of ``dask_jobqueue.SLURMCluster``."""
    lifetime, stagger = plan_lifetime(read_walltime(place["walltime"]))
    if place["jobs"] < 1 or place["cores"] < 1:
        raise BadJob(f"jobs = {place['jobs']} and cores = {place['cores']}: at least one of each is needed")
    if not 1 <= place["fewest_jobs"] <= place["jobs"]:
        raise BadJob(f"fewest_jobs = {place['fewest_jobs']}: at least one, and no more than jobs = {place['jobs']}")
    return {
        "queue": place["queue"] or None,
        "account": place["account"] or None,
        "cores": place["cores"],
        "memory": place["memory"],
        "processes": place["processes"] or place["cores"],
        "walltime": place["walltime"],
        "job_name": JOB_NAME,
        "job_extra_directives": ["-N 1", *place["directives"]],
        "job_script_prologue": [*(f"export {key}={value}" for key, value in MALLOC.items()), *place["prologue"]],
        "python": place["python"] or None,
        "interface": place["interface"] or None,
        "local_directory": place["local_folder"] or None,
        "log_directory": str(Path(place["log_folder"]).expanduser().absolute()),
        "death_timeout": place["death_timeout"],
        "worker_extra_args": [
            *("--lifetime", f"{lifetime:.0f}s", "--lifetime-stagger", f"{stagger:.0f}s"),
            *("--dashboard-address", ANY_PORT),
        ],
        "scheduler_options": {
            "dashboard_address": place["dashboard"],
            **({"host": place["host"]} if place["host"] else {}),
        },
    }


def demand_of(place: dict[str, Any]) -> Demand:
    """Say how many jobs a place may have."""
    return Demand(
        fewest=place["fewest_jobs"],
        most=place["jobs"],
        threads=place["cores"],
        patience=place["idle_timeout"],
    )


def read_walltime(text: str) -> float:
    """Read SLURM's way of writing a time.

    Returns
    -------
    float
        Seconds.

    Raises
    ------
    BadJob
        If it cannot be read.

    Examples
    --------
    >>> read_walltime("04:00:00"), read_walltime("1-12"), read_walltime("90"), read_walltime("2:30")
    (14400.0, 129600.0, 5400.0, 150.0)
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if not match:
        raise BadJob(f"walltime = '{text}' is not like '04:00:00' or '1-12:00:00'")
    days, *parts = match.groups()
    one, two, three = (int(part) if part else 0 for part in parts)
    if days is not None or parts[2] is not None:
        return float(int(days or 0) * 86400 + one * 3600 + two * 60 + three)
    return float(one * 60 + two)


def plan_lifetime(walltime: float) -> tuple[float, float]:
    """Say when workers retire by themselves, so that the walltime kills none at work.

    Parameters
    ----------
    walltime
        Of a job, seconds.

    Returns
    -------
    tuple
        (lifetime, stagger) in seconds: a worker lives for its lifetime, longer or shorter by up to the stagger.

    Examples
    --------
    >>> plan_lifetime(4 * 3600)
    (11940.0, 2160.0)
    """
    share, most = _MARGIN
    stagger = _STAGGER * walltime
    return walltime - min(share * walltime, most) - stagger, stagger


def _cluster_type() -> Any:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise BadJob("where = \"slurm\" needs dask-jobqueue: pip install 'diffdask[slurm]'") from error
    return SLURMCluster


def _await_first_worker(client: Any, keeper: JobKeeper, *, log_folder: str) -> None:
    """Wait for as long as the queue takes, but not for jobs of which none will become a worker."""
    tell_at = time.monotonic() + _TOLD_FIRST
    while not client.nthreads():
        _check_hope(keeper, log_folder)
        if time.monotonic() > tell_at:
            _log.info("no worker yet; worker jobs wait: %s", _told_reasons(keeper) or "SLURM has not said why")
            tell_at = time.monotonic() + _TOLD_EVERY
        time.sleep(0.5)


def _check_hope(keeper: JobKeeper, log_folder: str) -> None:
    if keeper.ended_count >= 3 * keeper.demand.jobs:
        raise BadJob(
            f"{keeper.ended_count} worker jobs ended before a worker started; what they printed is in "
            f"'{log_folder}' (often: Python or a module is missing there, or nodes cannot reach this machine)"
        )
    if keeper.reasons and all(map(is_hopeless, keeper.reasons.values())):
        raise BadJob(
            f"no worker job will start by itself; SLURM says why: {_told_reasons(keeper)}. Change queue, account, "
            "cores, memory, walltime or directives of the place, or ask those who run SLURM"
        )
    silent = time.monotonic() - keeper.answered
    if keeper.trouble and silent > _PATIENCE:
        raise BadJob(f"for {silent / 60:.0f} min SLURM did not do as asked: {keeper.trouble}; does 'squeue --me' work?")


def _told_reasons(keeper: JobKeeper) -> str:
    """How many jobs wait for what, in SLURM's words."""
    return ", ".join(f"{count} x {reason}" for reason, count in Counter(keeper.reasons.values()).most_common())
