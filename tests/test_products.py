"""The verbs of the products on real stores: a small detector, ingested and screened."""

import json
import os
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from diffdask.catalogue import catalogue, catalogue_table
from diffdask.errors import BadLabels, BadParameter, BadStore
from diffdask.evaluation import evaluate
from diffdask.io.results_store import replace_group
from diffdask.pipeline.ingest import ingest
from diffdask.pipeline.screen import screen
from diffdask.report import report
from diffdask.residual_pictures import residual_panels
from diffdask.variables import wrap

COUNT, SHAPE = 12, (2, 60, 60)

PARAMETERS = {"min_peaks": 5, "ring_count": 20, "polar_ring_count": 10, "ring_groups": 1}

GEOMETRY = """\
photon_energy = 9500
adu_per_photon = 10
clen = 0.05
res = 5000
data = /entry_1/data_1/data
dim0 = %
left/dim1 = 0
left/dim2 = ss
left/dim3 = fs
left/min_fs = 0
left/max_fs = 59
left/min_ss = 0
left/max_ss = 59
left/corner_x = -62
left/corner_y = -30
left/fs = +1.0x
left/ss = +1.0y
right/dim1 = 1
right/dim2 = ss
right/dim3 = fs
right/min_fs = 0
right/max_fs = 59
right/min_ss = 0
right/max_ss = 59
right/corner_x = 2
right/corner_y = -30
right/fs = +1.0x
right/ss = +1.0y
"""

LABELS = "frame,label\n" + "".join(
    f"{frame},{('blank', 'diffuse', 'non-diffuse')[frame % 3]}\n" for frame in range(COUNT)
)


def write_campaign(folder: Path) -> Path:
    """Frames of which two in three have peaks, and of those one in two a cloud in the upper right."""
    random = np.random.default_rng(0)
    photons = random.poisson(3.0, size=(COUNT, *SHAPE)).astype(np.int32)
    for frame in range(COUNT):
        if frame % 3:
            for panel, ss, fs in zip(*(random.integers(3, size - 3, 30) for size in (6 + 2, 60, 60)), strict=True):
                photons[frame, panel % 2, ss : ss + 2, fs : fs + 2] += 60
        if frame % 3 == 1:
            photons[frame, 1, 30:, 20:] += random.poisson(1.0, size=(30, 40))
    with h5py.File(folder / "r0007.cxi", "w") as file:
        file["/entry_1/data_1/data"] = (photons * 10).astype(np.int16)
    (folder / "detector.geom").write_text(GEOMETRY)
    (folder / "labels.csv").write_text(LABELS)
    frames = folder / "frames.zarr"
    ingest(folder / "r0007.cxi", geometry=folder / "detector.geom", to=frames, on="threads", progress=False)
    return frames


