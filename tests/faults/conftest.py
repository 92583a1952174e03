"""A campaign of tiny frames, a cluster of real processes, and ways to hurt it."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from diffdask.io.crystfel_geometry import parse_geometry
from diffdask.io.frames_writer import Segment, create_or_check, finish, plan_frames
from diffdask.io.marks import mark_block
from diffdask.io.results_store import open_group
from diffdask.pipeline.screen import screen
from diffdask.planning import blocks_of

GEOMETRY = """
photon_energy = 9500
clen = 0.1
adu_per_eV = 0.00338
res = 1250
dim0 = %
dim1 = ss
dim2 = fs
data = /entry_1/data_1/data
""" + "".join(
    f"{name}/min_fs = 0\n{name}/max_fs = 31\n{name}/min_ss = {first}\n{name}/max_ss = {first + 15}\n"
    f"{name}/fs = +1.0x\n{name}/ss = +1.0y\n{name}/corner_x = -16\n{name}/corner_y = {corner}\n"
    for name, first, corner in (("low", 0, -17), ("high", 16, 1))
)

PARAMETERS = {
    "ring_count": 12,
    "polar_ring_count": 4,
    "azimuth_count": 16,
    "bin_pixels": 2,
    "ring_groups": 1,
    "feature_q_min": 0.0,
    "component_count": 1,
    "min_peaks": 3,
    "min_excess": 50.0,
}

#: Blocks of the campaign, and frames of each.
BLOCKS, SIZE = 240, 2

GROUPS = ("layout", "screen", "hits", "features")


def make_frames(path: Path) -> Path:
    """Write a frames store: photons of 9.5 keV, Poisson about 2, and Bragg peaks on every tenth frame."""
    random = np.random.default_rng(5)
    count = BLOCKS * SIZE
    photons = random.poisson(2.0, (count, 2, 16, 32))
    for frame in range(0, count, 10):
        for ss, fs in zip(random.integers(2, 13, 6), random.integers(2, 29, 6), strict=True):
            photons[frame, random.integers(2), ss : ss + 2, fs : fs + 2] += 120
    layout = parse_geometry(GEOMETRY)
    root = create_or_check(path, layout, block_frames=SIZE, codec="lz4")
    columns = {
        "frame_id": np.array([f"r0001-tiny-{number:06d}" for number in range(count)], dtype=object),
        "run": np.ones(count, dtype=np.int64),
        "event": np.array([f"//{number}" for number in range(count)], dtype=object),
        "source": np.full(count, "tiny.cxi", dtype=object),
        "photon_energy": np.full(count, 9500.0),
        "camera_length": np.full(count, 0.1),
        "frame_status": np.full(count, "ok", dtype=object),
    }
    plan_frames(root, [Segment("tiny.cxi", "tiny", 0, count, 0, 0.0)], columns, layout=layout, dtype="int16")
    root["adu"][...] = np.rint(photons * 32.11).astype(np.int16)
    for block in blocks_of(count, SIZE):
        mark_block(path, "frames", block, note="{}")
    finish(root)
    return path


class Campaign:
    """Tiny frames, and what an undisturbed screen makes of them."""

    blocks, size = BLOCKS, SIZE

    def __init__(self, folder: Path):
        self.frames = make_frames(folder / "frames.zarr")
        self.results = self.screen(folder / "undisturbed.zarr", on="threads")

    def screen(self, results: Path, *, frames: Path | None = None, on, **options) -> Path:
        return screen(frames or self.frames, results=results, on=on, progress=False, **PARAMETERS, **options)

    def command(self, results: Path, on: str) -> list[str]:
        options = [word for name, value in PARAMETERS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        verb = ["screen", str(self.frames), "--results", str(results), "--on", on, "--no-progress", *options]
        return [sys.executable, "-m", "diffdask", *verb]

    def copy_frames(self, to: Path) -> Path:
        return Path(shutil.copytree(self.frames, to))

    def assert_undisturbed(self, results: Path) -> None:
        """Bit for bit what no fault would have given."""
        found, expected = self.read(results), self.read(self.results)
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name, strict=True)

    @staticmethod
    def marks(results: Path, group: str = "screen") -> dict[str, tuple[int, int]]:
        """What changes when a block is done again: when its mark was made, and the mark's own file."""
        folder = results / "marks" / group
        if not folder.is_dir():
            return {}
        entries = [entry for entry in os.scandir(folder) if entry.name[0].isdigit()]
        return {entry.name: (entry.stat().st_mtime_ns, entry.inode()) for entry in entries}

    def at_marks(self, results: Path, share: float, deed) -> "Killer":
        """Do a deed as soon as this share of the blocks is marked."""
        return Killer(results, max(1, round(share * self.blocks)), deed)

    def assert_kept(self, results: Path, before: dict) -> None:
        """Nothing that was marked before was marked again."""
        assert self.marks(results).items() >= before.items()
        assert len(self.marks(results)) == self.blocks

    @staticmethod
    def read(results: Path) -> dict[str, np.ndarray]:
        found = {}
        for group in GROUPS:
            opened = open_group(results, group)
            assert opened is not None, f"{group} is not finished"
            found |= {f"{group}/{name}": variable.values for name, variable in opened.variables.items()}
        return found


