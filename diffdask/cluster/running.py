"""A task for every block, a bounded number of them in flight, whatever happens to workers.

A worker that dies takes down with it all blocks that were sent to it. Dask
sends them to others, but gives up a block that was there three times, be it the
culprit or not. Such a block is therefore run once more at the end, alone: only
one that takes down its workers then is to blame.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

from diffdask.errors import KilledBlock, LostScheduler

Block = TypeVar("Block")

#: Blocks in flight per worker thread. They wait with the scheduler and cost next to nothing; with 4, blocks of a few
#: milliseconds wait for the scheduler instead.
BLOCKS_IN_FLIGHT_PER_THREAD = 16

#: Workers that a block may take down before Dask gives it up, less one: three tries.
ALLOWED_FAILURES = 2

#: How often to count workers, which come and go, s.
_COUNT_EVERY = 5.0

#: How long without any worker before it is said, s.
_SAY_AFTER = 30.0

_log = logging.getLogger(__name__)


def run_blocks(
    client: Any,
    task: Callable[[Block], Any],
    blocks: Iterable[Block],
    *,
    in_flight: int | None = None,
    on_failure: Callable[[Block, BaseException], None] | None = None,
    wants_results: bool = True,
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
        Most blocks submitted at once; None for a number that follows the worker threads.
    on_failure
        Called with a block and what its task raised, instead of raising it; the other blocks go on.
        If it raises itself, that ends the run.
    wants_results
        Fetch what tasks return, which costs a millisecond each; else it is None.

    Yields
    ------
    tuple
        (block, what the task returned).

    Raises
    ------
    Exception
        What a task raised; blocks still in flight are cancelled.
    KilledBlock
        If a block took down every worker that it was run on.
    LostScheduler
        If the scheduler is gone.
    """
    fail = on_failure or _raise
    suspects: list[Block] = []

    def suspect(block: Block, error: BaseException) -> None:
        if not _is_killed(error):
            fail(block, error)
            return
        _log.warning("block %s lost its worker again and again; it will be run once more, alone, at the end", block)
        suspects.append(block)

    def blame(block: Block, error: BaseException) -> None:
        fail(block, _killed(block, error) if _is_killed(error) else error)

    yield from _run_window(client, task, iter(blocks), _Room(client, in_flight), suspect, wants_results)
    yield from _run_window(client, task, iter(suspects), _Room(client, 1), blame, wants_results)


class _Room:
    """How many blocks may be in flight: for each of the worker threads that there are, so many."""

    def __init__(self, client: Any, fixed: int | None) -> None:
        self._client, self._fixed = client, fixed
        self._threads, self._counted, self._last_seen = 1, -_COUNT_EVERY, time.monotonic()

    def count(self) -> int:
        """Give the number; workers are counted now and then."""
        now = time.monotonic()
        if now - self._counted >= _COUNT_EVERY:
            self._counted, self._threads = now, sum(self._client.nthreads().values())
            self._last_seen = self._said_at(now)
        return self._fixed or BLOCKS_IN_FLIGHT_PER_THREAD * max(1, self._threads)

    def _said_at(self, now: float) -> float:
        if self._threads:
            return now
        if now - self._last_seen < _SAY_AFTER:
            return self._last_seen
        _log.warning("no worker is there; waiting for one")
        return now


def _run_window(
    client: Any,
    task: Callable[[Block], Any],
    blocks: Iterator[Block],
    room: _Room,
    fail: Callable[[Block, BaseException], None],
    wants_results: bool,
) -> Iterator[tuple[Block, Any]]:
    running: dict[Any, Block] = {}
    finished: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def start(block: Block) -> None:
        future = client.submit(task, block, pure=False)
        running[future] = block
        future.add_done_callback(finished.put)

    def fill() -> None:
        with _lost_is_said(client):
            for block in itertools.islice(blocks, max(0, room.count() - len(running))):
                start(block)

    try:
        fill()
        while running:
            try:
                future = finished.get(timeout=_COUNT_EVERY)
            except queue.Empty:
                fill()
                continue
            block = running.pop(future)
            if future.status in _UNDONE:
                future.release()
                with _lost_is_said(client):
                    start(block)
                continue
            error, result = _outcome_of(client, future, wants_results)
            future.release()
            fill()
            if error is None:
                yield block, result
            else:
                fail(block, error)
    finally:
        if running and client.status == "running":
            client.cancel(list(running), force=True)


#: Of a block that was done until the worker that held its result died. It is submitted again: what is marked is not
#: computed anew. Dask would do that by itself, but the callback of this future was called already.
_UNDONE = ("lost", "pending")


def _outcome_of(client: Any, future: Any, wants_result: bool) -> tuple[BaseException | None, Any]:
    """What a task raised, and what it returned; :class:`LostScheduler` if that will never be known."""
    if future.status == "cancelled":
        raise LostScheduler(_LOST.format("cancelled what it was doing, or is gone"))
    with _lost_is_said(client):
        if future.status == "error":
            return future.exception(), None
        try:
            return None, future.result() if wants_result else None
        except Exception as error:
            if future.status != "error":
                raise
            return error, None  # its result was lost, and it failed when it was computed once more


@contextlib.contextmanager
def _lost_is_said(client: Any) -> Iterator[None]:
    """Say in words what a client without its scheduler says in many ways."""
    from distributed import CancelledError

    if client.status != "running":
        raise LostScheduler(_LOST.format("is gone"))
    try:
        yield
    except (OSError, RuntimeError, CancelledError) as error:
        if isinstance(error, CancelledError) or client.status != "running":
            raise LostScheduler(_LOST.format("is gone")) from error
        raise


_LOST = (
    "the scheduler {}: what was being computed is lost, but every block that is marked is kept; "
    "start the scheduler again if it was not diffdask's own, then the same command, which goes on where it stopped"
)


def _is_killed(error: BaseException) -> bool:
    from distributed import KilledWorker

    return isinstance(error, KilledWorker)


def _killed(block: Any, error: BaseException) -> KilledBlock:
    tries = getattr(error, "allowed_failures", 0) + 1
    return KilledBlock(
        f"block {block} took down {tries} workers one after the other, each time as their only block: "
        "out of memory, or a crash in compiled code (the logs of the workers say which)"
    )


def _raise(block: Any, error: BaseException) -> NoReturn:
    raise error