def rank(results: Path) -> None:
    is_hit = np.arange(COUNT) % 3 != 0
    score = np.where(is_hit, np.where(np.arange(COUNT) % 3 == 1, 0.9, 0.1), np.nan)
    order = pd.Series(score).rank(ascending=False, method="first").fillna(0).to_numpy(dtype=np.int64)
    attributes = {"method": "truth", "cross_fitted": True, "parameters": {}, "learning_curve": {
        "iteration": [0, 1], "training": [-0.69, -0.1], "held_out": [-0.69, -0.2]}}  # fmt: skip
    replace_group(results, "scores", wrap(frame_score=score, frame_rank=order), attributes)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with frames, labels and results in two states: screened, and ranked."""
    folder = tmp_path_factory.mktemp("campaign")
    frames = write_campaign(folder)
    for name in ("screened.zarr", "ranked.zarr"):
        screen(frames, results=folder / name, on="threads", progress=False, **PARAMETERS)
    rank(folder / "ranked.zarr")
    return folder


@pytest.mark.parametrize("state", ["screened.zarr", "ranked.zarr"])
def test_the_catalogue_has_a_row_per_ingested_frame_and_every_column_asked_for(campaign: Path, state: str) -> None:
    to = catalogue(campaign / state, to=campaign / "catalogue.parquet")
    table = pd.read_parquet(to)
    assert table.index.tolist() == list(range(COUNT))
    wanted = ["frame_id", "run", "event", "source", "frame_is_hit", "frame_peak_count", "frame_anisotropy"]
    wanted += ["frame_status", "photon_energy", "camera_length", "frame_is_indexed"]
    wanted += ["frame_score", "frame_rank"] if state == "ranked.zarr" else []
    assert set(wanted) <= set(table.columns)
    assert table["frame_id"].is_unique
    assert table["run"].unique().tolist() == [7]
    made = {k: v for group in ("layout", "hits", "features") for k, v in table.attrs[group]["parameters"].items()}
    assert {name: made[name] for name in PARAMETERS} == PARAMETERS
    assert (table.attrs["scores"] is None) == (state == "screened.zarr")
    pd.testing.assert_frame_equal(table, catalogue_table(campaign / state), check_index_type=False)


def test_a_catalogue_of_an_unknown_kind_is_refused(campaign: Path) -> None:
    with pytest.raises(BadParameter, match="catalogue"):
        catalogue(campaign / "ranked.zarr", to=campaign / "catalogue.txt")


def test_a_true_ranking_is_found_true(campaign: Path) -> None:
    result = evaluate(campaign / "ranked.zarr", labels=campaign / "labels.csv", bootstrap=50)
    assert result["accuracy"]["value"] == 1.0
    assert result["labelled"] == {"diffuse": 4, "non-diffuse": 4, "blank": 4}
    assert result["method"] == "truth"
    assert json.loads(json.dumps(result)) == result


def test_before_ranking_only_hits_are_judged(campaign: Path) -> None:
    result = evaluate(campaign / "screened.zarr", labels=campaign / "labels.csv")
    assert result["hits_against_blanks"]["accuracy"]["value"] == 1.0
    assert "diffdask rank" in result["next"]


def test_labels_of_another_campaign_are_refused(campaign: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"frame,label\n{COUNT},diffuse\n")
    with pytest.raises(BadLabels, match=f"no frame {COUNT}"):
        evaluate(campaign / "ranked.zarr", labels=tmp_path / "labels.csv")
    with pytest.raises(BadLabels, match=f"no frame {COUNT}"):
        report(campaign / "ranked.zarr", labels=tmp_path / "labels.csv", to=tmp_path)
    assert os.listdir(tmp_path) == ["labels.csv"]


@pytest.mark.parametrize("state", ["screened.zarr", "ranked.zarr"])
@pytest.mark.parametrize("is_labelled", [False, True])
def test_the_report_is_one_file_with_pictures_whatever_is_there_already(
    campaign: Path, tmp_path: Path, state: str, is_labelled: bool
) -> None:
    labels = campaign / "labels.csv" if is_labelled else None
    to = report(campaign / state, labels=labels, to=tmp_path / "report", top=3)
    text = to.read_text(encoding="utf-8")
    assert os.listdir(to.parent) == ["report.html"]
    assert len(re.findall(r"data:image/png", text)) == (7 if state == "ranked.zarr" else 4)
    assert ("Per class" in text) == (is_labelled and state == "ranked.zarr")
    assert "http" not in text


def test_the_residual_shows_the_cloud_of_the_diffuse_frames_only(campaign: Path) -> None:
    def contrast(frames: list[int]) -> float:
        numbers, panels = zip(*residual_panels(campaign / "ranked.zarr", frames), strict=True)
        assert list(numbers) == frames
        # Medians, because Bragg peaks stay in the residual.
        return float(np.mean([np.nanmedian(one[1, 32:, 22:]) - np.nanmedian(one[0, :28]) for one in panels]))

    assert contrast([1, 4, 7, 10]) > 0.5
    assert abs(contrast([2, 5, 8, 11])) < 0.2


def test_pictures_are_made_with_the_parameters_of_the_screen(campaign: Path, tmp_path: Path) -> None:
    narrow = screen(
        campaign / "frames.zarr",
        results=tmp_path / "narrow.zarr",
        on="threads",
        progress=False,
        q_max=0.6,
        azimuth_count=16,
        feature_q_min=0.0,
        **PARAMETERS,
    )
    seen = [np.isfinite(next(residual_panels(results, [1]))[1]).sum() for results in (narrow, campaign / "ranked.zarr")]
    assert seen[0] < 0.5 * seen[1]


def test_a_report_of_nothing_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(BadStore, match="diffdask screen"):
        report(tmp_path / "absent.zarr", to=tmp_path / "report")
    with pytest.raises(BadParameter, match="top = 0"):
        report(tmp_path / "absent.zarr", to=tmp_path / "report", top=0)
