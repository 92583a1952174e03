"""Zarr's store of objects, and what object storage says when it fails.

Errors come as ``OSError``, as those of a file system do, so that whoever tries
again what a disk refuses does so here too. They say what the storage said, and
nothing that could tell a key: of an answer its status and code only.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Any

from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import ObjectStore

from diffdask.errors import BadStorage, LostStorage

#: Where clouds hand out a machine's own rights: asked where there are no credentials.
_MACHINE = "169.254.169.254"

_NO_BUCKET = "no such bucket: '{}'; make it, or see to the name and to AWS_ENDPOINT_URL"


class Objects(ObjectStore):
    """A Zarr store of objects; its errors are those of :func:`telling`, and an object may be held in memory."""

    def __init__(self, store: Any, *, location: str = "", read_only: bool = False) -> None:
        super().__init__(store, read_only=read_only)
        self.location = location
        self.held: dict[str, tuple[Any, int]] = {}  # shared by the copies of with_read_only

    def with_read_only(self, read_only: bool = False) -> Objects:
        made = Objects(self.store, location=self.location, read_only=read_only)
        made.held = self.held
        return made

    def __str__(self) -> str:
        return self.location

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "held": {}}

    async def get(self, key: str, prototype: Any, byte_range: ByteRequest | None = None) -> Any:
        held = self.held.get(key)
        if held is not None:
            return prototype.buffer.from_bytes(_cut(held[0], byte_range))
        with telling(self.location):
            return await super().get(key, prototype, byte_range)

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[Any]) -> list[Any]:
        with telling(self.location):
            return await super().get_partial_values(prototype, key_ranges)

    async def exists(self, key: str) -> bool:
        with telling(self.location):
            return await super().exists(key)

    async def set(self, key: str, value: Any) -> None:
        with telling(self.location):
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        with telling(self.location):
            await super().set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:
        with telling(self.location):
            await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        with telling(self.location):
            await super().delete_dir(prefix)

    def list(self) -> AsyncGenerator[str, None]:
        return self._telling(super().list())

    def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        return self._telling(super().list_prefix(prefix))

    def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        return self._telling(super().list_dir(prefix))

    async def getsize(self, key: str) -> int:
        with telling(self.location):
            return await super().getsize(key)

    async def _telling(self, names: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        with telling(self.location):
            async for name in names:
                yield name


@contextlib.contextmanager
def telling(location: str) -> Iterator[None]:
    """Turn obstore's errors into those of a file system, with nothing in them that could tell a key.

    Raises
    ------
    BadStorage
        If it refuses.
    FileNotFoundError, FileExistsError
        As of a file.
    LostStorage
        If it does not answer, or says that something is wrong with itself.
    """
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise BadStorage(_NO_BUCKET.format(location)) from None
        raise FileNotFoundError(errno.ENOENT, "nothing there", location) from None
    except AlreadyExistsError:
        raise FileExistsError(errno.EEXIST, "there already", location) from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise BadStorage(
            f"'{location}' refuses ({answer_of(error)}): see to the credentials in the environment (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, AWS_REGION), and that they may list, get, put and delete objects there"
        ) from None
    except BaseError as error:
        if "NoSuchBucket" in str(error):
            raise BadStorage(_NO_BUCKET.format(location)) from None
        if _MACHINE in str(error):
            raise BadStorage(
                f"no credentials for '{location}': set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment "
                "of every process, or AWS_SKIP_SIGNATURE=true for what is public"
            ) from None
        raise LostStorage(f"'{location}' does not answer as it should: {answer_of(error)}") from None


def answer_of(error: BaseException) -> str:
    """Say what storage said: an answer's status and code, or what was wrong on the way; the rest may tell a key."""
    told = str(error).split("Debug source", 1)[0]
    status = re.search(r"status code: (\d{3}[\w ]*)", told)
    code = re.search(r"<Code>(\w+)</Code>", told)
    if status or code:
        return ", ".join(found[1].strip() for found in (status, code) if found)
    return re.sub(r"\S*://\S*|\S*@\S*", "...", told.rpartition(" - ")[2].strip().split("\n")[0])


def _cut(held: memoryview, byte_range: ByteRequest | None) -> memoryview:
    """Cut what Zarr asks for out of an object's bytes."""
    if isinstance(byte_range, RangeByteRequest):
        return held[byte_range.start : byte_range.end]
    if isinstance(byte_range, OffsetByteRequest):
        return held[byte_range.offset :]
    if isinstance(byte_range, SuffixByteRequest):
        return held[max(0, len(held) - byte_range.suffix) :]
    return held
