"""All pairs of hits: what the matrix holds, whatever the tiles, the workers and the interruptions."""

import shutil

import numpy as np
import pytest
import zarr

from diffdask.errors import BadParameter, BadStore
from diffdask.io.frames_store import open_frames
from diffdask.io.results_store import open_features, open_group
from diffdask.pipeline import compare as module
from diffdask.pipeline.compare import borrow_orientations, compare

SIMILARITIES = ("common-arc", "correlation", "euclidean")


def compared(results, similarity="common-arc", *, on="threads", **options):
    return open_group(
        compare(results, similarity=similarity, min_samples=8, on=on, progress=False, **options), similarity
    ).load()


@pytest.fixture
def results(small, tmp_path):
    return small.copy(tmp_path / "results.zarr")


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_matrix_is_symmetric_and_of_all_hits(results, similarity):
    found = compared(results, similarity)
    np.testing.assert_array_equal(found.hit_frame, open_features(results).hit_frame)
    agreement = found.pair_agreement.values
    np.testing.assert_allclose(agreement, agreement.T, rtol=1e-6)
    assert np.isfinite(agreement[np.triu_indices_from(agreement, 1)]).any()


@pytest.mark.parametrize("laue", ["mmm", "2/m"])
def test_tiles_do_not_matter_bit_for_bit(small, tmp_path, monkeypatch, laue):
    whole = compared(small.copy(tmp_path / "whole.zarr"), laue=laue)
    monkeypatch.setattr(module, "_SMALLEST_TILE", 7)
    tiled = compared(small.copy(tmp_path / "tiled.zarr"), laue=laue)
    assert tiled.sizes["hit"] > 3 * 7
    for name in whole.variables:
        np.testing.assert_array_equal(tiled[name], whole[name], err_msg=str(name))


def test_an_interrupted_comparison_goes_on_where_it_stopped(results, monkeypatch):
    monkeypatch.setattr(module, "_SMALLEST_TILE", 7)
    whole = compared(results)
    zarr.open_group(str(results), path="common-arc", mode="r+").attrs["complete"] = False
    marks = sorted((results / "marks" / "common-arc").iterdir())
    spoilt = zarr.open_array(str(results / "common-arc" / "pair_agreement"), mode="r+")
    spoilt[...] = 99.0
    marks[0].unlink()
    again = compared(results).pair_agreement.values
    tile = again[:7, :7]  # only this one was done again
    np.testing.assert_array_equal(tile, whole.pair_agreement.values[:7, :7])
    assert (again[7:, :] == 99.0).all()


def test_other_parameters_are_refused_unless_told_to_overwrite(results):
    compared(results)
    with pytest.raises(BadStore, match=r"compare_q_min: 0\.5 there, 0\.9 asked"):
        compared(results, compare_q_min=0.9)
    assert compared(results, compare_q_min=0.9, overwrite=True).attrs["parameters"]["compare_q_min"] == 0.9


def test_a_matrix_of_other_hits_is_made_anew(results):
    compared(results, "correlation")
    frames = zarr.open_array(str(results / "correlation" / "hit_frame"), mode="r+")
    frames[0] = frames[0] + 1
    found = compared(results, "correlation")
    np.testing.assert_array_equal(found.hit_frame, open_features(results).hit_frame)


def test_hits_without_orientation_agree_with_nobody_and_lend_nothing(small, results):
    found = compared(results)
    orientation = open_frames(small.frames).orientation.values[found.hit_frame.values]
    is_indexed = np.isfinite(orientation).all(axis=(1, 2))
    assert not is_indexed.all()
    assert is_indexed.sum() > 3
    for name in ("pair_agreement", "exchanged_agreement"):
        assert np.isnan(found[name].values[~is_indexed]).all()
        assert np.isnan(found[name].values[:, ~is_indexed]).all()
    borrowed = found.borrowed_from.values
    assert (borrowed[is_indexed] != np.flatnonzero(is_indexed)).all()
    assert sorted(borrowed[is_indexed]) == np.flatnonzero(is_indexed).tolist()


def test_frames_without_any_orientation_say_what_to_do(small, tmp_path):
    frames = small.ingest(tmp_path / "frames.zarr", with_stream=False)
    results = small.screen(tmp_path / "results.zarr", frames=frames)
    with pytest.raises(BadStore, match="streams to 'diffdask ingest', or rank with --method structure"):
        compared(results)


def test_an_unknown_similarity_names_the_nearest(results):
    with pytest.raises(BadParameter, match="common-arc"):
        compared(results, "common_arc")


def test_results_without_features_say_what_to_run(results):
    shutil.rmtree(results / "features")
    with pytest.raises(BadStore, match="diffdask screen"):
        compared(results)


def test_a_lower_laue_group_chooses_a_labelling_for_every_indexed_hit(results):
    found = compared(results, laue="2/m")
    is_indexed = np.isfinite(found.crystal_rotation.values).all(axis=(1, 2))
    choice = found.hit_labelling.values
    assert set(choice[is_indexed]) <= {0, 1}
    assert (choice[~is_indexed] == -1).all()
    agreement = found.pair_agreement.values
    np.testing.assert_array_equal(agreement, agreement.T)
    between = np.abs(np.maximum(choice, 0)[:, None] - np.maximum(choice, 0))
    chosen = found.ambiguity_agreement.values[between, *np.indices(agreement.shape)]
    known = np.isfinite(agreement)
    np.testing.assert_array_equal(agreement[known], chosen[known])


@pytest.mark.parametrize("seed", range(5))
def test_nobody_borrows_its_own_orientation(seed):
    is_indexed = np.random.default_rng(seed).uniform(size=20) < 0.7
    borrowed = borrow_orientations(is_indexed, seed)
    assert (borrowed[is_indexed] != np.flatnonzero(is_indexed)).all()
    assert (borrowed[~is_indexed] == np.flatnonzero(~is_indexed)).all()
    np.testing.assert_array_equal(borrowed, borrow_orientations(is_indexed, seed))
