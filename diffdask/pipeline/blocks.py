"""Blocks that are not marked yet, run on the cluster with a bar, through what happens in a long run.

==========================================  ==========================================================
what happens                                what is done
==========================================  ==========================================================
storage is gone for a moment                the worker tries again for a minute
disk full, quota, read-only, not allowed    the run stops at once
an error of diffdask's own                  the run stops at once: it is the user's to mend
any other error of a task                   the others go on; the block is failed
a block takes down its workers              the same, once it did so alone
nothing but failures                        the run stops
==========================================  ==========================================================

Failed blocks end the run with an error when all others are done, and the next
run does them again; or, where there is a way to flag their rows, they are put
in quarantine: the run ends well, and they are left alone until told otherwise.
"""

from __future__ import annotations

import errno
import functools
import logging
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from diffdask.cluster import run_blocks
from diffdask.errors import DiffdaskError, FailedBlocks, KilledBlock
from diffdask.io.marks import (
    is_marked,
    marked_blocks,
    quarantine_block,
    quarantined_blocks,
    release_blocks,
    unmark_blocks,
)
from diffdask.pipeline.progress import progress_bar
from diffdask.planning import Block, to_do
from diffdask.version import __version__

#: How long a worker tries again what storage refuses, and its first pause, which doubles, s.
PATIENCE, _FIRST_PAUSE = 60.0, 0.5

#: What storage refuses for good, so that every block would fail.
_LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)

#: Failures without a success between, beyond twice the worker threads, after which a run is stopped.
_HOPELESS = 8

#: Failed blocks that an error names.
_NAMED = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Marks:
    """Where marks of blocks are kept, and what may be done with a block that fails."""

    store: str
    group: str
    flag: Callable[[Block, str], None] | None = None  #: writes a block's rows as failed, with the reason
    flagged: type[Exception] = Exception  #: what a block must have failed of to be flagged
    retry: bool = False  #: try blocks in quarantine again
    stale: Collection[Block] | None = None  #: blocks whose marks no longer hold; None for all that are not done
    remedy: str = "--retry tries them again"  #: what to do about blocks in quarantine


def run_marked(
    client: Any,
    task: Callable[[Block], Any],
    blocks: Sequence[Block],
    done: Collection[Block],
    *,
    what: str,
    unit: str,
    progress: bool,
    marks: Marks | None = None,
    patience: float | None = None,
) -> None:
    """Run a task on every block that is not done; the task marks its block itself.

    Parameters
    ----------
    client
        From ``connect``.
    task
        Called with one block on a worker.
    blocks, done
        All blocks, and those whose marks hold.
    what, unit
        What is done, and with what: for the bar and for messages.
    progress
        Show a bar on the terminal.
    marks
        Where the task marks its blocks: one that was marked in the meantime, by a worker whose word was lost, is not
        computed again.
    patience
        How long a worker tries again what storage refuses, s; None for :data:`PATIENCE`.

    Raises
    ------
    FailedBlocks
        If blocks failed, and there is no way to flag them.
    DiffdaskError
        What a task raised of diffdask's own errors.
    LostScheduler
        If the scheduler is gone.
    """
    given_up = _open_quarantine(marks, blocks, done, what) if marks else set()
    left = [block for block in to_do(blocks, done) if block not in given_up]
    failures = _Failures(what, marks, most=_HOPELESS + 2 * sum(client.nthreads().values()), any_done=bool(done))
    patience = PATIENCE if patience is None else patience
    attempt = functools.partial(_attempt, task=task, marks=marks and Marks(marks.store, marks.group), patience=patience)
    total, size_left = _size(blocks), _size(left)
    before = {"done": total - size_left - _size(given_up), "failed": _size(given_up)}
    counts = {"blocks": len(blocks), "blocks_done": len(blocks) - len(left) - len(given_up), "client": client}
    with progress_bar(total, what=what, unit=unit, shown=progress, **before, **counts) as bar:

        def fail(block: Block, error: BaseException) -> None:
            failures.add(block, error)
            bar.fail(block[1] - block[0])

        for block, _ in run_blocks(client, attempt, left, on_failure=fail, together=True, name=what):
            failures.interrupt()
            bar.update(block[1] - block[0])
    failures.tell(unit, of=len(blocks))


