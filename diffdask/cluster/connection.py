"""A client of the cluster at a place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from diffdask.cluster.address import open_bare
from diffdask.cluster.laptop import open_threads
from diffdask.cluster.places import KINDS, find_place
from diffdask.cluster.running import ALLOWED_FAILURES

#: Tasks that the dashboard and the performance report show. Dask keeps 100 000, some 100 MB of a scheduler that shall
#: not grow with the frames.
_TASKS_SHOWN = 10_000

_CONFIG = {
    "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
    "distributed.scheduler.dashboard.status.task-stream-length": 1000,
    "distributed.scheduler.dashboard.tasks.task-stream-length": _TASKS_SHOWN,
}


@contextlib.contextmanager
def connect(on: Any = None) -> Iterator[Any]:
    """Connect to a Dask cluster, starting one if needed, and close what was started.

    Parameters
    ----------
    on
        ``None`` or ``"laptop"``: one process a core on this machine (an open
        client is used if there is one). ``"threads"``: threads of this process.
        ``"tls://..."``, or on this machine ``"tcp://..."``: a running scheduler. A
        path to a TOML file: the place it describes. A ``distributed.Client``: that one.

    Yields
    ------
    distributed.Client

    Raises
    ------
    BadJob
        If the place is unknown, its file has an unknown key, what it needs is not installed, or no scheduler answers.
    """
    import dask
    import distributed

    if isinstance(on, distributed.Client):
        yield on
        return
    if on is None:
        try:
            client = distributed.get_client()
        except ValueError:
            on = "laptop"
        else:
            yield client
            return
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(_CONFIG))
        yield stack.enter_context(_open_client(str(on), stack))


def _open_client(on: str, stack: contextlib.ExitStack) -> Any:
    if "://" in on:
        return open_bare(on)  # with what TLS files Dask's own configuration names
    place = find_place(on)
    return open_threads(stack) if place["where"] == "threads" else KINDS[place["where"]].open_client(place, stack)
