"""An ingest whose workers or whose driver are killed; what is in the store afterwards is what would have been there."""

import errno
import logging
import math
import signal
import threading

import h5py
import numpy as np
import pytest

from diffdask.cluster import connect
from diffdask.errors import BadFrames, BadStore, FailedBlocks
from diffdask.io import frames_writer as module
from diffdask.io.frames_store import open_frames, open_root
from diffdask.io.frames_writer import write_planned
from diffdask.pipeline import blocks as blocks_module

pytestmark = pytest.mark.faults

#: Share of the blocks that is marked when it happens.
POINTS = pytest.mark.parametrize("share", [0.01, 0.45, 0.85], ids=["early", "middle", "late"])


@POINTS
@pytest.mark.parametrize("victims", ["worker", "all_workers"])
def test_an_ingest_whose_workers_are_killed_ends_as_if_nothing_had_happened(
    files, cluster, look_at_shards, tmp_path, share, victims
):
    store, before = tmp_path / "frames.zarr", {}

    def deed():
        getattr(cluster, f"kill_{victims}")()
        before.update(look_at_shards(store, marked_only=True))

    with connect(cluster.address) as client:
        client.wait_for_workers(2, timeout=60)
        killer = files.at_marks(store, share, deed)
        files.ingest(store, on=client)
    killer.wait(60)
    files.assert_kept(store, before)
    files.assert_undisturbed(store)


@POINTS
def test_an_ingest_whose_driver_is_killed_goes_on_where_it_stopped(
    files, cluster, drive, look_at_shards, tmp_path, share
):
    store = tmp_path / "frames.zarr"
    with drive(files.command(store, cluster.address)) as driver:
        files.at_marks(store, share, driver.kill).wait()
        driver.communicate(timeout=60)
        assert driver.returncode == -signal.SIGKILL
    before = look_at_shards(store, marked_only=True)
    with pytest.raises(BadStore, match="run the same 'diffdask ingest' again"):
        open_frames(store)
    files.ingest(store, on=cluster.address)
    files.assert_kept(store, before)
    files.assert_undisturbed(store)


POISON = """
import os, signal
from diffdask.io import frames_writer

def dask_setup(worker):
    original = frames_writer.read_frames

    def read_frames(path, layout, events, out):
        if "//15" in events:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(path, layout, events, out)

    frames_writer.read_frames = read_frames
"""


def test_a_frame_that_kills_workers_costs_its_block_and_says_so(files, start_cluster, tmp_path, caplog):
    preload = tmp_path / "poison.py"
    preload.write_text(POISON)
    store = tmp_path / "frames.zarr"
    with caplog.at_level(logging.WARNING, "diffdask"):
        files.ingest(store, on=start_cluster(preload=preload).address)
    files.assert_undisturbed(store, but=[14, 15])
    lost = open_frames(store).isel(frame=[14, 15]).compute()
    assert not lost.adu.values.any()
    assert all("unreadable: block (14, 16) took down 4 workers" in status for status in lost.frame_status.values)
    assert "their files can be ingested into a new store" in caplog.text
    assert (store / "adu" / "c" / "7").is_dir()  # else it would be told to be missing


def fail_at(monkeypatch, event, error):
    original = module.read_frames

    def failing(path, layout, events, out):
        if event in events:
            raise error
        return original(path, layout, events, out)

    monkeypatch.setattr(module, "read_frames", failing)


def test_an_error_of_one_block_does_not_stop_the_others_and_is_no_reason_to_give_up_raw_frames(
    files, look_at_shards, tmp_path, monkeypatch
):
    store = tmp_path / "frames.zarr"
    with monkeypatch.context() as patched:
        fail_at(patched, "//15", ValueError("odd"))
        with pytest.raises(FailedBlocks, match=r"1 of 240 blocks failed \(\(14, 16\): ValueError: odd\).*same command"):
            files.ingest(store, on="threads")
    before = look_at_shards(store, marked_only=True)
    assert len(before) == files.blocks - 1
    files.ingest(store, on="threads")
    files.assert_kept(store, before)
    files.assert_undisturbed(store)


