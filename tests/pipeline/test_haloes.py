"""Haloes of a small campaign of long correlations: who has them, whatever the blocks, workers and interruptions."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from sklearn.metrics import roc_auc_score

from diffdask.catalogue import table_of_frames
from diffdask.errors import BadParameter, BadStore
from diffdask.io.frames_store import open_frames
from diffdask.io.results_store import frames_path, open_features, open_group
from diffdask.models.chance import standardise_scores
from diffdask.pipeline import haloes as module
from diffdask.pipeline.halo_scores import score_by_haloes
from diffdask.pipeline.haloes import haloes
from diffdask.pipeline.ingest import ingest
from diffdask.pipeline.screen import screen
from diffdask.pipeline.simulate import simulate

#: Two panels of 256 x 512 pixels of a CSPAD's size: lattice points lie several pixels apart.
GEOMETRY = """
photon_energy = /LCLS/photon_energy_eV
clen = /LCLS/detector_1/EncoderValue
coffset = 0.5
adu_per_eV = 0.00338
res = 9090.91
dim0 = %
dim1 = ss
dim2 = fs
data = /entry_1/data_1/data
mask = /entry_1/data_1/mask
mask_good = 0x0000
mask_bad = 0xffff
""" + "".join(
    f"{name}/min_fs = 0\n{name}/max_fs = 511\n{name}/min_ss = {first}\n{name}/max_ss = {first + 255}\n"
    f"{name}/fs = +1.0x\n{name}/ss = +1.0y\n{name}/corner_x = -256\n{name}/corner_y = {corner}\n"
    for name, first, corner in (("low", 0, -260), ("high", 256, 4))
)

PARAMETERS = {"ring_count": 120, "polar_ring_count": 20, "azimuth_count": 36, "ring_groups": 2, "feature_q_min": 0.1}


class Campaign:
    """32 frames of two runs: half of the hits have haloes of 133 A; some are not indexed, some wrongly."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.geometry = folder / "fine.geom"
        self.geometry.write_text(GEOMETRY)
        options = {"frames": 32, "runs": 2, "hits": 0.9, "diffuse": 0.5, "streaks": 0.0, "ice": 0.0}
        options |= {"crystal": 105, "disorder": "long-correlation", "laue": "mmm", "detector": str(self.geometry)}
        options |= {"indexed": 0.85, "misindexed": 0.1, "orientation_error": 0.3}
        self.simulated = simulate(folder / "simulated", on="threads", progress=False, **options)
        self.frames = self.ingest(folder / "frames.zarr")
        self.results = self.screen(folder / "results.zarr", self.frames)
        self.found = look(self.copy(folder / "looked.zarr"))

    def ingest(self, to, sources="r*.cxi", *, with_stream=True):
        return ingest(
            str(self.simulated / sources),
            geometry=self.geometry,
            stream=self.simulated / "campaign.stream" if with_stream else None,
            to=to,
            block_frames=8,
            on="threads",
            progress=False,
        )

    @staticmethod
    def screen(results, frames, **options):
        return screen(
            frames, results=results, **{**PARAMETERS, "component_count": 4, **options}, on="threads", progress=False
        )

    def copy(self, to: Path) -> Path:
        return Path(shutil.copytree(self.results, to))

    def is_diffuse(self, numbers) -> np.ndarray:
        return pd.read_csv(self.simulated / "labels.csv").set_index("frame")["label"][numbers].to_numpy() == "diffuse"


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return Campaign(tmp_path_factory.mktemp("haloes"))


@pytest.fixture
def results(campaign, tmp_path):
    return campaign.copy(tmp_path / "results.zarr")


@pytest.fixture
def own_frames(campaign, results, tmp_path):
    """Frames that only these results belong to, to be spoilt."""
    copied = Path(shutil.copytree(campaign.frames, tmp_path / "frames.zarr"))
    zarr.open_group(str(results), mode="r+").attrs["frames"] = str(copied)
    return copied


