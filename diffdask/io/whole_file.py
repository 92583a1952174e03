"""Small files, here or at a URL, written whole or not at all: catalogues, reports, lists of picks, labels."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from diffdask.io.paths import as_store, name_of, parent
from diffdask.io.storage import storage_at


@contextlib.contextmanager
def whole_file(to: str | Path) -> Iterator[Path]:
    """Give a path to write to, which becomes ``to`` only once all is written.

    Of a URL it is a file of this machine, which is put there in the end.
    """
    place = as_store(to)
    if isinstance(place, str):
        with tempfile.TemporaryDirectory(prefix="diffdask-") as folder:
            partial = Path(folder) / name_of(place)
            yield partial
            storage_at(parent(place)).put_file(name_of(place), partial)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, place)
    finally:
        partial.unlink(missing_ok=True)


def read_file(path: str | Path) -> bytes:
    """Read a small file.

    Raises
    ------
    OSError
        As from every :class:`~diffdask.io.storage.Storage`.
    """
    place = as_store(path)
    with storage_at(parent(place)).open_file(name_of(place)) as file:
        return file.read()
