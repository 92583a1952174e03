"""All pairs of hits: what the matrix holds, whatever the tiles, the workers and the interruptions."""

import shutil

import numpy as np
import pytest
import zarr

from diffdask.errors import BadParameter, BadStore
from diffdask.io.frames_store import open_frames
from diffdask.io.marks import marked_blocks
from diffdask.io.results_store import open_features, open_group, open_hits, open_unfinished, remove_group
from diffdask.pipeline import compare as module
from diffdask.pipeline.compare import compare
from diffdask.pipeline.crystals import borrow_orientations, choose_compared, open_crystals
from diffdask.pipeline.features import take_features
from diffdask.pipeline.grow import grow_map
from diffdask.pipeline.oriented_hits import find_symmetry
from diffdask.pipeline.rank import rank

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


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_tile_of_a_comparison_that_was_begun_anew_since_is_neither_written_nor_marked(
    results, monkeypatch, similarity
):
    tasks = []

    def stop(client, task, blocks, done, **given):
        tasks.append(task)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_marked", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            compared(results, similarity)
        if len(tasks) == 1:
            remove_group(results, similarity)
    old, new = tasks
    with pytest.raises(BadStore, match="made anew in the meantime"):
        old((0, 1))
    assert not marked_blocks(results, similarity)
    assert np.isnan(open_unfinished(results, similarity).pair_agreement.values).all()
    new((0, 1))
    assert marked_blocks(results, similarity) == {(0, 1)}


def test_a_group_that_was_only_half_begun_is_begun_anew(results):
    whole = compared(results)
    group = zarr.open_group(str(results), path="common-arc", mode="r+")
    for name in ("made", "parameters", "version", "complete"):
        del group.attrs[name]
    again = compared(results)
    for name in whole.variables:
        np.testing.assert_array_equal(again[name], whole[name], err_msg=str(name))


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
    is_indexed = np.isfinite(open_crystals(results).crystal_rotation.values).all(axis=(1, 2))
    choice = open_crystals(results).hit_labelling.values
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


def test_of_many_hits_those_of_the_most_structure_and_others_at_random_are_compared(results):
    whole = compared(results)
    kept = compared(results, most=20, overwrite=True)
    numbers = kept.hit_frame.values
    assert numbers.size == 20
    rows = np.searchsorted(whole.hit_frame.values, numbers)
    is_indexed = np.isfinite(open_crystals(results).crystal_rotation.values).all(axis=(1, 2))
    structure = np.where(is_indexed, open_features(results).hit_structure.values, -np.inf)
    assert set(np.argsort(-structure)[:10]) < set(rows)
    assert is_indexed[rows].all()
    np.testing.assert_array_equal(kept.pair_agreement, whole.pair_agreement.values[np.ix_(rows, rows)])


def test_a_few_pairs_start_a_map_of_all_hits(results):
    compared(results)
    whole = grow_map(results, seed=0)
    compared(results, most=20, overwrite=True)
    grown = grow_map(results, seed=0)
    np.testing.assert_array_equal(grown.hit_frame, whole.hit_frame)
    np.testing.assert_array_equal(np.isfinite(grown.hit_consistency), np.isfinite(whole.hit_consistency))
    assert np.isfinite(grown.hit_pairs).sum() == 20
    assert np.isfinite(grown.hit_consistency).sum() > 20


def test_hits_that_are_not_compared_are_ranked_by_pairs_with_their_structure_and_say_so(results):
    compared(results, most=20, overwrite=True)
    source = open_group(rank(results, method="pairs", progress=False), "scores").frame_score_source.values
    hits = open_features(results).hit_frame.values
    assert {"pairs", "structure: not indexed", "structure: not among the hits compared"} == set(source[hits])
    assert (source == "pairs").sum() == 20


def test_a_diffusion_map_of_some_hits_only_is_refused_with_what_to_run(results):
    compared(results, most=20, overwrite=True)
    with pytest.raises(BadStore, match=r"20 of the .* --most 0 --overwrite"):
        take_features(results, features="diffusion-map")


