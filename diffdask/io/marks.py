"""Completion marks: which blocks of a store's group are done, and which are given up.

A mark is a file named after its block, put in place after the block's data are
written; it may hold a note on the block. What has no mark is not done, whatever
its bytes look like::

    results.zarr/marks/screen/0-64                  done
    results.zarr/marks/screen/128-192               done, with a note
    results.zarr/marks/screen/quarantine/64-128     given up: why, when, by which version; JSON
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diffdask.version import __version__

_NAME = re.compile(r"^(\d+)-(\d+)$")

_QUARANTINE = "quarantine"

Block = tuple[int, int]


def mark_block(store: str | Path, group: str, block: Block, *, note: str = "") -> None:
    """Say that frames ``block[0]`` to ``block[1]`` (exclusive) of a group are done, with a note to keep."""
    _put(_folder(store, group), block, note)


def is_marked(store: str | Path, group: str, block: Block) -> bool:
    """Whether a block is done."""
    return os.path.exists(os.path.join(store, "marks", group, _name(block)))


def marked_blocks(store: str | Path, group: str) -> set[Block]:
    """Blocks of a group that are done."""
    return {block for block, _ in _scan(_folder(store, group))}


def timed_blocks(store: str | Path, group: str) -> list[tuple[float, Block]]:
    """When blocks that are done were marked, seconds since 1970, and which; in order of time."""
    return sorted((entry.stat().st_mtime, block) for block, entry in _scan(_folder(store, group)))


def marked_groups(store: str | Path) -> list[str]:
    """Groups of which blocks were marked or given up, by name."""
    folder = Path(store) / "marks"
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()) if folder.is_dir() else []


def noted_blocks(store: str | Path, group: str) -> dict[Block, str]:
    """Blocks that are done and have a note, in order, with the note; others are not even opened."""
    noted = (block for block, entry in _scan(_folder(store, group)) if entry.stat().st_size)
    return {block: read_note(store, group, block) for block in sorted(noted)}


def read_note(store: str | Path, group: str, block: Block) -> str:
    """Note on a block that is done."""
    return (_folder(store, group) / _name(block)).read_text()


def unmark_blocks(store: str | Path, group: str, blocks: Iterable[Block]) -> None:
    """Say that blocks are not done, if they were."""
    for block in blocks:
        (_folder(store, group) / _name(block)).unlink(missing_ok=True)


def remove_marks(store: str | Path, group: str) -> None:
    """Forget that any block of a group is done, or given up."""
    shutil.rmtree(_folder(store, group), ignore_errors=True)


def quarantine_block(store: str | Path, group: str, block: Block, *, reason: str, details: str = "") -> None:
    """Say that a block is given up until it is released: why, in a line, and in full."""
    told = {"reason": reason, "time": datetime.now(UTC).isoformat(timespec="seconds"), "version": __version__}
    _put(_folder(store, group) / _QUARANTINE, block, json.dumps({**told, "details": details}, indent=2) + "\n")


def quarantined_blocks(store: str | Path, group: str) -> dict[Block, dict[str, Any]]:
    """Blocks that are given up, in order: their ``reason``, ``time``, ``version`` and ``details``."""
    folder = _folder(store, group) / _QUARANTINE
    return {block: json.loads((folder / _name(block)).read_text()) for block in sorted(b for b, _ in _scan(folder))}


def release_blocks(store: str | Path, group: str, blocks: Iterable[Block]) -> None:
    """Take blocks out of quarantine: they are to be tried again."""
    for block in blocks:
        (_folder(store, group) / _QUARANTINE / _name(block)).unlink(missing_ok=True)


def _put(folder: Path, block: Block, text: str) -> None:
    """Write a file at once or not at all, also where the disk is full."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{_name(block)}.{uuid.uuid4().hex}"
    try:
        temporary.write_text(text)
        os.replace(temporary, folder / _name(block))
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _scan(folder: Path) -> Iterator[tuple[Block, os.DirEntry[str]]]:
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.match(entry.name)
            if match:
                yield (int(match[1]), int(match[2])), entry


def _name(block: Block) -> str:
    return f"{block[0]}-{block[1]}"


def _folder(store: str | Path, group: str) -> Path:
    return Path(store) / "marks" / group
