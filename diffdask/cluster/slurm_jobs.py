"""Worker jobs of SLURM, as many as there is something to do for, and again when they end.

Dask's own adaptive scaling does not bring back a job of several workers, nor
one that was cancelled while it waited: it looks at workers, and here SLURM is
asked for its jobs.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import getpass
import logging
import time
from collections.abc import Iterator
from typing import Any

from diffdask.cluster.demand import Demand
from diffdask.errors import BadJob

_log = logging.getLogger(__name__)

JOB_NAME = "diffdask-worker"

#: Seconds from one look at the queue to the next, and the most where jobs end again and again.
_LOOK_EVERY, _LOOK_AT_MOST = 10.0, 600.0

#: How long an answer of squeue is waited for, s.
_ANSWER_WITHIN = 60.0

#: How long a look that goes on is waited for in the end, s: it asks squeue, then submits jobs.
_END_WITHIN = 2 * _ANSWER_WITHIN


class JobKeeper:
    """Submits the worker jobs of a cluster, and again those that ended.

    Parameters
    ----------
    cluster
        A ``dask_jobqueue.SLURMCluster`` without jobs.
    demand
        How many jobs there shall be.

    Attributes
    ----------
    ended_count
        Jobs that ended since the last time that a worker was there.
    reasons
        Job id to why it waits, in SLURM's words, as of the last look; ``"None"`` of one that runs.
    answered
        When SLURM last did as asked, by ``time.monotonic()``.
    trouble
        What it said when it did not; empty if it did the last time.
    """

    def __init__(self, cluster: Any, demand: Demand):
        self.cluster = cluster
        self.demand = demand
        self.ended_count = 0
        self.reasons: dict[str, str] = {}
        self.answered, self.trouble = time.monotonic(), ""
        self._is_over = asyncio.Event()

    def submit(self) -> None:
        """Submit the first jobs.

        Raises
        ------
        BadJob
            If SLURM refuses them, or what it answers is not understood.
        """
        self._plan(self.demand.jobs)
        try:
            self.cluster.sync(self._settle)
        except RuntimeError as error:
            raise BadJob(f"SLURM refused the worker jobs: {_told(error)}") from error
        except ValueError as error:
            raise BadJob(
                f"what sbatch answered is not understood: {_told(error)}; it should be 'Submitted batch job' and a "
                f"number. Jobs named {JOB_NAME} that 'squeue --me' shows are to be cancelled by hand"
            ) from error

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Look after the jobs until the context ends."""
        loop = self.cluster.loop.asyncio_loop
        task = asyncio.run_coroutine_threadsafe(self._keep(), loop)
        try:
            yield
        finally:
            # not cancelled: in the midst of sbatch, the cluster would never know of the job
            loop.call_soon_threadsafe(self._is_over.set)
            try:
                task.result(timeout=_END_WITHIN)
            except (TimeoutError, concurrent.futures.CancelledError):
                _log.warning("SLURM does not answer: 'squeue --me' shows whether worker jobs are left")

    async def _keep(self) -> None:
        wait = _LOOK_EVERY
        while not await self._ends_within(wait):
            try:
                ended = await self.look()
            except Exception as error:  # SLURM is away, refuses, or answers in riddles: for a while, one hopes
                self.trouble = _told(error) or type(error).__name__
                _log.warning("SLURM does not do as asked, trying again: %s", self.trouble)
                ended = 1
            else:
                self.answered, self.trouble = time.monotonic(), ""
            # jobs that end as soon as they start shall not fill SLURM's books
            is_futile = ended and self.ended_count > 2 * self.demand.jobs
            wait = min(2 * wait, _LOOK_AT_MOST) if is_futile else _LOOK_EVERY

    async def _ends_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_over.wait(), seconds)
        return self._is_over.is_set()

    async def look(self) -> int:
        """Submit anew the jobs that SLURM no longer knows, and give their number; follow the load."""
        from distributed.core import Status

        submitted = {name: job.job_id for name, job in self.cluster.workers.items()}
        queued = await queued_jobs()
        if self._is_over.is_set():
            return 0
        self.reasons = {job_id: queued[job_id] for job_id in submitted.values() if job_id in queued}
        gone = [name for name, job_id in submitted.items() if job_id not in queued]
        if self.cluster.scheduler.workers:
            self.ended_count = 0
        for name in gone:
            job = self.cluster.workers.pop(name, None)
            if job is not None:
                job.status = Status.closed
        self.ended_count += len(gone)
        if gone:
            _log.info("%d worker jobs ended", len(gone))
        await self._follow_load()
        if self.cluster.workers.keys() != self.cluster.worker_spec.keys():
            await self._settle()
        return len(gone)

    async def _follow_load(self) -> None:
        """Plan more jobs where there is more to do than workers can, and give up those that have nothing to do."""
        scheduler, planned = self.cluster.scheduler, len(self.cluster.worker_spec)
        in_flight = sum(len(worker.processing) for worker in scheduler.workers.values())
        in_flight += len(scheduler.queued) + len(scheduler.unrunnable)
        wanted = self.demand.update(in_flight, scheduler.total_nthreads, time.monotonic())
        if wanted > planned:
            _log.info("there is more to do: %d worker jobs are submitted", wanted - planned)
            self._plan(wanted)
        elif wanted < planned:
            await self._give_up(planned - wanted)

    def _plan(self, jobs: int) -> None:
        while len(self.cluster.worker_spec) < jobs:
            self.cluster.worker_spec.update(self.cluster.new_worker_spec())

    async def _give_up(self, count: int) -> None:
        """Give up so many jobs, or as many as are idle: first those that have no worker yet."""
        scheduler, busy = self.cluster.scheduler, set()
        workers: dict[Any, list[Any]] = {name: [] for name in self.cluster.worker_spec}
        for worker in scheduler.workers.values():
            name = worker.name if worker.name in workers else str(worker.name).rpartition("-")[0]  # of several a job
            if name in workers:
                workers[name].append(worker.name)
                busy |= {name} if worker.processing else set()
        idle = sorted((name for name in workers if name not in busy), key=lambda name: len(workers[name]))[:count]
        if not idle:
            return
        _log.info("%d worker jobs have nothing to do and are given up; %d stay", len(idle), len(workers) - len(idle))
        await scheduler.retire_workers(names=[worker for name in idle for worker in workers[name]])
        for name in idle:
            del self.cluster.worker_spec[name]

    async def _settle(self) -> None:
        from distributed.core import Status

        try:
            await self.cluster
        except Exception:
            for job in self.cluster.workers.values():
                if job.job_id is None:
                    job.status = Status.failed  # a cluster closes only jobs that it knows the end of
            raise


