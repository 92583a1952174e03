import csv
import json
from dataclasses import replace

import h5py
import hdf5plugin  # noqa: F401  (registers the filters)
import numpy as np
import pytest

from diffdask.errors import BadFrames
from diffdask.geometry import positions_on_panels, reciprocal_points
from diffdask.io.crystfel_geometry import read_geometry, take_panels
from diffdask.io.crystfel_stream import read_stream
from diffdask.simulate import plan_campaign, plan_run, simulate_frame, write_run, write_tables
from diffdask.simulate.detector import map_pixels
from diffdask.simulate.draw import draw_frame
from diffdask.simulate.scene import draw_run_scene


def is_good_in(array, mask):
    """CrystFEL's rule: all good bits set, no bad one."""
    return ((array & mask.good_bits) == mask.good_bits) & ((array & mask.bad_bits) == 0)


@pytest.fixture(scope="module")
def campaign(small_experiment, small_detector):
    experiment = replace(small_experiment, indexed_fraction=0.8)
    return plan_campaign(experiment, frames=21, runs=2, hits=0.7, diffuse=0.4, seed=8, detector=small_detector)


@pytest.fixture(scope="module")
def folder(campaign, tmp_path_factory):
    folder = tmp_path_factory.mktemp("campaign")
    for run in (2, 1):
        write_run(campaign, run, folder)
    write_tables(campaign, folder)
    return folder


def test_the_folder_holds_runs_and_tables_and_nothing_else(folder):
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["campaign.geom", "campaign.json", "campaign.stream", "labels.csv", "r0001.cxi", "r0002.cxi"]
    assert json.loads((folder / "campaign.json").read_text())["frames"] == 21


def test_files_are_laid_out_as_cheetah_does(folder, campaign):
    with h5py.File(folder / "r0002.cxi") as file:
        data = file["/entry_1/data_1/data"]
        assert isinstance(file.get("/entry_1/data_1/data", getlink=True), h5py.SoftLink)
        assert data.shape == (11, 240, 62)
        assert data.dtype == np.int16
        assert data.chunks == (1, 240, 62)
        assert file["/entry_1/data_1/mask"].shape == (240, 62)
        for name in ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity"):
            assert file["/entry_1/result_1"][name].shape[0] == 11
        assert (file["/LCLS/photon_energy_eV"][:] > 8000).all()
        camera_length = campaign.experiment.camera_length
        np.testing.assert_allclose(file["/LCLS/detector_1/EncoderValue"][:] * 1e-3 + 0.5, camera_length)
        assert file["/entry_1/experiment_identifier"][0] == b"sim_run0002"
        assert len(set(zip(file["/LCLS/machineTime"][:], file["/LCLS/fiducial"][:], strict=True))) == 11


def test_the_files_frames_are_the_simulated_ones(folder, campaign):
    layout = read_geometry(folder / "campaign.geom")
    with h5py.File(folder / "r0001.cxi") as file:
        for plan in plan_run(campaign, 1)[::4]:
            frame = take_panels(file["/entry_1/data_1/data"][plan.index], layout)
            np.testing.assert_array_equal(frame, simulate_frame(campaign, plan).adu)


def test_the_mask_marks_the_bad_pixels(folder, campaign):
    layout = read_geometry(folder / "campaign.geom")
    with h5py.File(folder / "r0001.cxi") as file:
        good = is_good_in(take_panels(file["/entry_1/data_1/mask"][:], layout), layout.masks[0])
    scene = draw_run_scene(campaign.experiment, np.random.default_rng([campaign.seed, 1, 2]))
    np.testing.assert_array_equal(~good, map_pixels(campaign.experiment, campaign.geometry_text, scene.shift).is_bad)
    assert 0 < (~good).sum() < 0.01 * good.size


