import inspect
import json
import logging
import shutil
import time
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import diffdask.pipeline.run as module
import diffdask.pipeline.screen as screen_module
from diffdask.cluster import read_place
from diffdask.errors import BadJob, BadLabels, FailedBlocks
from diffdask.io.marks import marked_blocks
from diffdask.pipeline.reach import check_reach
from diffdask.pipeline.run import JOB_VERBS, job_keys, plan_calls, read_job, run
from diffdask.verbs import verb
from diffdask.version import __version__

ROOT = Path(__file__).parents[2]

JOB = """
[export]
top = 5
[ingest]
sources = "{simulated}/r*.cxi"
geometry = "{geometry}"
stream = "{simulated}/campaign.stream"
block_frames = 8
[evaluate]
labels = "{simulated}/labels.csv"
bootstrap = 20
[screen]
ring_count = 60
polar_ring_count = 20
azimuth_count = 36
ring_groups = 2
feature_q_min = 0.1
component_count = 4
[rank]
[train]
labels = "{simulated}/labels.csv"
iterations = 3
fold_count = 2
[catalogue]
"""


def write_job(folder, text):
    path = folder / "job.toml"
    path.write_text(text)
    return path


@pytest.fixture
def job(small, tmp_path):
    return write_job(tmp_path, JOB.format(simulated=small.simulated, geometry=small.geometry))


# what is in a job --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(ROOT.glob("jobs/*.toml")), ids=lambda path: path.name)
def test_the_jobs_of_the_project_hold_known_keys_only_and_lack_nothing(path, tmp_path):
    sections = read_job(path)
    folder = Path(sections.pop("folder"))
    assert list(plan_calls(sections, folder)) == [name for name in JOB_VERBS if name in sections]
    assert not folder.is_absolute()


@pytest.mark.parametrize("path", sorted(ROOT.glob("deploy/*.toml")), ids=lambda path: path.name)
def test_the_places_of_the_project_hold_known_keys_only(path):
    assert read_place(path)["where"] == path.stem


def test_there_are_jobs_and_places():
    assert {path.name for path in ROOT.glob("jobs/*.toml")} >= {
        *("demo.toml", "triage.toml", "label-free.toml"),
        *("ingest.toml", "diffusion-map.toml", "train-vgg.toml", "merge.toml"),
    }
    assert {path.name for path in ROOT.glob("deploy/*.toml")} >= {"laptop.toml", "slurm.toml", "address.toml"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[scren]", r"unknown section 'scren'; did you mean 'screen'\?"),
        ("[screen]\nsnrr = 5", r"\[screen\] has no option 'snrr'; did you mean 'snr'\?"),
        ("[screen]\non = 'threads'", r"\[screen\] has no option 'on'"),
        ("foldr = 'x'", r"unknown section 'foldr'; did you mean 'folder'\?"),
        ("[run]", "unknown section 'run'"),
        ("screen = 3", r"'screen' is a section: write \[screen\]"),
        ("folder = 3", "folder = 3 is no path"),
        ("[screen]\nmin_peaks = 'five'", r"\[screen\] min_peaks = 'five' is not of the type int"),
        ("[screen]\nmin_peaks = 5.5", "min_peaks = 5.5 is not of the type int"),
        ("[screen]\nsnr = true", "snr = True is not of the type float"),
        ("[screen]\noverwrite = 1", "overwrite = 1 is not of the type bool"),
        ("[ingest]\nsources = [1, 2]", "sources = "),
        ("[ingest]\ngeometry = ['a.geom']", "geometry = "),
        ("[screen", "is not valid TOML"),
    ],
)
def test_a_mistake_in_a_job_names_what_was_probably_meant(tmp_path, text, message):
    with pytest.raises(BadJob, match=message):
        run(write_job(tmp_path, text), folder=tmp_path / "made", on="threads")
    assert not (tmp_path / "made").exists()


def test_an_absent_job_is_told(tmp_path):
    with pytest.raises(BadJob, match="no job at"):
        run(tmp_path / "absent.toml")


def test_a_missing_option_is_told_before_anything_is_done(tmp_path):
    with pytest.raises(BadJob, match=r"\[ingest\] lacks sources, geometry"):
        run(write_job(tmp_path, "[ingest]\n[screen]"), folder=tmp_path / "made", on="threads")
    read = read_job(write_job(tmp_path, "[train]\n[rank]"))
    with pytest.raises(BadJob, match=r"\[train\] lacks labels"):
        plan_calls(read, tmp_path)


