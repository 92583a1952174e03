import csv
import json

import h5py
import pytest

from diffdask.errors import BadFrames, BadGeometry, BadParameter


def test_a_campaign_has_the_frames_runs_and_kinds_asked_for(small):
    with (small.simulated / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    kinds = [row["label"] for row in rows]
    assert len(rows) == 46
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"blank": 14, "diffuse": 16, "non-diffuse": 16}
    files = sorted(path.name for path in small.simulated.glob("*.cxi"))
    assert files == ["r0001.cxi", "r0002.cxi", "r0003.cxi"]
    with h5py.File(small.simulated / "r0003.cxi") as file:
        assert file["/entry_1/data_1/data"].shape == (16, 128, 128)
    for name in ("campaign.geom", "campaign.stream"):
        assert (small.simulated / name).stat().st_size > 0


def test_a_campaign_that_is_there_is_left_alone(small):
    before = {path.name: path.stat().st_mtime_ns for path in small.simulated.iterdir()}
    small.simulate("simulated", frames=46, runs=3, hits=0.7, diffuse=0.5)
    assert {path.name: path.stat().st_mtime_ns for path in small.simulated.iterdir()} == before


def test_another_campaign_is_not_written_over_one(small):
    before = (small.simulated / "labels.csv").read_bytes()
    with pytest.raises(BadFrames, match="another campaign"):
        small.simulate("simulated", frames=46, runs=3, hits=0.7, diffuse=0.5, seed=1)
    assert (small.simulated / "labels.csv").read_bytes() == before


def test_the_seed_decides_the_frames_and_the_place_does_not(small, tmp_path):
    one, again, other = (
        small.simulate(tmp_path / name, frames=3, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    frames = []
    for folder in (one, again, other):
        with h5py.File(folder / "r0001.cxi") as file:
            frames.append(file["/entry_1/data_1/data"][...])
    assert (frames[0] == frames[1]).all()
    assert (frames[0] != frames[2]).any()


def test_what_the_experiment_shall_be_can_be_chosen(small, tmp_path):
    options = {"laue": "P 61", "disorder": "long-correlation", "streaks": 1.0, "ice": 0.0, "indexed": 1.0}
    folder = small.simulate(tmp_path, frames=8, hits=1.0, diffuse=0.5, misindexed=1.0, orientation_error=0.5, **options)
    experiment = json.loads((folder / "campaign.json").read_text())["experiment"]
    assert (experiment["lattice"], experiment["laue_group"]) == ("hexagonal", "P 61")
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["has_streak"] for row in rows] == ["1"] * 8
    assert [row["has_ice"] for row in rows] == ["0"] * 8
    assert [row["misindexed"] for row in rows] == ["1"] * 8
    assert {row["ambiguity"] for row in rows} == {"0", "1"}
    assert (folder / "campaign.stream").read_text().count("lattice_type = hexagonal") == 9


def test_senseless_numbers_are_refused_and_nothing_is_left(small, tmp_path):
    for option, value in (("hits", 1.5), ("frames", 0), ("runs", 9), ("misindexed", 2.0), ("disorder", "none")):
        with pytest.raises(BadParameter, match=option):
            small.simulate(tmp_path / "campaign", **{"frames": 4, option: value})
    with pytest.raises(BadGeometry):
        small.simulate(tmp_path / "campaign", frames=4, detector=str(tmp_path / "absent.geom"))
    assert not (tmp_path / "campaign").exists()
