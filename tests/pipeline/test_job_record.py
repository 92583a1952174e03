"""job.json: there from the start, and true whatever ends the job."""

import json

import pytest

from diffdask.interruption import Terminated
from diffdask.io.marks import quarantine_block
from diffdask.pipeline.job_record import count_results, keep_record, note_rate, read_record, write_record
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
        note_rate(record, "screen", frames=100, seconds=50.0)
    with keep_record(tmp_path, job="a.toml") as record:
        note_rate(record, "screen", frames=0, seconds=3.0)
    assert stored(tmp_path)["rates"]["screen"]["frames"] == 100


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
