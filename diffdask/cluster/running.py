"""A task for every block, or for a few small ones, a bounded number of them in flight, whatever happens to workers.

A worker that dies takes down with it all blocks that were sent to it. Dask
sends them to others, but gives up a block that was there three times, be it the
culprit or not. Such a block is therefore run once more at the end, alone: only
one that takes down its workers then is to blame.

A task costs driver and scheduler some five milliseconds, whatever it does.
Blocks that take little more than that are done several to a task, so that it
lasts about a quarter of a second; if one of them fails, all of the task are
done once more, one by one.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import queue
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

from diffdask.errors import KilledBlock, LostScheduler

Block = TypeVar("Block")

#: Blocks in flight per worker thread. They wait with the scheduler and cost next to nothing; with 4, blocks of a few
#: milliseconds wait for the scheduler instead.
BLOCKS_IN_FLIGHT_PER_THREAD = 16

#: Workers that a block may take down before Dask gives it up, less one: three tries.
ALLOWED_FAILURES = 2

#: How long a task should last where blocks may be done together, s, and the most that are.
_TASK_LASTS, _MOST_TOGETHER = 0.25, 64

#: Over how long it is measured how long a block takes, s.
_MEASURED = 1.0

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
    together: bool = False,
    name: str = "block",
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
    together
        Several blocks may be done in one task where they are small; nothing that they return is fetched, which costs a
        millisecond each. A block may be done twice then, so the task should see whether it was done already.
    name
        Of the tasks, in Dask's dashboard and report.

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

    window = _Window(client, task, name, wants_results=not together)
    room = _Room(client, in_flight)
    yield from window.run(iter(blocks), room, suspect, _Together(room) if together else None)
    yield from window.run(iter(suspects), _Room(client, 1), blame)


class _Room:
    """How many blocks may be in flight: for each of the worker threads that there are, so many."""

    def __init__(self, client: Any, fixed: int | None) -> None:
        self._client, self._fixed = client, fixed
        self._threads, self._counted, self._last_seen = 1, -_COUNT_EVERY, time.monotonic()

    @property
    def threads(self) -> int:
        """Worker threads when they were counted last."""
        return self._threads

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


class _Together:
    """How many blocks to do in one task: as many as take about a quarter of a second, as far as is known."""

    def __init__(self, room: _Room) -> None:
        self._room, self._size, self._done, self._since = room, 1, 0, time.monotonic()

    def note(self, done: int) -> None:
        """Note that a task of so many blocks is done."""
        self._done += done
        elapsed = time.monotonic() - self._since
        if elapsed >= _MEASURED:
            rate = self._done / elapsed / max(1, self._room.threads)
            self._size = min(max(1, round(_TASK_LASTS * rate)), 2 * self._size, _MOST_TOGETHER)
            self._done, self._since = 0, time.monotonic()

    def size(self) -> int:
        """Give the number."""
        return self._size


class _Window:
    """Tasks in flight, and what comes of them."""

    def __init__(self, client: Any, task: Callable[[Any], Any], name: str, *, wants_results: bool) -> None:
        self._client, self._task, self._name, self._wants_results = client, task, name, wants_results
        self._running: dict[Any, tuple[Any, ...]] = {}
        self._finished: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(
        self,
        blocks: Iterator[Block],
        room: _Room,
        fail: Callable[[Block, BaseException], None],
        together: _Together | None = None,
    ) -> Iterator[tuple[Block, Any]]:
        """Run the task on blocks as long as there are any; those of a task that failed again, one by one."""
        again: list[Block] = []

        def fill() -> None:
            with _lost_is_said(self._client):
                size = together.size() if together else 1
                for _ in range(room.count() - len(self._running)):
                    taken = (again.pop(0),) if again else tuple(itertools.islice(blocks, size))
                    if not taken:
                        return
                    self._start(taken)

        try:
            fill()
            while self._running:
                try:
                    future = self._finished.get(timeout=_COUNT_EVERY)
                except queue.Empty:
                    fill()
                    continue
                taken = self._running.pop(future)
                if future.status in _UNDONE:
                    future.release()
                    with _lost_is_said(self._client):
                        self._start(taken)
                    continue
                error, result = _outcome_of(self._client, future, self._wants_results)
                future.release()
                if error is not None and len(taken) > 1 and not _is_killed(error):
                    again += taken
                fill()
                if error is None:
                    if together:
                        together.note(len(taken))
                    yield from ((block, result) for block in taken)
                elif len(taken) == 1 or _is_killed(error):
                    for block in taken:
                        fail(block, error)
        finally:
            if self._running and self._client.status == "running":
                self._client.cancel(list(self._running), force=True)

    def _start(self, taken: tuple[Any, ...]) -> None:
        task, blocks = (self._task, taken[0]) if len(taken) == 1 else (functools.partial(_do_each, self._task), taken)
        future = self._client.submit(task, blocks, key=f"{self._name}-{uuid.uuid4().hex}")
        self._running[future] = taken
        future.add_done_callback(self._finished.put)


def _do_each(task: Callable[[Block], Any], blocks: tuple[Block, ...]) -> None:
    """Do several blocks, one after the other: what a worker does with those of one task."""
    for block in blocks:
        task(block)


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
