"""Blocks that fail, each in its own way, on processes that are really killed and disks that are really full."""

import errno
import functools
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from diffdask.catalogue import catalogue_table
from diffdask.cluster import connect
from diffdask.errors import BadStore, FailedBlocks
from diffdask.io import object_storage
from diffdask.io.marks import is_marked, mark_block, marked_blocks, quarantined_blocks
from diffdask.io.results_store import open_group
from diffdask.pipeline import blocks as blocks_module
from diffdask.pipeline import screen as module
from diffdask.pipeline.blocks import Marks, run_marked
from diffdask.pipeline.failed_frames import read_unreadable

from ..s3_here import Proxy

pytestmark = pytest.mark.faults


def shard_of(frames: Path, block: int) -> Path:
    return frames / "adu" / "c" / str(block) / "0" / "0" / "0"


# damaged frames ----------------------------------------------------------------------------------


def spoil_one_frame(shard: Path) -> str:
    """Overwrite the bytes of the first frame of a shard."""
    with shard.open("r+b") as raw:
        raw.write(b"\xff" * 64)
    return "one"


def truncate(shard: Path) -> str:
    os.truncate(shard, shard.stat().st_size // 2)
    return "all"


def lose(shard: Path) -> str:
    shard.unlink()
    return "all"


SPOILT = pytest.mark.parametrize("spoil", [spoil_one_frame, truncate, lose])


@SPOILT
def test_a_damaged_chunk_costs_its_frames_only_and_says_why(campaign, tmp_path, spoil, caplog):
    frames, block = campaign.copy_frames(tmp_path / "frames.zarr"), 7
    first = block * campaign.size
    lost = [first] if spoil(shard_of(frames, block)) == "one" else [first, first + 1]
    with caplog.at_level(logging.WARNING, "diffdask"):
        results = campaign.screen(tmp_path / "results.zarr", frames=frames, on="threads")
    assert f"{len(lost)} frames are damaged or missing" in caplog.text
    table = catalogue_table(results)
    assert table.index[table.frame_status != "ok"].tolist() == lost
    said = "unreadable: missing in the frames store" if spoil is lose else "unreadable: damaged in the frames store ("
    assert table.frame_status[lost].str.startswith(said).all()
    assert table.loc[lost, "frame_background"].isna().all()
    assert not table.loc[lost, "frame_is_hit"].any()
    campaign.assert_undisturbed(results, but=lost)
    assert read_unreadable(results) == table.frame_status[lost].to_dict()


@SPOILT
@pytest.mark.parametrize("block", [5, 7], ids=["with a hit", "without a hit"])
def test_frames_that_were_mended_are_read_again_by_a_retry_and_nothing_else_is(campaign, tmp_path, spoil, block):
    frames, results = campaign.copy_frames(tmp_path / "frames.zarr"), tmp_path / "results.zarr"
    shard, first = shard_of(frames, block), block * campaign.size
    spoil(shard)
    campaign.screen(results, frames=frames, on="threads")
    assert first in read_unreadable(results)
    assert first not in open_group(results, "hits").hit_frame.values
    before = campaign.marks(results)
    shutil.copy(shard_of(campaign.frames, block), shard)
    campaign.screen(results, frames=frames, on="threads")  # left alone until told otherwise
    assert campaign.marks(results) == before
    campaign.screen(results, frames=frames, on="threads", retry=True)
    before.pop(f"{first}-{first + campaign.size}")
    campaign.assert_kept(results, before)
    assert read_unreadable(results) == {}
    campaign.assert_undisturbed(results)


def test_frames_that_are_still_damaged_are_flagged_again(campaign, tmp_path):
    frames, results = campaign.copy_frames(tmp_path / "frames.zarr"), tmp_path / "results.zarr"
    truncate(shard_of(frames, 7))
    for retry in (False, True):
        campaign.screen(results, frames=frames, on="threads", retry=retry)
        assert list(read_unreadable(results)) == [14, 15]
    campaign.assert_undisturbed(results, but=[14, 15])


# blocks that take down their worker -------------------------------------------------------------


def make_work(store, *, poison=(), antidote="antidote"):
    """Give a task that counts the block and marks it, or kills its process; workers cannot import this file."""

    def work(block):
        if block in poison and not os.path.exists(os.path.join(store, antidote)):
            os.kill(os.getpid(), signal.SIGKILL)
        with open(os.path.join(store, "computed"), "a") as computed:
            computed.write(f"{block[0]}\n")
        mark_block(store, "screen", block)

    return work


def flag(block, reason, *, store):
    (Path(store) / f"flagged-{block[0]}").write_text(reason)


@pytest.mark.parametrize(("count", "first"), [(40, 11), (3000, 2500)], ids=["alone", "with others in its task"])
def test_a_block_that_kills_its_workers_is_put_in_quarantine_and_the_rest_is_done(
    cluster, tmp_path, caplog, count, first
):
    blocks, poison = [(n, n + 1) for n in range(count)], (first, first + 1)
    task = make_work(str(tmp_path), poison=[poison])

    def run(**options):
        marks = Marks(str(tmp_path), "screen", flag=functools.partial(flag, store=str(tmp_path)), **options)
        done = marked_blocks(tmp_path, "screen")
        with caplog.at_level(logging.WARNING, "diffdask"), connect(cluster.address) as client:
            run_marked(client, task, blocks, done, what="work", unit="frame", progress=False, marks=marks)

    run()
    assert marked_blocks(tmp_path, "screen") == set(blocks) - {poison}
    (record,) = quarantined_blocks(tmp_path, "screen").values()
    assert "took down 4 workers" in record["reason"]
    assert (tmp_path / f"flagged-{first}").read_text() == record["reason"]
    assert "1 blocks of 1 frames are in quarantine" in caplog.text
    assert "--retry" in caplog.text
    (tmp_path / "antidote").touch()
    run()  # left alone until told otherwise
    assert not is_marked(tmp_path, "screen", poison)
    run(retry=True)
    assert marked_blocks(tmp_path, "screen") == set(blocks)
    assert quarantined_blocks(tmp_path, "screen") == {}
    computed = (tmp_path / "computed").read_text().split()
    assert len(computed) == len(set(computed))


POISON = """
import os, signal
from diffdask.pipeline import screen

def dask_setup(worker):
    original = screen.each_frame

    def each_frame(frames, start, stop, **options):
        if start <= 15 < stop and not os.path.exists({antidote!r}):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(frames, start, stop, **options)

    screen.each_frame = each_frame
"""


def test_a_screen_with_a_frame_that_kills_workers_flags_its_block_and_is_else_undisturbed(
    campaign, start_cluster, tmp_path, caplog
):
    preload, antidote, results = tmp_path / "poison.py", tmp_path / "antidote", tmp_path / "results.zarr"
    preload.write_text(POISON.format(antidote=str(antidote)))
    cluster = start_cluster(preload=preload)
    with caplog.at_level(logging.WARNING, "diffdask"):
        campaign.screen(results, on=cluster.address)
    assert "1 blocks of 2 frames are in quarantine and flagged as failed" in caplog.text
    (record,) = quarantined_blocks(results, "screen").values()
    assert "block (14, 16) took down 4 workers" in record["reason"]
    table = catalogue_table(results)
    assert table.index[table.frame_status != "ok"].tolist() == [14, 15]
    assert (table.frame_status[[14, 15]] == f"failed: {record['reason']}").all()
    campaign.assert_undisturbed(results, but=[14, 15])
    before = campaign.marks(results)
    assert len(before) == campaign.blocks - 1
    antidote.touch()
    campaign.screen(results, on=cluster.address, retry=True)
    campaign.assert_kept(results, before)
    campaign.assert_undisturbed(results)


def test_frames_of_a_block_that_fails_are_flagged_until_a_retry_mends_them(campaign, tmp_path, monkeypatch, caplog):
    original, results = module.read_frame_columns, tmp_path / "results.zarr"

    def fail_at_fourteen(frames, start, stop, **options):
        if start == 14:
            raise ValueError("odd")
        return original(frames, start, stop, **options)

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "diffdask"):
        patched.setattr(module, "read_frame_columns", fail_at_fourteen)
        campaign.screen(results, on="threads")
    assert "1 blocks of 2 frames are in quarantine and flagged as failed" in caplog.text
    table, expected = catalogue_table(results), catalogue_table(campaign.results)
    assert table.index[table.frame_status != "ok"].tolist() == [14, 15]
    assert (table.frame_status[[14, 15]] == "failed: ValueError: odd").all()
    assert table.loc[[14, 15], "frame_background"].isna().all()
    np.testing.assert_array_equal(table.frame_peak_count.drop([14, 15]), expected.frame_peak_count.drop([14, 15]))
    before = campaign.marks(results)
    campaign.screen(results, on="threads")
    assert campaign.marks(results) == before
    campaign.screen(results, on="threads", retry=True)
    campaign.assert_kept(results, before)
    campaign.assert_undisturbed(results)


