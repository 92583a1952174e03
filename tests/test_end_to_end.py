"""All verbs on another group's simulation of a CSPAD experiment."""

import csv
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import zarr

from diffdask.catalogue import catalogue, catalogue_table
from diffdask.classification import REFERENCE
from diffdask.evaluation import evaluate, threshold_of
from diffdask.io.labels import read_labels
from diffdask.io.ranker_store import load_ranker
from diffdask.io.results_store import frames_path, open_group, remove_group
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
    return rank(made, ranker=train(made, labels=labels, to=folder / "ranker.zarr"))


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


def area_of(table, data, column="frame_score", tiers=("strong", "medium", "weak")):
    """Area under the curve of the diffuse hits of some tiers against all that are not diffuse."""
    labels = pd.read_csv(data / "A_dev_labels.csv").set_index("frame")
    diffuse = table.loc[labels.index[labels["strength_tier"].isin(tiers)], column].to_numpy()
    label = read_labels(data / "A_dev_labels.csv", table["frame_id"].tolist())
    other = table.loc[label == "non-diffuse", column].to_numpy()
    return np.mean((diffuse[:, None] > other) + 0.5 * (diffuse[:, None] == other))


@pytest.fixture(scope="module")
def label_free(results, tmp_path_factory):
    """Ranked by all that needs no labels."""
    copied = Path(shutil.copytree(results, tmp_path_factory.mktemp("label_free") / "results.zarr"))
    return rank(copied, on="threads", progress=False)


@pytest.mark.parametrize(
    ("method", "least", "brighter"),
    [("pairs", 0.995, 0.999), ("map-consistency", 0.99, 0.999), ("structure", 0.93, 0.93)],
)
def test_without_a_label_the_area_under_the_curve_is_what_was_asked_for(
    label_free, data, tmp_path, method, least, brighter
):
    copied = Path(shutil.copytree(label_free, tmp_path / "results.zarr"))
    table = catalogue_table(rank(copied, method=method, on="threads", progress=False))
    assert area_of(table, data) >= least
    assert area_of(table, data, tiers=("strong", "medium")) >= brighter


def test_all_that_needs_no_label_together_is_as_good_as_was_asked_for(label_free, data):
    table = catalogue_table(label_free)
    assert area_of(table, data) >= 0.99
    assert area_of(table, data, tiers=("strong", "medium")) >= 0.999
    assert area_of(table, data, "frame_search") >= 0.95  # it was told no orientation
    assert open_group(label_free, "orientations").attrs["right_share"] >= 0.95


@pytest.mark.parametrize("tiers", [("strong", "medium"), ("strong", "medium", "weak")])
def test_without_a_label_every_figure_of_the_references_table_is_passed(label_free, data, tiers):
    table = catalogue_table(label_free)
    labels = pd.read_csv(data / "A_dev_labels.csv").set_index("frame")
    chosen = labels.index[labels["strength_tier"].isin(tiers) | (labels["label"] == "non-diffuse")]
    is_diffuse = (labels["label"][chosen] == "diffuse").to_numpy()
    is_picked = (table["frame_score"][chosen] >= threshold_of(table)).to_numpy()
    right = is_picked == is_diffuse
    found = {
        "diffuse_precision": right[is_picked].mean(),
        "diffuse_recall": right[is_diffuse].mean(),
        "non_diffuse_precision": right[~is_picked].mean(),
        "non_diffuse_recall": right[~is_diffuse].mean(),
        "overall": right.mean(),
    }
    assert set(found) == set(REFERENCE)
    assert not [name for name in REFERENCE if found[name] < REFERENCE[name]]


def test_the_surest_of_them_train_a_ranker_that_knows_no_label(label_free, data, tmp_path):
    ranker = train(label_free, labels="label-free", to=tmp_path / "ranker.zarr")
    assert load_ranker(ranker).parameters["labels"] == "label-free"
    copied = Path(shutil.copytree(label_free, tmp_path / "results.zarr"))
    assert area_of(catalogue_table(rank(copied, ranker=ranker)), data) >= 0.88


def test_misindexed_hits_are_found_out_and_still_found_diffuse(label_free, data, tmp_path):
    frames = Path(shutil.copytree(frames_path(label_free), tmp_path / "frames.zarr"))
    results = Path(shutil.copytree(label_free, tmp_path / "results.zarr"))
    zarr.open_group(str(results), mode="r+").attrs["frames"] = str(frames)
    for group in ("common-arc", "consistency", "search", "orientations"):
        remove_group(results, group)
    strong = pd.read_csv(data / "A_dev_labels.csv").set_index("frame")["strength_tier"] == "strong"
    wrong = strong.index[strong][:6].to_numpy()
    stored = zarr.open_group(str(frames), mode="r+")["orientation"]
    orientation = stored[...]
    orientation[wrong] = orientation[wrong] @ np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
    stored[...] = orientation
    table = catalogue_table(rank(results, on="threads", progress=False))
    assert table["frame_is_misindexed"][wrong].sum() >= 5
    assert table["frame_is_misindexed"].drop(wrong).sum() == 0
    assert (table["frame_score"][wrong] > 0).sum() >= 5
    assert area_of(table, data) >= 0.985


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
