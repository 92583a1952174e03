"""The results store: a Zarr group for each step's outputs.

``results.zarr`` holds ``layout`` (maps of pixels), ``screen`` (a row per frame),
``hits`` and ``features`` (a row per hit), ``euclidean``, ``correlation`` and
``common-arc`` (a number per pair of hits) and ``scores`` (a row per frame). A
group carries the parameters and the version that made it; a block of it counts
only once it is marked.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import uuid
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr
import zarr
from zarr.core.sync import sync

from diffdask.errors import BadStore
from diffdask.io.frames_store import frames_attributes
from diffdask.io.marks import remove_marks
from diffdask.io.paths import as_store, at_parent, is_url, resolved, way_from_parent
from diffdask.io.results_arrays import as_stored, create_array, write_arrays
from diffdask.io.storage import storage_at
from diffdask.io.zarr_format import FORMAT, check_format
from diffdask.variables import VARIABLES
from diffdask.version import __version__

KIND = "diffdask results"

#: Chunks that are read or written at a time: Zarr holds some kilobytes for each, and a campaign has 100 000.
_CHUNKS_AT_ONCE = 1024


def create_results(path: str | Path, *, frames: str | Path) -> None:
    """Make an empty results store beside a frames store, or check that an existing one belongs to it.

    Raises
    ------
    BadStore
        If something else lies at ``path``, or results of other frames; if there are no frames.
    """
    frames = resolved(frames)
    identity = frames_attributes(frames)["identity"]
    storage = storage_at(path)
    if storage.is_there():
        if resolved(frames_path(path)) != frames:
            raise BadStore(
                f"'{path}' holds results of '{frames_path(path)}', not of '{frames}'; choose another --results"
            )
        if _open_root(path).attrs.get("frames_identity") != identity:
            raise BadStore(
                f"'{path}' holds results of a frames store that was at '{frames}' before, not of the one there now; "
                "choose another --results"
            )
        return
    attributes = {
        "kind": KIND,
        "version": __version__,
        "frames": str(frames),
        "frames_relative": way_from_parent(frames, path),
        "frames_identity": identity,
    }
    zarr.open_group(storage.zarr_store(), mode="w-", zarr_format=3, attributes=attributes)


def frames_path(path: str | Path) -> str | Path:
    """Where the frames are that results were made from.

    The path recorded at creation, or the same place relative to the results if
    both were moved together.
    """
    attributes = _open_root(path).attrs
    recorded = as_store(str(attributes["frames"]))
    if storage_at(recorded).is_there():
        return recorded
    moved = at_parent(path, str(attributes["frames_relative"]))
    if storage_at(moved).is_there():
        return moved
    raise BadStore(
        f"the frames of '{path}' are neither at '{recorded}' nor at '{moved}'; put them back to either place"
    )


def start_group(
    path: str | Path,
    group: str,
    *,
    sizes: dict[str, int],
    names: tuple[str, ...],
    block: int,
    parameters: dict[str, Any],
    constants: xr.Dataset | None = None,
) -> str:
    """Make a group's arrays, grow them to new sizes, or check that they were made alike.

    Parameters
    ----------
    path, group
        The store and the group in it.
    sizes
        Size of every dim.
    names
        Variables that blocks will fill; their first dim is the one that is chunked.
    block
        Frames (or hits) a chunk.
    parameters
        What made the group; JSON-able. A group of other parameters is refused.
    constants
        Variables without that dim, such as ``ring_q``: written at once.

    Returns
    -------
    str
        The group's attribute ``made``: another for each making of it, so that tasks know theirs from one made anew.

    Raises
    ------
    BadStore
        If the group exists and was made with other parameters.
    """
    root = _open_root(path, mode="r+")
    if group in root and "parameters" in root[group].attrs:  # its stamp comes last: without one it is half made
        stamp_of(path, group, parameters)
        for name in names:
            array = cast(zarr.Array, root[f"{group}/{name}"])
            array.resize((sizes[VARIABLES[name].dims[0]], *array.shape[1:]))
        made_as = str(root[group].attrs.get("made") or uuid.uuid4().hex)
        root[group].attrs.update({"made": made_as, "complete": False})
        return made_as
    remove_group(path, group)
    made = root.create_group(group)
    for name in names:
        create_array(made, name, sizes, block)
    if constants is not None:
        write_arrays(made, constants)
    made_as = uuid.uuid4().hex
    made.attrs.update({**stamp_of(path, group, parameters), "made": made_as, "complete": False})
    return made_as


def stamp_of(path: str | Path, group: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Give what marks a group as made with these parameters by this version.

    Raises
    ------
    BadStore
        If the group is there and bears another stamp.
    """
    stamp = {"parameters": json.loads(json.dumps(parameters)), "version": __version__}
    root = _open_root(path)
    if group in root and "parameters" in root[group].attrs:
        _check_stamp(path, group, dict(root[group].attrs), stamp)
    return stamp