@pytest.mark.parametrize("name", JOB_VERBS)
def test_a_section_has_exactly_the_verbs_options(name):
    assert set(job_keys(name)) == set(inspect.signature(verb(name)).parameters) - {"on", "progress"}


def test_an_integer_will_do_for_a_float_and_a_text_for_a_list(tmp_path):
    read = read_job(write_job(tmp_path, "[screen]\nsnr = 5\n[ingest]\nsources = 'a.cxi'\nstream = ['a', 'b']\nrun = 3"))
    assert read == {"screen": {"snr": 5}, "ingest": {"sources": "a.cxi", "stream": ["a", "b"], "run": 3}}


def test_what_a_section_says_wins_over_the_folder(tmp_path):
    calls = plan_calls({"simulate": {}, "ingest": {"stream": "my.stream"}, "catalogue": {"to": "c.csv"}}, tmp_path)
    assert calls["ingest"]["stream"] == "my.stream"
    assert calls["ingest"]["geometry"] == str(tmp_path / "simulated" / "campaign.geom")
    assert calls["catalogue"] == {"results": str(tmp_path / "results.zarr"), "to": "c.csv"}


@pytest.mark.parametrize(
    ("merge", "report", "expected"),
    [({}, {}, "map.zarr"), ({"to": "mine.zarr"}, {}, "mine.zarr"), ({}, {"map": "other.zarr"}, "other.zarr")],
)
def test_the_report_shows_the_map_that_the_job_merges(tmp_path, merge, report, expected):
    calls = plan_calls({"merge": merge, "report": report}, tmp_path)
    assert calls["report"]["map"] == (str(tmp_path / expected) if expected == "map.zarr" else expected)
    assert "map" not in plan_calls({"report": {}}, tmp_path)["report"]


def test_the_report_shows_the_methods_that_the_job_compares(tmp_path):
    given = {"methods": {"labels": "l.csv", "to": "mine.json"}, "report": {}}
    assert plan_calls(given, tmp_path)["report"]["methods"] == "mine.json"
    del given["methods"]["to"]
    calls = plan_calls(given, tmp_path)
    assert calls["report"]["methods"] == calls["methods"]["to"] == str(tmp_path / "methods.json")
    assert list(calls) == ["methods", "report"]
    assert "methods" not in plan_calls({"report": {}}, tmp_path)["report"]


def test_a_list_is_of_numbers_where_numbers_are_meant(tmp_path):
    read = read_job(write_job(tmp_path, "[methods]\ncounts = [10, 50]\nfeatures = ['azimuthal']"))
    assert read == {"methods": {"counts": [10, 50], "features": ["azimuthal"]}}
    for wrong in ("counts = ['10']", "features = [3]"):
        with pytest.raises(BadJob, match="is not of the type"):
            read_job(write_job(tmp_path, f"[methods]\n{wrong}"))


# running it ---------------------------------------------------------------------------------------


def test_a_job_does_its_sections_in_order_and_again_gives_the_same(small, job, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="diffdask"):
        made = run(job, on="threads", folder=tmp_path / "one", progress=False)
    assert list(made["verbs"]) == ["ingest", "screen", "train", "rank", "evaluate", "catalogue", "export"]
    assert "dashboard: http://127.0.0.1:" in caplog.text
    written = json.loads((tmp_path / "one" / "job.json").read_text())
    assert written == json.loads(json.dumps(made, default=str))
    assert written["version"] == __version__
    told = written["verbs"]["screen"]
    assert told["seconds"] > 0
    assert told["arguments"]["ring_count"] == 60
    assert told["arguments"]["snr"] == 6.0, "defaults are parameters too"
    small.assert_same(tmp_path / "one" / "results.zarr", small.results)
    assert len((tmp_path / "one" / "picks.lst").read_text().splitlines()) == 5
    first = pd.read_parquet(tmp_path / "one" / "catalogue.parquet")
    marks = {b: m.stat().st_mtime_ns for b, m in marks_of(tmp_path / "one")}
    run(job, on="threads", folder=tmp_path / "one", progress=False)
    assert {b: m.stat().st_mtime_ns for b, m in marks_of(tmp_path / "one")} == marks
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "one" / "catalogue.parquet"), first, check_exact=True)
    run(job, on="threads", folder=tmp_path / "two", progress=False)
    second = pd.read_parquet(tmp_path / "two" / "catalogue.parquet")
    pd.testing.assert_frame_equal(second, first, check_exact=True)


