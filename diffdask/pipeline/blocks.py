"""Blocks that are not marked yet, run on the cluster with a bar."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from diffdask.cluster import run_blocks
from diffdask.pipeline.progress import progress_bar
from diffdask.planning import Block, to_do


def run_marked(
    client: Any,
    task: Callable[[Block], None],
    blocks: Sequence[Block],
    done: Collection[Block],
    *,
    what: str,
    unit: str,
    progress: bool,
) -> None:
    """Run a task on every block that is not done; the task marks its block itself."""
    left = to_do(blocks, done)
    size_done = sum(stop - start for start, stop in blocks) - sum(stop - start for start, stop in left)
    total = sum(stop - start for start, stop in blocks)
    with progress_bar(total, what=what, unit=unit, shown=progress, done=size_done) as bar:
        for block, _ in run_blocks(client, task, left):
            bar.update(block[1] - block[0])


def absolute(path: str | Path) -> str:
    """Path that means the same in every process."""
    return str(Path(path).absolute())
