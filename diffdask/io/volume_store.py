"""A merged map of reciprocal space: a Zarr store to go on with, and an MRC/CCP4 file for other programs.

The cube's centre voxel, number ``size // 2`` along each axis, is the origin of
reciprocal space; voxels are ``step`` 1/angstrom apart (q with 2 pi) along the
Cartesian axes of the crystal's frame (:mod:`diffdask.symmetry`).

While a map is made, its blocks lie in a hidden folder beside it, each a file
that is put in place once it is whole. In a bucket all of this is the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from diffdask.errors import BadStore
from diffdask.io.paths import join, name_of, parent
from diffdask.io.storage import storage_at
from diffdask.io.whole_file import whole_file
from diffdask.io.whole_store import is_whole, open_whole, replace_whole
from diffdask.planning import Block
from diffdask.variables import VARIABLES
from diffdask.version import __version__

KIND = "diffdask map"

_CUBE = ("map_intensity", "map_weight")

#: Voxels along the side of a chunk: 4 MB, and a slice touches few.
_CHUNK = 100

#: Words of a CCP4 header: where the cube begins along each axis, and the text of its first label.
_STARTS, _LABEL = (5, 6, 7), 57

#: Says what blocks were made with.
_STAMP = "stamp.json"

_BLOCK_NAME = re.compile(r"^(\d+)-(\d+)\.npz$")


def save_volume(path: str | Path, volume: xr.Dataset, attributes: dict[str, Any]) -> None:
    """Write a map; one that is there already is replaced once the new one is whole.

    Parameters
    ----------
    path
        The Zarr store.
    volume
        ``map_intensity`` and ``map_weight`` (map_x, map_y, map_z), cubes; other variables, such as
        ``half_map_correlation``, as they are declared.
    attributes
        JSON-able; "step", "laue" and "parameters" among them.

    Raises
    ------
    BadStore
        If something else lies at ``path``.
    """
    with replace_whole(path, KIND, absent=_absent(path)) as group:
        for name, variable in volume.variables.items():
            _write_array(group, str(name), variable)
        group.attrs.update(json.loads(json.dumps(attributes)))


def open_volume(path: str | Path) -> xr.Dataset:
    """Open a map that ``merge`` made; arrays are read when they are asked for.

    Raises
    ------
    BadStore
        If there is none at ``path``, or it is damaged.
    """
    open_whole(path, KIND, absent=_absent(path))
    volume = xr.open_zarr(storage_at(path).zarr_store(), consolidated=False, chunks=None)
    missing = [name for name in _CUBE if name not in volume]
    if missing or len(set(volume[_CUBE[0]].shape)) != 1 or "step" not in volume.attrs:
        raise BadStore(f"the map at '{path}' is damaged (it lacks {', '.join(missing) or 'a cube'}); merge it again")
    return volume


def write_ccp4(path: str | Path, intensity: np.ndarray, *, step: float) -> None:
    """Write a cube of reciprocal space as MRC/CCP4, for crystallographic and electron microscopy programs.

    Parameters
    ----------
    path
        The file, or a URL; replaced once the new one is whole.
    intensity
        (size, size, size) along x, y, z of the crystal's frame; NaN is written as 0.
    step
        Edge of a voxel, 1/angstrom.

    Notes
    -----
    Such files know ångström only, so an inverse ångström is written as one: mode 2 (float32), space group P1, a cubic
    cell of ``size * step``, the first voxel at ``-(size // 2)`` along each axis. A program that honours the start
    shows the origin of reciprocal space at (0, 0, 0), and coordinates are q.
    """
    import gemmi

    size = intensity.shape[0]
    made = gemmi.Ccp4Map()
    made.grid = gemmi.FloatGrid(np.nan_to_num(np.asarray(intensity, dtype=np.float32), nan=0.0))
    made.grid.unit_cell.set(*(size * step,) * 3, 90.0, 90.0, 90.0)
    made.grid.spacegroup = gemmi.SpaceGroup("P 1")
    made.update_ccp4_header(2, True)
    for word in _STARTS:
        made.set_header_i32(word, -(size // 2))
    made.set_header_str(_LABEL, f"{f'diffdask {__version__}: q in 1/A, crystal frame (a* on x), origin at 0':<80.80}")
    with whole_file(path) as partial:
        made.write_ccp4_map(str(partial))


def read_ccp4(path: str | Path) -> tuple[np.ndarray, float]:
    """Read a cube that :func:`write_ccp4` wrote.

    Returns
    -------
    tuple
        Intensity (size, size, size) float32, and the edge of a voxel, 1/angstrom.

    Raises
    ------
    BadStore
        If it is no such file, or no cube about the origin.
    """
    import gemmi

    try:
        found = gemmi.read_ccp4_map(str(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise BadStore(f"'{path}' cannot be read as a CCP4 map: {error}") from error
    values = np.array(found.grid, dtype=np.float32)
    size, starts = values.shape[0], [found.header_i32(word) for word in _STARTS]
    if len(set(values.shape)) != 1 or starts != [-(size // 2)] * 3:
        raise BadStore(f"'{path}' is no cube about the origin: shape {values.shape}, starts {starts}")
    return values, float(found.grid.unit_cell.a / size)


def stamp_of_volume(path: str | Path) -> dict[str, Any] | None:
    """What a map was made with, or None where there is nothing.

    Raises
    ------
    BadStore
        If something else lies at ``path``.
    """
    if not is_whole(path, KIND, absent=_absent(path)):
        return None
    attributes = open_whole(path, KIND, absent=_absent(path)).attrs
    return {"parameters": attributes.get("parameters"), "version": attributes.get("version")}


# blocks ----------------------------------------------------------------------------------------------------


def start_blocks(path: str | Path, parameters: dict[str, Any]) -> str | Path:
    """Make the folder of a map's blocks, empty unless it holds some that were made with the same parameters."""
    folder = _blocks_folder(path)
    stamp = json.dumps({"parameters": parameters, "version": __version__}, sort_keys=True)
    storage = storage_at(folder)
    if not (storage.exists(_STAMP) and storage.read_text(_STAMP) == stamp):
        remove_blocks(path)
        storage.write_text(_STAMP, stamp)
    return folder


def write_block(folder: str | Path, block: Block, halves: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
    """Keep what a block of hits adds to the two half maps.

    Parameters
    ----------
    folder
        From :func:`start_blocks`.
    block
        Of hits.
    halves
        Of one half and the other, taken one at a time: sums and weights, flat; voxels of weight 0 are left out.
    """
    kept: dict[str, np.ndarray] = {}
    for half, (sums, weights) in enumerate(halves):
        voxels = np.flatnonzero(weights)
        kept |= {
            f"voxels_{half}": voxels.astype(np.int32),
            f"sums_{half}": sums[voxels],
            f"weights_{half}": weights[voxels],
        }
    with whole_file(join(folder, _block_name(block))) as partial, partial.open("wb") as file:
        np.savez(file, **kept)  # type: ignore[arg-type]


def written_blocks(folder: str | Path) -> set[Block]:
    """Blocks that are there."""
    found = (_BLOCK_NAME.match(entry.name) for entry in storage_at(folder).list_files(""))
    return {(int(match[1]), int(match[2])) for match in found if match}


def add_blocks(folder: str | Path, blocks: list[Block], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum blocks in the order given, whoever wrote them and when: sums and weights, (2, size**3) float64."""
    sums, weights = np.zeros((2, size**3)), np.zeros((2, size**3))
    for block in blocks:
        with storage_at(folder).open_file(_block_name(block)) as file, np.load(file) as kept:
            for half in range(2):
                voxels = kept[f"voxels_{half}"]
                sums[half, voxels] += kept[f"sums_{half}"]
                weights[half, voxels] += kept[f"weights_{half}"]
    return sums, weights


def remove_blocks(path: str | Path) -> None:
    """Forget the blocks of a map."""
    folder = _blocks_folder(path)
    storage_at(parent(folder)).remove(name_of(folder))


def _blocks_folder(path: str | Path) -> str | Path:
    return join(parent(path), f".{name_of(path)}.blocks")


def _block_name(block: Block) -> str:
    return f"{block[0]}-{block[1]}.npz"


def _write_array(group: zarr.Group, name: str, variable: xr.Variable) -> None:
    values = np.asarray(variable.values)
    if name in _CUBE:
        values = values.astype(np.float32)
    group.create_array(
        name,
        data=values,
        chunks=tuple(min(max(length, 1), _CHUNK) for length in values.shape),
        dimension_names=VARIABLES[name].dims,
        attributes={"units": VARIABLES[name].units, "meaning": VARIABLES[name].meaning},
    )


def _absent(path: str | Path) -> str:
    return f"no map at '{path}'; make one with: diffdask merge RESULTS --to {path}"
