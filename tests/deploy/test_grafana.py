"""The Grafana dashboard asks for what the scheduler of a real run serves."""

import functools
import itertools
import json
import re
import time
import urllib.request
from pathlib import Path

import pytest

from diffdask.cluster import connect, count, tell_counts
from diffdask.io.marks import mark_block
from diffdask.pipeline.blocks import run_marked

PATH = Path(__file__).parents[2] / "deploy" / "grafana.json"

#: Keys of a dashboard, of a panel and of a query without which Grafana shows nothing.
NEEDED = {"title", "uid", "schemaVersion", "templating", "panels", "time"}
NEEDED_OF_A_PANEL = {"id", "title", "type", "datasource", "gridPos", "targets", "fieldConfig"}

KINDS = {"stat", "bargauge", "timeseries"}


@pytest.fixture(scope="module")
def dashboard():
    return json.loads(PATH.read_text())


@pytest.fixture(scope="module")
def queries(dashboard):
    return [(panel["title"], target) for panel in dashboard["panels"] for target in panel["targets"]]


def find_hits(block, *, store):
    time.sleep(0.01)
    count(hits=1, damaged=1)
    mark_block(store, "screen", block)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Metric to its labels, as a real scheduler serves them after a run."""
    store = str(tmp_path_factory.mktemp("store"))
    with connect("threads") as client:
        task = functools.partial(find_hits, store=store)
        run_marked(client, task, [(n, n + 1) for n in range(20)], (), what="screen", unit="frame", progress=False)
        tell_counts(client, diffuse=2)
        with urllib.request.urlopen(client.dashboard_link.rsplit("/", 1)[0] + "/metrics", timeout=20) as page:
            lines = page.read().decode().splitlines()
    found = {}
    for line in lines:
        if not line.startswith("#"):
            name, labels = re.match(r"(\w+)(?:\{(.*)\})? ", line).groups()
            found.setdefault(name, set()).update(re.findall(r"(\w+)=", labels or ""))
    return found


def test_it_is_a_dashboard(dashboard):
    assert dashboard.keys() >= NEEDED
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids) >= 10
    for panel in dashboard["panels"]:
        assert panel.keys() >= NEEDED_OF_A_PANEL, panel["title"]
        assert panel["type"] in KINDS
        assert panel["datasource"] == {"type": "prometheus", "uid": "${source}"}
        assert [target["refId"] for target in panel["targets"]] == list("ABC")[: len(panel["targets"])]
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])


def test_no_panel_lies_on_another_or_beside_the_page(dashboard):
    boxes = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(box["x"] + box["w"] <= 24 for box in boxes)
    for one, other in itertools.combinations(boxes, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


def test_every_query_asks_for_metrics_that_a_scheduler_serves(queries, served):
    asked = {name for _, target in queries for name in re.findall(r"(\w+)\{", target["expr"])}
    assert asked <= served.keys()
    assert {
        "diffdask_frames_done_total",
        "diffdask_hits_total",
        "diffdask_diffuse_total",
        "dask_scheduler_workers",
    } < asked
    assert len([name for name in asked if name.startswith("diffdask_")]) >= 10


def test_no_query_names_a_metric_without_choosing_the_scheduler(queries):
    for title, target in queries:
        named = set(re.findall(r"\b(?:diffdask|dask|process)_\w+", target["expr"]))
        chosen = set(re.findall(r'(\w+)\{job=~"\$job"\}', target["expr"]))
        assert named == chosen, title


def test_legends_name_labels_that_the_metrics_have(queries, served):
    for title, target in queries:
        names = re.findall(r"(\w+)\{", target["expr"])
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert any(label in served[name] for name in names), f"{title}: {label}"


def test_its_variables_are_those_that_are_used(dashboard, served):
    named = {variable["name"] for variable in dashboard["templating"]["list"]}
    panels = json.dumps(dashboard["panels"])
    used = set(re.findall(r"\$\{?(\w+)", panels))
    assert used == named == {"source", "job"}
    chosen_by = dashboard["templating"]["list"][1]["query"]
    assert re.fullmatch(r"label_values\((\w+), job\)", chosen_by)[1] in served
