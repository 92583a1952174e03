"""The catalogue: a row per ingested frame, all that is known of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdask.errors import BadParameter
from diffdask.io.frames_store import open_frames
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
    return write_catalogue(catalogue_table(results), to)


def catalogue_table(results: str | Path) -> pd.DataFrame:
    """Give the catalogue as a table.

    Parameters
    ----------
    results
        The results store.

    Returns
    -------
    pandas.DataFrame
        A row per ingested frame in ingest order, the index named ``frame``. Its
        ``attrs`` hold the versions and parameters that made the columns.
    """
    later = [open_group(results, name) for name in _LATER]
    table = table_of_frames(open_frames(frames_path(results)), open_screen(results), *later, open_scores(results))
    groups = {name: open_group(results, name) for name in ("layout", "screen", "hits", "features", *_LATER, "scores")}
    table.attrs = {name: None if group is None else _provenance(group) for name, group in groups.items()}
    return table


def table_of_frames(frames: xr.Dataset, *results: xr.Dataset | None) -> pd.DataFrame:
    """Join all variables with dims ``("frame",)`` into a table.

    Parameters
    ----------
    frames
        The frames store: it says how many rows there are.
    *results
        Groups of the results store, or None. One that covers fewer frames (new
        frames were ingested since) leaves gaps in its columns, and the status
        of those frames says so.

    Returns
    -------
    pandas.DataFrame
        The index ``frame`` counts from 0. ``frame_is_indexed`` is true where
        the frame has an orientation; ``a_star_x`` to ``c_star_z`` are its reciprocal axes in the laboratory,
        1/angstrom, and ``found_a_star_x`` to ``found_c_star_z`` those that ``orient`` found. A reason for failure
        from ingest stands; later groups only add to it.
    """
    import pandas as pd

    count = frames.sizes["frame"]
    index = pd.RangeIndex(count, name="frame")
    columns = _frame_columns(frames)
    if "orientation" in frames:
        columns["frame_is_indexed"] = np.isfinite(frames["orientation"].values).all(axis=(1, 2))
    table = pd.DataFrame(columns, index=index)
    for group in results:
        if group is not None:
            _join(table, pd.DataFrame(_frame_columns(group)))
    # A Zarr group gives its arrays in any order: the declarations have one.
    last = [prefix + axis for prefix in ("", "found_") for axis in _AXES]
    return table[[name for name in dict.fromkeys((*_FIRST_COLUMNS, *VARIABLES, *last)) if name in table]]


def write_catalogue(table: pd.DataFrame, to: str | Path) -> str | Path:
    """Write a table as Parquet or CSV, whole or not at all.

    Parameters
    ----------
    table
        From :func:`catalogue_table`; its ``attrs`` go into the Parquet file's
        metadata (``pandas.read_parquet(to).attrs`` gives them back).
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
            table.to_parquet(partial, engine="pyarrow", index=True)
        else:
            table.to_csv(partial)
    return as_store(to)


def _frame_columns(dataset: xr.Dataset) -> dict[str, Any]:
    columns = {str(name): v.values for name, v in dataset.variables.items() if v.dims == ("frame",) and name != "frame"}
    for name, prefix in (("orientation", ""), ("found_orientation", "found_")):
        if name in dataset:
            flat = dataset[name].values.reshape(-1, len(_AXES))
            columns |= {prefix + axis: flat[:, number] for number, axis in enumerate(_AXES)}
    return columns


def _join(table: pd.DataFrame, group: pd.DataFrame) -> None:
    """Put a group's columns into the table, in place."""
    is_short = len(group) < len(table)
    if is_short:
        # Types that know a missing value: a gap turns neither integers into floats nor booleans into objects.
        group = group.convert_dtypes().reindex(table.index)
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
