"""All verbs on another group's simulation of a CSPAD experiment."""

import csv
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from diffdask.catalogue import catalogue, catalogue_table
from diffdask.evaluation import evaluate
from diffdask.io.labels import read_labels
from diffdask.pipeline.export import export
from diffdask.pipeline.info import info
from diffdask.pipeline.ingest import ingest
from diffdask.pipeline.rank import rank
from diffdask.pipeline.screen import screen
from diffdask.pipeline.train import train
from diffdask.report import report

pytestmark = pytest.mark.slow

COLUMNS = {
    "frame_id", "run", "event", "source", "frame_is_hit", "frame_peak_count", "frame_anisotropy", "frame_status",
    "frame_score", "frame_rank",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(shared: Path) -> Path:
    folder = shared / "cspad_sim_a"
    if not folder.is_dir():
        pytest.skip(f"needs {folder.name} among the shared test data")
    return folder


@pytest.fixture(scope="module")
def results(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cspad")
    labels = data / "A_dev_labels.csv"
    frames = ingest(
        data / "A_dev.cxi",
        geometry=data / "A_dev.geom",
        stream=data / "A_dev.stream",
        to=folder / "frames.zarr",
        on="threads",
        progress=False,
    )
    made = screen(frames, results=folder / "results.zarr", on="threads", progress=False)
    with pytest.MonkeyPatch.context() as patched:  # a long learning curve takes most of a training's time
        patched.setattr("diffdask.models.ranker.CURVE_ITERATIONS", (2, 8))
        ranker = train(made, labels=labels, to=folder / "ranker.zarr")
    return rank(made, ranker=ranker)


def test_hits_and_blanks_are_told_apart_without_a_mistake(results, data):
    table = catalogue_table(results)
    label = read_labels(data / "A_dev_labels.csv", table["frame_id"].tolist())
    assert len(label) == len(table) == 120
    np.testing.assert_array_equal(table["frame_is_hit"], label != "blank")


def test_the_cross_validated_area_under_the_curve_is_what_was_asked_for(results, data):
    told = evaluate(results, labels=data / "A_dev_labels.csv", bootstrap=50)
    assert told["cross_fitted"] is True
    assert told["hits_against_blanks"]["accuracy"]["value"] == 1.0
    table = catalogue_table(results)
    label = read_labels(data / "A_dev_labels.csv", table["frame_id"].tolist())
    diffuse, other = (table.loc[label == kind, "frame_score"].to_numpy() for kind in ("diffuse", "non-diffuse"))
    area = np.mean((diffuse[:, None] > other) + 0.5 * (diffuse[:, None] == other))
    assert area >= 0.93
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize(("method", "least"), [("pairs", 0.995), ("map-consistency", 0.99), ("structure", 0.93)])
def test_without_a_label_the_area_under_the_curve_is_what_was_asked_for(results, data, tmp_path, method, least):
    copied = Path(shutil.copytree(results, tmp_path / "results.zarr"))
    table = catalogue_table(rank(copied, method=method, on="threads", progress=False))
    label = read_labels(data / "A_dev_labels.csv", table["frame_id"].tolist())
    diffuse, other = (table.loc[label == kind, "frame_score"].to_numpy() for kind in ("diffuse", "non-diffuse"))
    assert np.mean((diffuse[:, None] > other) + 0.5 * (diffuse[:, None] == other)) >= least
    tier = pd.read_csv(data / "A_dev_labels.csv").set_index("frame")["strength_tier"]
    brighter = table.loc[tier.index[tier.isin(["strong", "medium"])], "frame_score"].to_numpy()
    if method == "pairs":
        assert np.mean(brighter[:, None] > other) >= 0.999


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_the_catalogue_has_a_row_a_frame_in_ingest_order(results, data, tmp_path, suffix):
    to = catalogue(results, to=tmp_path / f"catalogue{suffix}")
    table = pd.read_parquet(to) if suffix == ".parquet" else pd.read_csv(to, index_col="frame")
    assert set(table.columns) >= COLUMNS
    assert table.index.tolist() == list(range(120))
    with h5py.File(data / "A_dev.cxi") as file:
        assert len(table) == file["/entry_1/data_1/data"].shape[0]
    assert (table["frame_status"] == "ok").all()
    assert sorted(table["frame_rank"])[16:] == list(range(1, 105))


def test_the_best_frames_go_back_to_files_that_others_read(results, data, tmp_path):
    table = catalogue_table(results)
    best = table[table["frame_rank"].between(1, 5)].sort_values("frame_rank")
    lines = export(results, top=5, to=tmp_path / "picks.lst").read_text().splitlines()
    assert [line.rsplit(" ", 1)[1] for line in lines] == best["event"].tolist()
    export(results, top=5, to=tmp_path / "picks.cxi")
    with h5py.File(tmp_path / "picks.cxi") as subset, h5py.File(data / "A_dev.cxi") as source:
        for position, frame in enumerate(best.index[:2]):
            np.testing.assert_array_equal(
                subset["/entry_1/data_1/data"][position], source["/entry_1/data_1/data"][frame]
            )


def test_the_report_is_one_file_that_needs_no_network(results, data, tmp_path):
    to = report(results, labels=data / "A_dev_labels.csv", to=tmp_path / "report", top=4)
    text = to.read_text(encoding="utf-8")
    assert "data:image/png" in text
    assert "<script src" not in text
    assert [path.name for path in to.parent.iterdir()] == ["report.html"]


def test_the_stores_say_what_they_hold(results):
    assert info(results)["screen"]["hits"] == 104
    assert info(results.parent / "frames.zarr")["frames"] == 120
    assert info(results.parent / "ranker.zarr")["trained on"] == 104


def test_the_labels_are_those_of_the_file(data):
    with (data / "A_dev_labels.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 120
