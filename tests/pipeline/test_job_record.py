"""job.json: there from the start, and true whatever ends the job."""

import errno
import json
import logging
import subprocess
import sys

import pytest
import zarr

import diffdask.pipeline.job_record as module
from diffdask.errors import FailedBlocks
from diffdask.interruption import Terminated
from diffdask.io.marks import mark_block, quarantine_block, remove_marks
from diffdask.pipeline.job_record import (
    count_results,
    find_versions,
    keep_record,
    note_rate,
    read_record,
    write_record,
)
from diffdask.version import __version__


def stored(folder):
    return json.loads((folder / "job.json").read_text())


def test_a_job_is_written_down_from_its_start(tmp_path):
    with keep_record(tmp_path, job="a.toml", place={"where": "laptop"}) as record:
        begun = stored(tmp_path)
        assert (begun["state"], begun["ended"]) == ("running", None)
        record["verbs"]["ingest"] = {"seconds": 1.0}
        write_record(tmp_path, record)
        assert stored(tmp_path)["verbs"] == {"ingest": {"seconds": 1.0}}
    done = stored(tmp_path)
    assert (done["job"], done["version"], done["state"], done["error"]) == ("a.toml", __version__, "finished", None)
    assert done["ended"] >= done["started"]
    assert {"python", "dask", "numpy", "zarr"} <= set(done["versions"])
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]


@pytest.mark.parametrize(
    ("error", "state"),
    [(OSError("disk full"), "failed"), (Terminated(), "ended"), (KeyboardInterrupt(), "interrupted")],
)
def test_how_a_job_ended_is_kept_until_it_finishes(tmp_path, error, state):
    with pytest.raises(type(error)), keep_record(tmp_path, job="a.toml"):
        raise error
    assert stored(tmp_path)["state"] == state
    assert stored(tmp_path)["error"].startswith(type(error).__name__)
    with keep_record(tmp_path, job="a.toml"):
        pass
    (attempt,) = stored(tmp_path)["attempts"]
    assert attempt["state"] == state
    with keep_record(tmp_path, job="a.toml"):
        pass
    assert stored(tmp_path)["attempts"] == [], "a job that finished begins anew"


def test_a_job_that_was_killed_is_an_attempt_too(tmp_path):
    (tmp_path / "job.json").write_text('{"state": "running", "started": "then"}')
    with keep_record(tmp_path, job="a.toml"):
        pass
    (attempt,) = stored(tmp_path)["attempts"]
    assert (attempt["state"], attempt["started"], attempt["ended"]) == ("running", "then", None)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_record_that_cannot_be_read_is_no_record(tmp_path, text):
    (tmp_path / "job.json").write_text(text)
    assert read_record(tmp_path) == {}


def test_a_run_with_nothing_to_do_keeps_the_rates_of_the_one_before(tmp_path):
    with keep_record(tmp_path, job="a.toml") as record:
        note_rate(record, "screen", unit="frame", count=100, seconds=50.0)
    with keep_record(tmp_path, job="a.toml") as record:
        note_rate(record, "screen", unit="frame", count=0, seconds=3.0)
    assert stored(tmp_path)["rates"]["screen"]["count"] == 100


def test_what_was_found_and_what_was_left_out_is_counted(small, tmp_path):
    results = small.copy(tmp_path / "results.zarr")
    counts, failures = count_results(results)
    assert counts["frames"] == 46
    assert 0 < counts["hits"] < 46
    assert failures == {"frames": {}, "blocks": {}}
    quarantine_block(results, "screen", (8, 16), reason="it killed its workers")
    _, failures = count_results(results)
    assert failures["blocks"] == {"screen": [[8, 16, "it killed its workers"]]}
    assert count_results(tmp_path / "absent.zarr") == ({}, {"frames": {}, "blocks": {}})


def test_an_unfinished_screen_is_counted_as_far_as_it_came(small, tmp_path):
    results = small.copy(tmp_path / "results.zarr")
    whole, _ = count_results(results)
    zarr.open_group(results / "screen", mode="r+").attrs["complete"] = False
    remove_marks(results, "screen")
    assert count_results(results) == ({}, {"frames": {}, "blocks": {}}), "nothing is marked"
    mark_block(results, "screen", (0, 8), note='{"3": "damaged: a chunk is truncated"}')
    mark_block(results, "screen", (8, 16))
    quarantine_block(results, "screen", (16, 24), reason="it killed its workers")
    counts, failures = count_results(results)
    assert counts["frames"] == 16
    assert 0 < counts["hits"] < whole["hits"]
    assert failures == {
        "frames": {"damaged: a chunk is truncated": 1},
        "blocks": {"screen": [[16, 24, "it killed its workers"]]},
    }


# storage that refuses ------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(tmp_path):
    """A file system of one page, and a way to fill it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")

    def fill():
        with pytest.raises(OSError, match="No space left"), (disk / "filler").open("wb") as file:
            file.write(bytes(1 << 20))

    yield disk, fill
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_does_not_hide_why_a_job_failed(full_disk, caplog):
    disk, fill = full_disk

    def fail():
        fill()
        raise FailedBlocks("3 of 4 blocks failed")

    with (
        caplog.at_level(logging.ERROR, logger="diffdask"),
        pytest.raises(FailedBlocks, match="3 of 4 blocks failed"),
        keep_record(disk, job="a.toml"),
    ):
        fail()
    assert "No space left on device" in caplog.text
    assert "it ended: FailedBlocks: 3 of 4 blocks failed" in caplog.text
    assert stored(disk)["state"] == "running", "what was there stays whole"


def test_a_full_disk_at_the_end_of_a_job_that_went_well_is_an_error(full_disk):
    disk, fill = full_disk
    with pytest.raises(OSError, match="No space left") as caught, keep_record(disk, job="a.toml"):
        fill()
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("error", [Terminated(), KeyboardInterrupt(), FailedBlocks("3 of 4 blocks failed")])
def test_lost_storage_never_hides_how_a_job_ended(tmp_path, monkeypatch, caplog, error):
    def refuse(folder, record):
        raise OSError(errno.EIO, "Input/output error")

    def lose_storage():
        monkeypatch.setattr(module, "write_record", refuse)
        raise error

    with pytest.raises(type(error)), keep_record(tmp_path, job="a.toml"):
        lose_storage()
    assert "Input/output error" in caplog.text


# versions ------------------------------------------------------------------------------------------------


def test_the_versions_are_of_all_that_computes_or_stores_here():
    found = find_versions()
    assert {"obstore", "h5py", "dask-ml", "keras", "zarr", "numcodecs", "scikit-learn", "numba"} <= set(found)
    assert {"tensorflow", "tensorflow-cpu"} & set(found)
    assert all(found.values())


def test_the_versions_are_found_without_an_import():
    script = (
        "import sys\n"
        "from diffdask.pipeline.job_record import find_versions\n"
        "find_versions()\n"
        "heavy = {'keras', 'tensorflow', 'dask_ml', 'dask_jobqueue', 'kr8s'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_what_is_not_installed_is_not_in_the_record(monkeypatch):
    monkeypatch.setattr(module, "_PACKAGES", ("numpy", "no-such-package"))
    assert set(find_versions()) == {"python", "numpy"}
