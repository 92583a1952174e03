"""Workers that retire by themselves in the midst of a run, as those of SLURM do before their walltime is up."""

import functools
import os
import time

import dask
import distributed  # noqa: F401  its defaults: read within dask.config.set, they would be gone after it
import pytest
from dask.utils import parse_timedelta

from diffdask.cluster import connect
from diffdask.io.marks import mark_block, marked_blocks
from diffdask.pipeline.blocks import Marks, run_marked

BLOCKS = [(4 * number, 4 * number + 4) for number in range(190)]

#: A block may be begun again while the retiring worker ends it, and until others see the mark, s.
GRACE = 0.1

#: Of a worker, s; it lives longer or shorter by up to the second. Dask counts from before a worker has connected, which
#: takes seconds on a busy machine, and one whose time is up by then never comes back.
LIFETIME, STAGGER = 8.0, 1.0


def make_work(store):
    """Give a task that says who does which block, and marks it; workers cannot import this file."""

    def work(block):
        with open(os.path.join(store, "computed"), "a") as computed:
            computed.write(f"{block[0]} {os.getpid()} {time.time()}\n")
        time.sleep(0.1)
        mark_block(store, "screen", block)
        with open(os.path.join(store, "marked"), "a") as marked:
            marked.write(f"{block[0]} {time.time()}\n")

    return work


@pytest.fixture
def client(tmp_path):
    """Two worker processes with nannies, which start them again when they have retired."""
    place = tmp_path / "place.toml"
    place.write_text('where = "laptop"\nworkers = 2\n')
    lifetime = {"duration": f"{LIFETIME}s", "stagger": f"{STAGGER}s", "restart": True}
    with dask.config.set({"distributed.worker.lifetime": lifetime}), connect(place) as client:
        yield client


@pytest.mark.slow
def test_a_run_outlives_its_workers_and_computes_no_marked_block_twice(client, tmp_path, caplog):
    store = str(tmp_path)
    run = functools.partial(run_marked, what="screen", unit="frame", progress=False, marks=Marks(store, "screen"))
    run(client, make_work(store), BLOCKS, set())
    assert marked_blocks(store, "screen") == set(BLOCKS)
    computed, marked = read(tmp_path / "computed"), read(tmp_path / "marked")
    processes = {process for _, process, _ in computed}
    assert len(processes) > 2, "workers retired, and others took their place"
    first_marked = {block: when for block, when in reversed(marked)}
    assert not [block for block, _, begun in computed if begun > first_marked[block] + GRACE]
    assert len(computed) - len(BLOCKS) <= len(processes), "a worker of one thread leaves one block to others, at most"
    assert "lost its worker" not in caplog.text


def read(path):
    return [tuple(float(word) for word in line.split()) for line in path.read_text().splitlines()]


def test_dask_never_does_away_with_the_nanny_of_a_worker_that_comes_and_goes(client):
    # it would take two losses 15 s apart, the second while Dask looks for what came after the first
    assert parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout")) > 30 * 86400
