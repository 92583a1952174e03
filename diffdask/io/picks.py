"""Chosen frames, back to files: CrystFEL's event list, and a CXI file that holds just them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from diffdask.errors import BadParameter
from diffdask.geometry import EV_ANGSTROM
from diffdask.io.crystfel_geometry import GeometryFile, file_frame_shape, put_panels
from diffdask.io.frames_store import read_layout, take_frames
from diffdask.io.paths import as_store
from diffdask.io.whole_file import whole_file

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

_DATA, _LINK = "/entry_1/instrument_1/detector_1/data", "/entry_1/data_1/data"

#: Frames in memory at a time.
_AT_ONCE = 8

#: Columns of the picks that go along, where there.
_TEXT_COLUMNS = ("frame_id", "source", "event")
_NUMBER_COLUMNS = {"frame_score": np.float64, "frame_rank": np.int64, "run": np.int64}


def write_event_list(picks: pd.DataFrame, to: str | Path) -> str | Path:
    """Write an event list for ``indexamajig -i``: a line ``file //event`` for each frame.

    Parameters
    ----------
    picks
        Rows of the catalogue; ``source`` and ``event`` are used, in the order given.
    to
        The list to write.
    """
    lines = [f"{source} {event}\n" for source, event in zip(picks["source"], picks["event"], strict=True)]
    with whole_file(to) as unfinished:
        unfinished.write_text("".join(lines))
    return as_store(to)


def write_cxi_subset(
    picks: pd.DataFrame, frames: str | Path, to: str | Path, *, peaks: xr.Dataset | None = None
) -> str | Path:
    """Write chosen frames into one CXI file, laid out as Cheetah does; their geometry fits it as it is.

    Parameters
    ----------
    picks
        Rows of the catalogue, in the order wanted; the index is the frame's
        number in the store.
    frames
        The frames store.
    to
        File to write.
    peaks
        Bragg peaks of the picks, dims ``hit`` (a row per pick) and ``peak``; they
        are written as Cheetah does, so that CrystFEL can index from them
        (``indexamajig --peaks=cxi``). Only where the file is a slab.

    Returns
    -------
    pathlib.Path
        The file: pixels at ``/entry_1/data_1/data`` (a soft link) and where the
        geometry looks for them, mask, photon energy, camera length, and under
        ``/entry_1/result_1`` the frames' ids, scores and ranks.

    Raises
    ------
    BadParameter
        If the geometry cannot describe several frames in one dataset.

    Notes
    -----
    The mask is the store's ``pixel_is_good``. Pixels that belong to no panel are zero.
    """
    layout = read_layout(frames)
    _check_layout(layout)
    with whole_file(to) as unfinished, h5py.File(unfinished, "w") as file:
        _write_pixels(file, picks, frames, layout)
        _write_columns(file, picks)
        if peaks is not None and _is_slab(layout):
            _write_peaks(file, peaks, layout)
    return as_store(to)


def _check_layout(layout: GeometryFile) -> None:
    if len(set(layout.data_path)) > 1 or "%" in layout.data_path[0] or "%" not in layout.dims[0]:
        raise BadParameter(
            "the geometry of these frames looks for one frame a dataset, or for panels in several datasets: "
            "a CXI file with several frames would not fit it. Give a name that ends in .lst for an event list"
        )


def _write_pixels(file: h5py.File, picks: pd.DataFrame, frames: str | Path, layout: GeometryFile) -> None:
    shape = file_frame_shape(layout)
    axis = layout.dims[0].index("%")
    first = take_frames(frames, [])
    data = file.create_dataset(
        layout.data_path[0] if layout.data_path[0] != _LINK else _DATA,
        shape=_with(shape, axis, len(picks)),
        chunks=_with(shape, axis, 1),
        dtype=first.adu.dtype,
        compression="gzip",
        compression_opts=1,
        shuffle=True,
    )
    if data.name != _LINK:
        file[_LINK] = h5py.SoftLink(data.name)
    energies, lengths = [], []
    for position, frame in _in_turn(picks, frames):
        array = np.zeros(shape, dtype=data.dtype)
        put_panels(frame.adu.values, layout, array)
        data[(*[slice(None)] * axis, position)] = array
        energies.append(float(frame.photon_energy))
        lengths.append(float(frame.camera_length))
    _write_mask(file, first.pixel_is_good.values, layout)
    _write_beam(file, np.array(energies), np.array(lengths), layout)


def _in_turn(picks: pd.DataFrame, frames: str | Path) -> Iterator[tuple[int, xr.Dataset]]:
    for start in range(0, len(picks), _AT_ONCE):
        part = take_frames(frames, picks.index[start : start + _AT_ONCE].tolist())
        for number in range(part.sizes["frame"]):
            yield start + number, part.isel(frame=number)


def _write_mask(file: h5py.File, pixel_is_good: np.ndarray, layout: GeometryFile) -> None:
    """Write a mask as the geometry reads it; where it names none, 1 is bad at Cheetah's place."""
    shape = file_frame_shape(layout)
    own = [mask for mask in layout.masks if mask.file is None and "%" not in mask.path]
    path = own[0].path if own else "/entry_1/data_1/mask"
    good, bad = (own[0].good_bits, own[0].bad_bits & ~own[0].good_bits) if own else (0, 1)
    is_good = np.zeros(shape, dtype=bool)
    put_panels(pixel_is_good, layout, is_good)
    file.create_dataset(path, data=np.where(is_good, good, bad).astype(np.uint32), compression="gzip", shuffle=True)


