"""The verb ``orient``: hits searched in maps that do not know them, whatever the workers and however often it stops."""

import shutil

import numpy as np
import pytest
import zarr

from diffdask.catalogue import catalogue_table
from diffdask.errors import BadParameter, BadStore
from diffdask.io.frames_store import open_frames
from diffdask.io.marks import marked_blocks
from diffdask.io.results_store import open_features, open_group
from diffdask.pipeline import orient as module
from diffdask.pipeline.compare import compare
from diffdask.pipeline.grow import grow_map
from diffdask.pipeline.merge import choose_hits
from diffdask.pipeline.orient import open_oriented, orient, plan_search
from diffdask.pipeline.oriented_hits import find_rotations
from diffdask.pipeline.rank import rank

QUICK = {"orientation_count": 2000, "progress": False}


@pytest.fixture(scope="module")
def compared(small, tmp_path_factory):
    results = small.copy(tmp_path_factory.mktemp("orient") / "results.zarr")
    return compare(results, min_samples=8, on="threads", progress=False)


@pytest.fixture(scope="module")
def oriented(small, compared, tmp_path_factory):
    return orient(copy(compared, tmp_path_factory.mktemp("oriented")), on="threads", **QUICK)


def copy(results, folder):
    return shutil.copytree(results, folder / "results.zarr")


def run_in_turn(client, task, blocks, done, **_):
    for block in sorted(set(blocks) - set(done)):
        task(block)


def set_source(results, frames, source):
    """As if the search had decided so."""
    stored = zarr.open_group(str(results), path="orientations", mode="r+")["frame_orientation_source"]
    values = stored[...]
    values[frames] = source
    stored[...] = values


def test_every_hit_is_searched_once_and_no_block_has_hits_of_two_folds():
    fold = np.random.default_rng(0).integers(-1, 4, 2000)
    order, blocks = plan_search(fold)
    assert sorted(order) == list(range(2000))
    assert [start for start, _ in blocks] == [0, *(stop for _, stop in blocks[:-1])]
    assert blocks[-1][1] == 2000
    assert all(len(set(fold[order[slice(*block)]])) == 1 for block in blocks)
    assert max(stop - start for start, stop in blocks) <= 256


def test_the_map_that_a_hit_is_searched_in_does_not_know_it(oriented):
    grown = grow_map(oriented, seed=0)
    fold, weight = grown.hit_fold.values, grown.fold_weight.values
    assert all((weight[number, fold == number] == 0).all() for number in range(len(weight)))
    assert (grown.hit_weight.values[fold < 0] == 0).all()
    assert (weight > 0).any(axis=1).all()


def test_every_hit_says_which_orientation_it_has_and_frames_that_are_none_say_so(small, oriented):
    table = catalogue_table(oriented)
    hits = open_features(oriented).hit_frame.values
    assert set(table["frame_orientation_source"].drop(hits)) == {"not a hit"}
    assert set(table["frame_orientation_source"][hits]) <= {"indexing", "map", "none"}
    assert table["frame_search"][hits].notna().all()
    assert table["frame_search"].drop(hits).isna().all()
    angle = table["frame_search_angle"][hits]
    assert (angle.notna() == table["frame_is_indexed"][hits]).all()
    assert angle.dropna().between(0.0, 180.0).all()
    found = table.filter(like="found_").loc[hits].to_numpy().reshape(-1, 3, 3)
    given = open_frames(small.frames).orientation.values[hits]
    indexed = np.isfinite(given).all(axis=(1, 2))
    cells = (np.sort(np.linalg.norm(axes, axis=2), axis=1) for axes in (found[indexed], given[indexed]))
    np.testing.assert_allclose(*cells, rtol=0.02)
    np.testing.assert_array_equal(table.loc[hits[indexed], "b_star_z"], given[indexed, 1, 2])