def look(results, *, on="threads", **options) -> xr.Dataset:
    """What the verb leaves behind."""
    return open_group(haloes(results, on=on, progress=False, **options), "haloes").load()


def spoil(results) -> None:
    """Write over all that was found; what is done again is right again."""
    zarr.open_array(str(results / "haloes" / "hit_halo"), mode="r+")[...] = 99.0


def assert_same(one: xr.Dataset, other: xr.Dataset) -> None:
    assert set(one.variables) == set(other.variables)
    for name in one.variables:
        np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=str(name), strict=True)


def indexed(results) -> np.ndarray:
    orientation = open_frames(frames_path(results)).orientation.values[open_features(results).hit_frame.values]
    return np.isfinite(orientation).all(axis=(1, 2))


def test_hits_with_haloes_rank_above_the_others(campaign):
    scores = score_by_haloes(campaign.folder / "looked.zarr")
    halo, is_diffuse = scores.columns["frame_score"], campaign.is_diffuse(scores.hit_frame)
    scored = np.isfinite(halo)
    assert min(is_diffuse[scored].sum(), (~is_diffuse[scored]).sum()) >= 8
    assert roc_auc_score(is_diffuse[scored], halo[scored]) > 0.95
    assert scores.attributes["threshold"] == 4.0


def test_a_hit_without_its_lattice_has_no_score_and_says_so(campaign):
    found, known = campaign.found, indexed(campaign.results)
    share, halo = found.lattice_share.values, found.hit_halo.values
    assert (~known).any()
    assert np.isnan(share[~known]).all()
    is_misindexed = share < 0.3
    assert is_misindexed.any()
    assert np.isnan(halo[~known | is_misindexed]).all()
    assert np.isfinite(halo[known & ~is_misindexed]).all()
    source = score_by_haloes(campaign.folder / "looked.zarr").source
    np.testing.assert_array_equal(source == "haloes", np.isfinite(halo))
    assert set(source[np.isnan(halo)]) == {"none: not indexed or few peaks"}


def test_the_catalogue_has_what_was_found_for_every_hit(campaign):
    found, frames = campaign.found, open_frames(campaign.frames)
    np.testing.assert_array_equal(found.hit_frame, open_features(campaign.results).hit_frame)
    table = table_of_frames(frames, found)
    hits = found.hit_frame.values
    np.testing.assert_array_equal(table["frame_halo"][hits], standardise_scores(found.hit_halo.values))
    np.testing.assert_array_equal(table["frame_lattice_share"][hits], found.lattice_share)
    assert table.drop(index=hits)[["frame_halo", "frame_lattice_share"]].isna().all(axis=None)