def write_rows(path: str | Path, group: str, start: int, dataset: xr.Dataset, *, made: str | None = None) -> None:
    """Write a Dataset's variables into rows ``start`` onwards of a group; ``made`` as in :func:`check_made`."""
    target = _target_of(path, group, made)
    sync(
        _write_together([(target(str(name)), as_stored(one.values)) for name, one in dataset.data_vars.items()], start)
    )


def check_made(path: str | Path, group: str, made: str | None) -> None:
    """Check that a group is still the one that :func:`start_group` gave a task; at the cost of a look at a file.

    Raises
    ------
    BadStore
        If it was made anew since, for another run, which a worker outlived.
    """
    _target_of(path, group, made)


def _target_of(path: str | Path, group: str, made: str | None) -> Callable[[str], zarr.Array]:
    resolved = str(path) if is_url(path) else os.path.abspath(path)
    found, target = _open_target(resolved, group, storage_at(resolved).stamp(f"{group}/zarr.json"))
    if made is not None and made != found:
        raise BadStore(f"'{group}' of '{path}' has been made anew in the meantime, for another run")
    return target


async def _write_together(columns: list[tuple[zarr.Array, np.ndarray]], start: int) -> None:
    """Write columns at once: to wait for each in turn takes twice as long.

    All are waited for, also where one fails: nothing may go on being written behind the back of who tries again.
    """
    writing = (_write_column(array.async_array, start, values) for array, values in columns)
    for failure in await asyncio.gather(*writing, return_exceptions=True):
        if failure is not None:
            raise failure


async def _write_column(array: Any, start: int, values: np.ndarray) -> None:
    """Write a column from row ``start`` on, some chunks at a time."""
    piece = array.chunks[0] * _CHUNKS_AT_ONCE
    for first in range(0, len(values), piece):
        rows = values[first : first + piece]
        await array.setitem(slice(start + first, start + first + len(rows)), rows)


def read_column(path: str | Path, group: str, name: str, *, dtype: Any = None) -> np.ndarray:
    """Read a variable whose chunks are blocks, of a group finished or not, some chunks at a time; as another type."""
    array = cast(zarr.Array, _open_root(path)[f"{group}/{name}"])
    values = np.empty(array.shape, dtype=dtype or array.dtype)
    piece = array.chunks[0] * _CHUNKS_AT_ONCE
    for first in range(0, len(values), piece):
        values[first : first + piece] = array[first : first + piece]
    return values


def write_tile(
    path: str | Path,
    group: str,
    rows: tuple[int, int],
    columns: tuple[int, int],
    tile: xr.Dataset,
    *,
    made: str | None = None,
) -> None:
    """Write a tile of variables whose last two dims are pairs of hits; ``made`` as in :func:`check_made`."""
    target = _target_of(path, group, made)
    for name, variable in tile.data_vars.items():
        target(str(name))[..., slice(*rows), slice(*columns)] = variable.values


def write_whole(path: str | Path, group: str, dataset: xr.Dataset) -> None:
    """Write small variables into a group that blocks were written to, in place of earlier ones of any size."""
    target = zarr.open_group(storage_at(path).zarr_store(), path=group, mode="r+", use_consolidated=False)
    for name in map(str, dataset.data_vars):
        if name in target:
            del target[name]
    write_arrays(target, dataset)


def reopen_group(path: str | Path, group: str) -> None:
    """Say that a group is no longer whole, if it is there; its marks stay, for what made it to go on from."""
    root = _open_root(path, mode="r+")
    if group in root:
        root[group].attrs["complete"] = False


def finish_group(path: str | Path, group: str, **attributes: Any) -> None:
    """Say that a group is whole."""
    target = zarr.open_group(storage_at(path).zarr_store(), path=group, mode="r+", use_consolidated=False)
    target.attrs.update(attributes)
    target.attrs["complete"] = True


