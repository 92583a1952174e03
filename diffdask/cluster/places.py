"""Places: the files of ``deploy/``, checked key by key.

A kind of place is a module with what :class:`Kind` says. To add one, write the
module and name it in :data:`KINDS`.
"""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from diffdask.cluster import address, kubernetes_place, laptop, slurm
from diffdask.cluster.capacity import Capacity
from diffdask.cluster.keys import Key, fill_in
from diffdask.errors import BadJob, nearest


class Kind(Protocol):
    """What the module of a kind of place holds."""

    #: Keys that its files may have, beside ``where`` and those of every place.
    KEYS: Mapping[str, Key]

    @staticmethod
    def open_client(place: dict[str, Any], stack: contextlib.ExitStack) -> Any:
        """Start what is needed, have the stack close it, and give a client."""

    @staticmethod
    def capacity(place: dict[str, Any]) -> Capacity:
        """How much the place can do at once; nothing is started."""


#: Word after ``where =`` to the module that knows the place.
KINDS: dict[str, Any] = {"laptop": laptop, "slurm": slurm, "kubernetes": kubernetes_place, "address": address}


def find_place(on: str | Path | None) -> dict[str, Any]:
    """Read what ``--on`` says: a word, an address, or the path of a file.

    Returns
    -------
    dict
        As :func:`read_place`.
    """
    if on is None or str(on) in ("laptop", "threads"):
        return {"where": str(on or "laptop"), **fill_in({}, laptop.KEYS, path="")}
    if "://" in str(on):
        return {"where": "address", **address.place_of(str(on))}
    return read_place(on)


def capacity_of(place: dict[str, Any]) -> Capacity:
    """How much a place can do at once."""
    found: Capacity = KINDS.get(place["where"], laptop).capacity(place)
    return found


def read_place(path: str | Path) -> dict[str, Any]:
    """Read a file of ``deploy/``: where to run.

    Relative paths in it are taken from the folder in which diffdask is started.

    Returns
    -------
    dict
        Key to value, with all that the file leaves out filled in; ``where`` is the kind of place.

    Raises
    ------
    BadJob
        If the file is absent, no TOML, or has a key or a value that is not known.
    """
    path = Path(path)
    if not path.is_file():
        raise BadJob(f"no place at '{path}': give 'laptop', 'threads', a scheduler's address or a TOML file of deploy/")
    try:
        given = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise BadJob(f"'{path}' is not valid TOML: {error}") from error
    where = given.pop("where", None)
    if where not in KINDS:
        raise BadJob(f"'{path}': where = {where!r} is not known; {nearest(str(where), map(repr, KINDS))}")
    return {"where": where, **fill_in(given, KINDS[where].KEYS, path=str(path))}
