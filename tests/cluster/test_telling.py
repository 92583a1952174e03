"""What a real scheduler knows of a run, and serves."""

import functools
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request

import dask
import distributed
import pytest

from diffdask.cluster import connect, count, page_link, tell_counts
from diffdask.cluster.laptop import LOCAL_LINK
from diffdask.errors import FailedBlocks
from diffdask.io.marks import mark_block
from diffdask.pipeline.blocks import Marks, run_marked


def find_hits(block, *, store):
    if block[0] == 40:
        raise ValueError("this one is no good")
    time.sleep(0.02)
    count(hits=1, damaged=int(block[0] == 0))
    mark_block(store, "screen", block)


def run(client, store, *, blocks=20, done=()):
    cut = [(8 * number, 8 * number + 8) for number in range(blocks)]
    task = functools.partial(find_hits, store=str(store))
    run_marked(
        client, task, cut, set(done), what="screen", unit="frame", progress=False, marks=Marks(str(store), "screen")
    )


def metrics(client):
    """Name, with labels, to value; of diffdask's."""
    address = client.dashboard_link.rsplit("/", 1)[0] + "/metrics"
    with urllib.request.urlopen(address, timeout=20) as page:
        lines = page.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:8] == "diffdask")}


@pytest.fixture
def client():
    with connect("threads") as client:
        yield client


def test_metrics_are_the_numbers_of_the_run_also_where_a_block_failed(client, tmp_path):
    with pytest.raises(FailedBlocks, match="this one is no good"):
        run(client, tmp_path)
    found = metrics(client)
    assert found["diffdask_frames_total"] == 160
    assert found["diffdask_frames_done_total"] == 152
    assert found["diffdask_hits_total"] == 19
    assert found["diffdask_failures_total"] == 1 + 8
    of_stage = '{stage="screen",unit="frame"}'
    assert found[f"diffdask_blocks{of_stage}"] == 20
    assert found[f"diffdask_blocks_done_total{of_stage}"] == 19
    assert found[f"diffdask_failed_total{of_stage}"] == 8
    assert found[f"diffdask_rate{of_stage}"] > 0
    assert "diffdask_diffuse_total" not in found
    tell_counts(client, diffuse=3)
    assert metrics(client)["diffdask_diffuse_total"] == 3


def test_a_run_that_goes_on_counts_what_was_done_before(client, tmp_path):
    run(client, tmp_path, blocks=4, done=[(0, 8), (8, 16), (16, 24)])
    found = metrics(client)
    assert found["diffdask_frames_done_total"] == found["diffdask_frames_total"] == 32
    assert found["diffdask_hits_total"] == 1  # of the one block that was left
    assert found['diffdask_seconds_left{stage="screen",unit="frame"}'] == 0


def test_dasks_own_pages_link_to_the_page_and_its_own_metrics_are_still_served(client):
    link = page_link(client)
    assert link.startswith("http://127.0.0.1:")
    assert link.endswith("/diffdask")
    for address, words in (
        (link, ["<title>diffdask</title>", "<h1>diffdask</h1>"]),
        (client.dashboard_link, ['href="diffdask"']),
        (link.replace("/diffdask", "/metrics"), ["dask_scheduler_workers", "diffdask_failures_total"]),
    ):
        with urllib.request.urlopen(address, timeout=20) as page:
            text = page.read().decode()
        assert all(word in text for word in words), address


def test_a_driver_tells_once_a_second_at_most_however_many_blocks_there_are(client, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr("diffdask.cluster.telling._send", lambda client, told, **options: sent.append(told))
    start = time.monotonic()
    run(client, tmp_path, blocks=5)
    run(client, tmp_path / "more", blocks=5)
    assert len(sent) <= 4 + time.monotonic() - start


def test_a_scheduler_without_pages_still_has_the_metrics(tmp_path):
    with (
        dask.config.set(LOCAL_LINK),
        distributed.LocalCluster(
            n_workers=1,
            processes=False,
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        run(client, tmp_path, blocks=3)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(page_link(client), timeout=20)
        assert metrics(client)["diffdask_frames_done_total"] == 24


def test_a_scheduler_that_cannot_show_the_page_is_told_once_and_the_run_goes_on(client, tmp_path, monkeypatch, caplog):
    def refuse(*arguments, **options):
        raise ValueError("Cannot deserialize")

    monkeypatch.setattr(client, "register_plugin", refuse)
    run(client, tmp_path, blocks=4)
    assert page_link(client) == client.dashboard_link
    assert caplog.text.count("the scheduler shows no page of diffdask (ValueError: Cannot deserialize)") == 1


def test_a_scheduler_started_by_hand_shows_the_page_from_its_preload(tmp_path):
    told = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    command += ["--dashboard-address", "127.0.0.1:0", "--preload", "diffdask.cluster.preload"]
    with (tmp_path / "printed").open("w") as printed:
        scheduler = subprocess.Popen([*command, "--scheduler-file", str(told)], stderr=printed)
    try:
        served = read_when_whole(told)["services"]["dashboard"]
        with urllib.request.urlopen(f"http://127.0.0.1:{served}/diffdask", timeout=20) as page:
            assert "<h1>diffdask</h1>" in page.read().decode()
    finally:
        scheduler.kill()
        scheduler.wait(10)


def read_when_whole(path, seconds=60.0):
    """Read JSON that somebody else is about to write, perhaps at this moment."""
    stop = time.monotonic() + seconds
    while True:
        try:
            return json.loads(path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            if time.monotonic() > stop:
                raise
        time.sleep(0.05)
