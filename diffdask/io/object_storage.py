"""Object storage through obstore: what :mod:`diffdask.io.storage` does in a folder, done with objects.

Errors are those of :func:`diffdask.io.objects.telling`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import threading
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import HTTPStore, from_url

from diffdask.errors import BadStorage, LostStorage
from diffdask.io.objects import Objects, answer_of, telling
from diffdask.io.storage import Entry, Storage

#: How long obstore tries again what fails for a moment (503, timeouts, lost connections), s; at the first contact less,
#: so that a wrong endpoint is told soon.
PATIENCE, FIRST_PATIENCE = 60.0, 8.0

#: First and longest pause between tries, s.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

#: Environment variables of object storage begin with one of these.
_SETTINGS = ("AWS_", "GOOGLE_", "AZURE_")

#: Guards what is held: threads of a worker share it.
_HOLDING = threading.Lock()


def bucket_at(url: str) -> Bucket:
    """Give the storage of a URL; one for each process, as long as the environment stays.

    Raises
    ------
    BadStorage
        If it cannot be reached, or refuses.
    """
    settings = ((key, value) for key, value in os.environ.items() if key.startswith(_SETTINGS))
    return _bucket_once(url, hash(frozenset(settings)))


class Bucket(Storage):
    """A place in a bucket."""

    def __init__(self, url: str) -> None:
        self.location = url
        self._store = _open(url, PATIENCE)
        self._objects = Objects(self._store, location=url)

    def zarr_store(self) -> Objects:
        return self._objects

    def exists(self, name: str) -> bool:
        try:
            with telling(self.location):
                obstore.head(self._store, name)
        except FileNotFoundError:
            return False
        return True

    def is_there(self) -> bool:
        return self.exists("zarr.json") or not self.is_empty()

    def is_empty(self) -> bool:
        with telling(self.location):
            return not any(len(some) for some in obstore.list(self._store, chunk_size=1))

    def read_text(self, name: str) -> str:
        return self.open_file(name).read().decode()

    def open_file(self, name: str) -> io.BytesIO:
        with telling(self.location):
            return io.BytesIO(obstore.get(self._store, name).bytes())

    def write_text(self, name: str, text: str) -> None:
        with telling(self.location):
            obstore.put(self._store, name, text.encode())

    def write_new(self, name: str, text: str) -> bool:
        try:
            with telling(self.location):
                obstore.put(self._store, name, text.encode(), mode="create")
        except FileExistsError:
            return self.read_text(name) == text  # put by the first of two tries, whose answer was lost
        return True

    def put_file(self, name: str, file: Path) -> None:
        with telling(self.location):
            obstore.put(self._store, name, file)

    def list_files(self, folder: str) -> Iterator[Entry]:
        for found in self.list_below(folder):
            name = found["path"].removeprefix(f"{folder}/")
            if "/" not in name:
                yield _ObjectEntry(name, found["last_modified"].timestamp(), found["size"])

    def list_folders(self, folder: str) -> list[str]:
        with telling(self.location):
            found = obstore.list_with_delimiter(self._store, folder)
        return sorted(path.rpartition("/")[2] for path in found["common_prefixes"])

    def delete(self, names: Iterable[str]) -> None:
        listed = list(names)
        if listed:
            with telling(self.location), contextlib.suppress(FileNotFoundError):
                obstore.delete(self._store, listed)

    def remove(self, folder: str) -> None:
        names = [found["path"] for found in self.list_below(folder)]
        says_whole = f"{folder}/zarr.json"
        self.delete([says_whole] if says_whole in names else [])  # first: what is half gone must not look whole
        self.delete([name for name in names if name != says_whole])

    def rename(self, folder: str, to: str) -> None:
        names = [found["path"][len(folder) + 1 :] for found in self.list_below(folder)]
        for name in sorted(names, key=lambda name: (name == "zarr.json", name)):  # last: what is half there neither
            with telling(self.location):
                obstore.copy(self._store, f"{folder}/{name}", f"{to}/{name}")
        self.remove(folder)

    def stamp(self, name: str) -> Hashable:
        with telling(self.location):
            found = obstore.head(self._store, name)
        return (found["e_tag"], found["last_modified"])

    @contextlib.contextmanager
    def holding(self, name: str) -> Iterator[bool]:
        """Hold an object's bytes in memory, for Zarr to read it in pieces: a request in place of one for each."""
        held = self._objects.held
        with _HOLDING:
            known = held.get(name)
            if known is not None:
                held[name] = (known[0], known[1] + 1)
        if known is None:
            try:
                with telling(self.location):
                    read = memoryview(obstore.get(self._store, name).bytes())
            except FileNotFoundError:
                yield False
                return
            with _HOLDING:
                held[name] = (read, held[name][1] + 1 if name in held else 1)
        try:
            yield True
        finally:
            with _HOLDING:
                left = held[name][1] - 1
                held.pop(name) if not left else held.update({name: (held[name][0], left)})

    def list_below(self, folder: str) -> Iterator[Any]:
        """List what is in a folder and below it, as obstore has it."""
        with telling(self.location):
            for some in obstore.list(self._store, folder):
                yield from some


