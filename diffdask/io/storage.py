"""Where a store lies: in a folder, or in object storage that a URL names, such as ``s3://bucket/results.zarr``.

Credentials and endpoints come from the environment (``AWS_ACCESS_KEY_ID``,
``AWS_ENDPOINT_URL`` ...) and are kept nowhere.

==================  =====================================  =========================================
what                folder                                 object storage
==================  =====================================  =========================================
a text is written   beside, then put in place              at once: that is how an object is put
only if it is new   by a link, which does not overwrite    If-None-Match
what has changed    time and inode                         etag and time
a group is moved    renamed                                copied, its ``zarr.json`` last; then deleted
==================  =====================================  =========================================
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from diffdask.io.paths import as_store, is_url


class Storage(ABC):
    """A place that holds a store; names are relative to it, their parts joined by ``/``.

    Raises
    ------
    OSError
        From every method, where the place cannot be reached; ``FileNotFoundError`` where a name is not there, and
        ``PermissionError`` where it may not be read or written.
    """

    location: str  #: path or URL, without credentials

    @abstractmethod
    def zarr_store(self) -> Any:
        """Give what ``zarr.open_group`` takes."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether a file or an object is there."""

    @abstractmethod
    def is_there(self) -> bool:
        """Whether anything lies here, be it an empty folder."""

    @abstractmethod
    def is_empty(self) -> bool:
        """Whether there is nothing in it."""

    @abstractmethod
    def read_text(self, name: str) -> str:
        """Read a small text."""

    @abstractmethod
    def open_file(self, name: str) -> BinaryIO:
        """Open a file to be read; an object is in memory by then, all of it."""

    @abstractmethod
    def write_text(self, name: str, text: str) -> None:
        """Write a small text at once or not at all, in place of one that was there."""

    @abstractmethod
    def write_new(self, name: str, text: str) -> bool:
        """Write a small text unless the name is taken; of several that try, one is told that it did."""

    @abstractmethod
    def put_file(self, name: str, file: Path) -> None:
        """Put a file of this machine in place, whole; of a folder, one that lies in it already."""

    @abstractmethod
    def list_files(self, folder: str) -> Iterator[Entry]:
        """Files right in a folder; none where it is absent."""

    @abstractmethod
    def list_folders(self, folder: str) -> list[str]:
        """Names of the folders right in a folder, in order."""

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Delete files, if they are there."""

    @abstractmethod
    def remove(self, folder: str) -> None:
        """Delete a folder and all that is in it, if it is there."""

    @abstractmethod
    def rename(self, folder: str, to: str) -> None:
        """Move a small folder to where nothing is."""

    @abstractmethod
    def stamp(self, name: str) -> Hashable:
        """Give what changes when a file does."""

    def holding(self, name: str) -> contextlib.AbstractContextManager[bool]:
        """While the context lasts, a file may be read in many pieces at the cost of one; gives whether it is there."""
        return contextlib.nullcontext(self.exists(name))  # a file system reads pieces cheaply by itself


class Entry(Protocol):
    """A file that was listed; in a folder, size and time cost a look."""

    @property
    def name(self) -> str:
        """Name within its folder."""

    @property
    def modified(self) -> float:
        """When it was written, seconds since 1970."""

    @property
    def size(self) -> int:
        """Bytes."""


def storage_at(path: str | Path) -> Storage:
    """Give the storage of a place; of object storage, one for each process.

    Raises
    ------
    BadParameter
        As :func:`as_store`.
    BadStorage
        If object storage cannot be reached, or refuses, at the first contact of the process.
    """
    if not is_url(path):
        return Folder(path)
    store = as_store(path)
    if not isinstance(store, str):
        return Folder(store)
    from diffdask.io.object_storage import bucket_at

    return bucket_at(store)


@dataclass(frozen=True)
class _FolderEntry:
    name: str
    found: os.DirEntry[str]

    @property
    def modified(self) -> float:
        return self.found.stat().st_mtime

    @property
    def size(self) -> int:
        return self.found.stat().st_size


class Folder(Storage):
    """A folder of a file system."""

    def __init__(self, path: str | Path) -> None:
        self.location = os.fspath(path)

    def zarr_store(self) -> str:
        return self.location

    def exists(self, name: str) -> bool:
        return os.path.exists(self._path(name))

    def is_there(self) -> bool:
        return os.path.exists(self.location)

    def is_empty(self) -> bool:
        if not os.path.isdir(self.location):
            return not self.is_there()
        with os.scandir(self.location) as entries:
            return next(entries, None) is None

    def read_text(self, name: str) -> str:
        return Path(self._path(name)).read_text()

    def open_file(self, name: str) -> BinaryIO:
        return open(self._path(name), "rb")

    def write_text(self, name: str, text: str) -> None:
        with self._beside(name, text) as written:
            os.replace(written, self._path(name))

    def write_new(self, name: str, text: str) -> bool:
        with self._beside(name, text) as written:
            try:
                os.link(written, self._path(name))
            except FileExistsError:
                return False
            finally:
                os.unlink(written)
        return True

    def put_file(self, name: str, file: Path) -> None:
        os.replace(file, self._path(name))

    def list_files(self, folder: str) -> Iterator[Entry]:
        path = self._path(folder)
        if not os.path.isdir(path):
            return
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_file():
                    yield _FolderEntry(entry.name, entry)

    def list_folders(self, folder: str) -> list[str]:
        path = self._path(folder)
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir()) if os.path.isdir(path) else []

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            Path(self._path(name)).unlink(missing_ok=True)

    def remove(self, folder: str) -> None:
        shutil.rmtree(self._path(folder), ignore_errors=True)

    def rename(self, folder: str, to: str) -> None:
        os.rename(self._path(folder), self._path(to))

    def stamp(self, name: str) -> Hashable:
        stat = os.stat(self._path(name))
        return (stat.st_mtime_ns, stat.st_ino)

    def _path(self, name: str) -> str:
        return os.path.join(self.location, name)

    @contextlib.contextmanager
    def _beside(self, name: str, text: str) -> Iterator[str]:
        """Write a text beside where it belongs; nothing is left of it by an error, such as a full disk."""
        folder, last = os.path.split(self._path(name))
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f".{last}.{uuid.uuid4().hex}")
        try:
            Path(temporary).write_text(text)
            yield temporary
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
