"""A campaign's folder: a CXI file a run, the geometry, the stream, the labels, the experiment."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from diffdask.errors import BadFrames
from diffdask.geometry import wavelength
from diffdask.io.crystfel_geometry import GeometryFile, file_frame_shape, put_panels
from diffdask.simulate.campaign import Campaign, FramePlan, plan_run
from diffdask.simulate.detector import PixelMaps, layout_of, map_pixels
from diffdask.simulate.frame import SimulatedFrame, simulate_frame
from diffdask.simulate.stream_text import peak_order, stream_chunk, stream_header

#: Peaks that a frame can list in its file.
PEAKS_KEPT = 2048

_DATA = "/entry_1/instrument_1/detector_1/data"
_ENERGY = "/LCLS/photon_energy_eV"
_ENCODER = "/LCLS/detector_1/EncoderValue"

#: Pulses a second, and the clock's step between two of them.
_PULSE_RATE, _FIDUCIALS_PER_PULSE = 120, 3


def run_file(run: int) -> str:
    """Name of a run's file: files sorted by name are in the order of their runs."""
    return f"r{run:04d}.cxi"


def write_run(campaign: Campaign, run: int, folder: str | Path, *, on_frame: Callable[[], Any] | None = None) -> Path:
    """Simulate and write one run; runs may be written in any order, by any process.

    Parameters
    ----------
    campaign
        From :func:`~diffdask.simulate.plan_campaign`.
    run
        From 1.
    folder
        Where to; made if absent. Besides the CXI file, the run's parts of the stream and of the labels are left
        there for :func:`write_tables`. The file appears under its name only when it is whole.
    on_frame
        Called after every frame.

    Returns
    -------
    pathlib.Path
        The CXI file.
    """
    import h5py

    folder = Path(folder)
    (folder / _PARTS).mkdir(parents=True, exist_ok=True)
    plans = plan_run(campaign, run)
    file = layout_of(campaign.geometry_text)
    target = folder / run_file(run)
    temporary = target.with_suffix(f".{os.getpid()}.partial")
    chunks, rows = [], []
    with h5py.File(temporary, "w") as cxi:
        for plan in plans:
            frame = simulate_frame(campaign, plan)
            if plan.index == 0:
                _lay_out_cxi(cxi, campaign, file, frame, len(plans))
            _write_frame(cxi, file, frame)
            chunks.append(stream_chunk(campaign.experiment, file, frame, file_name=target.name))
            rows.append(_label_row(frame))
            if on_frame is not None:
                on_frame()
    _stream_part(folder, run).write_text("".join(chunks))
    _labels_part(folder, run).write_text(json.dumps(rows))
    os.replace(temporary, target)
    return target