# blocks whose task raises -----------------------------------------------------------------------------


def raise_at(block, *, store, bad, error):
    if block in bad:
        raise error
    mark_block(store, "screen", block)


@pytest.fixture(scope="module")
def client():
    with connect("threads") as client:
        yield client


def run_raising(client, store, error, *, bad=((3, 4),), count=30, **marks):
    task = functools.partial(raise_at, store=str(store), bad=bad, error=error)
    blocks = [(n, n + 1) for n in range(count)]
    done = marked_blocks(store, "screen")
    how = {"what": "work", "unit": "frame", "progress": False, "patience": 1.0}
    run_marked(client, task, blocks, done, marks=Marks(str(store), "screen", **marks), **how)


def test_an_error_of_one_block_does_not_stop_the_others(client, tmp_path):
    with pytest.raises(FailedBlocks, match=r"1 of 30 blocks failed \(\(3, 4\): ValueError: odd\).*same command"):
        run_raising(client, tmp_path, ValueError("odd"))
    assert len(marked_blocks(tmp_path, "screen")) == 29
    run_raising(client, tmp_path, ValueError("odd"), bad=())
    assert len(marked_blocks(tmp_path, "screen")) == 30


def test_a_flagged_block_goes_to_quarantine_with_its_traceback(client, tmp_path):
    run_raising(client, tmp_path, ValueError("odd"), flag=functools.partial(flag, store=str(tmp_path)))
    record = quarantined_blocks(tmp_path, "screen")[3, 4]
    assert record["reason"] == "ValueError: odd"
    assert "raise_at" in record["details"]