@pytest.fixture
def lose(files, monkeypatch):
    """Take the source away at the eighth block, and bring it back when it was asked for a number of times."""
    away, original, lock = files.source.with_suffix(".away"), module.read_frames, threading.Lock()

    def call(*, until=math.inf, instead=None):
        asked = []

        def read_frames(path, layout, events, out):
            with lock:
                if "//15" in events and not asked:
                    files.source.rename(away)
                    if instead:
                        files.source.write_text(instead)
                if away.exists():
                    asked.append(events[0])
                if len(asked) > until:
                    bring_back()
            return original(path, layout, events, out)

        monkeypatch.setattr(module, "read_frames", read_frames)
        return asked

    def bring_back():
        if away.exists():
            away.replace(files.source)

    call.bring_back = bring_back
    yield call
    bring_back()


def test_a_source_that_is_lost_for_a_moment_is_waited_for(files, lose, tmp_path):
    asked = lose(until=2)
    files.ingest(tmp_path / "frames.zarr", on="threads")
    assert len(asked) == 3
    files.assert_undisturbed(tmp_path / "frames.zarr")


def test_a_source_that_stays_away_ends_the_ingest_when_it_was_waited_for_and_the_same_command_goes_on(
    files, lose, look_at_shards, tmp_path, monkeypatch
):
    store = tmp_path / "frames.zarr"
    monkeypatch.setattr(blocks_module, "PATIENCE", 1.0)
    asked = lose()
    with pytest.raises(FailedBlocks, match=r"No such file or directory: .*tiny\.cxi.*the same command"):
        files.ingest(store, on="threads")
    assert asked.count("//14") > 1
    before = look_at_shards(store, marked_only=True)
    with pytest.raises(BadFrames, match="no file matches"):
        files.ingest(store, on="threads")
    monkeypatch.undo()
    lose.bring_back()
    files.ingest(store, on="threads")
    files.assert_kept(store, before)
    files.assert_undisturbed(store)


def test_storage_that_fails_in_the_midst_of_a_source_costs_no_frame(files, tmp_path, monkeypatch):
    store, read = tmp_path / "frames.zarr", h5py.Dataset.__getitem__

    def refuse_one(dataset, index):
        if index == (slice(14, 16),):
            raise OSError(errno.EIO, "file read failed")
        return read(dataset, index)

    with monkeypatch.context() as patched:
        patched.setattr(blocks_module, "PATIENCE", 0.1)
        patched.setattr(h5py.Dataset, "__getitem__", refuse_one)
        with pytest.raises(FailedBlocks, match=r"1 of 240 blocks failed \(\(14, 16\): OSError.*Input/output error"):
            files.ingest(store, on="threads")
    files.ingest(store, on="threads")
    files.assert_undisturbed(store)


def test_a_source_that_became_something_else_ends_the_ingest_at_once(files, lose, tmp_path):
    lose(instead="hello")
    with pytest.raises(BadFrames, match=r"tiny\.cxi' is no HDF5 file"):
        files.ingest(tmp_path / "frames.zarr", on="threads")


def test_a_worker_that_outlived_its_ingest_writes_nothing(files, look_at_shards, tmp_path):
    store = files.ingest(tmp_path / "frames.zarr", on="threads")
    before = look_at_shards(store)
    with pytest.raises(BadStore, match="not to be written"):
        write_planned((14, 16), path=str(store))
    assert look_at_shards(store) == before
    assert not (store / "marks").exists()


def test_frames_of_nothing_but_zeros_are_there_too(files, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "read_frames", lambda path, layout, events, out: out.fill(0) or {})
    store = files.ingest(tmp_path / "frames.zarr", on="threads")
    assert len(list((store / "adu" / "c").iterdir())) == files.blocks
    assert open_root(store).attrs["complete"]
    assert not np.asarray(open_frames(store).adu).any()
