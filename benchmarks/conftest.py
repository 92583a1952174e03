"""What the benchmarks share: a simulated campaign, one of its hits in memory, and timing side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import xarray as xr

from diffdask.cluster import connect
from diffdask.geometry import Geometry
from diffdask.io.frames_store import open_frames, take_frames
from diffdask.io.labels import read_labels
from diffdask.pipeline.layout import load_layout
from diffdask.pixels import PixelList, photons_per_adu
from diffdask.verbs import ingest, screen, simulate

#: Frames of the campaign: four blocks of sixteen.
FRAMES = 64


class Campaign(NamedTuple):
    """Stores of a simulated campaign."""

    frames: Path
    results: Path
    simulated: Path


class Frame(NamedTuple):
    """A frame in memory, and what kernels need beside it."""

    adu: np.ndarray  #: (panel, ss, fs)
    gain: np.ndarray  #: (panel,)
    pixels: PixelList
    layout: xr.Dataset  #: maps of all settings
    setting: int
    geometry: Geometry
    camera_length: float  #: m
    photon_energy: float  #: eV


@pytest.fixture(scope="session")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A campaign of CSPAD frames, ingested and screened once, so that everything is compiled and laid out."""
    folder = tmp_path_factory.mktemp("campaign")
    made = Campaign(folder / "frames.zarr", folder / "results.zarr", folder / "simulated")
    with connect() as client:
        simulate(made.simulated, frames=FRAMES, runs=2, crystal=5, on=client, progress=False)
        files = {"geometry": made.simulated / "campaign.geom", "stream": made.simulated / "campaign.stream"}
        ingest(str(made.simulated / "r*.cxi"), **files, to=made.frames, on=client, progress=False)
        screen(made.frames, results=made.results, on=client, progress=False)
    return made


@pytest.fixture(scope="session")
def hit(campaign: Campaign) -> Frame:
    """The first diffuse hit of the campaign, in memory."""
    labels = read_labels(campaign.simulated / "labels.csv", open_frames(campaign.frames).frame_id.values)
    return _load_frame(campaign, int(labels.index[labels == "diffuse"][0]))


@pytest.fixture(scope="session")
def clients(campaign: Campaign, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Any]]:
    """Clusters of one and of two worker processes, a thread each."""
    folder = tmp_path_factory.mktemp("places")
    for workers in (1, 2):
        (folder / f"{workers}.toml").write_text(f'where = "laptop"\nworkers = {workers}\nthreads = 1\n')
    with connect(folder / "1.toml") as one, connect(folder / "2.toml") as two:
        yield {1: one, 2: two}


@pytest.fixture
def beside(benchmark: Any) -> Callable[..., Any]:
    """Time a function, its reference run once before each round: a ratio is then of one time and one machine's mood.

    Called with ``(function, reference)``, and by keyword ``group``, ``name``, ``rounds``, ``asked`` (what the ratio
    of the times must be at most), ``words`` (how the issue says it) and further columns. Gives what the function
    gives.
    """

    def measure(
        function: Callable[[], Any],
        reference: Callable[[], Any] | None = None,
        *,
        group: str,
        name: str,
        rounds: int = 15,
        asked: float | None = None,
        words: str = "",
        **columns: Any,
    ) -> Any:
        benchmark.group, benchmark.name = group, name
        seconds: list[float] = []

        def run_reference() -> None:
            if reference is not None:
                started = time.perf_counter()
                reference()
                seconds.append(time.perf_counter() - started)

        function()
        run_reference()
        seconds.clear()
        given = benchmark.pedantic(function, setup=run_reference, rounds=rounds)
        benchmark.extra_info.update(reference_s=seconds, asked=asked, words=words, columns=columns)
        return given

    return measure


def _load_frame(campaign: Campaign, number: int) -> Frame:
    """Read one frame of the campaign."""
    ds = take_frames(campaign.frames, [number])
    layout, pixels = load_layout(campaign.results)
    setting = int(layout.frame_setting[number])
    geometry = Geometry.from_dataset(ds)
    return Frame(
        adu=ds.adu.values[0],
        gain=photons_per_adu(geometry, ds.photon_energy.values)[0],
        pixels=pixels[setting],
        layout=layout,
        setting=setting,
        geometry=geometry,
        camera_length=float(ds.camera_length[0]),
        photon_energy=float(ds.photon_energy[0]),
    )
