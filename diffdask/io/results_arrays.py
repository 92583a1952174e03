"""Arrays of the results store: how a declared variable is stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
import zarr

from diffdask.planning import align
from diffdask.variables import VARIABLES

#: Dims that are cut into blocks; arrays are whole along the others.
_CHUNKED = ("frame", "hit", "other_hit")

#: Variables of several dims that are kept in double precision.
_EXACT = ("crystal_rotation", "crystal_cell", "found_rotation", "found_orientation", "fold_weight")

#: Variables of all frames that no block writes, but the driver at the end; and rows a chunk of them.
_BY_DRIVER, _DRIVER_ROWS = ("frame_is_hit",), 65536

#: Variables of whole numbers from 0 to 255.
_BYTES = ("hit_image",)

_FILL = {"float": np.nan, "integer": 0, "boolean": False, "text": ""}


def create_array(group: zarr.Group, name: str, sizes: dict[str, int], block: int) -> zarr.Array:
    """Make an array for a declared variable; with a ``block``, cut into chunks of so many frames or hits."""
    declared = VARIABLES[name]
    shape = tuple(sizes[dim] for dim in declared.dims)
    rows = align(_DRIVER_ROWS, block) if block and name in _BY_DRIVER else block
    # a chunk is a block even where there are fewer rows: groups grow, and no two blocks may share a chunk
    chunks = tuple(
        rows if block and dim in _CHUNKED else max(size, 1) for dim, size in zip(declared.dims, shape, strict=True)
    )
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=_stored_dtype(name),
        fill_value=_FILL[declared.kind],
        dimension_names=declared.dims,
        attributes={"units": declared.units, "meaning": declared.meaning},
    )


def write_arrays(group: zarr.Group, dataset: xr.Dataset, block: int = 0) -> None:
    """Make arrays for all variables of a Dataset, and fill them."""
    sizes = {str(name): size for name, size in dataset.sizes.items()}
    for name, variable in dataset.variables.items():  # not only data_vars: an azimuth is a coordinate
        create_array(group, str(name), sizes, block)[...] = as_stored(variable.values)


def as_stored(values: np.ndarray) -> np.ndarray:
    """Give values as Zarr takes them: text as objects."""
    return values.astype(object) if values.dtype.kind in "UO" else values


def _stored_dtype(name: str) -> Any:
    kind = VARIABLES[name].kind
    if kind == "float":
        return np.float64 if len(VARIABLES[name].dims) < 2 or name in _EXACT else np.float32
    if name in _BYTES:
        return np.uint8
    if kind == "integer":
        return np.int32 if {"setting", "other_hit"} & set(VARIABLES[name].dims) else np.int64
    return {"boolean": np.bool_, "text": str}[kind]
