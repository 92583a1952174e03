"""A real run, watched in a real browser.

``DIFFDASK_PICTURES=1`` takes the picture of the documents anew, of a longer run.
"""

import json
import os
import shutil
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from diffdask.cluster import connect, page_link
from diffdask.io.results_store import open_scores, open_screen
from diffdask.pipeline.run import run
from diffdask.pipeline.status import status

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "dashboard.png"
TAKES_PICTURE = os.environ.get("DIFFDASK_PICTURES") == "1"

#: Where browsers are that are Chromium.
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

JOB = """
[ingest]
sources = "{sources}"
geometry = "{geometry}"
stream = "{stream}"
block_frames = {block}

[screen]
{screen}

[rank]
method = "pairs"
"""


@pytest.fixture
def page():
    """A page of a browser, 1200 pixels wide."""
    if BROWSER is None:
        pytest.skip("needs a browser: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1200, "height": 640}, device_scale_factor=1.5 if TAKES_PICTURE else 1)
        browser.close()


@pytest.fixture
def job(small, tmp_path):
    """A job of ingest, screen, compare and rank; a longer one for the picture."""
    simulated = small.simulated
    if TAKES_PICTURE:
        simulated = small.simulate(tmp_path / "simulated", frames=3000, runs=4, hits=0.06, diffuse=0.3)
    path = tmp_path / "job.toml"
    screen = "\n".join(f"{name} = {json.dumps(value)}" for name, value in small.parameters.items())
    files = {"sources": simulated / "r*.cxi", "stream": simulated / "campaign.stream", "geometry": small.geometry}
    path.write_text(JOB.format(**files, screen=screen, block=2 if TAKES_PICTURE else 1))
    return path


class Run(threading.Thread):
    """A job that goes on while it is watched."""

    def __init__(self, job, folder, client):
        super().__init__(daemon=True)
        self.job, self.folder, self.client, self.error = job, folder, client, None
        self.start()

    def run(self):
        try:
            run(self.job, folder=self.folder, on=self.client, progress=False)
        except Exception as error:
            self.error = error


def number(page, name):
    """What a card says, once there is a number."""
    text = page.locator(f'li[data-name="{name}"] b').text_content()
    return int("".join(letter for letter in text if letter.isdigit()) or -1)


def until(is_true, page, *, seconds=180):
    """Wait; the browser goes on meanwhile."""
    stop = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < stop, page.locator("body").inner_text()
        page.wait_for_timeout(200)


def test_the_page_in_a_browser_shows_the_numbers_of_the_run_by_itself(job, page, tmp_path):
    place = tmp_path / "place.toml"
    place.write_text(f'where = "laptop"\nworkers = {2 if TAKES_PICTURE else 1}\nmemory_limit = "2GB"\n')
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    folder = tmp_path / "watched"
    with connect(place) as client:
        page.goto(page_link(client))
        page.locator("text=Nothing has been told yet").wait_for(timeout=60_000)
        watched = Run(job, folder, client)
        page.locator('div[data-stage="screen"]').wait_for(timeout=180_000)
        if TAKES_PICTURE:
            until(lambda: number(page, "done") > 1900 and number(page, "hits") > 0, page)
            page.screenshot(path=PICTURE)
        until(lambda: not watched.is_alive(), page)
        assert watched.error is None
        results = folder / "results.zarr"
        screened, scores = open_screen(results), open_scores(results)
        frames, hits = screened.sizes["frame"], int(screened.frame_is_hit.values.sum())
        diffuse = int((scores.frame_score.values >= scores.attrs["threshold"]).sum())
        assert min(frames, hits, diffuse) > 0
        until(lambda: number(page, "diffuse") == diffuse, page, seconds=20)  # nobody has loaded the page again
        assert number(page, "done") == frames
        assert number(page, "hits") == hits
        assert number(page, "failures") == int((screened.frame_status.values != "ok").sum()) == 0
        told = {name: page.locator(f'div[data-stage="{name}"]').inner_text() for name in ("ingest", "screen", "hits")}
        assert f"{frames:,} of {frames:,} frames".replace(",", " ") in told["ingest"].replace("\u202f", " ")
        assert f"{frames:,} of {frames:,} frames".replace(",", " ") in told["screen"].replace("\u202f", " ")
        assert f"{hits:,} of {hits:,} hits".replace(",", " ") in told["hits"].replace("\u202f", " ")
        assert page.locator(".bk-Figure").count() == 2
        seen = status(results)
        assert (seen["stages"]["screen"]["done"], seen["hits"], seen["diffuse"]) == (frames, hits, diffuse)
        served = metrics(client)
        assert f"diffdask_frames_done_total {frames:.1f}" in served
        assert f"diffdask_diffuse_total {diffuse:.1f}" in served
        page.screenshot(path=tmp_path / "dashboard.png")
        page.goto("about:blank")  # the page is let go before its scheduler is
    assert complaints == []
    assert (tmp_path / "dashboard.png").stat().st_size > 10_000


def metrics(client):
    with urllib.request.urlopen(client.dashboard_link.rsplit("/", 1)[0] + "/metrics", timeout=20) as served:
        return served.read().decode()


def test_the_documents_have_a_picture_of_the_page():
    assert PICTURE.is_file()