def test_an_error_of_all_blocks_stops_the_run_and_puts_none_in_quarantine(client, tmp_path):
    every = [(n, n + 1) for n in range(1000)]
    flagging = functools.partial(flag, store=str(tmp_path))
    with pytest.raises(FailedBlocks, match=r"stopped: \d+ blocks failed one after the other"):
        run_raising(client, tmp_path, ValueError("odd"), bad=every, count=1000, flag=flagging)
    assert quarantined_blocks(tmp_path, "screen") == {}


# storage ----------------------------------------------------------------------------------------------


def refuse_twice(block, *, store):
    """What a file system does that is gone for a moment."""
    tries = Path(store) / f"tries-{block[0]}"
    tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
    if len(tries.read_text()) < 3:
        raise OSError(errno.EIO, "Input/output error")
    mark_block(store, "screen", block)


def test_storage_that_is_lost_for_a_moment_is_waited_for(client, tmp_path):
    blocks = [(0, 1), (1, 2)]
    task = functools.partial(refuse_twice, store=str(tmp_path))
    started = time.monotonic()
    run_marked(client, task, blocks, [], what="work", unit="frame", progress=False)
    assert time.monotonic() - started >= 1.5
    assert marked_blocks(tmp_path, "screen") == set(blocks)


def test_storage_that_is_lost_for_long_fails_the_block_but_never_to_quarantine(client, tmp_path):
    error = OSError(errno.EIO, "Input/output error")
    with pytest.raises(FailedBlocks, match=r"1 of 30 blocks failed.*Input/output error"):
        run_raising(client, tmp_path, error, flag=functools.partial(flag, store=str(tmp_path)))
    assert quarantined_blocks(tmp_path, "screen") == {}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB, which is not enough."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_stops_the_run_at_once_and_with_room_it_goes_on(campaign, small_disk, tmp_path):
    results = small_disk / "results.zarr"
    with pytest.raises(FailedBlocks, match=r"No space left on device; .*goes on where it stopped"):
        campaign.screen(results, on="threads")
    before = campaign.marks(results)
    assert 0 < len(before) < campaign.blocks
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    campaign.screen(results, on="threads")
    campaign.assert_kept(results, before)
    campaign.assert_undisturbed(results)


