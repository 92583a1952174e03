"""What a worker holds in memory while it screens."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from diffdask.cluster import MALLOC
from diffdask.pipeline.screen import screen
from diffdask.simulate import cspad_geometry_text
from diffdask.verbs import ingest

FRAMES, BLOCK_FRAMES = 32, 16

#: What a worker does with its blocks; it prints its peak above what it held when idle, in bytes.
WORKER = """
import gc, re, sys
from diffdask.io.results_store import open_screen
from diffdask.pipeline import screen
from diffdask.pipeline.layout import load_layout

def held(kind):
    return 1024 * int(re.search(kind + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1])

frames, results, size, count = *sys.argv[1:3], *map(int, sys.argv[3:])
of_group = open_screen(results).attrs
given = dict(frames=frames, results=results, made=of_group["made"], how=of_group["parameters"], min_peaks=5)
load_layout(results)
screen._screen_block((0, 1), **given)  # compiles
gc.collect()
idle = held("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
for _ in range(3):
    for start in range(0, count, size):
        screen._screen_block((start, start + size), **given)
sys.stdout.write(str(held("VmHWM") - idle))
"""


@pytest.fixture(scope="module")
def campaign(tmp_path_factory) -> tuple[Path, Path]:
    """A frames store with blocks of 73 MB, and its results."""
    folder = tmp_path_factory.mktemp("memory")
    (folder / "cspad.geom").write_text(cspad_geometry_text())
    random = np.random.default_rng(1)
    frame = 30 * random.poisson(3.0, (1480, 1552)) + random.normal(0.0, 4.0, (1480, 1552))
    with h5py.File(folder / "r0001.cxi", "w") as file:
        data = file.create_dataset("/entry_1/data_1/data", (FRAMES, *frame.shape), "int16", chunks=(1, *frame.shape))
        for number in range(FRAMES):
            data[number] = np.roll(frame.round().astype("int16"), 1000 * number)
        file["/entry_1/data_1/mask"] = np.zeros(frame.shape, np.uint16)
        file["/LCLS/photon_energy_eV"] = np.full(FRAMES, 9000.0)
        file["/LCLS/detector_1/EncoderValue"] = np.full(FRAMES, -448.0)
    frames = folder / "frames.zarr"
    options = {"to": frames, "block_frames": BLOCK_FRAMES, "on": "threads", "progress": False}
    ingest(folder / "r0001.cxi", geometry=folder / "cspad.geom", **options)
    return frames, screen(frames, results=folder / "results.zarr", on="threads", progress=False)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is told by Linux only")
def test_a_worker_that_screens_holds_less_than_four_times_one_block(campaign) -> None:
    frames, results = campaign
    block = BLOCK_FRAMES * 64 * 185 * 194 * np.dtype("int16").itemsize
    arguments = [str(frames), str(results), str(BLOCK_FRAMES), str(FRAMES)]
    environment = {**os.environ, **{name: str(value) for name, value in MALLOC.items()}}
    command = [sys.executable, "-c", WORKER, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout) / block
    assert 0 < peak < 4, f"{peak:.2f} blocks"