@dataclass(frozen=True)
class _ObjectEntry:
    name: str
    modified: float
    size: int


def _open(url: str, patience: float) -> Any:
    """Make obstore's store of a URL; what it needs beside that it takes from the environment."""
    scheme = url.split("://")[0]
    _check_endpoint(url, scheme)
    how: dict[str, Any] = {"client_options": {"allow_http": True}} if scheme == "http" else {}
    retries: Any = {
        "max_retries": 1000,
        "retry_timeout": timedelta(seconds=patience),
        "backoff": {
            "init_backoff": timedelta(seconds=_FIRST_PAUSE),
            "max_backoff": timedelta(seconds=_LONGEST_PAUSE),
            "base": 2,
        },
    }
    try:
        return from_url(url, retry_config=retries, **how)
    except BaseError as error:
        raise BadStorage(f"'{url}' is no place that can be opened: {answer_of(error)}") from None


def _check_endpoint(url: str, scheme: str) -> None:
    endpoint = next((os.environ[name] for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT") if name in os.environ), "")
    is_allowed = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("true", "1", "yes", "on")
    if scheme in ("s3", "s3a") and endpoint.startswith("http://") and not is_allowed:
        raise BadStorage(
            f"the endpoint of '{url}' (AWS_ENDPOINT_URL) is plain http, over which anyone on the way can read and "
            "change the data: use https, or set AWS_ALLOW_HTTP=true where nobody is on the way"
        )


def mean_size(url: str, folder: str, *, most: int) -> float:
    """Mean size of the objects in a folder and below it, of the first so many; 0 where there are none, bytes."""
    sizes = [found["size"] for found in itertools.islice(bucket_at(url).list_below(folder), most)]
    return sum(sizes) / max(1, len(sizes))


@functools.lru_cache(maxsize=16)
def _bucket_once(url: str, settings: int) -> Bucket:
    """Open storage, once it is known that its bucket answers."""
    scheme, rest = url.split("://")
    _check_answers(f"{scheme}://{rest.split('/')[0]}" if scheme in ("s3", "s3a", "gs") else url, settings)
    return Bucket(url)


@functools.lru_cache(maxsize=16)
def _check_answers(url: str, settings: int) -> None:
    store = _open(url, FIRST_PATIENCE)
    try:
        with telling(url):
            if isinstance(store, HTTPStore):  # such can seldom list
                with contextlib.suppress(FileNotFoundError):
                    obstore.head(store, "zarr.json")
            else:
                next(iter(obstore.list(store, "zarr.json", chunk_size=1)), None)
    except LostStorage as error:
        raise BadStorage(f"{error}; see to AWS_ENDPOINT_URL and the network, or try again later") from None