class _Failures:
    """Blocks that failed, and what becomes of them."""

    def __init__(self, what: str, marks: Marks | None, *, most: int, any_done: bool) -> None:
        self.what, self.marks, self.most, self.any_done = what, marks, most, any_done
        self.in_a_row: list[Block] = []
        self.failed: dict[Block, str] = {}
        self.given_up: set[Block] = set()

    def interrupt(self) -> None:
        """Take note of a block that was done."""
        self.any_done = True
        self.in_a_row.clear()

    def add(self, block: Block, error: BaseException) -> None:
        """Take note of a block that failed, or end the run where the others would fail likewise."""
        if isinstance(error, DiffdaskError) and not isinstance(error, KilledBlock):
            raise error
        reason = _in_a_line(error)
        if isinstance(error, OSError) and error.errno in _LASTING:
            self._stop(f"'{self.what}' stopped at block {block}: {reason}", error)
        self.failed[block] = reason
        self.in_a_row.append(block)
        _log.warning("%s: block %s failed: %s", self.what, block, reason)
        if len(self.in_a_row) >= self.most:
            self._release(self.in_a_row)
            told = f"'{self.what}' stopped: {len(self.in_a_row)} blocks failed one after the other, the last {block}"
            self._stop(f"{told}: {reason}", error)
        if self.marks and isinstance(error, self.marks.flagged) and not isinstance(error, OSError):
            self._give_up(block, error)

    def tell(self, unit: str, *, of: int) -> None:
        """Say at the end what failed; an error where rows are missing."""
        if not self.any_done:
            self._release(self.failed)
        if self.failed.keys() - self.given_up:  # storage may be ill, and is not asked
            told = "; ".join(f"{block}: {reason}" for block, reason in list(self.failed.items())[:_NAMED])
            raise FailedBlocks(
                f"'{self.what}': {len(self.failed)} of {of} blocks failed ({told}); the others are done and stay, "
                "and the same command does the failed ones again"
            )
        quarantined = quarantined_blocks(self.marks.store, self.marks.group) if self.marks and self.marks.flag else {}
        if quarantined and self.marks:
            _log.warning(
                "%s: %d blocks of %d %ss are in quarantine and flagged as failed; %s/marks/%s/quarantine says why; %s",
                *(self.what, len(quarantined), _size(list(quarantined)), unit),
                *(self.marks.store, self.marks.group, self.marks.remedy),
            )

    def _release(self, blocks: Collection[Block]) -> None:
        """Take blocks out of quarantine again: where all fail, it is not the blocks."""
        released = self.given_up & set(blocks)
        self.given_up -= released
        if self.marks and released:
            release_blocks(self.marks.store, self.marks.group, released)

    def _give_up(self, block: Block, error: BaseException) -> None:
        marks = self.marks
        if marks is None or marks.flag is None:
            return
        marks.flag(block, self.failed[block])
        details = "".join(traceback.format_exception(error))
        quarantine_block(marks.store, marks.group, block, reason=self.failed[block], details=details)
        self.given_up.add(block)

    def _stop(self, told: str, error: BaseException) -> NoReturn:
        raise FailedBlocks(
            f"{told}; every block that is marked is kept: mend this, and the same command goes on where it stopped"
        ) from error


def _open_quarantine(marks: Marks, blocks: Sequence[Block], done: Collection[Block], what: str) -> set[Block]:
    """Blocks that are to be left alone; marks and quarantine that no longer hold are taken away.

    What was marked since it was judged which blocks are done stays: it was, by a worker that a killed run left behind.
    """
    marked = marks.stale if marks.stale is not None else marked_blocks(marks.store, marks.group)
    unmark_blocks(marks.store, marks.group, set(marked) - set(done))
    found = quarantined_blocks(marks.store, marks.group)
    known = set(blocks) if found else set()
    kept = {
        block
        for block, record in found.items()
        if marks.flag and not marks.retry and block in known and record["version"] == __version__
    }
    release_blocks(marks.store, marks.group, set(found) - kept)
    if kept:
        _log.warning("%s: %d blocks are in quarantine since an earlier run; %s", what, len(kept), marks.remedy)
    return kept


def _attempt(block: Block, *, task: Callable[[Block], Any], marks: Marks | None, patience: float) -> None:
    """Do a block, unless it is marked by now; what storage refuses is tried again for a while."""
    pause, stop = _FIRST_PAUSE, time.monotonic() + patience
    while True:
        try:
            if not (marks and is_marked(marks.store, marks.group, block)):
                task(block)
            return
        except OSError as error:
            if error.errno in _LASTING or time.monotonic() + pause > stop:
                raise
            logging.getLogger(__name__).warning("block %s: %s; trying again in %g s", block, error, pause)
        time.sleep(pause)
        pause *= 2


def _in_a_line(error: BaseException) -> str:
    told = " ".join(str(error).split())
    return told if isinstance(error, KilledBlock) else f"{type(error).__name__}: {told}".rstrip(": ")


def _size(blocks: Collection[Block]) -> int:
    return sum(stop - start for start, stop in blocks)