@pytest.fixture(scope="session")
def campaign(tmp_path_factory) -> Campaign:
    return Campaign(tmp_path_factory.mktemp("faults"))


#: Dask's usual port may be another's.
_ANY_PAGE = ("--dashboard-address", "127.0.0.1:0")


class Cluster:
    """A scheduler and two workers with nannies: processes of their own."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.log = (folder / "log.txt").open("ab")
        told = folder / "scheduler.json"
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", told, *_ANY_PAGE
        )
        wait_for(lambda: told.is_file() and told.read_text().rstrip().endswith("}"))  # not only begun
        self.address = json.loads(told.read_text())["address"]
        shape = ("--nworkers", "2", "--nthreads", "1", "--host", "127.0.0.1", "--local-directory", folder)
        self.nanny = self._start("worker", self.address, *shape, "--death-timeout", "60")

    def _start(self, kind: str, *options) -> subprocess.Popen:
        command = [sys.executable, "-m", "distributed.cli.dask_" + kind, "--no-dashboard", *map(str, options)]
        return subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def workers(self) -> list[psutil.Process]:
        """The processes that compute."""
        children = psutil.Process(self.nanny.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    def kill_worker(self) -> None:
        self.workers()[0].kill()

    def kill_all_workers(self) -> None:
        for worker in self.workers():
            worker.kill()

    def kill_scheduler(self) -> None:
        self.scheduler.kill()

    def stop(self) -> None:
        for process in (*psutil.Process(self.nanny.pid).children(recursive=True), self.nanny, self.scheduler):
            process.kill()
        self.nanny.wait()
        self.scheduler.wait()
        self.log.close()


@pytest.fixture
def start_cluster(tmp_path):
    """Start a cluster of the test's own."""
    started = []

    def start() -> Cluster:
        started.append(Cluster(tmp_path / f"cluster{len(started)}"))
        return started[-1]

    yield start
    for cluster in started:
        cluster.stop()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A cluster whose scheduler nobody kills."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


@pytest.fixture
def wait():
    """Wait until something is true."""
    return wait_for


def wait_for(is_true, seconds: float = 60.0) -> None:
    stop = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < stop, "waited in vain"
        time.sleep(0.002)


class Killer(threading.Thread):
    """Does something once so many blocks are marked, and remembers which were."""

    def __init__(self, results: Path, marks: int, deed):
        super().__init__(daemon=True)
        self.results, self.marks, self.deed, self.before = results, marks, deed, {}
        self.start()

    def run(self) -> None:
        folder = self.results / "marks" / "screen"
        while not folder.is_dir() or len(os.listdir(folder)) < self.marks:
            time.sleep(0.002)
        self.deed()
        self.before = Campaign.marks(self.results)