def test_blocks_and_workers_do_not_matter_bit_for_bit(campaign, results, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_BLOCK_HITS", 7)
    assert_same(look(results), campaign.found)
    place = tmp_path / "place.toml"
    place.write_text('where = "laptop"\nworkers = 1\nthreads = 1\nmemory_limit = "2GB"\n')
    assert_same(look(campaign.copy(tmp_path / "alone.zarr"), on=place), campaign.found)


def test_an_interrupted_search_goes_on_where_it_stopped(campaign, results, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_HITS", 7)
    look(results)
    zarr.open_group(str(results), path="haloes", mode="r+").attrs["complete"] = False
    spoil(results)
    (results / "marks" / "haloes" / "7-14").unlink()
    with pytest.raises(BadStore, match="run: diffdask haloes"):
        score_by_haloes(results)
    again = look(results).hit_halo.values
    np.testing.assert_array_equal(again[7:14], campaign.found.hit_halo.values[7:14])
    assert (np.delete(again, np.s_[7:14]) == 99.0).all()


def test_other_parameters_are_refused_unless_told_to_overwrite(campaign, results):
    look(results)
    with pytest.raises(BadStore, match=r"halo_length: 100\.0 there, 150\.0 asked.*--overwrite"):
        look(results, halo_length=150.0)
    changed = look(results, halo_length=150.0, shell_count=5, overwrite=True)
    assert changed.attrs["parameters"]["halo_length"] == 150.0
    assert changed.sizes["halo_shell"] == 5
    assert (changed.hit_halo.values != campaign.found.hit_halo.values).any()


def test_hits_that_are_indexed_anew_are_looked_at_again_and_no_others(campaign, results, own_frames, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_HITS", 7)
    first = look(results)
    row = 7 + int(np.flatnonzero(np.isfinite(first.hit_halo.values[7:14]))[0])
    orientation = zarr.open_array(str(own_frames / "orientation"), mode="r+")
    orientation[int(first.hit_frame.values[row])] = np.nan
    spoil(results)
    again = look(results)
    expected = np.where(np.arange(first.sizes["hit"]) == row, np.nan, first.hit_halo.values)
    np.testing.assert_array_equal(again.hit_halo.values[7:14], expected[7:14])
    assert (np.delete(again.hit_halo.values, np.s_[7:14]) == 99.0).all()
    assert np.isnan(again.frame_lattice_share.values[first.hit_frame.values[row]])


def test_new_frames_are_gone_on_with(campaign, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_HITS", 7)
    frames = campaign.ingest(tmp_path / "frames.zarr", "r0001.cxi")
    results = campaign.screen(tmp_path / "results.zarr", frames)
    before = look(results)
    spoil(results)
    campaign.ingest(frames)
    campaign.screen(results, frames)
    assert open_group(results, "haloes") is None  # the catalogue must not show half of it
    after = look(results)
    np.testing.assert_array_equal(after.hit_frame, open_features(results).hit_frame)
    assert after.sizes["hit"] > before.sizes["hit"] > 7
    assert after.sizes["frame"] == 32
    assert (after.hit_halo.values[:7] == 99.0).all()
    whole = campaign.found.hit_halo.values
    np.testing.assert_array_equal(np.isfinite(after.hit_halo.values[14:]), np.isfinite(whole[14:]))


def test_another_screen_throws_haloes_away(campaign, results):
    look(results)
    campaign.screen(results, campaign.frames, snr=7.0, overwrite=True)
    assert not (results / "haloes").exists()
    assert not (results / "marks" / "haloes").exists()


def test_a_lattice_without_a_centring_costs_its_hit_only(campaign, results, own_frames, caplog):
    row = int(np.flatnonzero(np.isfinite(campaign.found.hit_halo.values))[0])
    lattice = zarr.open_array(str(own_frames / "lattice"), mode="r+")
    lattice[int(campaign.found.hit_frame.values[row])] = "orthorhombic ? *"
    with caplog.at_level(logging.WARNING, logger="diffdask"):
        found = look(results).hit_halo.values
    assert "1 hits have a lattice without a known centring ('orthorhombic ? *')" in caplog.text
    assert np.isnan(found[row])
    np.testing.assert_array_equal(np.delete(found, row), np.delete(campaign.found.hit_halo.values, row))
    lattice[...] = np.where(lattice[...] == "", "", "orthorhombic ? *").astype(object)
    with pytest.raises(BadStore, match=r"without a known centring \('orthorhombic \? \*'\)"):
        look(results)


def test_frames_without_any_orientation_say_what_to_do(campaign, tmp_path):
    frames = campaign.ingest(tmp_path / "frames.zarr", "r0001.cxi", with_stream=False)
    results = campaign.screen(tmp_path / "results.zarr", frames)
    with pytest.raises(BadStore, match="give streams to 'diffdask ingest'"):
        look(results)


def test_results_without_features_say_what_to_run(results):
    shutil.rmtree(results / "features")
    with pytest.raises(BadStore, match="diffdask screen"):
        look(results)


@pytest.mark.parametrize("options", [{"halo_length": 0.0}, {"shell_count": 0}, {"halo_q_min": 99.0}])
def test_what_makes_no_sense_is_refused_before_the_work(results, options):
    with pytest.raises(BadParameter, match=next(iter(options))):
        look(results, **options)
    assert not (results / "haloes").exists()