def _write_beam(file: h5py.File, energy: np.ndarray, length: np.ndarray, layout: GeometryFile) -> None:
    """Write photon energies and camera lengths in the units and at the places where the geometry reads them."""
    recorded = EV_ANGSTROM / energy if layout.is_wavelength else energy
    file[layout.photon_energy_path or "/LCLS/photon_energy_eV"] = recorded / layout.photon_energy_scale
    scale = layout.clen_scale if layout.clen_path else 1e-3
    file[layout.clen_path or "/LCLS/detector_1/EncoderValue"] = (length - layout.coffset) / scale


def _write_columns(file: h5py.File, picks: pd.DataFrame) -> None:
    for name in _TEXT_COLUMNS:
        if name in picks:
            file.create_dataset(f"/entry_1/result_1/{name}", data=picks[name].astype(str).tolist())
    for name, dtype in _NUMBER_COLUMNS.items():
        if name in picks:
            file[f"/entry_1/result_1/{name}"] = picks[name].to_numpy(dtype=dtype)
    if "run" in picks and "/entry_1/experiment_identifier" not in file:
        file["/entry_1/experiment_identifier"] = [f"r{run:04d}" for run in picks["run"]]


def _is_slab(layout: GeometryFile) -> bool:
    """Whether all panels lie in one plane of the file, so that two indices tell a pixel."""
    return all(sorted(map(str, dims)) == ["%", "fs", "ss"] for dims in layout.dims)


def _write_peaks(file: h5py.File, peaks: xr.Dataset, layout: GeometryFile) -> None:
    """Write peaks where CrystFEL looks: X along fast-scan and Y along slow-scan of the slab, as pixel indices."""
    count = peaks["hit_peak_count"].values
    listed = min(int(count.max(initial=0)), peaks.sizes["peak"])
    panel = peaks["peak_panel"].values[:, :listed]
    is_peak = panel >= 0
    numbers = {
        "peakXPosRaw": peaks["peak_fs"].values[:, :listed] - 0.5 + layout.first_fs[panel],
        "peakYPosRaw": peaks["peak_ss"].values[:, :listed] - 0.5 + layout.first_ss[panel],
        "peakTotalIntensity": peaks["peak_intensity"].values[:, :listed],
        "peakSNR": peaks["peak_snr"].values[:, :listed],
    }
    file["/entry_1/result_1/nPeaks"] = np.minimum(count, listed).astype(np.int32)
    for name, values in numbers.items():
        file[f"/entry_1/result_1/{name}"] = np.where(is_peak, values, 0.0).astype(np.float32)


def _with(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis:])
