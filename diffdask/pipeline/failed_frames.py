"""Frames of which the screen can say nothing, and why: damaged ones, and blocks that could not be done."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from pathlib import Path

import numpy as np

from diffdask.io.marks import noted_blocks
from diffdask.io.results_store import open_unfinished, write_rows
from diffdask.planning import Block
from diffdask.variables import VARIABLES, wrap

_log = logging.getLogger(__name__)

_NOTHING = {"float": np.nan, "integer": 0, "boolean": False}


def flag_block(block: Block, reason: str, *, results: str) -> None:
    """Fill a block's rows of the screen with nothing, and its statuses with the reason."""
    group = open_unfinished(results, "screen")
    rows = {}
    for name, variable in group.data_vars.items():
        if variable.dims[0] == "frame":
            shape = (block[1] - block[0], *variable.shape[1:])
            kind = VARIABLES[str(name)].kind
            text = np.full(shape, f"failed: {reason}", dtype=object)
            rows[str(name)] = text if kind == "text" else np.full(shape, _NOTHING[kind])
    write_rows(results, "screen", block[0], wrap(**rows))


def note_unreadable(status: np.ndarray, before: np.ndarray, start: int) -> str:
    """Say which frames of a block turned out damaged, for its mark: JSON of frame to reason; "" if none.

    Parameters
    ----------
    status, before
        Statuses now, and before the frames were read.
    start
        First frame of the block.
    """
    changed = {str(start + row): str(status[row]) for row in np.flatnonzero(status != before)}
    return json.dumps(changed) if changed else ""


def read_unreadable(results: str | Path, *, among: Collection[Block] | None = None) -> dict[int, str]:
    """Frames that the screen found damaged or missing, in order, and why; ``among`` these blocks, or in all."""
    noted = noted_blocks(results, "screen").items()
    notes = (note for block, note in noted if among is None or block in among)
    return {int(frame): reason for note in notes for frame, reason in json.loads(note).items()}


def tell_unreadable(results: str | Path) -> None:
    """Say how many frames the screen found damaged."""
    found = read_unreadable(results)
    if found:
        _log.warning(
            "screen: %d frames are damaged or missing; 'frame_status' says so, the first is %d; once they are mended, "
            "--retry reads them again",
            *(len(found), min(found)),
        )
