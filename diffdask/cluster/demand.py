"""How many worker jobs there is something to do for."""

from __future__ import annotations

import math

#: Tasks in flight a thread, from which on there is more to do than the workers can: the driver keeps many more in
#: flight as long as blocks are left (:mod:`diffdask.cluster.running`).
_PLENTY = 2.0


class Demand:
    """Follows the load: up at once, down after a while.

    Parameters
    ----------
    fewest, most
        Jobs.
    threads
        Worker threads of a job.
    patience
        How long there must have been less to do before jobs are given up, s: to get them back can take hours.

    Attributes
    ----------
    jobs : int
        How many are wanted; all of them until there was something to do.
    """

    def __init__(self, *, fewest: int, most: int, threads: int, patience: float) -> None:
        self.jobs = most
        self._fewest, self._most, self._threads, self._patience = fewest, most, threads, patience
        self._has_begun = False
        self._less_since: float | None = None
        self._most_since = 0

    def update(self, in_flight: int, threads_there: int, now: float) -> int:
        """Take in how many tasks are in flight on how many threads, and give how many jobs are wanted."""
        self._has_begun |= in_flight > 0
        needed = self._needed(in_flight, threads_there) if self._has_begun else self._most
        if needed >= self.jobs:
            self.jobs, self._less_since = needed, None
            return self.jobs
        if self._less_since is None:
            self._less_since, self._most_since = now, needed
        self._most_since = max(self._most_since, needed)
        if now - self._less_since >= self._patience:
            self.jobs, self._less_since = self._most_since, None
        return self.jobs

    def _needed(self, in_flight: int, threads_there: int) -> int:
        if in_flight > _PLENTY * threads_there:
            return self._most
        return min(self._most, max(self._fewest, math.ceil(in_flight / self._threads)))
