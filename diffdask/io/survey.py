"""What a file of frames holds, found without reading its frames.

Events, runs, photon energies, camera lengths and masks: all that goes into the
frames store beside the pixels, taken from where the ``.geom`` says.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from diffdask.errors import BadFrames, BadGeometry
from diffdask.geometry import EV_ANGSTROM
from diffdask.io.crystfel_geometry import GeometryFile, take_panels
from diffdask.io.cxi import (
    as_slab,
    check_fit,
    data_of,
    dataset_at,
    frame_shape,
    list_events,
    open_file,
    read_frames,
    split_event,
)
from diffdask.io.masks import Mask, is_flagged, is_good_by_mask
from diffdask.variables import STATUS_OK

#: Where files say which run a frame belongs to, in text such as "simA_run0003".
_RUN_PATHS = ("/entry_1/experiment_identifier", "/entry_1/experimental_identifier", "/entry_1/run", "/run")
_RUN_TEXT = re.compile(r"(?:^|[^a-zA-Z])r(?:un)?[_-]?(\d+)(?=$|[^0-9a-zA-Z])", re.IGNORECASE)

#: Frames looked at to learn what is always masked.
_MASK_SAMPLE = 9

#: Photon energies that an experiment can have, eV.
_PLAUSIBLE_EV = (100.0, 1e6)


@dataclass(frozen=True)
class Survey:
    """What a file holds, found without reading its frames."""

    path: str
    size: int  #: bytes
    mtime: float  #: s, time of the last change
    dtype: str  #: of the pixels
    events: np.ndarray  #: (frame,) text
    run: np.ndarray  #: (frame,) integer; 0 where nothing tells
    photon_energy: np.ndarray  #: (frame,) eV; NaN where the file's value is no energy
    camera_length: np.ndarray  #: (frame,) m; NaN where the file's value is no length
    status: np.ndarray  #: (frame,) text, "ok" or what is wrong with the values above
    good_bits: np.ndarray  #: pixel_is_good by masks and flags, as np.packbits gives it


def survey_file(path: str | Path, layout: GeometryFile, *, geometry_folder: str | Path = ".") -> Survey:
    """Find out what a file holds, and check that the geometry fits it.

    Parameters
    ----------
    path
        CXI or HDF5 file.
    layout
        The geometry.
    geometry_folder
        Where a ``mask_file`` of the geometry with a relative path is looked for.

    Raises
    ------
    BadFrames
        If the file is absent or cannot be read, or a dataset that the geometry
        names is not in it.
    BadGeometry
        If the frames are too small for the geometry, or of another rank.
    """
    try:
        return _survey(path, layout, Path(geometry_folder))
    except FileNotFoundError as error:
        raise BadFrames(f"no file at '{error.filename}'") from error
    except OSError as error:
        raise BadFrames(f"'{error.filename or path}' cannot be read ({error.strerror or error})") from error


def _survey(path: str | Path, layout: GeometryFile, geometry_folder: Path) -> Survey:
    with open_file(path) as file:
        events = list_events(file, layout)
        dtype = check_fit(file, layout, events)
        energy, energy_status = _photon_energies(file, layout, events)
        length, length_status = _camera_lengths(file, layout, events)
        good = _good_pixels(file, layout, events, geometry_folder) if events else layout.pixel_is_good
        run = _runs(file, len(events))
    stat = os.stat(path)
    status = ["; ".join(filter(None, pair)) or STATUS_OK for pair in zip(energy_status, length_status, strict=True)]
    return Survey(
        path=os.path.abspath(path),
        size=stat.st_size,
        mtime=stat.st_mtime,
        dtype=dtype,
        events=np.array(events, dtype=object),
        run=run,
        photon_energy=energy,
        camera_length=length,
        status=np.array(status, dtype=object),
        good_bits=np.packbits(good),
    )


def _photon_energies(file: h5py.File, layout: GeometryFile, events: list[str]) -> tuple[np.ndarray, list[str]]:
    if layout.photon_energy is not None:
        return np.full(len(events), layout.photon_energy), [""] * len(events)
    if layout.photon_energy_path is None:
        raise BadGeometry("the geometry gives no photon energy: add 'photon_energy = ...', eV or an HDF5 path")
    found = _values(file, layout.photon_energy_path, events, "photon_energy") * layout.photon_energy_scale
    with np.errstate(divide="ignore", invalid="ignore"):
        energy = EV_ANGSTROM / found if layout.is_wavelength else found
        is_bad = ~((energy >= _PLAUSIBLE_EV[0]) & (energy <= _PLAUSIBLE_EV[1]))
    status = [f"no photon energy: found {value:g}" if bad else "" for value, bad in zip(found, is_bad, strict=True)]
    return np.where(is_bad, np.nan, energy), status


def _camera_lengths(file: h5py.File, layout: GeometryFile, events: list[str]) -> tuple[np.ndarray, list[str]]:
    if layout.clen_path is None:
        length = np.full(len(events), (layout.clen or 0.0) + layout.coffset)
    else:
        length = _values(file, layout.clen_path, events, "clen") * layout.clen_scale + layout.coffset
    is_bad = ~(np.isfinite(length) & (length > 0))
    status = [
        f"no camera length: clen + coffset is {value:g} m" if bad else ""
        for value, bad in zip(length, is_bad, strict=True)
    ]
    return np.where(is_bad, np.nan, length), status


def _values(file: h5py.File, where: str, events: list[str], key: str) -> np.ndarray:
    """Values of a dataset for all events: one for all, or one each."""
    if "%" in where:
        names = list(dict.fromkeys(split_event(event)[0] for event in events))
        parts = [
            _values(file, where.replace("%", name, 1), [e for e in events if split_event(e)[0] == name], key)
            for name in names
        ]
        return np.concatenate(parts) if parts else np.zeros(0)
    dataset = dataset_at(file, where)
    if dataset is None:
        raise BadFrames(
            f"'{file.filename}' has no dataset '{where}', where the geometry looks for '{key}': "
            f"give '{key}' in the geometry as a number or with the right path"
        )
    try:
        found = np.asarray(dataset[()], dtype=np.float64).ravel()
    except (OSError, ValueError) as error:
        raise BadFrames(f"'{file.filename}': '{where}' cannot be read as numbers ({error})") from error
    if found.size not in (1, len(events)):
        raise BadFrames(
            f"'{file.filename}': '{where}' has {found.size} values for {len(events)} frames; expected one, or one each"
        )
    return np.full(len(events), found[0]) if found.size == 1 else found


def _runs(file: h5py.File, count: int) -> np.ndarray:
    for where in _RUN_PATHS:
        dataset = dataset_at(file, where)
        if dataset is None or dataset.size not in (1, count):
            continue
        values = np.asarray(dataset[()]).ravel()
        runs = [_run_in(value) for value in (values if values.size == count else np.repeat(values, count))]
        if runs and None not in runs:
            return np.array(runs, dtype=np.int64)
    in_name = _run_in(Path(file.filename).stem)
    return np.full(count, in_name or 0, dtype=np.int64)


def _run_in(value: Any) -> int | None:
    """Find the run number in an integer or in text such as "simA_run0003" or "cxi-r0014-c00".

    Examples
    --------
    >>> _run_in(b"simA_run0003"), _run_in("cxitut13-r0010"), _run_in("corner")
    (3, 10, None)
    """
    if isinstance(value, int | np.integer):
        return int(value)
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    match = _RUN_TEXT.search(text)
    return int(match[1]) if match else None


def _good_pixels(file: h5py.File, layout: GeometryFile, events: list[str], folder: Path) -> np.ndarray:
    """Pixels that no mask and no flag value takes out of most frames.

    A mask without frame axis counts as it is. Of a mask with one, and of values
    that flag pixels, some frames spread over the file are looked at: what most
    of them say holds for the file.
    """
    sample = [events[number] for number in np.unique(np.linspace(0, len(events) - 1, _MASK_SAMPLE).astype(int))]
    good = layout.pixel_is_good.copy()
    for mask in layout.masks:
        shape = _shape_in_file(file, layout, mask.panels[0], events[0])
        with _mask_file(file, mask.file, folder) as source:
            votes = [is_good_by_mask(vote, mask) for vote in _mask_votes(source, mask, sample, layout, shape)]
        which = list(mask.panels)
        good[which] &= np.mean([vote[which] for vote in votes], axis=0) > 0.5
    if layout.flags:
        frames = np.zeros((len(sample), layout.geometry.panel_count, *layout.geometry.shape), dtype=np.float64)
        reasons = read_frames(file.filename, layout, sample, frames)
        flagged = [is_flagged(frame, layout.flags) for number, frame in enumerate(frames) if number not in reasons]
        good &= np.mean(flagged, axis=0) <= 0.5 if flagged else True
    return good


@contextlib.contextmanager
def _mask_file(file: h5py.File, name: str | None, folder: Path) -> Iterator[h5py.File]:
    if name is None:
        yield file
        return
    candidates = [Path(name), folder / name]
    with open_file(next((path for path in candidates if path.is_file()), candidates[-1])) as opened:
        yield opened


def _mask_votes(
    file: h5py.File, mask: Mask, sample: list[str], layout: GeometryFile, shape: tuple[int, ...]
) -> Iterator[np.ndarray]:
    """Mask of each event of a sample, cut into panels; one for all where it has no frame axis."""
    dims = layout.dims[mask.panels[0]]
    axis = dims.index("%") if "%" in dims else 0
    seen = set()
    for event in sample:
        name, number = split_event(event)
        where = mask.path.replace("%", name, 1)
        dataset = dataset_at(file, where)
        if dataset is None:
            raise BadFrames(
                f"'{file.filename}' has no dataset '{where}', where the geometry looks for the mask: "
                "take 'mask' out of the geometry if there is none"
            )
        is_static = number is None or dataset.shape == shape or dataset.ndim <= len(dims) - dims.count("%")
        index: tuple[Any, ...] = () if is_static else (*[slice(None)] * axis, number)
        if (where, str(index)) in seen:
            continue
        seen.add((where, str(index)))
        try:
            array = as_slab(np.asarray(dataset[index]), layout, mask.panels[0])
            yield take_panels(array, layout, panels=mask.panels)
        except BadGeometry as error:
            raise BadGeometry(f"'{file.filename}', mask '{where}': {error}") from error
        except (OSError, ValueError) as error:
            raise BadFrames(f"'{file.filename}': the mask '{where}' cannot be read ({error})") from error


def _shape_in_file(file: h5py.File, layout: GeometryFile, panel: int, event: str) -> tuple[int, ...]:
    return frame_shape(data_of(file, layout, panel, split_event(event)[0]), layout, panel)
