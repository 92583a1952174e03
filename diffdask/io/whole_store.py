"""Small Zarr stores of one kind, written whole or not at all: rankers, nuisance components, maps."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import zarr

from diffdask.errors import BadStore
from diffdask.version import __version__


def open_whole(path: str | Path, kind: str, *, absent: str) -> zarr.Group:
    """Open a store of one kind.

    Parameters
    ----------
    path
        The store.
    kind
        What its attribute ``kind`` must be.
    absent
        What to say where nothing is.

    Raises
    ------
    BadStore
        If there is none at ``path``, or something else.
    """
    path = Path(path)
    if not (path / "zarr.json").is_file():
        raise BadStore(absent)
    try:
        group = zarr.open_group(str(path), mode="r", use_consolidated=False)
    except (ValueError, KeyError) as error:  # an array, or metadata that are no JSON
        raise BadStore(f"'{path}' is no Zarr group that can be read: {error}") from error
    if group.attrs.get("kind") != kind:
        raise BadStore(f"'{path}' is a Zarr store of kind {group.attrs.get('kind')!r}, expected {kind!r}")
    return group


@contextlib.contextmanager
def replace_whole(path: str | Path, kind: str, *, absent: str) -> Iterator[zarr.Group]:
    """Give a group to fill, which takes the place of the store at ``path`` once it is whole.

    Raises
    ------
    BadStore
        If something of another kind lies at ``path``.
    """
    path = Path(path)
    if path.exists():
        open_whole(path, kind, absent=absent)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    group = zarr.open_group(str(partial), mode="w", zarr_format=3)
    yield group
    group.attrs.update(kind=kind, version=__version__)
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)
