"""Millions of tiny frames through the verb ``screen``: what a block costs, and what grows.

A store of frames of a few pixels, 64 a block, is made from 16 384 frames whose
files are linked again and again, and screened by two worker processes, a
scheduler and a driver, each a process of its own that is watched from outside::

    python benchmarks/long_run.py             # 800 000 frames: 12 500 blocks
    python benchmarks/long_run.py --whole     # 8 000 000 frames: 125 000 blocks, about 6 GB of disk
    python benchmarks/long_run.py --end       # what the driver does after the last of 125 000 blocks, and no more
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import zarr

from diffdask.io.crystfel_geometry import parse_geometry
from diffdask.io.frames_plan import Segment
from diffdask.io.frames_store import column_chunk
from diffdask.io.frames_writer import create_or_check, finish, plan_frames
from diffdask.io.marks import mark_block
from diffdask.io.results_store import create_results, open_group
from diffdask.pipeline.hits import decide_hits
from diffdask.pipeline.layout import load_layout, make_layout
from diffdask.pipeline.screen import screen
from diffdask.planning import align, blocks_of

WHOLE, BLOCK = 8_000_000, 64

#: Frames that are really written: as many as a chunk of a column has.
WRITTEN = column_chunk(BLOCK)

#: Two panels of 8 x 16 pixels.
PANEL = (8, 16)
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
    f"{name}/min_fs = 0\n{name}/max_fs = 15\n{name}/min_ss = {first}\n{name}/max_ss = {first + 7}\n"
    f"{name}/fs = +1.0x\n{name}/ss = +1.0y\n{name}/corner_x = -8\n{name}/corner_y = {corner}\n"
    for name, first, corner in (("low", 0, -9), ("high", 8, 1))
)

JOB = """
[screen]
frames = "{frames}"
ring_count = 4
polar_ring_count = 4
azimuth_count = 16
bin_pixels = 1
ring_groups = 1
feature_q_min = 0.0
component_count = 1
min_peaks = 1
min_excess = 1e9
radius = 2
"""

#: Of the run, after which what grows is growth: processes have imported and compiled all by then.
WARM = 0.02


def make_store(path: Path, count: int) -> Path:
    """Write the first frames, one in 333 a hit, and link their files for all others."""
    random = np.random.default_rng(5)
    photons = random.poisson(2.0, (WRITTEN, 2, *PANEL))
    for frame in range(0, WRITTEN, 333):
        photons[frame, random.integers(2), random.integers(1, 6), 5:7] += 120
    layout = parse_geometry(GEOMETRY)
    root = create_or_check(path, layout, block_frames=BLOCK, codec="lz4")
    columns = {
        "frame_id": np.array([f"r0001-tiny-{number:06d}" for number in range(WRITTEN)], dtype=object),
        "run": np.ones(WRITTEN, dtype=np.int64),
        "event": np.full(WRITTEN, "//0", dtype=object),
        "source": np.full(WRITTEN, "tiny.cxi", dtype=object),
        "photon_energy": np.full(WRITTEN, 9500.0),
        "camera_length": np.full(WRITTEN, 0.1),
        "frame_status": np.full(WRITTEN, "ok", dtype=object),
    }
    plan_frames(root, [Segment("tiny.cxi", "tiny", 0, WRITTEN, 0, 0.0)], columns, layout=layout, dtype="int16")
    root["adu"][...] = np.rint(photons * 32.11).astype(np.int16)  # type: ignore[index]
    for block in blocks_of(WRITTEN, BLOCK):
        mark_block(path, "frames", block, note="{}")
    finish(root)
    _repeat(path, root, count)
    root.update_attributes({"frame_count": count, "planned_frames": count})
    return path


def make_screened(frames: Path, folder: Path, count: int) -> tuple[Path, dict[str, Any]]:
    """Screen as many frames as are really written, and link what was found for all others, as if all were done.

    Returns
    -------
    tuple
        The results store, and what makes a hit.
    """
    few, results = folder / "few-results.zarr", folder / "results.zarr"
    options = tomllib.loads(JOB.format(frames=make_store(folder / "few.zarr", WRITTEN)))["screen"]
    screen(results=few, **options, on="threads", progress=False)
    create_results(results, frames=frames)
    made = {name: zarr.open_group(few / name, mode="r").attrs["parameters"] for name in ("layout", "hits")}
    make_layout(results, frames, cast(dict[str, Any], made["layout"]))
    shutil.copytree(few / "screen", results / "screen")
    _repeat(results / "screen", zarr.open_group(results / "screen", mode="r+", use_consolidated=False), count)
    return results, cast(dict[str, Any], made["hits"])


def measure_end(frames: Path, results: Path, how: dict[str, Any]) -> dict[str, float]:
    """Decide on hits as a driver does that holds what it holds while it screens; what that takes."""
    load_layout(results)
    memory, is_over, process = [0.0], threading.Event(), psutil.Process()

    def look() -> None:
        while not is_over.wait(0.003):
            memory[0] = max(memory[0], process.memory_info().rss / 1e6)

    before, started = process.memory_info().rss / 1e6, time.perf_counter()
    watch = threading.Thread(target=look)
    watch.start()
    try:
        decide_hits(frames, results, how)
    finally:
        is_over.set()
        watch.join()
    return {
        "s, to decide which frames are hits": time.perf_counter() - started,
        "MB, driver, before": before,
        "MB, driver, growth to the peak": memory[0] - before,
    }


def _repeat(path: Path, root: zarr.Group, count: int) -> None:
    """Grow all arrays of frames; their new files are the old ones."""
    for name, array in root.arrays():
        if array.metadata.dimension_names[0] != "frame":  # type: ignore[union-attr,index]
            continue
        rows = (array.shards or array.chunks)[0]
        there, wanted = WRITTEN // rows, align(count, rows) // rows
        array.resize((count, *array.shape[1:]))
        rest = Path(*["0"] * (array.ndim - 1))
        chunks = path / name / "c"
        for number in range(there, wanted) if there else ():  # where chunks are longer, the driver writes them
            source, link = chunks / str(number % there) / rest, chunks / str(number) / rest
            if source.is_file():  # what is nothing but fill values has no file
                link.parent.mkdir(parents=True, exist_ok=True)
                os.link(source, link)


class Watch(threading.Thread):
    """Sample memory and processor time of processes, and how many blocks are done, until stopped."""

    def __init__(self, pids: dict[str, list[int]], marks: Path):
        super().__init__(daemon=True)
        self.pids, self.marks = pids, marks
        self.samples: list[dict[str, Any]] = []
        self.first: float | None = None
        self.stopped = threading.Event()

    def run(self) -> None:
        counted, done = 0.0, 0
        while not self.stopped.wait(0.1 if self.first is None else 0.5):
            now = time.perf_counter()
            if self.first is None:
                done = len(os.listdir(self.marks)) if self.marks.is_dir() else 0
                self.first = now if done else None
            elif now - counted > 2.0:  # a folder of 100 000 files is not read for nothing
                counted, done = now, sum(1 for _ in os.scandir(self.marks))
            sample: dict[str, Any] = {"time": now, "done": done}
            for who, pids in self.pids.items():
                sample[who] = self._look(pids)
            self.samples.append(sample)

    @staticmethod
    def _look(pids: list[int]) -> tuple[float, float]:
        """MB and seconds."""
        memory = seconds = 0.0
        for pid in pids:
            try:
                process = psutil.Process(pid)
                memory += process.memory_info().rss / 1e6
                seconds += sum(process.cpu_times()[:2])
            except psutil.NoSuchProcess:
                continue
        return memory, seconds


@contextlib.contextmanager
def start_cluster(folder: Path) -> Iterator[tuple[str, dict[str, list[int]]]]:
    """Start a scheduler and two workers; their address and processes, which are killed afterwards."""
    told, started = folder / "scheduler.json", []
    with (folder / "cluster.log").open("wb") as log:

        def start(kind: str, *options: Any) -> int:
            place = ["--no-dashboard", "--host", "127.0.0.1"]
            command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *place, *map(str, options)]
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
            return started[-1].pid

        try:
            page = ("--dashboard-address", "127.0.0.1:0")
            scheduler = start("scheduler", "--port", 0, "--scheduler-file", told, *page)
            while not (told.is_file() and told.read_text().rstrip().endswith("}")):  # not only begun
                time.sleep(0.05)
            address = json.loads(told.read_text())["address"]
            nanny = start("worker", address, "--nworkers", 2, "--nthreads", 1, "--local-directory", folder)
            while len(workers := _children(nanny)) < 2:
                time.sleep(0.05)
            yield address, {"scheduler": [scheduler], "workers": workers}
        finally:
            for process in started:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
                process.wait()


def run_job(frames: Path, folder: Path) -> tuple[Watch, float, float]:
    """Run the job on a scheduler and two workers; the watch, when it began and what it took, s."""
    job = folder / "job.toml"
    job.write_text(JOB.format(frames=frames))
    with start_cluster(folder) as (address, pids):
        began = time.perf_counter()
        verb = ["run", str(job), "--folder", str(folder), "--on", address, "--no-progress"]
        driver = subprocess.Popen([sys.executable, "-m", "diffdask", *verb])
        watch = Watch({"driver": [driver.pid], **pids}, folder / "results.zarr" / "marks" / "screen")
        watch.start()
        try:
            code = driver.wait()
        finally:
            driver.kill()
        took = time.perf_counter() - began
        watch.stopped.set()
        watch.join()
    if code:
        sys.exit(f"the job ended with {code}")
    return watch, began, took


def _children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children() if "spawn_main" in " ".join(child.cmdline())]


def summarise(watch: Watch, began: float, took: float, blocks: int) -> dict[str, float]:
    """Figures of a run."""
    warm = next(sample for sample in watch.samples if sample["done"] >= WARM * blocks)
    last = next((sample for sample in watch.samples if sample["done"] >= blocks), watch.samples[-1])
    done = max(1, last["done"] - warm["done"])
    figures = {
        "blocks": blocks,
        "s, whole job": took,
        "s, to the first result": (watch.first or np.nan) - began,
        "ms a block, on the clock": 1e3 * (last["time"] - warm["time"]) / done,
    }
    for who in ("driver", "scheduler", "workers"):
        figures[f"ms a block, processor, {who}"] = 1e3 * (last[who][1] - warm[who][1]) / done
    for who in ("driver", "scheduler", "workers"):
        figures[f"MB, {who}, when warm"] = warm[who][0]
        figures[f"MB, {who}, growth while screening"] = last[who][0] - warm[who][0]
        figures[f"MB, {who}, growth to the peak of the job"] = max(s[who][0] for s in watch.samples) - warm[who][0]
    return figures


def _tell(figures: dict[str, float]) -> None:
    for name, figure in figures.items():
        sys.stdout.write(f"{name:<50} {figure:12.2f}\n")


def main() -> None:
    """Make the store, run the job, say what it took."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that no process is left behind
    parser = argparse.ArgumentParser(description=re.split(r"\n\n", __doc__ or "")[0])
    parser.add_argument("--frames", type=int, default=WHOLE // 10)
    parser.add_argument("--whole", action="store_true", help=f"{WHOLE} frames")
    parser.add_argument("--end", action="store_true", help="only what comes after the last block, of 8 million frames")
    parser.add_argument("--folder", type=Path, help="where to work, emptied first [a temporary one]")
    given = parser.parse_args()
    count = WHOLE if given.whole or given.end else max(given.frames, WRITTEN)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="long-run-"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.perf_counter()
    frames = make_store(folder / "frames.zarr", count)
    sys.stdout.write(f"{count} frames made in {time.perf_counter() - started:.1f} s\n")
    if given.end:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            _tell(process.submit(measure_end, frames, *make_screened(frames, folder, count)).result())
        shutil.rmtree(folder)
        return
    _tell(summarise(*run_job(frames, folder), len(blocks_of(count, BLOCK))))
    hits = open_group(folder / "results.zarr", "hits")
    sys.stdout.write(f"{'hits':<50} {0 if hits is None else hits.sizes['hit']:12d}\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