def test_all_of_few_hits_are_compared(results):
    count = open_features(results).sizes["hit"]
    found = compared(results, most=count, overwrite=True)
    assert found.sizes["hit"] == count
    assert found.attrs["parameters"]["most"] == 0


def test_hits_in_no_pair_find_their_labelling_in_the_map_of_those_that_are(results):
    compared(results, laue="2/m")
    planted = plant_signal(results, "2/m")
    compared(results, laue="2/m", most=16, overwrite=True)
    kept, crystals = open_group(results, "common-arc"), open_crystals(results)
    labelling = crystals.hit_labelling.values
    is_indexed = np.isfinite(crystals.crystal_rotation.values).all(axis=(1, 2))
    np.testing.assert_array_equal(labelling < 0, ~is_indexed)
    others = is_indexed & ~np.isin(crystals.hit_frame.values, kept.hit_frame.values)
    assert others.sum() > 5
    exchanged = (labelling == planted)[is_indexed & ~others].mean() < 0.5  # of all labels at once: nothing can tell
    assert ((labelling == planted) != exchanged)[is_indexed].all()


def plant_signal(results, laue):
    """Make every indexed hit show one crystal, its axes labelled at random; gives the labelling."""
    crystals, told = open_crystals(results), open_crystals(results).attrs["parameters"]
    symmetry = find_symmetry(laue, told["lattice"], crystals.crystal_cell.values)
    random = np.random.default_rng(0)
    waves = 5.0 * random.normal(size=(40, 3))
    planted = random.integers(0, 2, crystals.sizes["hit"])
    stored = zarr.open_array(str(results / "features" / "cleaned_residual"), mode="r+")
    count, _, azimuths = stored.shape
    azimuth = 2 * np.pi * (np.arange(azimuths) + 0.5) / azimuths
    ring_q = open_hits(results).polar_ring_q.values
    for hit in range(count):
        wavelength = crystals.hit_wavelength.values[hit]
        angle = 2 * np.arcsin(ring_q * wavelength / (4 * np.pi))[:, None]
        about = np.sin(angle) * np.cos(azimuth), np.sin(angle) * np.sin(azimuth)
        out = np.stack([*about, np.cos(angle) + 0 * azimuth], axis=-1)
        points = (out - [0, 0, 1]) * 2 * np.pi / wavelength
        turn = symmetry.labellings[planted[hit]] @ crystals.crystal_rotation.values[hit]
        mates = (sign * points @ turn.T @ g.T @ waves.T for g in symmetry.rotations for sign in (1, -1))
        stored[hit] = sum(np.cos(mate + 1.0).sum(axis=-1) for mate in mates)
    return planted


@pytest.mark.parametrize("most", [-1, 1])
def test_a_number_of_hits_of_which_there_are_no_pairs_is_refused(results, most):
    with pytest.raises(BadParameter, match=f"most = {most}"):
        compared(results, most=most)


@pytest.mark.parametrize("most", [2, 7, 30])
def test_a_choice_of_hits_is_half_structure_and_has_no_hit_that_is_not_indexed(most):
    random = np.random.default_rng(0)
    structure, is_indexed = random.normal(size=100), random.uniform(size=100) < 0.6
    structure[3] = np.nan
    rows = choose_compared(structure, is_indexed, most, seed=1)
    assert rows.size == most
    assert is_indexed[rows].all()
    assert (np.diff(rows) > 0).all()
    best = np.flatnonzero(is_indexed)[np.argsort(-np.nan_to_num(structure[is_indexed], nan=-9.0))][: most // 2]
    assert set(best) <= set(rows)
    np.testing.assert_array_equal(choose_compared(structure, is_indexed, most, seed=1), rows)
    assert set(choose_compared(structure, is_indexed, most, seed=2)) != set(rows) or most == 2
