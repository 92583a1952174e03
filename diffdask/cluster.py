"""Where the work runs: the only file that imports ``distributed``.

:func:`connect` gives a client on a laptop, at a scheduler's address, or at the
place a file of ``deploy/`` describes; :func:`run_blocks` keeps a bounded number
of blocks in flight on it.
"""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from diffdask.errors import BadJob, nearest

Block = TypeVar("Block")

#: Blocks in flight per worker thread: enough to hide the scheduler's latency.
BLOCKS_IN_FLIGHT_PER_THREAD = 4

_ANY_PORT = "127.0.0.1:0"

#: What a worker's malloc keeps for itself, bytes. Dask has it give back all above 64 kB at once, so that the buffer of
#: every frame is paged in anew, which can double the time of decoding. Buffers above the second go back nevertheless.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": 128 << 20, "MALLOC_MMAP_THRESHOLD_": 32 << 20}

_LAPTOP = {"workers": 0, "threads": 1, "memory_limit": "auto", "dashboard": _ANY_PORT}


@contextlib.contextmanager
def connect(on: Any = None) -> Iterator[Any]:
    """Connect to a Dask cluster, starting one if needed, and close what was started.

    Parameters
    ----------
    on
        ``None`` or ``"laptop"``: one process a core on this machine (an open
        client is used if there is one). ``"threads"``: threads of this process.
        ``"tcp://..."`` or ``"tls://..."``: a running scheduler. A path to a TOML
        file: the place it describes. A ``distributed.Client``: that one.

    Yields
    ------
    distributed.Client

    Raises
    ------
    BadJob
        If the place is unknown, its file has an unknown key, or no scheduler answers.
    """
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
        yield stack.enter_context(_open_client(str(on), stack))


def run_blocks(
    client: Any,
    task: Callable[[Block], Any],
    blocks: Iterable[Block],
    *,
    in_flight: int | None = None,
) -> Iterator[tuple[Block, Any]]:
    """Run a task on every block, a bounded number at a time, in order of completion.

    Parameters
    ----------
    client
        From :func:`connect`.
    task
        Called with one block on a worker. It reads, computes and writes by
        itself and returns something small.
    blocks
        What to run; taken from the iterable only as workers come free.
    in_flight
        Most blocks submitted at once; None for four a worker thread.

    Yields
    ------
    tuple
        (block, what the task returned).

    Raises
    ------
    Exception
        What a task raised; blocks still in flight are cancelled.
    """
    from distributed import as_completed

    blocks = iter(blocks)
    in_flight = in_flight or BLOCKS_IN_FLIGHT_PER_THREAD * max(1, sum(client.nthreads().values()))
    running: dict[Any, Block] = {}
    completed = as_completed(loop=client.loop)

    def submit_next() -> None:
        for block in blocks:
            future = client.submit(task, block, pure=False)
            running[future] = block
            completed.add(future)
            return

    for _ in range(in_flight):
        submit_next()
    try:
        for future in completed:
            result = future.result()
            block = running.pop(future)
            future.release()
            submit_next()
            yield block, result
    finally:
        if running:
            client.cancel(list(running), force=True)


def read_place(path: str | Path) -> dict[str, Any]:
    """Read a file of ``deploy/``: where to run.

    Raises
    ------
    BadJob
        If the file is absent, no TOML, or has a key that is not known.
    """
    path = Path(path)
    if not path.is_file():
        raise BadJob(f"no place at '{path}': give 'laptop', 'threads', a scheduler's address or a TOML file of deploy/")
    try:
        place = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise BadJob(f"'{path}' is not valid TOML: {error}") from error
    where = place.pop("where", None)
    if where != "laptop":
        raise BadJob(f"'{path}': where = {where!r} is not known; known: 'laptop'")
    for key in place:
        if key not in _LAPTOP:
            raise BadJob(f"'{path}': unknown key '{key}'; {nearest(key, _LAPTOP)}")
        if not isinstance(place[key], type(_LAPTOP[key])):
            raise BadJob(f"'{path}': {key} = {place[key]!r} must be like {_LAPTOP[key]!r}")
    return {**_LAPTOP, **place}


def _open_client(on: str, stack: contextlib.ExitStack) -> Any:
    import dask
    import distributed

    if "://" in on:
        try:
            return distributed.Client(on, set_as_default=False)
        except (OSError, ValueError) as error:  # ValueError: a protocol that Dask does not know
            raise BadJob(f"no scheduler answers at '{on}': {error}; is it running, and reachable from here?") from error
    if on == "threads":
        # Dask would name the machine's own address, where nothing listens
        stack.enter_context(dask.config.set({"distributed.dashboard.link": "{scheme}://127.0.0.1:{port}/status"}))
        size = {"processes": False, "n_workers": 1, "threads_per_worker": _cores(), "dashboard_address": _ANY_PORT}
    else:
        place = _LAPTOP if on == "laptop" else read_place(on)
        spawned = {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in MALLOC.items()}
        stack.enter_context(dask.config.set(spawned))
        size = {
            "n_workers": place["workers"] or _cores(),
            "threads_per_worker": place["threads"],
            "memory_limit": place["memory_limit"],
            "dashboard_address": place["dashboard"],
        }
    # a worker's own pages would else be open to the whole network
    cluster = stack.enter_context(distributed.LocalCluster(worker_dashboard_address=_ANY_PORT, **size))
    return distributed.Client(cluster, set_as_default=False)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