async def queued_jobs() -> dict[str, str]:
    """Ids of worker jobs that wait or run, and why they wait; ``"None"`` of those that run.

    Raises
    ------
    RuntimeError
        If SLURM does not answer.
    """
    asked = ("squeue", "--noheader", "--user", getpass.getuser(), "--name", JOB_NAME, "--format", "%A %r")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*asked, stdout=pipe, stderr=pipe)
    try:
        printed, complaint = await asyncio.wait_for(process.communicate(), _ANSWER_WITHIN)
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise RuntimeError(f"squeue: no answer in {_ANSWER_WITHIN:.0f} s") from error
    if process.returncode:
        raise RuntimeError(complaint.decode().strip())
    return read_queue(printed.decode())


def read_queue(printed: str) -> dict[str, str]:
    r"""Read what squeue prints of each job: its id, and why it waits.

    Examples
    --------
    >>> read_queue("41 Priority\n42 launch failed requeued held\n")
    {'41': 'Priority', '42': 'launch failed requeued held'}
    """
    jobs = [line.strip().partition(" ") for line in printed.splitlines() if line.strip()]
    return {job_id: reason.strip() for job_id, _, reason in jobs}


#: Reasons for which a job waits until somebody changes the job, the account or the partition, as SLURM words them in
#: any release: compared without case, spaces and '_'. Nodes and partitions that are down come back, so they are waited
#: for, like the queue itself.
_HOPELESS = {
    "accountnotallowed",
    "assocmaxwalldurationperjoblimit",
    "badconstraints",
    "dependencyneversatisfied",
    "invalidaccount",
    "invalidqos",
    "jobheldadmin",
    "jobhelduser",
    "jobholdmaxrequeue",
    "launchfailedrequeuedheld",
    "partitionnodelimit",
    "partitiontimelimit",
    "qosmaxwalldurationperjoblimit",
    "qosnotallowed",
}


def is_hopeless(reason: str) -> bool:
    """Whether a job that waits for this will never start by itself.

    Examples
    --------
    >>> is_hopeless("JobHeldUser"), is_hopeless("launch failed requeued held"), is_hopeless("(Priority)")
    (True, True, False)
    """
    return reason.strip("()").replace(" ", "").replace("_", "").lower() in _HOPELESS


def _told(error: BaseException) -> str:
    """What SLURM itself said, out of what dask-jobqueue tells about it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(("sbatch:", "squeue:", "slurm"))]
    return "; ".join(said) or " ".join(lines)
