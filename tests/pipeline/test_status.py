import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr

from diffdask.cli import main
from diffdask.errors import BadParameter, BadStore
from diffdask.io.marks import mark_block, quarantine_block, timed_blocks
from diffdask.io.results_store import open_scores, open_screen
from diffdask.pipeline.rank import rank
from diffdask.pipeline.status import count_peaky_frames, status
from diffdask.pipeline.status_table import format_status


def interrupt(small, frames, results, *, after: int) -> None:
    """Screen in a process of its own and kill it once so many blocks are marked."""
    options = [word for name, value in small.parameters.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    verb = ["screen", str(frames), "--results", str(results), "--on", "threads", "--no-progress", *options]
    driver = subprocess.Popen([sys.executable, "-m", "diffdask", *verb], stderr=subprocess.PIPE)
    stop = time.monotonic() + 120
    while len(timed_blocks(results, "screen")) < after and time.monotonic() < stop and driver.poll() is None:
        time.sleep(0.002)
    driver.kill()
    driver.communicate(timeout=60)


@pytest.fixture(scope="module")
def interrupted(small, tmp_path_factory):
    """Results of a screen in blocks of one frame that was killed."""
    folder = tmp_path_factory.mktemp("interrupted")
    frames = small.ingest(folder / "frames.zarr", block_frames=1)
    interrupt(small, frames, folder / "results.zarr", after=5)
    return folder / "results.zarr"


def test_of_a_run_that_was_killed_it_says_what_is_done_and_what_is_left(interrupted):
    found = status(interrupted)
    marked = [block for _, block in timed_blocks(interrupted, "screen")]
    screened = found["stages"]["screen"]
    assert 5 <= len(marked) < 46
    assert (screened["blocks_done"], screened["blocks"]) == (len(marked), 46)
    assert (screened["done"], screened["total"], screened["unit"]) == (len(marked), 46, "frame")
    assert screened["rate"] > 0
    assert screened["seconds_left"] == pytest.approx((46 - len(marked)) / screened["rate"])
    assert 0 <= screened["seconds_since_last_block"] < 600
    assert found["state"] == "going on"
    assert found["diffuse"] is None
    peaks = zarr.open_group(str(interrupted), mode="r")["screen/frame_peak_count"][:]
    assert found["hits"] == (peaks[[start for start, _ in marked]] >= 5).sum()
    assert found["hits_are_estimated"] is False


def test_a_run_without_a_block_for_long_is_seen_to_stand(interrupted, tmp_path):
    copied = shutil.copytree(interrupted, tmp_path / "results.zarr")
    for number, entry in enumerate(os.scandir(copied / "marks" / "screen")):
        os.utime(entry.path, (time.time() - 7200 + number,) * 2)
    found = status(copied)
    screened = found["stages"]["screen"]
    assert found["state"] == screened["state"] == "no block for a while"
    assert screened["seconds_left"] is None
    assert screened["rate"] == pytest.approx(1.0, rel=0.01)
    assert 7000 < screened["seconds_since_last_block"] < 7300
    assert "1 h 59 min ago  no block for a while" in format_status(found)


def test_failures_are_told_with_their_reasons(interrupted, tmp_path):
    copied = shutil.copytree(interrupted, tmp_path / "results.zarr")
    quarantine_block(copied, "screen", (45, 46), reason="took down 3 workers")
    mark_block(copied, "screen", (0, 1), note=json.dumps({"0": "unreadable: damaged"}))
    found = status(copied)
    assert found["failures"]["damaged_frames"] == 1
    assert found["failures"]["blocks_given_up"] == 1
    assert found["failures"]["frames"] == 2
    assert found["failures"]["given_up"][0]["block"] == [45, 46]
    assert "screen 45 to 46" in format_status(found)
    assert "took down 3 workers" in format_status(found)


def test_of_a_finished_run_it_says_all_hits_and_once_ranked_the_diffuse_ones(small, tmp_path):
    results = small.copy(tmp_path / "results.zarr")
    found = status(results)
    assert found["state"] == "finished"
    assert found["hits"] == open_screen(results).frame_is_hit.values.sum()
    assert found["diffuse"] is None
    assert found["stages"]["hits"]["done"] == found["hits"]
    rank(results, ranker=small.ranker)
    scores = open_scores(results)
    assert status(results)["diffuse"] == (scores.frame_score.values >= scores.attrs["threshold"]).sum()


def test_an_ingest_can_be_followed_too(small):
    found = status(small.frames)
    assert found["state"] == "finished"
    assert found["stages"]["frames"]["total"] == 46
    assert "hits" not in found


def test_hits_of_many_blocks_are_estimated_from_some(tmp_path, monkeypatch):
    monkeypatch.setattr("diffdask.pipeline.status._MOST_READ", 50)
    root = zarr.open_group(str(tmp_path / "x.zarr"), mode="w")
    peaks = np.where(np.arange(4000) % 8 == 0, 9, 0)
    root.create_group("screen").create_array("frame_peak_count", data=peaks, chunks=(8,))
    blocks = [(start, start + 8) for start in range(0, 4000, 8)]
    assert count_peaky_frames(root, blocks, 5) == (500, True)
    assert count_peaky_frames(root, blocks[:50], 5) == (50, False)
    assert count_peaky_frames(root, [], 5) == (0, False)


def test_the_folder_of_marks_is_listed_once(interrupted, monkeypatch):
    listed = []
    original = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or original(path))
    status(interrupted)
    assert listed.count(str(interrupted / "marks" / "screen")) <= 2  # once for times, once for notes on damaged frames


def test_the_command_shows_a_table_or_json(interrupted, capsys):
    main(["status", str(interrupted)])
    told = capsys.readouterr().out
    assert f"{interrupted}: going on" in told
    assert "of 46 frames" in told
    main(["status", str(interrupted), "--json"])
    assert json.loads(capsys.readouterr().out)["stages"]["screen"]["total"] == 46


def test_watching_ends_when_the_run_does(small, interrupted, tmp_path, capsys, monkeypatch):
    copied = shutil.copytree(interrupted, tmp_path / "results.zarr")
    frames = interrupted.parent / "frames.zarr"
    monkeypatch.setattr(time, "sleep", lambda seconds: small.screen(copied, frames=frames))
    found = status(copied, watch=0.5)
    assert found["state"] == "finished"
    assert capsys.readouterr().out.count("going on\n") == 2  # of the store, and of its stage


def test_mistakes_are_told(small, tmp_path):
    with pytest.raises(BadStore, match="no Zarr store at"):
        status(tmp_path / "absent.zarr")
    with pytest.raises(BadStore, match="give a results store or a frames store"):
        status(small.ranker)
    with pytest.raises(BadParameter, match="watch = -1 must be"):
        status(small.results, watch=-1)