def marks_of(folder):
    results = folder / "results.zarr"
    return [
        ((group, *block), results / "marks" / group / f"{block[0]}-{block[1]}")
        for group in ("screen", "hits")
        for block in marked_blocks(results, group)
    ]


def test_a_job_that_failed_goes_on_where_it_stopped(small, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("frame,label\n0,difuse\n")
    text = JOB.format(simulated=small.simulated, geometry=small.geometry)
    text = text.replace(f'labels = "{small.simulated}/labels.csv"', f'labels = "{labels}"')
    job = write_job(tmp_path, f'folder = "{tmp_path / "made"}"\n' + text)
    with pytest.raises(BadLabels, match="difuse"):
        run(job, on="threads", progress=False)
    marks = {b: m.stat().st_mtime_ns for b, m in marks_of(tmp_path / "made")}
    assert marks
    shutil.copy(small.labels, labels)
    made = run(job, on="threads", progress=False)
    assert {b: m.stat().st_mtime_ns for b, m in marks_of(tmp_path / "made")} == marks
    assert made["verbs"]["evaluate"]["gave"]["is_ranked"]


def test_a_job_without_work_for_a_cluster_starts_none(small, tmp_path, monkeypatch):
    def refuse(on):
        raise AssertionError("a cluster was started")

    monkeypatch.setattr(module, "connect", refuse)
    job = write_job(tmp_path, f'[catalogue]\nresults = "{small.results}"\nto = "{tmp_path / "c.csv"}"')
    run(job, folder=tmp_path)
    assert len(pd.read_csv(tmp_path / "c.csv")) == 46


def test_a_simulated_job_finds_its_own_files(small, tmp_path):
    text = f"""
[simulate]
frames = 4
runs = 2
detector = "{small.geometry}"
[ingest]
[screen]
ring_count = 60
polar_ring_count = 20
azimuth_count = 36
ring_groups = 2
feature_q_min = 0.1
[catalogue]
"""
    run(write_job(tmp_path, text), on="threads", folder=tmp_path / "made", progress=False)
    table = pd.read_parquet(tmp_path / "made" / "catalogue.parquet")
    assert table["run"].tolist() == [1, 1, 2, 2]
    assert np.isfinite(table["frame_background"]).all()
    assert tomllib.loads(text)["simulate"]["frames"] == len(table)


# what a failed run leaves ---------------------------------------------------------------------------------


def test_a_run_that_failed_tells_what_was_done_and_what_failed(small, job, tmp_path, monkeypatch):
    made = tmp_path / "made"
    first = [(0, 8), (8, 16), (16, 24)]

    def fail_later(block, *, results, **given):
        if block in first:
            return screen_block(block, results=results, **given)
        stop = time.monotonic() + 60.0  # the run ends at the first error, whatever is done beside it
        while marked_blocks(results, "screen") != set(first):
            assert time.monotonic() < stop
            time.sleep(0.01)
        raise FailedBlocks("the disk is full")

    screen_block = screen_module._screen_block
    monkeypatch.setattr(screen_module, "_screen_block", fail_later)
    with pytest.raises(FailedBlocks, match="the disk is full"):
        run(job, on="threads", folder=made, progress=False)
    record = json.loads((made / "job.json").read_text())
    assert record["state"] == "failed"
    assert record["counts"]["frames"] == 24
    assert record["counts"]["hits"] > 0
    assert record["failures"] == {"frames": {}, "blocks": {}}
    assert list(record["verbs"]) == ["ingest"]
    told = record["unfinished"]["screen"]
    assert (told["unit"], told["done"]) == ("frame", 24)
    assert told["arguments"]["ring_count"] == 60
    assert told["seconds"] > 0
    assert "gave" not in told
    assert record["rates"]["screen"]["count"] == 24


def test_what_cannot_be_counted_does_not_hide_why_a_run_failed(small, job, tmp_path, monkeypatch, caplog):
    def refuse(results):
        raise OSError("storage is gone")

    monkeypatch.setattr(module, "count_results", refuse)
    monkeypatch.setattr(screen_module, "_screen_block", fail)
    with pytest.raises(FailedBlocks, match="of its own"):
        run(job, on="threads", folder=tmp_path / "made", progress=False)
    assert "could not be counted: storage is gone" in caplog.text


def fail(block, **given):
    raise FailedBlocks("an error of its own")


def test_a_job_that_fails_beside_the_cluster_has_the_counts_of_its_results(small, tmp_path):
    (tmp_path / "labels.csv").write_text("frame,label\n0,difuse\n")
    text = f'[evaluate]\nresults = "{small.results}"\nlabels = "{tmp_path / "labels.csv"}"'
    with pytest.raises(BadLabels, match="difuse"):
        run(write_job(tmp_path, text), folder=tmp_path, progress=False)
    record = json.loads((tmp_path / "job.json").read_text())
    assert record["counts"]["frames"] == 46


def test_rates_are_kept_of_every_verb_that_runs_on_the_cluster(small, tmp_path):
    results = small.copy(tmp_path / "results.zarr")
    text = f'folder = "{tmp_path}"\n[compare]\n[haloes]\n[orient]\norientation_count = 2000\n[rank]\n'
    text += "[merge]\nsize = 40\ntop = 20"
    record = run(write_job(tmp_path, text), on="threads", progress=False)
    hits = record["counts"]["hits"]
    rates = {name: (rate["unit"], rate["count"]) for name, rate in record["rates"].items()}
    assert rates == {
        "compare": ("pair", hits * (hits - 1) // 2),
        "haloes": ("hit", hits),
        "orient": ("hit", hits),
        "merge": ("hit", record["verbs"]["merge"]["of"]),
    }
    assert all(rate["core_seconds"] > 0 for rate in record["rates"].values())
    again = run(write_job(tmp_path, text), on="threads", progress=False)
    assert again["rates"] == record["rates"], "nothing was left to do"
    plan = run(write_job(tmp_path, text), on="threads", dry_run=True, progress=False)
    assert {name: told["basis"] for name, told in plan["verbs"].items() if name != "rank"} == dict.fromkeys(
        ("compare", "haloes", "orient", "merge"), "done"
    )
    assert results.is_dir()


# what workers cannot see ----------------------------------------------------------------------------------

PODS = 'where = "kubernetes"\n'


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_folder_of_this_machine_is_refused_where_pods_have_no_volume(tmp_path, monkeypatch, dry_run):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "pods.toml"
    place.write_text(PODS)
    job = write_job(tmp_path, 'folder = "campaign"\n[screen]\n[rank]\n[catalogue]')
    told = r"\[screen\] frames = 'campaign/frames.zarr' lies on this machine, .*have no volume .*s3://bucket/campaign"
    with pytest.raises(BadJob, match=told):
        run(job, on=place, dry_run=dry_run, progress=False)
    assert not (tmp_path / "campaign").exists()


def test_a_volume_is_seen_by_pods_where_it_is_mounted_only(tmp_path):
    place = tmp_path / "pods.toml"
    place.write_text(PODS + 'claim = "frames"\n')
    known = read_place(place)
    check_reach(plan_calls({"screen": {}, "rank": {}}, "/data/campaign"), known)
    with pytest.raises(BadJob, match=r"see nothing but the volume 'frames', at /data: .*kubectl apply"):
        check_reach(plan_calls({"screen": {}, "rank": {}}, tmp_path), known)
    with pytest.raises(BadJob, match=r"\[rank\] results = "):
        check_reach(plan_calls({"rank": {}}, "/data/../etc"), known)


def test_a_bucket_is_seen_by_pods_and_files_of_frames_on_this_machine_are_not(tmp_path):
    place = tmp_path / "pods.toml"
    place.write_text(PODS)
    known, bucket = read_place(place), "s3://bucket/campaign"
    check_reach(plan_calls({"screen": {}, "rank": {}, "merge": {}, "catalogue": {"to": "c.csv"}}, bucket), known)
    with pytest.raises(BadJob, match=r"\[merge\] to = 'map\.zarr' lies on this machine"):
        check_reach(plan_calls({"merge": {"to": "map.zarr"}}, bucket), known)
    ingest = {"sources": ["data/*.cxi"], "geometry": "data/detector.geom"}
    with pytest.raises(BadJob, match=r"\[ingest\] sources = 'data/\*.cxi' lies on this machine"):
        check_reach(plan_calls({"ingest": ingest}, bucket), known)


@pytest.mark.parametrize("where", ["laptop", "threads"])
def test_other_places_share_the_folders(tmp_path, where):
    check_reach(plan_calls({"screen": {}}, tmp_path), {"where": where})
