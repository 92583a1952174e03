"""Zarr 3, and nothing older: an array of Zarr 2 may be a pickle, which can run code when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import zarr

from diffdask.errors import BadStore

FORMAT: Final = 3


def check_format(group: zarr.Group, path: str | Path) -> None:
    """Check that a group is of Zarr 3, and so all that is read from it.

    Raises
    ------
    BadStore
        If its own file, which Zarr takes at its word, says that it is older.
    """
    found = group.metadata.zarr_format
    if found != FORMAT:
        raise BadStore(f"'{path}' says that it is of Zarr {found}, expected {FORMAT}: it was not made by diffdask")