def test_s3_that_is_ill_for_longer_than_is_waited_ends_the_run_and_nothing_is_done_twice(
    short_campaign, bucket, s3, monkeypatch
):
    monkeypatch.setattr(object_storage, "PATIENCE", 0.5)
    monkeypatch.setattr(blocks_module, "PATIENCE", 1.0)
    mark, marked, results = module.mark_block, [], f"{bucket}/results.zarr"

    def mark_and_fall_ill(store, group, block, **note):
        mark(store, group, block, **note)
        marked.append(block)
        if len(marked) == 5:
            proxy.refuse_for(math.inf)

    with Proxy(s3) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        monkeypatch.setattr(module, "mark_block", mark_and_fall_ill)
        with pytest.raises(FailedBlocks, match=r"503.*the same command"):
            short_campaign.screen(results, on="threads")
        proxy.refuse_for(0)
        assert 5 <= len(marked) < short_campaign.blocks
        assert set(marked) == marked_blocks(results, "screen")
        short_campaign.screen(results, on="threads")
        assert len(marked) == len(set(marked)) == short_campaign.blocks
        short_campaign.assert_undisturbed(results)


# words that are lost -----------------------------------------------------------------------------------


def test_a_block_marked_by_a_worker_whose_word_was_lost_is_not_done_again(client, tmp_path):
    blocks = [(n, n + 1) for n in range(40)]
    own = make_work(str(tmp_path))

    def work_for_two(block):
        """The first block also does the last, as a worker that died before it could say so."""
        if block == blocks[0]:
            own(blocks[-1])
        own(block)

    options = {"what": "work", "unit": "frame", "progress": False, "marks": Marks(str(tmp_path), "screen")}
    run_marked(client, work_for_two, blocks, [], **options)
    assert sorted(map(int, (tmp_path / "computed").read_text().split())) == list(range(40))


def test_a_mark_that_no_longer_holds_is_taken_away_before_the_block_is_done(client, tmp_path):
    blocks = [(n, n + 1) for n in range(4)]
    for block in blocks:
        mark_block(tmp_path, "screen", block)
    task = make_work(str(tmp_path))
    options = {"what": "work", "unit": "frame", "progress": False, "marks": Marks(str(tmp_path), "screen")}
    run_marked(client, task, blocks, blocks[:3], **options)
    assert (tmp_path / "computed").read_text().split() == ["3"]


def test_a_block_marked_since_it_was_judged_which_are_done_keeps_its_mark_and_is_not_done_again(
    campaign, tmp_path, monkeypatch
):
    """By a worker that a killed run left behind: the screen counts what was found so far between the two."""
    results, marked_meanwhile = tmp_path / "results.zarr", {}
    run_all = module.count_screened

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    def mark_one(*arguments, **options):
        shutil.copytree(campaign.results / "screen", results / "screen", dirs_exist_ok=True, ignore=is_metadata)
        mark_block(results, "screen", (14, 16))
        marked_meanwhile.update(campaign.marks(results))
        return run_all(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(module, "count_screened", interrupt)
        with pytest.raises(KeyboardInterrupt):
            campaign.screen(results, on="threads")
    monkeypatch.setattr(module, "count_screened", mark_one)
    campaign.screen(results, on="threads")
    campaign.assert_kept(results, marked_meanwhile)
    campaign.assert_undisturbed(results)


def is_metadata(folder, names):
    return [name for name in names if name == "zarr.json"]


@pytest.mark.parametrize("name", ["write_rows", "check_made"], ids=["before it writes", "before it marks"])
def test_a_worker_of_a_run_whose_layout_was_overwritten_marks_nothing(campaign, tmp_path, monkeypatch, name):
    """The parameters of the screen are the same: only that it was made anew tells it from the one before."""
    results = Path(shutil.copytree(campaign.results, tmp_path / "results.zarr"))
    started = open_group(results, "screen").attrs
    original, calls = getattr(module, name), []

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    def overwrite_before(*arguments, **options):
        calls.append(name)
        with monkeypatch.context() as patched:
            patched.setattr(module, "count_screened", interrupt)
            with pytest.raises(KeyboardInterrupt):
                campaign.screen(results, on="threads", polarisation_fraction=0.5, overwrite=True)
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, overwrite_before)
    how = {"how": started["parameters"], "min_peaks": 3, "made": started["made"]}
    with pytest.raises(BadStore, match="made anew in the meantime"):
        module._screen_block((14, 16), frames=str(campaign.frames), results=str(results), **how)
    assert calls == [name]
    assert marked_blocks(results, "screen") == set()


def test_the_note_of_a_mark_holds_damaged_frames_only(campaign):
    notes = [path.read_text() for path in (campaign.results / "marks" / "screen").iterdir()]
    assert set(notes) == {""}
    assert json.loads(module.note_unreadable(np.array(["ok", "bad"]), np.array(["ok", "ok"]), 6)) == {"7": "bad"}
