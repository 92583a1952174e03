"""Dask's report of a run is not worth an error, wherever it fails."""

import logging

import pytest

from diffdask.cluster import connect, report_performance


@pytest.fixture(scope="module")
def client():
    with connect("threads") as client:
        yield client


def test_the_report_is_written_also_where_the_run_fails(client, tmp_path):
    with pytest.raises(ZeroDivisionError), report_performance(client, tmp_path / "report.html", title="<job>"):
        raise ZeroDivisionError
    text = (tmp_path / "report.html").read_text()
    assert "<html" in text.lower()
    assert "<job>" not in text


@pytest.mark.parametrize(
    "error", [ValueError("no task stream here"), KeyError("monitor"), OSError("the stream is closed")]
)
def test_a_report_that_cannot_be_begun_or_ended_is_a_warning(client, tmp_path, monkeypatch, caplog, error):
    def refuse(*arguments, **options):
        raise error

    for method in ("run_on_scheduler", "get_task_stream"):
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(client, method, refuse)
            with report_performance(client, tmp_path / "report.html"):
                assert client.submit(abs, -1).result(timeout=20) == 1
    with monkeypatch.context() as patch, report_performance(client, tmp_path / "report.html"):
        patch.setattr(client.scheduler, "performance_report", refuse, raising=False)
        assert client.submit(abs, -2).result(timeout=20) == 2
    assert caplog.text.count(f"no performance report in '{tmp_path}/report.html': {type(error).__name__}") == 3
    assert not (tmp_path / "report.html").exists()


def test_a_file_that_cannot_be_written_is_a_warning(client, tmp_path, caplog):
    (tmp_path / "file").touch()
    with report_performance(client, tmp_path / "file" / "report.html"):
        pass
    assert "no performance report in" in caplog.text