def write_tables(campaign: Campaign, folder: str | Path) -> None:
    """Write what belongs to all runs: geometry, stream, labels, and the experiment's numbers.

    Call it when every run has been written.

    Raises
    ------
    BadFrames
        If a run has not been written.
    """
    folder = Path(folder)
    runs = range(1, campaign.runs + 1)
    missing = [run for run in runs if not ((folder / run_file(run)).is_file() and _labels_part(folder, run).is_file())]
    if missing:
        raise BadFrames(f"'{folder}' lacks runs {missing} of {campaign.runs}: write them with write_run first")
    (folder / "campaign.geom").write_text(campaign.geometry_text)
    with (folder / "campaign.stream").open("w") as stream:
        stream.write(stream_header(campaign.experiment, campaign.geometry_text))
        for run in runs:
            stream.write(_stream_part(folder, run).read_text())
    with (folder / "labels.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, fieldnames=_LABEL_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for run in runs:
            writer.writerows(json.loads(_labels_part(folder, run).read_text()))
    for run in runs:
        _stream_part(folder, run).unlink()
        _labels_part(folder, run).unlink()
    (folder / _PARTS).rmdir()
    (folder / _CAMPAIGN).write_text(json.dumps(_description(campaign), indent=2) + "\n")


def is_written(campaign: Campaign, folder: str | Path) -> bool:
    """Say whether a folder holds this campaign, whole.

    Raises
    ------
    BadFrames
        If it holds another campaign.
    """
    description = Path(folder) / _CAMPAIGN
    if not description.is_file():
        return False
    if json.loads(description.read_text()) != json.loads(json.dumps(_description(campaign))):
        raise BadFrames(f"'{folder}' holds another campaign (see '{description}'): choose another folder")
    return True


_CAMPAIGN = "campaign.json"

_PARTS = ".parts"

_AXES = [f"{axis}star_{xyz}" for axis in "abc" for xyz in "xyz"]

_LABEL_COLUMNS = [
    *("frame", "label", "run", "file", "event", "indexed", "peak_count", "strength", "diffuse_rms"),
    *("isotropic_strength", "photon_energy_eV", "pulse", "jet", "has_streak", "has_ice", "shadow_depth"),
    *("shift_x_m", "shift_y_m", "mosaicity_rad", "domain_size_A", "bragg_photons", *_AXES),
    *("misindexed", "ambiguity"),
]


def _stream_part(folder: Path, run: int) -> Path:
    return folder / _PARTS / f"r{run:04d}.stream"


def _labels_part(folder: Path, run: int) -> Path:
    return folder / _PARTS / f"r{run:04d}.json"


def _description(campaign: Campaign) -> dict[str, Any]:
    description = asdict(campaign)
    del description["geometry_text"]
    return description


def _lay_out_cxi(cxi: Any, campaign: Campaign, file: GeometryFile, frame: SimulatedFrame, count: int) -> None:
    """Make all datasets of a CXI file as Cheetah does, and fill in those that do not change from frame to frame."""
    import h5py
    import hdf5plugin

    experiment, run = campaign.experiment, frame.plan.run
    shape = file_frame_shape(file)
    fast = hdf5plugin.Blosc(cname="lz4", clevel=5, shuffle=hdf5plugin.Blosc.BITSHUFFLE)
    cxi["cxi_version"] = 150
    cxi.create_dataset(_DATA, (count, *shape), frame.adu.dtype, chunks=(1, *shape), **fast)
    if file.data_path[0] != _DATA:
        cxi[file.data_path[0]] = h5py.SoftLink(_DATA)
    maps = map_pixels(experiment, campaign.geometry_text, frame.run_scene.shift)
    for path, mask in _masks(file, maps).items():
        cxi.create_dataset(path, data=mask, compression="gzip")
    cxi["/entry_1/experiment_identifier"] = np.full(count, f"sim_run{run:04d}".encode())
    peaks = {"maxshape": (count, PEAKS_KEPT), "chunks": (1, PEAKS_KEPT), "compression": "gzip"}
    cxi.create_dataset("/entry_1/result_1/nPeaks", (count,), np.int32)
    for name in ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity"):
        cxi.create_dataset(f"/entry_1/result_1/{name}", (count, PEAKS_KEPT), np.float32, **peaks)
    cxi["/entry_1/instrument_1/detector_1/distance"] = np.full(count, experiment.camera_length)
    cxi[file.clen_path or _ENCODER] = np.full(count, (experiment.camera_length - file.coffset) / file.clen_scale)
    cxi.create_dataset(file.photon_energy_path or _ENERGY, (count,), np.float64)
    clock = 1_500_000_000 + 100_000 * run + np.arange(count) // _PULSE_RATE
    cxi["/LCLS/machineTime"] = clock
    cxi["/LCLS/fiducial"] = _FIDUCIALS_PER_PULSE * (600 + np.arange(count))


def _masks(file: GeometryFile, maps: PixelMaps) -> dict[str, np.ndarray]:
    """Masks by their paths in the file, in the bits that the geometry names for good and bad pixels."""
    masks = {}
    for path in sorted({mask.path for mask in file.masks if mask.file is None}):
        panels = np.zeros(maps.is_bad.shape, dtype=np.uint16)
        for mask in file.masks:
            if mask.path == path:
                which = list(mask.panels)
                bad = mask.bad_bits & -mask.bad_bits or ~mask.good_bits & 0xFFFF
                panels[which] = np.where(maps.is_bad[which], bad, mask.good_bits)
        masks[path] = np.zeros(file_frame_shape(file), dtype=np.uint16)
        put_panels(panels, file, masks[path])
    return masks


def _write_frame(cxi: Any, file: GeometryFile, frame: SimulatedFrame) -> None:
    index, spots = frame.plan.index, frame.spots
    array = np.zeros(file_frame_shape(file), frame.adu.dtype)
    put_panels(frame.adu, file, array)
    cxi[_DATA][index] = array
    energy = wavelength(frame.scene.photon_energy) if file.is_wavelength else frame.scene.photon_energy
    cxi[file.photon_energy_path or _ENERGY][index] = energy / (
        file.photon_energy_scale if file.photon_energy_path else 1
    )
    peaks = peak_order(frame)[:PEAKS_KEPT]
    panel = spots.panel[peaks]
    results = cxi["/entry_1/result_1"]
    results["nPeaks"][index] = len(peaks)
    # Files give pixel indices: the first pixel's centre is 0, not 1/2.
    results["peakXPosRaw"][index, : len(peaks)] = spots.fs[peaks] + file.first_fs[panel] - 0.5
    results["peakYPosRaw"][index, : len(peaks)] = spots.ss[peaks] + file.first_ss[panel] - 0.5
    results["peakTotalIntensity"][index, : len(peaks)] = spots.photons[peaks] * frame.adu_per_photon[panel]


def _label_row(frame: SimulatedFrame) -> dict[str, Any]:
    plan: FramePlan = frame.plan
    scene, crystal = frame.scene, frame.crystal
    row: dict[str, Any] = {
        "frame": plan.frame,
        "label": plan.kind,
        "run": plan.run,
        "file": run_file(plan.run),
        "event": f"//{plan.index}",
        "indexed": int(plan.is_indexed),
        "peak_count": int(frame.spots.is_peak.sum()),
        "strength": plan.strength if plan.kind == "diffuse" else 0.0,
        "diffuse_rms": round(frame.diffuse_rms, 6),
        "isotropic_strength": plan.strength if plan.kind == "non-diffuse" else 0.0,
        "photon_energy_eV": round(scene.photon_energy, 4),
        "pulse": round(scene.pulse, 5),
        "jet": round(scene.jet, 5),
        "has_streak": int(scene.streak is not None),
        "has_ice": int(scene.ice is not None),
        "shadow_depth": round(float(scene.shadow[5]), 5),
        "shift_x_m": round(frame.run_scene.shift[0], 9),
        "shift_y_m": round(frame.run_scene.shift[1], 9),
    }
    if frame.indexing is not None:
        row |= {"misindexed": int(frame.indexing.is_misindexed), "ambiguity": frame.indexing.ambiguity}
    if crystal is not None:
        row |= {
            "mosaicity_rad": round(crystal.mosaicity, 7),
            "domain_size_A": round(crystal.domain_size, 2),
            "bragg_photons": round(crystal.bragg, 2),
            **dict(zip(_AXES, np.round(crystal.reciprocal, 9).ravel().tolist(), strict=True)),
        }
    return row
