"""A laptop or any single machine: worker processes, or threads of this process."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from diffdask.cluster.capacity import Capacity
from diffdask.cluster.keys import Key
from diffdask.cluster.security import temporary_security

#: Some free port that only this machine reaches.
ANY_PORT = "127.0.0.1:0"

#: What a worker's malloc keeps for itself, bytes. Dask has it give back all above 64 kB at once, so that the buffer of
#: every frame is paged in anew, which can double the time of decoding. Buffers above the second go back nevertheless.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": 128 << 20, "MALLOC_MMAP_THRESHOLD_": 32 << 20}

#: Dask looks 15 s after each loss of a worker whether one of its name is there, and if not, does away with its nanny,
#: be it about to start the worker again after a later loss. Then nobody ever starts it, and a run whose workers die now
#: and then would wait for ever. A nanny brings its worker back by itself, so it is left to do so.
_NANNIES_STAY = {"distributed.deploy.lost-worker-timeout": "1000 days"}

KEYS = {
    "workers": Key(0, "worker processes; 0: one a core"),
    "threads": Key(1, "threads of a worker"),
    "memory_limit": Key("auto", 'memory of a worker, as in "4GB"; "auto": its share of the machine'),
    "dashboard": Key(ANY_PORT, "address of the dashboard; port 0: any that is free"),
    "tls": Key(False, "TLS between client, scheduler and workers"),
}


def open_client(place: dict[str, Any], stack: contextlib.ExitStack) -> Any:
    """Start worker processes on this machine and connect to them."""
    import dask
    import distributed

    spawned = {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in MALLOC.items()}
    stack.enter_context(dask.config.set(spawned | _NANNIES_STAY))
    tls = {"protocol": "tls://", "security": temporary_security()} if place["tls"] else {}
    cluster = distributed.LocalCluster(
        n_workers=place["workers"] or core_count(),
        threads_per_worker=place["threads"],
        memory_limit=place["memory_limit"],
        dashboard_address=place["dashboard"],
        worker_dashboard_address=ANY_PORT,  # a worker's own pages would else be open to the whole network
        **tls,
    )
    return distributed.Client(stack.enter_context(cluster), set_as_default=False)


def capacity(place: dict[str, Any]) -> Capacity:
    """How much the place can do at once."""
    from dask.utils import parse_bytes
    from distributed.system import MEMORY_LIMIT

    workers = place["workers"] or core_count()
    is_given = place["memory_limit"] != "auto"
    return Capacity(
        told=f"this machine: {workers} worker processes",
        workers=workers,
        threads=place["threads"],
        memory=parse_bytes(place["memory_limit"]) if is_given else MEMORY_LIMIT // max(workers, 1),
        cores=workers * place["threads"],
        cost_per_core_hour=place["cost_per_core_hour"],
    )


def open_threads(stack: contextlib.ExitStack) -> Any:
    """Start a worker of threads in this process and connect to it."""
    import dask
    import distributed

    stack.enter_context(dask.config.set(LOCAL_LINK))
    cluster = distributed.LocalCluster(
        processes=False,
        n_workers=1,
        threads_per_worker=core_count(),
        # a limit would be held against all of this process: what else it holds, as a notebook's arrays, would pause
        # the only worker at 80 %, and nothing would ever run again
        memory_limit=0,
        dashboard_address=ANY_PORT,
        worker_dashboard_address=ANY_PORT,
    )
    return distributed.Client(stack.enter_context(cluster), set_as_default=False)


#: Dask would name the machine's own address, where nothing listens.
LOCAL_LINK = {"distributed.dashboard.link": "{scheme}://127.0.0.1:{port}/status"}


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
