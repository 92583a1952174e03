"""Completion marks: which blocks of a store's group are done.

A mark is a file named after its block, put in place after the block's data are
written; it may hold a note on the block. What has no mark is not done, whatever
its bytes look like.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

_NAME = re.compile(r"^(\d+)-(\d+)$")


def mark_block(store: str | Path, group: str, block: tuple[int, int], *, note: str = "") -> None:
    """Say that frames ``block[0]`` to ``block[1]`` (exclusive) of a group are done, with a note to keep."""
    folder = _folder(store, group)
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f"{block[0]}-{block[1]}"
    temporary = mark.with_name(f".{mark.name}.{os.getpid()}")
    temporary.write_text(note)
    os.replace(temporary, mark)


def marked_blocks(store: str | Path, group: str) -> set[tuple[int, int]]:
    """Blocks of a group that are done."""
    folder = _folder(store, group)
    if not folder.is_dir():
        return set()
    found = (_NAME.match(entry.name) for entry in os.scandir(folder))
    return {(int(match[1]), int(match[2])) for match in found if match}


def read_note(store: str | Path, group: str, block: tuple[int, int]) -> str:
    """Note on a block that is done."""
    return (_folder(store, group) / f"{block[0]}-{block[1]}").read_text()


def remove_marks(store: str | Path, group: str) -> None:
    """Forget that any block of a group is done."""
    shutil.rmtree(_folder(store, group), ignore_errors=True)


def _folder(store: str | Path, group: str) -> Path:
    return Path(store) / "marks" / group
