"""Paths of stores and files: of a folder, or a URL such as ``s3://bucket/campaign/results.zarr``.

A folder is a ``Path`` or a text without ``://``, all else is a URL. Both go
through the functions below, and neither through ``Path`` alone, which makes
``s3:/bucket`` of a URL.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from diffdask.errors import BadParameter

#: Kinds of storage that a URL may name; obstore knows them.
SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "http", "https", "file")


def is_url(path: str | Path) -> bool:
    """Whether a path is a URL.

    Examples
    --------
    >>> is_url("s3://bucket/frames.zarr"), is_url("runs/frames.zarr")
    (True, False)
    """
    return isinstance(path, str) and "://" in path


def as_store(path: str | Path) -> str | Path:
    """Give the path of a store in the one way that it is written: a ``Path``, or a URL as a text.

    Raises
    ------
    BadParameter
        If the kind of storage is not known, or there are credentials in the URL.

    Examples
    --------
    >>> as_store("s3://bucket//campaign/results.zarr/")
    's3://bucket/campaign/results.zarr'
    >>> as_store("file:///data/frames.zarr").as_posix()
    '/data/frames.zarr'
    """
    if not is_url(path):
        return Path(path)
    scheme, host, rest = _checked_url(str(path))
    if scheme == "file":
        return Path(unquote(rest))
    parts = [part for part in rest.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadParameter(f"'{scheme}://{host}{rest}' has '..' in it: write the place itself")
    return "/".join((f"{scheme}://{host}", *parts))


def absolute(path: str | Path) -> str:
    """Path or URL that means the same in every process of every machine that sees the place."""
    store = as_store(path)
    return store if isinstance(store, str) else str(store.absolute())


def join(path: str | Path, *names: str) -> str | Path:
    """Give the place of a name within a place.

    Examples
    --------
    >>> join("s3://bucket/campaign", "results.zarr")
    's3://bucket/campaign/results.zarr'
    """
    store = as_store(path)
    return "/".join((store, *names)) if isinstance(store, str) else store.joinpath(*names)


def parent(path: str | Path) -> str | Path:
    """Give the folder that a place is in; of a whole bucket, itself."""
    store = as_store(path)
    if not isinstance(store, str):
        return store.parent
    scheme, rest = store.split("://")
    return f"{scheme}://{rest.rpartition('/')[0] or rest}"


def name_of(path: str | Path) -> str:
    """Last part of a path or URL."""
    store = as_store(path)
    return store.rpartition("/")[2] if isinstance(store, str) else store.name


def same_place(one: str | Path, other: str | Path) -> bool:
    """Whether two paths are of one place."""
    pair = as_store(one), as_store(other)
    return pair[0] == pair[1] if any(map(is_url, pair)) else Path(pair[0]).resolve() == Path(pair[1]).resolve()


def local_path(path: str | Path, *, what: str) -> Path:
    """Give the path of what can only be in a folder.

    Raises
    ------
    BadParameter
        If it is a URL.
    """
    store = as_store(path)
    if isinstance(store, str):
        raise BadParameter(
            f"{what} can only be on this machine, not at '{store}': give a path here, and copy it from or to there"
        )
    return store


def suffix_of(path: str | Path) -> str:
    """Suffix of a file's name, such as ``.csv``."""
    return os.path.splitext(name_of(path))[1]


def with_suffix(path: str | Path, suffix: str) -> str | Path:
    """Give the place beside that has another suffix, or one where it had none.

    Examples
    --------
    >>> with_suffix("s3://bucket/map.zarr", ".ccp4")
    's3://bucket/map.ccp4'
    """
    place = as_store(path)
    return join(parent(place), os.path.splitext(name_of(place))[0] + suffix)


def resolved(path: str | Path) -> str | Path:
    """Give the path without links or dots; a URL as it is."""
    place = as_store(path)
    return place if isinstance(place, str) else place.resolve()


def way_from_parent(frames: str | Path, results: str | Path) -> str:
    """Where frames are, seen from the folder of the results; from another kind of storage or bucket, all of it."""
    folder = parent(resolved(results))
    if not is_url(frames) and not is_url(folder):
        return os.path.relpath(frames, folder)
    (kind, _, there), (folder_kind, _, here) = (str(place).partition("://") for place in (frames, folder))
    is_near = kind == folder_kind and there.split("/")[0] == here.split("/")[0]
    return os.path.relpath(f"/{there}", f"/{here}") if is_near else str(frames)


def at_parent(results: str | Path, relative: str) -> str | Path:
    """Give the place that a way from the folder of the results leads to."""
    folder = parent(resolved(results))
    if is_url(relative):
        return as_store(relative)
    if isinstance(folder, Path):
        return folder / relative
    kind, here = folder.split("://")
    return as_store(f"{kind}:/{os.path.normpath(f'/{here}/{relative}')}")


def _checked_url(url: str) -> tuple[str, str, str]:
    """Take a URL apart; what is wrong with it is said without what may be a secret in it."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise BadParameter(f"storage of the kind '{parts.scheme}://' is not known; known are {', '.join(SCHEMES)}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise BadParameter(
            f"a URL of {parts.scheme}:// storage may hold no credentials, no '?' and no '#', since it is written into "
            "stores and logs: put credentials into the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if parts.scheme != "file" and not re.fullmatch(r"[\w.:-]+", parts.netloc):
        raise BadParameter(f"'{url}' names no bucket: write {parts.scheme}://BUCKET/PATH")
    return parts.scheme, parts.netloc, parts.path
