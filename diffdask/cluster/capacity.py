"""How much a place can do at once: what a plan of a job divides the work by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

#: Share of its memory at which a Dask worker takes no further block: distributed.worker.memory.pause.
PAUSES_AT = 0.8


@dataclass(frozen=True)
class Capacity:
    """Workers of a place.

    Attributes
    ----------
    told
        The place in words.
    workers
        How many; 0 where only the running cluster knows.
    threads
        Of a worker: blocks that it works on at once.
    memory
        Of a worker, bytes; 0 where only the running cluster knows.
    cores
        Cores that are held, and paid for, while it runs.
    cost_per_core_hour
        Price, in any currency; 0 where the place does not tell.
    """

    told: str
    workers: int = 0
    threads: int = 1
    memory: int = 0
    cores: int = 0
    cost_per_core_hour: float = 0.0

    @property
    def usable_memory(self) -> float:
        """Of a worker, bytes: beyond it Dask pauses the worker; 0 where it is not known."""
        return PAUSES_AT * self.memory


def of_workers(capacity: Capacity, workers: Iterable[Mapping[str, Any]]) -> Capacity:
    """Fill in what a scheduler says of its workers.

    Parameters
    ----------
    capacity
        What is known without it.
    workers
        ``nthreads`` and ``memory_limit`` (bytes; 0 for none) of each.

    Returns
    -------
    Capacity
        Of unequal workers, threads are those of the mean worker, and memory is that of the smallest.
    """
    told = list(workers)
    if not told:
        return replace(capacity, told=f"{capacity.told}, which has no workers now")
    threads = sum(worker["nthreads"] for worker in told)
    memory = min((worker["memory_limit"] for worker in told if worker["memory_limit"]), default=0)
    return replace(
        capacity,
        workers=len(told),
        threads=max(1, round(threads / len(told))),
        memory=memory,
        cores=threads,
    )
