"""run --dry-run: what would be done, and nothing is."""

import json
import os
import shutil
from pathlib import Path

import pytest

from diffdask.cluster.capacity import Capacity
from diffdask.errors import BadFrames, BadStore
from diffdask.pipeline.plan import plan_job
from diffdask.pipeline.plan_table import format_plan
from diffdask.pipeline.run import plan_calls, read_job, run

ROOT = Path(__file__).parents[2]
PLACE = Capacity("a place", workers=4, threads=2, memory=2 * 10**9, cores=10, cost_per_core_hour=0.5)


@pytest.fixture
def data(small, tmp_path, monkeypatch):
    """A folder with the files that the jobs of the project name."""
    (tmp_path / "data").mkdir()
    for path in small.simulated.glob("*.cxi"):
        os.symlink(path, tmp_path / "data" / path.name)
    shutil.copy(small.geometry, tmp_path / "data" / "detector.geom")
    shutil.copy(small.simulated / "campaign.stream", tmp_path / "data" / "indexed.stream")
    shutil.copy(small.labels, tmp_path / "data" / "labels.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sections(small, **more):
    ingest = {"sources": str(small.simulated / "r*.cxi"), "geometry": str(small.geometry), "block_frames": 8}
    return {"ingest": ingest, "screen": dict(small.parameters), **more}


@pytest.mark.parametrize("path", sorted(ROOT.glob("jobs/*.toml")), ids=lambda path: path.name)
def test_every_job_of_the_project_can_be_planned(path, data, small):
    if "ingest" not in read_job(path):
        shutil.copytree(small.results, data / "campaign" / "results.zarr")
    before = sorted(data.rglob("*"))
    plan = run(path, on="laptop", dry_run=True, progress=False)
    assert list(plan["verbs"]) == [name for name in plan["verbs"] if name in read_job(path)]
    assert format_plan(plan)
    assert sorted(data.rglob("*")) == before, "nothing was written"


def test_a_plan_of_new_files_is_measured_on_a_sample(small, tmp_path):
    plan = plan_job(plan_calls(sections(small, rank={}), tmp_path), tmp_path, PLACE)
    ingest, screen, rank = (plan["verbs"][name] for name in ("ingest", "screen", "rank"))
    files = list(small.simulated.glob("r*.cxi"))
    assert (ingest["left"], screen["left"]) == (46, 46)
    assert (ingest["tasks"], screen["tasks"]) == (6 + len(files), 6)
    assert ingest["read_bytes"] == sum(path.stat().st_size for path in files)
    pixels = 2 * 64 * 128
    assert screen["worker_bytes"] == 400_000_000 + 30 * pixels + 4 * 2 * 8 * pixels * 2
    assert screen["basis"] == "a sample of 15 frames", "the first file has no more"
    assert screen["hours"] == pytest.approx(screen["core_seconds"] / 3600 / 8)
    assert (rank["left"], rank["basis"]) == (None, "known after the screen")
    total = plan["total"]
    assert total["core_hours"] == pytest.approx((ingest["core_seconds"] + screen["core_seconds"]) / 3600)
    assert total["cost"] == pytest.approx(total["hours"] * 10 * 0.5)
    assert total["without_hours"] == ["rank"]
    assert json.dumps(plan)
    assert not list(tmp_path.iterdir())


def test_a_plan_goes_on_from_what_is_there(small, tmp_path):
    more = {"haloes": {}, "compare": {}}
    calls = plan_calls(sections(small, **more), tmp_path)
    calls["ingest"]["to"] = calls["screen"]["frames"] = str(small.frames)
    plan = plan_job(calls, tmp_path, PLACE)
    assert (plan["verbs"]["ingest"]["left"], plan["verbs"]["ingest"]["basis"]) == (0, "done")
    assert plan["verbs"]["screen"]["left"] == 46
    assert plan["verbs"]["screen"]["read_bytes"] < 46 * 2 * 64 * 128 * 2, "compressed"
    for name in ("screen", "haloes", "compare"):
        calls[name]["results"] = str(small.results)
    plan = plan_job(calls, tmp_path, PLACE)
    assert plan["verbs"]["screen"]["basis"] == "done"
    hits = plan["verbs"]["haloes"]["left"]
    assert 0 < hits < 46
    assert plan["verbs"]["compare"]["left"] == hits * (hits - 1) // 2
    assert plan["total"]["core_hours"] == 0


def test_a_long_earlier_run_tells_the_time_and_a_short_one_does_not(small, tmp_path):
    calls = plan_calls({"screen": dict(small.parameters)}, tmp_path)
    calls["screen"]["frames"] = str(small.frames)
    for seconds, expected in ((2000.0, "1,000 frames of the run of then"), (20.0, "a sample of 16 frames")):
        rates = {"screen": {"frames": 1000, "core_seconds": seconds, "started": "then"}}
        (tmp_path / "job.json").write_text(json.dumps({"rates": rates}))
        assert plan_job(calls, tmp_path, PLACE)["verbs"]["screen"]["basis"] == expected
    (tmp_path / "job.json").write_text(json.dumps({"rates": {"screen": {**rates["screen"], "core_seconds": 2000.0}}}))
    assert plan_job(calls, tmp_path, PLACE)["verbs"]["screen"]["core_seconds"] == pytest.approx(46 * 2.0)


def test_too_little_memory_and_the_cost_are_said(small, tmp_path):
    calls = plan_calls({"screen": dict(small.parameters)}, tmp_path)
    calls["screen"]["frames"] = str(small.frames)
    little = Capacity("a place", workers=1, memory=300_000_000, cores=1, cost_per_core_hour=3600.0)
    told = format_plan(plan_job(calls, tmp_path, little))
    assert "TOO LITTLE MEMORY: a worker needs 4" in told
    assert "cost: 0." in told
    unknown = format_plan(plan_job(calls, tmp_path, Capacity("the scheduler at tls://a:1")))
    assert "how many workers it has, only it knows" in unknown
    assert "TOO LITTLE" not in unknown


def test_what_is_missing_is_told_as_it_would_be_told_later(small, tmp_path):
    with pytest.raises(BadStore, match="no frames store at"):
        plan_job(plan_calls({"screen": {}}, tmp_path), tmp_path, PLACE)
    absent = {"ingest": {"sources": str(tmp_path / "*.cxi"), "geometry": str(small.geometry)}}
    with pytest.raises(BadFrames, match="no file matches"):
        plan_job(plan_calls(absent, tmp_path), tmp_path, PLACE)
