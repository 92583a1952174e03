"""Small Zarr stores of one kind, written whole or not at all: rankers, nuisance components, maps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import zarr

from diffdask.errors import BadStore
from diffdask.io.paths import join, name_of, parent
from diffdask.io.storage import storage_at
from diffdask.io.zarr_format import check_format
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
    storage = storage_at(path)
    if not storage.exists("zarr.json"):
        raise BadStore(absent)
    try:
        group = zarr.open_group(storage.zarr_store(), mode="r", use_consolidated=False)
    except (ValueError, KeyError) as error:  # an array, or metadata that are no JSON
        raise BadStore(f"'{path}' is no Zarr group that can be read: {error}") from error
    check_format(group, path)
    if group.attrs.get("kind") != kind:
        raise BadStore(f"'{path}' is a Zarr store of kind {group.attrs.get('kind')!r}, expected {kind!r}")
    return group


def is_whole(path: str | Path, kind: str, *, absent: str) -> bool:
    """Whether a store of one kind is there; what is left of a move into place that was cut short is none.

    Parameters
    ----------
    path, kind, absent
        As for :func:`open_whole`.

    Raises
    ------
    BadStore
        If something else is there.
    """
    if not storage_at(path).is_there() or _is_half_moved(path, kind):
        return False
    open_whole(path, kind, absent=absent)
    return True


@contextlib.contextmanager
def replace_whole(path: str | Path, kind: str, *, absent: str) -> Iterator[zarr.Group]:
    """Give a group to fill, which takes the place of the store at ``path`` once it is whole.

    Raises
    ------
    BadStore
        If something of another kind lies at ``path``.
    """
    storage, name, partial = storage_at(parent(path)), name_of(path), _partial_of(path)
    if not is_whole(path, kind, absent=absent):
        storage.remove(name)  # before what says that it may be
    storage.remove(name_of(partial))
    group = zarr.open_group(storage_at(partial).zarr_store(), mode="w", zarr_format=3)
    yield group
    group.attrs.update(kind=kind, version=__version__)
    storage.remove(name)
    storage.rename(name_of(partial), name)


def _partial_of(path: str | Path) -> str | Path:
    """Where a store is made; it bears its kind once it is whole."""
    return join(parent(path), f".{name_of(path)}.partial")


def _is_half_moved(path: str | Path, kind: str) -> bool:
    """Whether what lies at a place is half a store, and the whole of it still beside."""
    if storage_at(path).exists("zarr.json"):
        return False
    try:
        open_whole(_partial_of(path), kind, absent="")
    except BadStore:
        return False
    return True
