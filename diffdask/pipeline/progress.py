"""Progress of a stage: a bar on the terminal, and a word to the scheduler, whose page and metrics show it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from diffdask.cluster import Teller
from diffdask.pace import tell_count


class Progress:
    """Counts units and blocks of a stage that are done, or failed."""

    def __init__(self, bar: Any, teller: Teller | None, counts: dict[str, int]) -> None:
        self._bar, self._teller, self._counts = bar, teller, counts

    def update(self, units: int) -> None:
        """Count a block of so many units as done."""
        self._add(done=units, blocks_done=1)
        self._bar.update(units)

    def fail(self, units: int) -> None:
        """Count a block of so many units as failed."""
        self._add(failed=units)

    def tell(self, *, is_over: bool = False, at_once: bool = False) -> None:
        """Tell the scheduler, at most once a second unless it must be now; show what it knows."""
        if self._teller is not None:
            self._teller.tell(is_over=is_over, at_once=at_once, **self._counts)
        self._bar.set_postfix_str(self._found(), refresh=is_over)

    def _add(self, **counts: int) -> None:
        for name, number in counts.items():
            self._counts[name] += number
        self.tell()

    def _found(self) -> str:
        known = self._teller.answer if self._teller is not None else {}
        hits, failures = known.get("hits"), max(known.get("failures", 0), self._counts["failed"])
        told = [f"{tell_count(hits)} hits"] if hits is not None else []
        return ", ".join([*told, f"{tell_count(failures)} failures"] if failures else told)


@contextlib.contextmanager
def progress_bar(
    total: int,
    *,
    what: str,
    unit: str,
    shown: bool,
    done: int = 0,
    failed: int = 0,
    blocks: int = 0,
    blocks_done: int = 0,
    client: Any = None,
) -> Iterator[Progress]:
    """Count ``total`` units, ``done`` of them already there; on the terminal only if ``shown``.

    Parameters
    ----------
    total, done, failed
        Units; those done or failed before.
    what, unit
        What is done, and with what.
    shown
        Show a bar: share, rate, time left, and hits and failures where the scheduler knows them.
    blocks, blocks_done
        Blocks.
    client
        From ``connect``: its scheduler is told; None to tell nobody.

    Yields
    ------
    Progress
    """
    from tqdm import tqdm

    teller = Teller(client, stage=what, unit=unit) if client is not None else None
    counts = {"total": total, "done": done, "failed": failed, "blocks": blocks, "blocks_done": blocks_done}
    with tqdm(total=total, initial=done, desc=what, unit=unit, disable=not shown, mininterval=0.5) as bar:
        progress = Progress(bar, teller, counts)
        progress.tell(at_once=True)
        yield progress
        progress.tell(is_over=True)
