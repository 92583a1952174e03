"""run --dry-run: what would be done, and nothing is."""

import importlib
import json
import os
import shutil
from pathlib import Path

import distributed
import pytest
import zarr

import diffdask.pipeline.plan as module
import diffdask.pipeline.room as room
import diffdask.pipeline.work as work
from diffdask.cluster.capacity import Capacity, of_workers
from diffdask.errors import BadFrames, BadStore
from diffdask.io.marks import mark_block
from diffdask.pipeline.plan import plan_job, with_implied
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
    assert (ingest["blocks"], screen["blocks"]) == (6, 6)
    assert (rank["tasks"], rank["core_seconds"]) == (0, None), "it works here, on what others did"
    total = plan["total"]
    assert total["core_hours"] == pytest.approx((ingest["core_seconds"] + screen["core_seconds"]) / 3600)
    assert total["cost"] == pytest.approx(total["hours"] * 10 * 0.5)
    assert total["without_hours"] == []
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
    before = sorted(small.results.rglob("*"))
    for name in ("screen", "haloes", "compare"):
        calls[name]["results"] = str(small.results)
    plan = plan_job(calls, tmp_path, PLACE)
    assert plan["verbs"]["screen"]["basis"] == "done"
    hits = plan["verbs"]["haloes"]["left"]
    assert 0 < hits < 46
    assert plan["verbs"]["compare"]["left"] == hits * (hits - 1) // 2
    assert plan["verbs"]["haloes"]["blocks"] == -(-hits // 32)
    assert plan["verbs"]["haloes"]["basis"] == "a sample of 4 hits"
    assert plan["verbs"]["compare"]["basis"].startswith("a sample of")
    assert plan["total"]["core_hours"] > 0
    assert sorted(small.results.rglob("*")) == before, "nothing was written"


def write_rate(folder, name, **rate):
    folder.mkdir(exist_ok=True)
    told = {"unit": "frame", "count": 1000, "core_seconds": 2000.0, "started": "then", **rate}
    (folder / "job.json").write_text(json.dumps({"rates": {name: told}}))


def test_a_long_earlier_run_tells_the_time_and_a_short_one_does_not(small, tmp_path):
    calls = plan_calls({"screen": dict(small.parameters)}, tmp_path)
    calls["screen"]["frames"] = str(small.frames)
    for seconds, expected in ((2000.0, "1,000 frames of the run of then"), (20.0, "a sample of 16 frames")):
        write_rate(tmp_path, "screen", core_seconds=seconds)
        assert plan_job(calls, tmp_path, PLACE)["verbs"]["screen"]["basis"] == expected
    write_rate(tmp_path, "screen")
    assert plan_job(calls, tmp_path, PLACE)["verbs"]["screen"]["core_seconds"] == pytest.approx(46 * 2.0)


@pytest.mark.parametrize(
    ("name", "unit"), [("compare", "pair"), ("haloes", "hit"), ("extract", "hit"), ("orient", "hit")]
)
def test_an_earlier_run_tells_the_time_of_verbs_of_hits(small, tmp_path, name, unit):
    write_rate(tmp_path, name, unit=unit)
    plan = plan_job({name: {"results": str(small.results)}}, tmp_path, PLACE)
    told = plan["verbs"][name]
    assert told["basis"] == f"1,000 {unit}s of the run of then"
    assert told["core_seconds"] == pytest.approx(2.0 * told["left"])
    assert name not in plan["total"]["without_hours"]


def test_a_rate_of_other_units_is_none(small, tmp_path):
    write_rate(tmp_path, "haloes", unit="frame")
    plan = plan_job({"haloes": {"results": str(small.results)}}, tmp_path, PLACE)
    assert plan["verbs"]["haloes"]["basis"] == "a sample of 4 hits"


def test_where_nothing_can_be_measured_a_short_run_is_better_than_none(small, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "sample_hits", lambda name, given: None)
    calls = {"extract": {"results": str(small.results)}}
    nothing = format_plan(plan_job(calls, tmp_path, PLACE))
    assert "not in it: extract, never measured; run the job for some ten minutes and end it with Ctrl-C" in nothing
    assert "in all" not in nothing
    write_rate(tmp_path, "extract", unit="hit", core_seconds=20.0)
    told = plan_job(calls, tmp_path, PLACE)["verbs"]["extract"]
    assert told["basis"] == "1,000 hits of the run of then, short: its start is in it"
    assert told["core_seconds"] == pytest.approx(0.02 * told["left"])


def test_what_rank_runs_itself_is_in_the_plan(small, tmp_path):
    calls = plan_calls({"rank": {"results": str(small.results)}}, tmp_path)
    assert list(with_implied(calls)) == ["compare", "orient", "rank"]
    calls["rank"]["method"] = "pairs"
    assert list(with_implied(calls)) == ["compare", "rank"]
    calls["rank"]["method"] = "structure"
    assert list(with_implied(calls)) == ["rank"]
    ranked = plan_calls({"rank": {"ranker": "ranker.zarr"}}, tmp_path)
    assert list(with_implied(ranked)) == ["rank"]
    new = plan_calls(sections(small, rank={}), tmp_path)
    assert list(with_implied(new)) == ["ingest", "screen", "rank"], "without a stream nothing is compared"
    new["ingest"]["stream"] = "campaign.stream"
    plan = plan_job(new, tmp_path, PLACE)
    assert list(plan["verbs"]) == ["ingest", "screen", "compare", "orient", "rank"]
    assert plan["verbs"]["compare"]["basis"] == "known after the screen"
    assert "not in it: compare, orient, known after the screen" in format_plan(plan)


def test_fewer_pairs_are_planned_where_most_says_so(small, tmp_path):
    plan = plan_job({"compare": {"results": str(small.results), "most": 10}}, tmp_path, PLACE)
    assert plan["verbs"]["compare"]["left"] == 45


def test_an_ingest_that_was_stopped_is_planned_from_where_it_is(small, tmp_path):
    calls = plan_calls(sections(small), tmp_path)
    frames = Path(shutil.copytree(small.frames, tmp_path / "frames.zarr"))
    zarr.open_group(frames, mode="r+").attrs.update({"complete": False, "frame_count": 0})
    for block in ((0, 8), (8, 16)):
        mark_block(frames, "frames", block)
    ingest = plan_job(calls, tmp_path, PLACE)["verbs"]["ingest"]
    assert (ingest["left"], ingest["total"], ingest["blocks"]) == (30, 46, 4)


def test_blocks_are_a_column_of_their_own(small, tmp_path):
    table = format_plan(plan_job(plan_calls(sections(small), tmp_path), tmp_path, PLACE)).splitlines()
    head = next(line for line in table if "tasks" in line)
    assert head.split() == ["left", "blocks", "tasks", "to", "read", "a", "worker", "time", "by"]
    row = next(line for line in table if line.startswith("ingest"))
    assert row.split()[:5] == ["ingest", "46", "frames", "6", "9"]


def test_too_little_memory_and_the_cost_are_said(small, tmp_path):
    calls = plan_calls({"screen": dict(small.parameters)}, tmp_path)
    calls["screen"]["frames"] = str(small.frames)
    little = Capacity("a place", workers=1, memory=300_000_000, cores=1, cost_per_core_hour=3600.0)
    told = format_plan(plan_job(calls, tmp_path, little))
    assert "TOO LITTLE MEMORY: a worker needs 4" in told
    assert "cost: 0." in told
    unknown = format_plan(plan_job(calls, tmp_path, Capacity("the scheduler at tls://a:1")))
    assert "how many workers it will have is not known: core hours only" in unknown
    assert "TOO LITTLE" not in unknown


def test_too_little_memory_is_said_where_no_time_can_be(small, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "sample_hits", lambda name, given: None)
    place = Capacity("pods", workers=4, memory=1_744_830_464, cores=4)
    told = format_plan(plan_job({"extract": {"results": str(small.results)}}, tmp_path, place)).splitlines()
    warned = next(n for n, line in enumerate(told) if line.startswith("TOO LITTLE MEMORY: a worker needs 2.5 GB"))
    assert "can use 1.4 GB: it has 1.74 GB, and Dask pauses it at 80%" in told[warned]
    assert warned < next(n for n, line in enumerate(told) if line.startswith("not in it"))


@pytest.mark.parametrize(("memory", "fits"), [(2_500_000_000, False), (3_124_000_000, False), (3_126_000_000, True)])
def test_a_worker_fits_where_dask_does_not_pause_it(small, tmp_path, monkeypatch, memory, fits):
    monkeypatch.setattr(module, "sample_hits", lambda name, given: None)
    place = Capacity("a place", workers=1, memory=memory, cores=1)
    plan = plan_job({"extract": {"results": str(small.results)}}, tmp_path, place)
    assert plan["total"]["fits"] is fits


def test_settings_of_new_files_are_said_to_be_assumed(small, tmp_path):
    new = plan_job(plan_calls(sections(small), tmp_path), tmp_path, PLACE)
    assert "assumed: 1 detector setting, as new files are not looked through: each more takes 0.492 MB" in format_plan(
        new
    )
    calls = plan_calls({"screen": dict(small.parameters)}, tmp_path)
    calls["screen"]["frames"] = str(small.frames)
    assert "assumed" not in format_plan(plan_job(calls, tmp_path, PLACE))


def test_without_workers_the_cost_is_that_of_the_core_hours(small, tmp_path):
    write_rate(tmp_path, "haloes", unit="hit", core_seconds=3_600_000.0)
    calls = {"haloes": {"results": str(small.results)}}
    plan = plan_job(calls, tmp_path, Capacity("the scheduler at tls://a:1", cost_per_core_hour=0.5))
    total = plan["total"]
    assert total["hours"] is None
    assert total["core_hours"] == plan["verbs"]["haloes"]["left"]
    assert total["cost"] == pytest.approx(0.5 * total["core_hours"])
    assert "each core hour at 0.5" in format_plan(plan)
    assert plan_job(calls, tmp_path, Capacity("a place"))["total"]["cost"] is None, "no price, no cost"


# a scheduler that runs already -----------------------------------------------------------------------------


def test_a_scheduler_that_answers_is_asked_for_its_workers(small, tmp_path):
    write_rate(tmp_path, "haloes", unit="hit")
    job = tmp_path / "job.toml"
    job.write_text(f'[haloes]\nresults = "{small.results}"')
    shape = {"n_workers": 2, "threads_per_worker": 3, "processes": False, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(**shape, worker_dashboard_address="127.0.0.1:0", memory_limit="3GB") as cluster:
        plan = run(job, on=cluster.scheduler_address, folder=tmp_path, dry_run=True, progress=False)
    place = plan["place"]
    assert (place["workers"], place["threads"], place["cores"], place["memory"]) == (2, 3, 6, 3 * 10**9)
    assert plan["total"]["hours"] == pytest.approx(plan["total"]["core_hours"] / 6)


def test_a_scheduler_that_does_not_answer_leaves_core_hours(small, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_SOON", 0.5)
    write_rate(tmp_path, "haloes", unit="hit")
    job = tmp_path / "job.toml"
    job.write_text(f'[haloes]\nresults = "{small.results}"')
    plan = run(job, on="tcp://127.0.0.1:9", folder=tmp_path, dry_run=True, progress=False)
    assert "was not reached (no scheduler answers at 'tcp://127.0.0.1:9'" in plan["place"]["told"]
    assert plan["total"]["hours"] is None
    assert plan["total"]["core_hours"] > 0


def test_workers_that_are_not_alike_are_told_by_the_mean_and_the_smallest():
    workers = [
        {"nthreads": 4, "memory_limit": 8},
        {"nthreads": 2, "memory_limit": 6},
        {"nthreads": 3, "memory_limit": 0},
    ]
    found = of_workers(Capacity("there", cost_per_core_hour=2.0), workers)
    assert (found.workers, found.threads, found.cores, found.memory) == (3, 3, 9, 6)
    assert found.cost_per_core_hour == 2.0
    assert "no workers now" in of_workers(Capacity("there"), []).told


def test_what_is_missing_is_told_as_it_would_be_told_later(small, tmp_path):
    with pytest.raises(BadStore, match="no frames store at"):
        plan_job(plan_calls({"screen": {}}, tmp_path), tmp_path, PLACE)
    absent = {"ingest": {"sources": str(tmp_path / "*.cxi"), "geometry": str(small.geometry)}}
    with pytest.raises(BadFrames, match="no file matches"):
        plan_job(plan_calls(absent, tmp_path), tmp_path, PLACE)


@pytest.mark.parametrize("group", ["haloes", "images", "orient", "merge"])
def test_blocks_of_hits_are_planned_as_large_as_the_verb_takes_them(group):
    module = importlib.import_module(f"diffdask.pipeline.{'hit_images' if group == 'images' else group}")
    assert work._BLOCK_HITS[group] == module._BLOCK_HITS
