"""Worker jobs of SLURM, kept at their number.

Dask's own adaptive scaling does not bring back a job of several workers, nor
one that was cancelled while it waited: it looks at workers, and here SLURM is
asked for its jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import logging
from collections.abc import Iterator
from typing import Any

from diffdask.errors import BadJob

_log = logging.getLogger(__name__)

JOB_NAME = "diffdask-worker"

#: Seconds from one look at the queue to the next, and the most where jobs end again and again.
_LOOK_EVERY, _LOOK_AT_MOST = 10.0, 600.0


class JobKeeper:
    """Submits the worker jobs of a cluster, and again those that ended.

    Parameters
    ----------
    cluster
        A ``dask_jobqueue.SLURMCluster`` without jobs.
    jobs
        Jobs to be kept.

    Attributes
    ----------
    ended_count
        Jobs that ended since the last time that a worker was there.
    """

    def __init__(self, cluster: Any, jobs: int):
        self.cluster = cluster
        self.jobs = jobs
        self.ended_count = 0

    def submit(self) -> None:
        """Submit all jobs.

        Raises
        ------
        BadJob
            If SLURM refuses them.
        """
        for _ in range(self.jobs):
            self.cluster.worker_spec.update(self.cluster.new_worker_spec())
        try:
            self.cluster.sync(self._settle)
        except RuntimeError as error:
            raise BadJob(f"SLURM refused the worker jobs: {_told(error)}") from error

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Look after the jobs until the context ends."""
        loop = self.cluster.loop.asyncio_loop
        task = asyncio.run_coroutine_threadsafe(self._keep(), loop)
        try:
            yield
        finally:
            task.cancel()

    async def _keep(self) -> None:
        wait = _LOOK_EVERY
        while True:
            await asyncio.sleep(wait)
            try:
                ended = await self.look()
            except (OSError, RuntimeError) as error:  # SLURM is away for a while, or refuses for a while
                _log.warning("SLURM does not do as asked, trying again: %s", _told(error))
                ended = 1
            # jobs that end as soon as they start shall not fill SLURM's books
            wait = min(2 * wait, _LOOK_AT_MOST) if ended and self.ended_count > 2 * self.jobs else _LOOK_EVERY

    async def look(self) -> int:
        """Submit anew the jobs that SLURM no longer knows; give their number."""
        from distributed.core import Status

        submitted = {name: job.job_id for name, job in self.cluster.workers.items()}
        queued = await queued_jobs()
        gone = [name for name, job_id in submitted.items() if job_id not in queued]
        if self.cluster.scheduler.workers:
            self.ended_count = 0
        for name in gone:
            job = self.cluster.workers.pop(name, None)
            if job is not None:
                job.status = Status.closed
        self.ended_count += len(gone)
        if len(self.cluster.workers) < self.jobs:
            if gone:
                _log.info("%d worker jobs ended; they are submitted again", len(gone))
            await self._settle()
        return len(gone)

    async def _settle(self) -> None:
        from distributed.core import Status

        try:
            await self.cluster
        except RuntimeError:
            for job in self.cluster.workers.values():
                if job.job_id is None:
                    job.status = Status.failed  # a cluster closes only jobs that it knows the end of
            raise


async def queued_jobs() -> set[str]:
    """Ids of worker jobs that wait or run.

    Raises
    ------
    RuntimeError
        If SLURM does not answer.
    """
    asked = ("squeue", "--noheader", "--user", getpass.getuser(), "--name", JOB_NAME, "--format", "%A")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*asked, stdout=pipe, stderr=pipe)
    printed, complaint = await process.communicate()
    if process.returncode:
        raise RuntimeError(complaint.decode().strip())
    return set(printed.decode().split())


def _told(error: BaseException) -> str:
    """What SLURM itself said, out of what dask-jobqueue tells about it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(("sbatch:", "squeue:", "slurm"))]
    return "; ".join(said) or " ".join(lines)
