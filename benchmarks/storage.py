"""Frames in a folder and on S3: what reading and writing cost beside plain obstore, and how much distance costs.

S3 is moto's server, a process of its own over HTTP on this machine: what it can
do at all is the row of plain obstore, and what counts are the ratios to it::

    python benchmarks/storage.py             # 64 CSPAD frames in blocks of 16, about a minute
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import obstore

from diffdask.io import frames_store
from diffdask.io.crystfel_geometry import parse_geometry
from diffdask.io.frames_plan import Segment
from diffdask.io.frames_store import each_frame, take_frames
from diffdask.io.frames_writer import create_or_check, finish, plan_frames
from diffdask.io.marks import is_marked, mark_block, marked_blocks
from diffdask.io.object_storage import Bucket
from diffdask.io.paths import join
from diffdask.io.storage import storage_at
from diffdask.planning import blocks_of
from diffdask.simulate import cspad_geometry_text

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from s3_here import Proxy, environment, serve_s3

BLOCK = 16


def main() -> None:
    """Measure everything and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3, help="times each is done; the median is told")
    parser.add_argument("--delay", type=float, default=0.03, help="s that a distant S3 takes to answer")
    given = parser.parse_args()
    frames = make_frames(given.frames)
    with tempfile.TemporaryDirectory() as folder, serve_s3() as s3, Proxy(s3) as far:
        told = []
        os.environ.update(environment(s3))
        for name, place in (("folder", folder), ("S3", "s3://tests/near")):
            told += measure(name, join(place, "frames.zarr"), frames, given.turns)
        os.environ["AWS_ENDPOINT_URL"] = far.endpoint
        told += measure_far(far, given.delay)
    sys.stdout.write("".join(f"{line}\n" for line in told))


def make_frames(count: int) -> np.ndarray:
    """Raw CSPAD frames: few photons, noise of 5 ADU, offsets."""
    random = np.random.default_rng(1)
    photons = random.poisson(0.5, (BLOCK, 64, 185, 194)) * 32
    few = np.rint(photons + random.normal(1000, 5, photons.shape)).astype(np.int16)
    return np.concatenate([few] * -(-count // BLOCK))[:count]


def write_frames(place: Any, frames: np.ndarray) -> None:
    """Write a whole frames store, block by block, as ingest does."""
    count = len(frames)
    layout = parse_geometry(cspad_geometry_text())
    root = create_or_check(place, layout, block_frames=BLOCK, codec="lz4")
    columns = {
        "frame_id": np.array([f"r0001-{number:06d}" for number in range(count)], dtype=object),
        "run": np.ones(count, dtype=np.int64),
        "event": np.array([f"//{number}" for number in range(count)], dtype=object),
        "source": np.full(count, "cspad.cxi", dtype=object),
        "photon_energy": np.full(count, 9500.0),
        "camera_length": np.full(count, 0.1),
        "frame_status": np.full(count, "ok", dtype=object),
    }
    plan_frames(root, [Segment("cspad.cxi", "cspad", 0, count, 0, 0.0)], columns, layout=layout, dtype="int16")
    for start, stop in blocks_of(count, BLOCK):
        root["adu"][start:stop] = frames[start:stop]
        mark_block(place, "frames", (start, stop))
    finish(root)


def read_frames(place: Any, count: int) -> None:
    """Read all frames one by one, as screen does."""
    for block in blocks_of(count, BLOCK):
        for _ in each_frame(place, *block):
            pass


def measure(name: str, place: Any, frames: np.ndarray, turns: int) -> list[str]:
    """Measure one kind of storage beside plain reads and writes of the same bytes."""
    storage, count = storage_at(place), len(frames)
    raw = frames.nbytes / 1e6

    def write() -> None:
        storage.remove("")
        write_frames(place, frames)

    seconds = timed(write, turns)
    objects = [f"adu/c/{number}/0/0/0" for number in range(-(-count // BLOCK))]
    stored = [plain_read(place, one) for one in objects]
    size = sum(map(len, stored)) / 1e6
    plain_w = timed(lambda: [plain_write(place, f"plain/{number}", one) for number, one in enumerate(stored)], turns)
    plain_r = timed(lambda: [plain_read(place, one) for one in objects], turns)
    read = timed(lambda: read_frames(place, count), turns)
    hits = timed(lambda: take_frames(place, list(range(0, count, 8))), turns) / len(range(0, count, 8))
    marks = timed(lambda: [mark_block(place, "bench", (n, n + 1)) for n in range(100)], turns) / 100
    asked = timed(lambda: [is_marked(place, "bench", (n, n + 1)) for n in range(100)], turns) / 100
    listed = timed(lambda: marked_blocks(place, "bench"), turns)
    return [
        f"{name}: {count} frames, {raw:.0f} MB, {size:.0f} MB as stored",
        f"  write blocks        {seconds:6.2f} s   plain put {plain_w:6.2f} s   ratio {seconds / plain_w:.2f}",
        f"  read frame by frame {read:6.2f} s   plain get {plain_r:6.2f} s   ratio {read / plain_r:.2f}",
        f"  a single hit        {hits * 1e3:6.1f} ms",
        f"  a mark        {marks * 1e3:6.2f} ms to put, {asked * 1e3:.2f} to ask for; 100 listed in {listed * 1e3:.1f}",
    ]


def measure_far(far: Proxy, delay: float) -> list[str]:
    """Read a block from an S3 that takes its time, held in memory and in pieces; count requests."""
    place = "s3://tests/near/frames.zarr"
    storage, at_once = storage_at(place), Bucket.holding
    frames_store._open_once.cache_clear()  # they were opened nearby
    read_frames(place, BLOCK)
    far.delay = delay
    lines = [f"S3 that answers after {delay * 1e3:.0f} ms, a block of {BLOCK} frames"]
    for how, hold in (("fetched at once", at_once), ("in pieces", lambda storage, _: at_once(storage, ""))):
        storage.holding = functools.partial(hold, storage)  # type: ignore[method-assign]
        far.requests.clear()
        seconds = timed(lambda: read_frames(place, BLOCK), 1)
        lines.append(f"  {how:<18} {seconds:6.2f} s   {len(far.requests):3d} requests")
    return lines


def plain_write(place: Any, name: str, content: bytes) -> None:
    """Put bytes with nothing of ours around it."""
    if isinstance(place, str):
        obstore.put(storage_at(place).zarr_store().store, name, content)
        return
    path = Path(place, name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def plain_read(place: Any, name: str) -> bytes:
    """Get bytes with nothing of ours around it."""
    if isinstance(place, str):
        return bytes(obstore.get(storage_at(place).zarr_store().store, name).bytes())
    return Path(place, name).read_bytes()


def timed(work: Callable[[], object], turns: int) -> float:
    """Median time of some turns, s."""
    seconds = []
    for _ in range(turns):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
