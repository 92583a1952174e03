"""How much a place can do at once: what a plan of a job divides the work by."""

from __future__ import annotations

from dataclasses import dataclass


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
