"""A campaign of tiny frames, a cluster of real processes, and ways to hurt it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import psutil
import pytest

from diffdask.catalogue import catalogue_table
from diffdask.io.crystfel_geometry import parse_geometry
from diffdask.io.frames_plan import Segment
from diffdask.io.frames_store import open_frames
from diffdask.io.frames_writer import create_or_check, finish, plan_frames
from diffdask.io.marks import mark_block
from diffdask.io.results_store import open_group
from diffdask.pipeline.ingest import ingest
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


def make_pixels(count: int) -> np.ndarray:
    """Frames of photons of 9.5 keV, Poisson about 2, with Bragg peaks on every tenth."""
    random = np.random.default_rng(5)
    photons = random.poisson(2.0, (count, 2, 16, 32))
    for frame in range(0, count, 10):
        for ss, fs in zip(random.integers(2, 13, 6), random.integers(2, 29, 6), strict=True):
            photons[frame, random.integers(2), ss : ss + 2, fs : fs + 2] += 120
    return np.rint(photons * 32.11).astype(np.int16)


def make_frames(path: Path, blocks: int) -> Path:
    """Write a frames store."""
    count = blocks * SIZE
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
    root["adu"][...] = make_pixels(count)
    for block in blocks_of(count, SIZE):
        mark_block(path, "frames", block, note="{}")
    finish(root)
    return path


class Campaign:
    """Tiny frames, and what an undisturbed screen makes of them."""

    size = SIZE

    def __init__(self, folder: Path, blocks: int = BLOCKS):
        self.blocks = blocks
        self.frames = make_frames(folder / "frames.zarr", blocks)
        self.results = self.screen(folder / "undisturbed.zarr", on="threads")

    def screen(self, results: Path, *, frames: Path | None = None, on, **options) -> Path:
        return screen(frames or self.frames, results=results, on=on, progress=False, **PARAMETERS, **options)

    def command(self, results: Path, on: str) -> list[str]:
        options = [word for name, value in PARAMETERS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        verb = ["screen", str(self.frames), "--results", str(results), "--on", on, "--no-progress", *options]
        return [sys.executable, "-m", "diffdask", *verb]

    def copy_frames(self, to: Path) -> Path:
        return Path(shutil.copytree(self.frames, to))

    def assert_undisturbed(self, results: Path, *, but: Sequence[int] = ()) -> None:
        """Bit for bit what no fault would have given, in every column; but for some frames that are no hits."""
        found, expected = self.read(results), self.read(self.results)
        assert found.keys() == expected.keys()
        kept = np.setdiff1d(np.arange(self.blocks * self.size), but)
        of_frames = {f"screen/{name}" for name, one in open_group(results, "screen").items() if one.dims[0] == "frame"}
        assert len(of_frames) > 8
        for name in expected:
            rows = kept if name in of_frames else slice(None)
            np.testing.assert_array_equal(found[name][rows], expected[name][rows], err_msg=name, strict=True)
        table, undisturbed = (catalogue_table(place).drop(index=list(but)) for place in (results, self.results))
        pd.testing.assert_frame_equal(table, undisturbed, check_exact=True)

    @staticmethod
    def marks(results: Path, group: str = "screen") -> dict[str, tuple[int, int]]:
        """What changes when a block is done again: when its mark was made, and the mark's own file."""
        return stamps(results / "marks" / group)

    def at_marks(self, results: Path, share: float, deed) -> "Killer":
        """Do a deed as soon as this share of the blocks is marked."""
        return Killer(results / "marks" / "screen", max(1, round(share * self.blocks)), deed)

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