def test_the_same_is_found_on_one_worker_or_two_and_after_a_stop(small, compared, oriented, tmp_path, monkeypatch):
    results = copy(compared, tmp_path)
    searched, search_block = [], module._search_block

    def stop_at_the_third(block, **options):
        if len(searched) == 2:
            raise KeyboardInterrupt
        searched.append(block)
        search_block(block, **options)

    monkeypatch.setattr(module, "run_marked", run_in_turn)
    monkeypatch.setattr(module, "_search_block", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        orient(results, on="threads", **QUICK)
    assert open_group(results, "orientations") is None
    assert marked_blocks(results, "search") == set(searched)
    before = set(searched)
    searched.clear()

    def record(block, **options):
        searched.append(block)
        search_block(block, **options)

    monkeypatch.setattr(module, "_search_block", record)
    orient(results, on="threads", **QUICK)
    assert len(searched) > 2
    assert not before & set(searched)
    small.assert_same(results, oriented, "orientations", "consistency")


def test_a_search_of_other_parameters_is_refused_until_it_may_be_thrown_away(oriented, tmp_path):
    results = copy(oriented, tmp_path)
    with pytest.raises(BadStore, match="orientation_count: 2000 there, 3000 asked"):
        orient(results, on="threads", progress=False, orientation_count=3000)
    orient(results, on="threads", progress=False, orientation_count=3000, overwrite=True)
    assert open_oriented(results).attrs["parameters"]["orientation_count"] == 3000


def test_a_search_in_another_map_counts_as_none(oriented, tmp_path):
    results = copy(oriented, tmp_path)
    grow_map(results, seed=1)
    with pytest.raises(BadStore, match="diffdask orient"):
        open_oriented(results)


def test_a_map_grown_anew_is_searched_anew_without_being_told(oriented, tmp_path):
    results = rank(copy(oriented, tmp_path), seed=1, on="threads", progress=False)
    assert open_oriented(results).attrs["parameters"]["map"]["seed"] == 1


def test_hits_whose_orientation_was_found_join_the_map_there(small, oriented, tmp_path):
    results = copy(oriented, tmp_path)
    rank(results, method="structure", progress=False)
    hits = open_features(results).hit_frame.values
    before, given = choose_hits(results, top=100, scale="none", seed=0), find_rotations(results)
    lost, wrong = np.flatnonzero(~np.isfinite(given).all(axis=(1, 2)))[0], before.rows[0]
    set_source(results, hits[[lost, wrong]], "map")
    joined = choose_hits(results, top=100, scale="none", seed=0)
    assert set(joined.frames) - set(before.frames) == {hits[lost]}
    found = open_group(results, "orientations").found_rotation.values
    taken = find_rotations(results, orientations="best")
    np.testing.assert_array_equal(taken[[lost, wrong]], found[[lost, wrong]])
    others = np.setdiff1d(np.arange(hits.size), [lost, wrong])
    np.testing.assert_array_equal(taken[others], given[others])
    np.testing.assert_array_equal(joined.rotation, taken[joined.rows])
    alone = choose_hits(results, top=100, scale="none", orientations="indexing", seed=0)
    np.testing.assert_array_equal(alone.rows, before.rows)
    with pytest.raises(BadParameter, match="orientations 'bets'"):
        find_rotations(results, orientations="bets")


def test_a_grid_of_no_orientation_is_refused_before_any_work(compared, tmp_path):
    with pytest.raises(BadParameter, match="count"):
        orient(copy(compared, tmp_path), orientation_count=0, on="threads", progress=False)


def test_without_orientations_there_is_no_map_to_search_and_structure_is_all_there_is(small, tmp_path, caplog):
    frames = small.ingest(tmp_path / "frames.zarr", with_stream=False)
    results = small.screen(tmp_path / "results.zarr", frames=frames)
    with pytest.raises(BadStore, match=r"no hit of .* is indexed"):
        orient(results, on="threads", **QUICK)
    table = catalogue_table(rank(results, on="threads", progress=False))
    assert "no hit of" in caplog.text
    hits = open_features(results).hit_frame.values
    assert set(table["frame_score_source"][hits]) == {"label-free: structure, no hit is indexed"}
    assert table["frame_score"][hits].notna().all()
