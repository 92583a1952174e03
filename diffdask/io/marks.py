"""Completion marks: which blocks of a store's group are done, and which are given up.

A mark is a file, or an object, named after its block, put in place after the block's data are
written; it may hold a note on the block. What has no mark is not done, whatever
its bytes look like::

    results.zarr/marks/screen/0-64                  done
    results.zarr/marks/screen/128-192               done, with a note
    results.zarr/marks/screen/quarantine/64-128     given up: why, when, by which version; JSON
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diffdask.io.storage import Entry, storage_at
from diffdask.version import __version__

_NAME = re.compile(r"^(\d+)-(\d+)$")

_QUARANTINE = "quarantine"

Block = tuple[int, int]


def mark_block(store: str | Path, group: str, block: Block, *, note: str = "") -> None:
    """Say that frames ``block[0]`` to ``block[1]`` (exclusive) of a group are done, with a note to keep."""
    storage_at(store).write_text(_mark(group, block), note)


def is_marked(store: str | Path, group: str, block: Block) -> bool:
    """Whether a block is done."""
    return storage_at(store).exists(_mark(group, block))


def marked_blocks(store: str | Path, group: str) -> set[Block]:
    """Blocks of a group that are done."""
    return {block for block, _ in _scan(store, _folder(group))}


def timed_blocks(store: str | Path, group: str) -> list[tuple[float, Block]]:
    """When blocks that are done were marked, seconds since 1970, and which; in order of time."""
    return sorted((entry.modified, block) for block, entry in _scan(store, _folder(group)))


def marked_groups(store: str | Path) -> list[str]:
    """Groups of which blocks were marked or given up, by name."""
    return storage_at(store).list_folders("marks")


def noted_blocks(store: str | Path, group: str) -> dict[Block, str]:
    """Blocks that are done and have a note, in order, with the note; others are not even opened."""
    noted = (block for block, entry in _scan(store, _folder(group)) if entry.size)
    return {block: read_note(store, group, block) for block in sorted(noted)}


def read_note(store: str | Path, group: str, block: Block) -> str:
    """Note on a block that is done."""
    return storage_at(store).read_text(_mark(group, block))


def unmark_blocks(store: str | Path, group: str, blocks: Iterable[Block]) -> None:
    """Say that blocks are not done, if they were."""
    storage_at(store).delete(_mark(group, block) for block in blocks)


def remove_marks(store: str | Path, group: str) -> None:
    """Forget that any block of a group is done, or given up."""
    storage_at(store).remove(_folder(group))


def quarantine_block(store: str | Path, group: str, block: Block, *, reason: str, details: str = "") -> None:
    """Say that a block is given up until it is released: why, in a line, and in full."""
    told = {"reason": reason, "time": datetime.now(UTC).isoformat(timespec="seconds"), "version": __version__}
    text = json.dumps({**told, "details": details}, indent=2) + "\n"
    storage_at(store).write_text(_mark(group, block, _QUARANTINE), text)


def quarantined_blocks(store: str | Path, group: str) -> dict[Block, dict[str, Any]]:
    """Blocks that are given up, in order: their ``reason``, ``time``, ``version`` and ``details``."""
    found = sorted(block for block, _ in _scan(store, f"{_folder(group)}/{_QUARANTINE}"))
    return {block: json.loads(storage_at(store).read_text(_mark(group, block, _QUARANTINE))) for block in found}


def release_blocks(store: str | Path, group: str, blocks: Iterable[Block]) -> None:
    """Take blocks out of quarantine: they are to be tried again."""
    storage_at(store).delete(_mark(group, block, _QUARANTINE) for block in blocks)


def _scan(store: str | Path, folder: str) -> Iterator[tuple[Block, Entry]]:
    for entry in storage_at(store).list_files(folder):
        match = _NAME.match(entry.name)
        if match:
            yield (int(match[1]), int(match[2])), entry


def _folder(group: str) -> str:
    return f"marks/{group}"


def _mark(group: str, block: Block, *within: str) -> str:
    return "/".join((_folder(group), *within, f"{block[0]}-{block[1]}"))