def test_labels_are_in_ingest_order_and_count_as_planned(folder, campaign):
    with (folder / "labels.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [int(row["frame"]) for row in rows] == list(range(21))
    plans = [plan for run in (1, 2) for plan in plan_run(campaign, run)]
    assert [row["label"] for row in rows] == [plan.kind for plan in plans]
    assert [(row["file"], row["event"]) for row in rows] == [(f"r{p.run:04d}.cxi", f"//{p.index}") for p in plans]
    assert sum(row["label"] != "blank" for row in rows) == 15
    assert sum(row["label"] == "diffuse" for row in rows) == 6
    assert all((float(row["diffuse_rms"]) > 0.003) == (row["label"] == "diffuse") for row in rows)


def test_the_stream_tells_the_orientation_of_indexed_frames(folder, campaign):
    chunks = read_stream(folder / "campaign.stream")
    plans = [plan for run in (1, 2) for plan in plan_run(campaign, run)]
    assert len(chunks) == len(plans)
    text = (folder / "campaign.stream").read_text()
    assert text.count("--- Begin crystal") == sum(plan.is_indexed for plan in plans) < 15
    assert campaign.geometry_text.strip() in text


def test_the_stream_has_the_orientation_that_indexing_gives_and_the_labels_have_the_true_one(
    small_experiment, small_detector, tmp_path
):
    experiment = replace(small_experiment, laue_group="2/m", orientation_error=1.0, misindexed_fraction=0.4)
    experiment = replace(experiment, indexed_fraction=1.0)
    campaign = plan_campaign(experiment, frames=12, runs=1, hits=1.0, seed=8, detector=small_detector)
    write_run(campaign, 1, tmp_path)
    write_tables(campaign, tmp_path)
    chunks = read_stream(tmp_path / "campaign.stream")
    with (tmp_path / "labels.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert {row["misindexed"] for row in rows} == {row["ambiguity"] for row in rows} == {"0", "1"}
    for plan, chunk, row in zip(plan_run(campaign, 1), chunks, rows, strict=True):
        drawn = draw_frame(campaign, plan)
        found = chunk.best_crystal.orientation
        np.testing.assert_allclose(found, drawn.indexing.reciprocal, atol=1e-7)
        truth = np.array([float(row[f"{axis}star_{xyz}"]) for axis in "abc" for xyz in "xyz"]).reshape(3, 3)
        np.testing.assert_allclose(truth, drawn.crystal.reciprocal, atol=1e-8)
        assert not np.allclose(found, truth, atol=1e-5)


def test_stored_peaks_and_the_streams_orientation_agree(folder, campaign):
    layout = read_geometry(folder / "campaign.geom")
    plan = next(plan for plan in plan_run(campaign, 1) if plan.is_indexed)
    chunk = (folder / "campaign.stream").read_text().split("----- Begin chunk -----")[1 + plan.frame]
    values = {line.split(" = ")[0]: line.split(" = ", 1)[1] for line in chunk.splitlines() if " = " in line}
    axes = 0.1 * np.array([[float(v) for v in values[f"{a}star"].split()[:3]] for a in "abc"])
    words = next(line for line in chunk.splitlines() if "det_shift" in line).split()
    shift = 1e-3 * float(words[3]), 1e-3 * float(words[6])
    with h5py.File(folder / "r0001.cxi") as file:
        count = min(file["/entry_1/result_1/nPeaks"][plan.index], 20)
        assert count == min(int(values["num_peaks"]), 20) > 5
        x = file["/entry_1/result_1/peakXPosRaw"][plan.index, :count] + 0.5
        y = file["/entry_1/result_1/peakYPosRaw"][plan.index, :count] + 0.5
        energy = file["/LCLS/photon_energy_eV"][plan.index]
        intensity = file["/entry_1/result_1/peakTotalIntensity"][plan.index, :count]
    assert (np.diff(intensity) <= 0).all()
    panel = (y // 60).astype(int)
    length = campaign.experiment.camera_length
    ss = y - layout.first_ss[panel]
    positions = positions_on_panels(layout.geometry, panel, ss, x, camera_length=length, shift=shift)
    hkl = reciprocal_points(positions, energy) @ np.linalg.inv(axes)
    assert np.abs(hkl - np.rint(hkl)).max() < 0.2


def test_tables_wait_for_all_runs(campaign, tmp_path):
    write_run(campaign, 2, tmp_path)
    with pytest.raises(BadFrames, match=r"lacks runs \[1\]"):
        write_tables(campaign, tmp_path)
    assert not (tmp_path / "labels.csv").exists()


def test_other_paths_units_and_layouts_are_written_as_the_geometry_says(small_experiment, small_detector, tmp_path):
    text = small_detector.read_text()
    text = text.replace("/entry_1/data_1/data", "/data/frames").replace("mask_good = 0x0000", "mask_good = 0x0001")
    text = text.replace("mask_bad = 0xffff", "mask_bad = 0x0000").replace(
        "dim1 = ss\ndim2 = fs", "dim1 = fs\ndim2 = ss"
    )
    path = tmp_path / "other.geom"
    path.write_text(text)
    campaign = plan_campaign(small_experiment, frames=1, runs=1, detector=path)
    cxi = write_run(campaign, 1, tmp_path)
    layout = read_geometry(path)
    with h5py.File(cxi) as file:
        assert file["/data/frames"].shape == (1, 62, 240)
        good = is_good_in(take_panels(file["/entry_1/data_1/mask"][:], layout), layout.masks[0])
        frame = take_panels(file["/data/frames"][0], layout)
    assert 0 < (~good).sum() < 0.01 * good.size
    np.testing.assert_array_equal(frame, simulate_frame(campaign, plan_run(campaign, 1)[0]).adu)