def replace_group(
    path: str | Path, group: str, dataset: xr.Dataset, attributes: dict[str, Any], *, block: int = 0
) -> None:
    """Write a small group at once, in place of an earlier one, which stays until the new one is whole.

    With a ``block``, arrays are cut into chunks of so many frames or hits.
    """
    partial = f".{group}.partial"
    remove_group(path, partial)
    made = _open_root(path, mode="r+").create_group(partial)
    write_arrays(made, dataset, block)
    made.attrs.update({"version": __version__, **json.loads(json.dumps(attributes)), "complete": True})
    remove_group(path, group)
    storage_at(path).rename(partial, group)


def remove_group(path: str | Path, group: str) -> None:
    """Delete a group and its marks, if there: this is how a step is undone."""
    remove_marks(path, group)
    storage_at(path).remove(group)


def open_screen(path: str | Path) -> xr.Dataset:
    """Columns and ring profiles of all frames, dims ``frame`` and ``ring``; :class:`BadStore` if not finished."""
    return _open_group(path, "screen", f"run: diffdask screen FRAMES --results {path}")


def open_unfinished(path: str | Path, group: str) -> xr.Dataset:
    """A group that blocks are still written to; what is not marked means nothing."""
    return _opened(path, group)


def open_hits(path: str | Path) -> xr.Dataset:
    """Polar residuals and features of the hits, dim ``hit``; raises :class:`BadStore` if not there."""
    return _open_group(path, "hits", f"run: diffdask screen FRAMES --results {path}")


def open_features(path: str | Path) -> xr.Dataset:
    """Cleaned residuals and features of the hits, dim ``hit``; raises :class:`BadStore` if not there."""
    return _open_group(path, "features", f"run: diffdask screen FRAMES --results {path}")


def open_scores(path: str | Path) -> xr.Dataset | None:
    """Scores and ranks, dim ``frame``; None if nothing was ranked yet."""
    if "scores" not in _open_root(path):
        return None
    return _open_group(path, "scores", f"run: diffdask rank {path}")


def open_group(path: str | Path, group: str) -> xr.Dataset | None:
    """Any finished group of a results store, or None if it is not there."""
    root = _open_root(path)
    if group not in root or not root[group].attrs.get("complete"):
        return None
    return _opened(path, group)


@functools.lru_cache(maxsize=8)
def _open_target(path: str, group: str, stamp: Hashable) -> tuple[Any, Callable[[str], zarr.Array]]:
    """Open each array of a group once a process; also its ``made``.

    Until the group's own file changes: what makes, grows or ends its arrays writes that last.
    """
    opened = zarr.open_group(storage_at(path).zarr_store(), path=group, mode="r+", use_consolidated=False)
    check_format(opened, path)
    return opened.attrs.get("made"), functools.cache(lambda name: cast(zarr.Array, opened[name]))


def _open_root(path: str | Path, mode: str = "r") -> zarr.Group:
    storage = storage_at(path)
    if not storage.exists("zarr.json"):
        raise BadStore(f"no results at '{path}'; make them with: diffdask screen FRAMES --results {path}")
    try:
        root = zarr.open_group(storage.zarr_store(), mode=mode, use_consolidated=False)  # type: ignore[arg-type]
    except (ValueError, KeyError) as error:  # an array, or metadata that are no JSON
        raise BadStore(f"'{path}' is no Zarr group that can be read: {error}") from error
    check_format(root, path)
    if root.attrs.get("kind") != KIND:
        raise BadStore(f"'{path}' is a Zarr store of kind {root.attrs.get('kind')!r}, expected {KIND!r}")
    return root


def _open_group(path: str | Path, group: str, next_step: str) -> xr.Dataset:
    root = _open_root(path)
    if group not in root:
        raise BadStore(f"'{path}' has no '{group}' yet; {next_step}")
    if not root[group].attrs.get("complete"):
        raise BadStore(f"'{group}' of '{path}' is not finished; {next_step} (it goes on where it stopped)")
    return _opened(path, group)


def _opened(path: str | Path, group: str) -> xr.Dataset:
    store = storage_at(path).zarr_store()
    check_format(zarr.open_group(store, path=group, mode="r", zarr_format=FORMAT, use_consolidated=False), path)
    return xr.open_zarr(store, group=group, consolidated=False, chunks=None, zarr_format=FORMAT)


def _check_stamp(path: str | Path, group: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    before, now = found.get("parameters", {}), wanted["parameters"]
    changed = [
        f"{key}: {before.get(key)!r} there, {now.get(key)!r} asked"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if found.get("version") != wanted["version"]:
        changed.append(f"version: {found.get('version')} there, {wanted['version']} now")
    if changed:
        raise BadStore(
            f"'{group}' of '{path}' was made with other parameters ({'; '.join(changed)}); "
            "give --overwrite to make it anew, or another --results"
        )