@pytest.fixture(scope="session")
def short_campaign(tmp_path_factory) -> Campaign:
    """A tenth of it, for slow storage."""
    return Campaign(tmp_path_factory.mktemp("short"), BLOCKS // 10)


class Files:
    """The frames in a file, and the store that an undisturbed ingest makes of it."""

    blocks, size = BLOCKS, SIZE

    def __init__(self, folder: Path):
        self.geometry, self.source = folder / "tiny.geom", folder / "tiny.cxi"
        self.geometry.write_text(GEOMETRY)
        with h5py.File(self.source, "w") as file:
            file["/entry_1/data_1/data"] = make_pixels(BLOCKS * SIZE).reshape(-1, 32, 32)
        self.store = self.ingest(folder / "undisturbed.zarr", on="threads")

    def ingest(self, to: Path, *, on) -> Path:
        return ingest(self.source, geometry=self.geometry, to=to, block_frames=SIZE, on=on, progress=False)

    def command(self, to: Path, on: str) -> list[str]:
        options = ["--geometry", self.geometry, "--to", to, "--block-frames", SIZE, "--on", on, "--no-progress"]
        return [sys.executable, "-m", "diffdask", "ingest", str(self.source), *map(str, options)]

    def at_marks(self, to: Path, share: float, deed) -> "Killer":
        """Do a deed as soon as this share of the blocks is marked."""
        return Killer(to / "marks" / "frames", max(1, round(share * self.blocks)), deed)

    def assert_kept(self, to: Path, shards: dict) -> None:
        """No shard that was marked was written again."""
        assert 0 < len(shards) < self.blocks
        assert shard_stamps(to).items() >= shards.items()
        assert len(shard_stamps(to)) == self.blocks

    def assert_undisturbed(self, to: Path, *, but: Sequence[int] = ()) -> None:
        """Bit for bit what no fault would have given, in every column; but for some frames."""
        found, expected = (open_frames(place).drop_sel(frame=list(but)).compute() for place in (to, self.store))
        assert found.identical(expected)
        assert not (to / "marks").exists()


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Files of a folder that are marks or chunks: when each was made, and which it is."""
    if not folder.is_dir():
        return {}
    entries = [entry for entry in os.scandir(folder) if entry.name[0].isdigit() and entry.is_file()]
    return {entry.name: (entry.stat().st_mtime_ns, entry.inode()) for entry in entries}


def shard_stamps(store: Path, *, marked_only: bool = False) -> dict[int, tuple[int, int]]:
    """When each shard of a frames store was written, and the shard's own file."""
    if marked_only:
        numbers = [int(name.split("-")[0]) // SIZE for name in stamps(store / "marks" / "frames")]
    else:
        numbers = [int(name) for name in os.listdir(store / "adu" / "c")]
    return {number: stamps(store / "adu" / "c" / str(number) / "0" / "0")["0"] for number in numbers}


#: Dask's usual port may be another's.
_ANY_PAGE = ("--dashboard-address", "127.0.0.1:0")


class Cluster:
    """A scheduler and two workers with nannies: processes of their own; workers run ``preload`` when they begin."""

    def __init__(self, folder: Path, preload: Path | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        self.log = (folder / "log.txt").open("ab")
        self.started: list[subprocess.Popen] = []
        try:
            self._begin(folder, ["--preload", preload] if preload else [])
        except BaseException:  # whatever it was, nothing may be left behind
            self.stop()
            raise

    def _begin(self, folder: Path, more: list) -> None:
        told = folder / "scheduler.json"
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", told, *_ANY_PAGE
        )
        wait_for(lambda: told.is_file() and told.read_text().rstrip().endswith("}"))  # not only begun
        self.address = json.loads(told.read_text())["address"]
        shape = ("--nworkers", "2", "--nthreads", "1", "--host", "127.0.0.1", "--local-directory", folder)
        self.nanny = self._start("worker", self.address, *shape, "--death-timeout", "60", *more)

    def _start(self, kind: str, *options) -> subprocess.Popen:
        command = [sys.executable, "-m", "distributed.cli.dask_" + kind, "--no-dashboard", *map(str, options)]
        self.started.append(subprocess.Popen(command, stdout=self.log, stderr=self.log))
        return self.started[-1]

    def workers(self) -> list[psutil.Process]:
        """The processes that compute."""
        return [child for child in psutil.Process(self.nanny.pid).children() if is_worker(child)]

    def kill_worker(self) -> None:
        wait_for(self.workers)  # one that is gone is started again
        self.workers()[0].kill()

    def kill_all_workers(self) -> None:
        for worker in self.workers():
            kill(worker)

    def kill_scheduler(self) -> None:
        self.scheduler.kill()

    def stop(self) -> None:
        for process in self.started:
            below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            for one in (process, *below):  # the nanny first: it would start others
                kill(one)
            process.wait()
        self.log.close()


@pytest.fixture
def start_cluster(tmp_path):
    """Start a cluster of the test's own."""
    started = []

    def start(**options) -> Cluster:
        started.append(Cluster(tmp_path / f"cluster{len(started)}", **options))
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


@contextlib.contextmanager
def driving(command: list[str], **how) -> Iterator[subprocess.Popen]:
    """Run a command; however the test ends, it is not left behind, nor the pipe to it."""
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, **how)
    try:
        yield driver
    finally:
        driver.kill()
        driver.communicate(timeout=60)


@pytest.fixture
def drive():
    """Run a command as a driver of the test's own."""
    return driving


@pytest.fixture
def look_at_shards():
    """When shards of a frames store were written, those of marked blocks or all."""
    return shard_stamps


def is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # gone since it was listed
        return False


def kill(process: psutil.Process | subprocess.Popen) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def wait_for(is_true, seconds: float = 60.0) -> None:
    stop = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < stop, "waited in vain"
        time.sleep(0.002)


class Killer(threading.Thread):
    """Does something once so many blocks are marked, and remembers which were."""

    def __init__(self, folder: Path, marks: int, deed, seconds: float = 120.0):
        super().__init__(daemon=True)
        self.folder, self.marks, self.deed, self.before, self.failure = folder, marks, deed, {}, None
        self.stopped, self.deadline = threading.Event(), time.monotonic() + seconds
        self.start()

    def run(self) -> None:
        while len(stamps(self.folder)) < self.marks:
            if self.stopped.wait(0.002) or time.monotonic() > self.deadline:
                return
        self.before = stamps(self.folder)  # before the deed: while it lasts, those that it spares go on
        try:
            self.deed()
        except Exception as error:  # told by who waits for it
            self.failure = error

    def wait(self, seconds: float = 120.0) -> None:
        """Wait until it is done; an error where it never comes to it."""
        self.join(seconds)
        self.stopped.set()
        assert not self.is_alive(), "waited in vain"
        if self.failure is not None:
            raise self.failure
        assert self.before, f"{self.marks} blocks were never marked"
