"""The catalogue: a row per ingested frame, all that is known of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdask.errors import BadParameter
from diffdask.io.frames_store import FRAME_COLUMNS, frames_attributes, read_frame_columns, take_columns
from diffdask.io.paths import as_store, suffix_of
from diffdask.io.results_store import frames_path, open_group, open_scores, open_screen
from diffdask.io.whole_file import whole_file
from diffdask.variables import STATUS_OK, VARIABLES

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

#: What a reader looks for first; the others follow in the order in which they are declared.
_FIRST_COLUMNS = (
    "frame_id",
    "run",
    "event",
    "source",
    "frame_status",
    "frame_is_hit",
    "frame_score",
    "frame_rank",
    "frame_peak_count",
    "frame_anisotropy",
    "frame_is_indexed",
)

#: Groups beside the screen and the scores that know something of every frame.
_LATER = ("haloes", "orientations")

#: Orientations take nine columns: a*, b*, c* in the laboratory.
_AXES = [f"{axis}_star_{direction}" for axis in "abc" for direction in "xyz"]

#: Types that know a missing value, by what is stored: a gap makes neither floats of integers nor objects of booleans.
_WITH_GAPS = {"b": "boolean", "i": "Int64", "f": "Float64", "O": "string"}

#: Frames that are written together.
_ROWS_AT_ONCE = 1 << 18

_SUFFIXES = (".parquet", ".csv")

#: Attributes of a group that say what made it.
_PROVENANCE = (
    *("threshold", "method", "parameters", "version", "cross_fitted", "trained_on", "features", "weights"),
    *("expected_wrong_share", "picks_without_promise"),
)

NOT_SCREENED = "not screened"


def catalogue(results: str | Path, *, to: str | Path) -> str | Path:
    """Write the catalogue of a results store.

    Parameters
    ----------
    results
        The results store, screened and perhaps ranked.
    to
        File or URL to write: ``.parquet`` or ``.csv``.

    Returns
    -------
    pathlib.Path or str
        The file written: a path, or a URL.

    Raises
    ------
    BadParameter
        If the suffix is neither.
    """
    _check_suffix(to)
    return write_catalogue(_each_table(results), to)


def catalogue_table(
    results: str | Path, *, columns: Collection[str] | None = None, frames: Sequence[int] | np.ndarray | None = None
) -> pd.DataFrame:
    """Give the catalogue as a table.

    Parameters
    ----------
    results
        The results store.
    columns
        Variables that are wanted, those that are there; None for all. Of millions of frames, all take gigabytes.
    frames
        Numbers of the frames that are wanted; None for all.

    Returns
    -------
    pandas.DataFrame
        A row per ingested frame in ingest order, the index named ``frame``. Its
        ``attrs`` hold the versions and parameters that made the columns.
    """
    store = frames_path(results)
    known = [name for name in FRAME_COLUMNS if columns is None or name in columns]
    count = int(frames_attributes(store)["frame_count"])
    groups = _open_groups(results)
    if frames is None:
        ds = read_frame_columns(store, 0, count, columns=known)
        table = table_of_frames(ds, *groups, columns=columns)
    else:
        rows = np.asarray(frames, dtype=np.int64)
        ds = take_columns(store, rows, columns=known)
        table = table_of_frames(ds, *groups, rows=rows, count=count, columns=columns)
    table.attrs |= _describe_groups(results)
    return table


def _each_table(results: str | Path) -> Iterator[pd.DataFrame]:
    """Give the catalogue some frames at a time: of millions, the whole takes gigabytes; one table at least."""
    store, groups, told = frames_path(results), _open_groups(results), _describe_groups(results)
    count = int(frames_attributes(store)["frame_count"])
    for start in range(0, max(count, 1), _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, count)
        ds = read_frame_columns(store, start, stop)
        table = table_of_frames(ds, *groups, rows=slice(start, stop), count=count)
        table.attrs |= told
        yield table


def _open_groups(results: str | Path) -> list[xr.Dataset | None]:
    later = [open_group(results, name) for name in _LATER]
    return [open_screen(results), *later, open_scores(results)]


def _describe_groups(results: str | Path) -> dict[str, Any]:
    """Say what made each group; None where it is not there."""
    groups = {name: open_group(results, name) for name in ("layout", "screen", "hits", "features", *_LATER, "scores")}
    return {name: None if group is None else _provenance(group) for name, group in groups.items()}


def table_of_frames(
    frames: xr.Dataset,
    *results: xr.Dataset | None,
    rows: slice | np.ndarray | None = None,
    count: int | None = None,
    columns: Collection[str] | None = None,
) -> pd.DataFrame:
    """Join all variables with dims ``("frame",)`` into a table.

    Parameters
    ----------
    frames
        The frames store, or some frames of it.
    *results
        Groups of the results store, or None. One that covers fewer frames (new
        frames were ingested since) leaves gaps in its columns, and the status
        of those frames says so.
    rows, count
        Numbers of these frames, as a slice or an array, and how many there are in all; None where these are all.
    columns
        Variables that are wanted; None for all.

    Returns
    -------
    pandas.DataFrame
        The index ``frame`` has the frames' numbers. ``frame_is_indexed`` is true where
        the frame has an orientation; ``a_star_x`` to ``c_star_z`` are its reciprocal axes in the laboratory,
        1/angstrom, and ``found_a_star_x`` to ``found_c_star_z`` those that ``orient`` found. A reason for failure
        from ingest stands; later groups only add to it.
    """
    import pandas as pd

    count = frames.sizes["frame"] if count is None else count
    rows = slice(0, count) if rows is None else rows
    numbers = pd.RangeIndex(rows.start, rows.stop) if isinstance(rows, slice) else pd.Index(rows)
    known = _frame_columns(frames, columns)
    if "orientation" in frames:
        known["frame_is_indexed"] = np.isfinite(frames["orientation"].values).all(axis=(1, 2))
    table = pd.DataFrame(known, index=numbers.rename("frame"))
    for group in results:
        if group is not None:
            there = group.sizes["frame"]
            part = (
                slice(min(rows.start, there), min(rows.stop, there)) if isinstance(rows, slice) else rows[rows < there]
            )
            found = pd.DataFrame(_frame_columns(group.isel(frame=part), columns), index=numbers[numbers < there])
            _join(table, found, has_gaps=there < count)
    # A Zarr group gives its arrays in any order: the declarations have one.
    last = [prefix + axis for prefix in ("", "found_") for axis in _AXES]
    return table[[name for name in dict.fromkeys((*_FIRST_COLUMNS, *VARIABLES, *last)) if name in table]]


def write_catalogue(tables: Iterable[pd.DataFrame], to: str | Path) -> str | Path:
    """Write tables, one below the other, as Parquet or CSV, whole or not at all.

    Parameters
    ----------
    tables
        As :func:`table_of_frames` makes them, one at least; the first says what columns there are, and its ``attrs``
        go into the Parquet file's metadata (``pandas.read_parquet(to).attrs`` gives them back).
    to
        ``.parquet`` or ``.csv``; folders are made as needed.

    Raises
    ------
    BadParameter
        If the suffix is neither.
    """
    _check_suffix(to)
    with whole_file(to) as partial:
        if suffix_of(to) == ".parquet":
            _write_parquet(iter(tables), partial)
        else:
            for number, table in enumerate(tables):
                table.to_csv(partial, mode="a" if number else "w", header=not number)
    return as_store(to)


def _write_parquet(tables: Iterator[pd.DataFrame], to: Path) -> None:
    """Write a group of rows for each table, and what pandas keeps in a file: its types, and ``attrs``."""
    import pyarrow as pa
    from pyarrow import parquet

    first = next(tables)
    schema = pa.Schema.from_pandas(first, preserve_index=True)
    schema = schema.with_metadata({**schema.metadata, b"PANDAS_ATTRS": json.dumps(first.attrs).encode()})
    with parquet.ParquetWriter(to, schema) as file:
        for table in itertools.chain([first], tables):
            file.write_table(pa.Table.from_pandas(table, schema=schema, preserve_index=True))


def _frame_columns(dataset: xr.Dataset, wanted: Collection[str] | None) -> dict[str, Any]:
    columns = {
        str(name): v.values
        for name, v in dataset.variables.items()
        if v.dims == ("frame",) and name != "frame" and (wanted is None or name in wanted)
    }
    for name, prefix in (("orientation", ""), ("found_orientation", "found_")):
        if name in dataset and (wanted is None or name in wanted):
            flat = dataset[name].values.reshape(-1, len(_AXES))
            columns |= {prefix + axis: flat[:, number] for number, axis in enumerate(_AXES)}
    return columns


def _join(table: pd.DataFrame, group: pd.DataFrame, *, has_gaps: bool) -> None:
    """Put a group's columns into the table, in place."""
    if has_gaps:  # somewhere, if not here: the types are the same for all frames
        group = group.astype({name: _WITH_GAPS[column.dtype.kind] for name, column in group.items()})
        group = group.reindex(table.index)
    status = group.pop("frame_status").fillna(NOT_SCREENED) if "frame_status" in group else None
    if status is not None and "frame_status" in table:
        table["frame_status"] = table["frame_status"].where(table["frame_status"] != STATUS_OK, status)
    elif status is not None:
        table["frame_status"] = status
    for name in group:
        table[name] = group[name]


def _provenance(dataset: xr.Dataset) -> dict[str, Any]:
    return {str(name): value for name, value in dataset.attrs.items() if name in _PROVENANCE}


def _check_suffix(to: str | Path) -> None:
    if suffix_of(to) not in _SUFFIXES:
        raise BadParameter(f"cannot write a catalogue to '{to}': give a name that ends in {' or '.join(_SUFFIXES)}")
