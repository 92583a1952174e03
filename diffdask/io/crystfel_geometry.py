"""CrystFEL's ``.geom``: where panels are, and where their pixels lie in a file.

The text is read by ``cfelpyutils``; here its dictionaries become metres,
slices and HDF5 paths.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffdask.errors import BadGeometry
from diffdask.geometry import Geometry, check_geometry, wide_columns
from diffdask.io.crystfel_geometry_text import GeometryText, read_geometry_text, values_of
from diffdask.io.masks import Flag, Mask


@dataclass(frozen=True)
class GeometryFile:
    """What a ``.geom`` says beyond the geometry: how files hold the frames."""

    geometry: Geometry
    data_path: tuple[str, ...]  #: HDF5 path of each panel's data; may hold one '%'
    dims: tuple[tuple[str | int, ...], ...]  #: per panel: '%', 'ss', 'fs' or a fixed index, in the file's order
    first_ss: np.ndarray  #: (panel,) index of the first pixel in the file
    first_fs: np.ndarray  #: (panel,)
    panel_shapes: np.ndarray  #: (panel, 2) true (ss, fs) size; smaller panels are padded
    masks: tuple[Mask, ...]
    flags: tuple[Flag, ...]
    pixel_is_good: np.ndarray  #: (panel, ss, fs) bool after bad regions, panels not to be used, and padding
    pixel_is_wide: np.ndarray  #: (panel, ss, fs) bool, CSPAD's wide columns
    clen: float | None  #: camera length without offset, m, where a literal
    clen_path: str | None  #: HDF5 path of the camera length
    clen_scale: float  #: metres per unit found at clen_path
    coffset: float  #: m, added to the camera length
    photon_energy: float | None  #: eV, where a literal
    photon_energy_path: str | None  #: HDF5 path
    photon_energy_scale: float  #: eV (angstrom for a wavelength) per unit found at photon_energy_path
    is_wavelength: bool  #: photon_energy_path leads to a wavelength
    text: str  #: the file itself


def read_geometry(path: str | Path) -> GeometryFile:
    """Read a CrystFEL geometry file.

    Parameters
    ----------
    path
        The ``.geom``. The first panel's camera length offset is the reference:
        other panels' offsets become z of their corners.

    Raises
    ------
    BadGeometry
        If the file is absent, is no geometry, or describes something that
        diffdask cannot hold (several camera lengths from different paths).
    """
    path = Path(path)
    if not path.is_file():
        raise BadGeometry(f"no geometry file at '{path}'")
    try:
        return parse_geometry(path.read_text(errors="replace"))
    except BadGeometry as error:
        raise BadGeometry(f"'{path}': {error}") from error


def parse_geometry(text: str) -> GeometryFile:
    """Read a CrystFEL geometry from its text; see :func:`read_geometry`."""
    read = read_geometry_text(text)
    try:
        loaded = _reader()(io.StringIO("\n".join(read.lines)))
    except (RuntimeError, ValueError, KeyError, AttributeError, IndexError, TypeError, OSError) as error:
        raise BadGeometry(f"no CrystFEL geometry that can be read: {error}") from error
    panels = loaded.detector["panels"]
    first = next(iter(panels.values()))
    if len({(p["clen_from"], repr(p["clen"])) for p in panels.values()}) > 1:
        raise BadGeometry("panels have different 'clen'; put the differences into 'coffset'")
    geometry, shapes = _place_panels(panels, first, read)
    check_geometry(geometry)
    first_fs = np.array([p["orig_min_fs"] for p in panels.values()])
    first_ss = np.array([p["orig_min_ss"] for p in panels.values()])
    clen, clen_path = _camera_length(first)
    energy, energy_path = _photon_energy(loaded.beam)
    good = _inside_panels(geometry, shapes, read)
    good &= ~_bad_regions(loaded.detector["bad"], geometry, panels, first_ss, first_fs, read)
    return GeometryFile(
        geometry=geometry,
        data_path=tuple(p["data"] or "/entry_1/data_1/data" for p in panels.values()),
        dims=tuple(tuple(_dim(entry) for entry in p["dim_structure"]) for p in panels.values()),
        first_ss=first_ss,
        first_fs=first_fs,
        panel_shapes=shapes,
        masks=_masks(loaded.detector),
        flags=_flags(read, geometry.panel_name),
        pixel_is_good=good,
        pixel_is_wide=wide_columns(geometry, first_fs),
        clen=clen,
        clen_path=clen_path,
        clen_scale=read.clen_scale,
        coffset=_finite(first["coffset"]),
        photon_energy=energy,
        photon_energy_path=energy_path,
        photon_energy_scale=read.energy_scale * float(loaded.beam["photon_energy_scale"] or 1.0),
        is_wavelength=read.energy_is_wavelength,
        text=text,
    )


def take_panels(
    array: np.ndarray, file: GeometryFile, *, panels: Sequence[int] | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    """Cut one frame, as the file holds it, into panels.

    Parameters
    ----------
    array
        One frame: the file's array without its ``%`` axis.
    file
        The geometry file.
    panels
        Which panels this array holds; None for all.
    out
        (panel, ss, fs) to fill; padding is left as it is. None for a new one.

    Returns
    -------
    numpy.ndarray
        (panel, ss, fs), the file's dtype; panels smaller than the largest are
        padded with zeros (``pixel_is_good`` is False there).

    Raises
    ------
    BadGeometry
        If a panel lies outside the array.
    """
    if out is None:
        out = np.zeros((file.geometry.panel_count, *file.geometry.shape), dtype=array.dtype)
    for index in range(file.geometry.panel_count) if panels is None else panels:
        where, is_transposed = panel_index(file, index)
        ss, fs = map(int, file.panel_shapes[index])
        expected = (fs, ss) if is_transposed else (ss, fs)
        try:
            found = array[where]
        except IndexError:
            found = np.empty((0, 0))
        if found.shape != expected:
            raise BadGeometry(
                f"panel '{file.geometry.panel_name[index]}' needs {expected} pixels at {_told(where)}, "
                f"but a frame of the file has shape {array.shape}: this geometry does not fit these frames"
            )
        out[index, :ss, :fs] = found.T if is_transposed else found
    return out


def put_panels(panels: np.ndarray, file: GeometryFile, array: np.ndarray) -> None:
    """Write panels, (panel, ss, fs), into one frame as the file holds it: the inverse of :func:`take_panels`."""
    for index in range(file.geometry.panel_count):
        where, is_transposed = panel_index(file, index)
        ss, fs = file.panel_shapes[index]
        panel = panels[index, :ss, :fs]
        array[where] = panel.T if is_transposed else panel


def panel_index(file: GeometryFile, index: int) -> tuple[tuple[slice | int, ...], bool]:
    """Say where a panel lies in one frame of the file, and whether fast-scan comes first."""
    ss, fs = file.panel_shapes[index]
    first_ss, first_fs = int(file.first_ss[index]), int(file.first_fs[index])
    where: list[slice | int] = []
    for dim in file.dims[index]:
        if dim == "ss":
            where.append(slice(first_ss, first_ss + int(ss)))
        elif dim == "fs":
            where.append(slice(first_fs, first_fs + int(fs)))
        elif dim != "%":
            where.append(int(dim))
    dims = file.dims[index]
    return tuple(where), dims.index("fs") < dims.index("ss")


def file_frame_shape(file: GeometryFile) -> tuple[int, ...]:
    """Shape of the smallest array, without its ``%`` axis, that holds all panels."""
    shape: list[int] = []
    for index in range(file.geometry.panel_count):
        where, _ = panel_index(file, index)
        ends = [entry.stop if isinstance(entry, slice) else entry + 1 for entry in where]
        shape = [max(a, b) for a, b in zip(shape, ends, strict=True)] if shape else ends
    return tuple(shape)


def _reader() -> Callable[[io.StringIO], Any]:
    with warnings.catch_warnings():
        # cfelpyutils 2.2 takes TypedDict from where it should not; nothing to us.
        warnings.filterwarnings("ignore", "mypy_extensions.TypedDict is deprecated", DeprecationWarning)
        from cfelpyutils.geometry import load_crystfel_geometry
    return load_crystfel_geometry


def _place_panels(panels: dict[str, Any], first: dict[str, Any], read: GeometryText) -> tuple[Geometry, np.ndarray]:
    rows = list(panels.values())
    res = np.array([p["res"] for p in rows], dtype=float)[:, None]
    shapes = np.array(
        [(p["orig_max_ss"] - p["orig_min_ss"] + 1, p["orig_max_fs"] - p["orig_min_fs"] + 1) for p in rows]
    )
    corner = np.array([(p["cnx"], p["cny"], 0.0) for p in rows], dtype=float) / res
    corner[:, :2] += read.shift
    corner[:, 2] = [_finite(p["coffset"]) - _finite(first["coffset"]) for p in rows]
    geometry = Geometry(
        panel_name=tuple(panels),
        shape=(int(shapes[:, 0].max()), int(shapes[:, 1].max())),
        corner=corner,
        ss_step=np.array([(p["ssx"], p["ssy"], p["ssz"]) for p in rows], dtype=float) / res,
        fs_step=np.array([(p["fsx"], p["fsy"], p["fsz"]) for p in rows], dtype=float) / res,
        adu_per_ev=_positive([p["adu_per_eV"] for p in rows]),
        adu_per_photon=_positive([p["adu_per_photon"] for p in rows]),
    )
    return geometry, shapes


def _inside_panels(geometry: Geometry, shapes: np.ndarray, read: GeometryText) -> np.ndarray:
    """Pixels that are no padding, lie in no masked edge and in no panel that is not to be used."""
    good = np.zeros((geometry.panel_count, *geometry.shape), dtype=bool)
    for index, name in enumerate(geometry.panel_name):
        edge = int((values_of(read, name, "mask_edge_pixels") or [0])[-1])
        is_unused = bool((values_of(read, name, "no_index") or [0])[-1])
        ss, fs = shapes[index]
        good[index, edge : ss - edge, edge : fs - edge] = not is_unused
    return good


def _bad_regions(
    regions: dict[str, Any],
    geometry: Geometry,
    panels: dict[str, Any],
    first_ss: np.ndarray,
    first_fs: np.ndarray,
    read: GeometryText,
) -> np.ndarray:
    """Find pixels in bad regions: given in x/y, or in the file's fs/ss of a panel (inclusive).

    As in CrystFEL's ``draw_bad_region_xy``, a region in x/y (in pixels) takes the
    pixels whose corner lies strictly inside.
    """
    bad = np.zeros((geometry.panel_count, *geometry.shape), dtype=bool)
    ss, fs = np.arange(geometry.shape[0])[:, None], np.arange(geometry.shape[1])[None, :]
    x_y = None
    for name, region in regions.items():
        if region["is_fsss"]:
            if region["panel"] and region["panel"] not in geometry.panel_name:
                raise BadGeometry(f"bad region '{name}' names no panel of the geometry: '{region['panel']}'")
            which = [geometry.panel_name.index(region["panel"])] if region["panel"] else range(geometry.panel_count)
            for panel in which:
                in_ss = (ss + first_ss[panel] >= region["min_ss"]) & (ss + first_ss[panel] <= region["max_ss"])
                in_fs = (fs + first_fs[panel] >= region["min_fs"]) & (fs + first_fs[panel] <= region["max_fs"])
                bad[panel] |= in_ss & in_fs
        else:
            x_y = _corners_in_pixels(panels, ss, fs, read) if x_y is None else x_y
            x, y = x_y[..., 0], x_y[..., 1]
            bad |= (x > region["min_x"]) & (x < region["max_x"]) & (y > region["min_y"]) & (y < region["max_y"])
    return bad


def _corners_in_pixels(panels: dict[str, Any], ss: np.ndarray, fs: np.ndarray, read: GeometryText) -> np.ndarray:
    """Corners of pixels, (panel, ss, fs, xy) in pixels: not by way of metres, so that edges of regions are exact."""
    corners = [
        [
            fs * panel[f"fs{axis}"] + ss * panel[f"ss{axis}"] + panel[f"cn{axis}"] + shift * panel["res"]
            for axis, shift in zip("xy", read.shift, strict=True)
        ]
        for panel in panels.values()
    ]
    return np.moveaxis(np.array(corners), 1, -1)


def _camera_length(panel: dict[str, Any]) -> tuple[float | None, str | None]:
    if panel["clen_from"]:
        return None, str(panel["clen_from"])
    clen = float(panel["clen"])
    if not math.isfinite(clen):
        raise BadGeometry("it gives no camera length: add 'clen = ...', metres or an HDF5 path")
    return clen, None


def _photon_energy(beam: dict[str, Any]) -> tuple[float | None, str | None]:
    if beam["photon_energy_from"]:
        return None, str(beam["photon_energy_from"])
    energy = float(beam["photon_energy"]) * float(beam["photon_energy_scale"] or 1.0)
    return (energy if energy > 0 else None), None


def _masks(detector: Any) -> tuple[Mask, ...]:
    """Collect the masks of all panels; 'mask' with 'mask_good' and 'mask_bad' is the old name of mask 0."""
    found: dict[tuple[str, str | None, int, int], list[int]] = {}
    for index, panel in enumerate(detector["panels"].values()):
        candidates = [(panel["mask"], panel["mask_file"], detector["mask_good"], detector["mask_bad"])]
        for number in range(8):
            good, bad = panel[f"mask{number}_goodbits"], panel[f"mask{number}_badbits"]
            if number == 0:
                good, bad = good or detector["mask_good"], bad or detector["mask_bad"]
            candidates.append((panel[f"mask{number}_data"], panel[f"mask{number}_file"], good, bad))
        for path, file, good, bad in candidates:
            if path:
                found.setdefault((str(path), str(file) or None, int(good), int(bad)), []).append(index)
    return tuple(Mask(*key, panels=tuple(which)) for key, which in found.items())


def _flags(read: GeometryText, names: tuple[str, ...]) -> tuple[Flag, ...]:
    flags = []
    for panel, key, value in read.panel_values:
        if key.startswith("flag_"):
            which = tuple(index for index, name in enumerate(names) if panel in ("", name))
            flags.append(Flag(key, value, which))
    return tuple(flags)


def _dim(entry: Any) -> str | int:
    text = str(entry)
    return int(text) if text.lstrip("-").isdigit() else text


def _finite(value: Any) -> float:
    return float(value) if value is not None and math.isfinite(float(value)) else 0.0


def _positive(values: list[Any]) -> np.ndarray:
    numbers = np.array([float(v) if v is not None else np.nan for v in values])
    numbers[~(numbers > 0)] = np.nan
    return numbers


def _told(where: tuple[slice | int, ...]) -> str:
    return "[" + ", ".join(f"{w.start}:{w.stop}" if isinstance(w, slice) else str(w) for w in where) + "]"
