"""The verb ``merge``: which hits go into the map, and that nothing else changes it."""

import shutil

import gemmi
import numpy as np
import pytest
import zarr

from diffdask.errors import BadParameter, BadStore
from diffdask.io.frames_store import open_frames
from diffdask.io.results_store import open_hits, open_scores, open_screen
from diffdask.io.volume_store import open_volume
from diffdask.pipeline import merge as module
from diffdask.pipeline.compare import compare
from diffdask.pipeline.crystals import open_crystals
from diffdask.pipeline.info import info
from diffdask.pipeline.merge import choose_hits, merge
from diffdask.pipeline.oriented_hits import find_symmetry, load_oriented_hits
from diffdask.pipeline.rank import rank


@pytest.fixture(scope="module")
def ranked(small, tmp_path_factory):
    results = small.copy(tmp_path_factory.mktemp("merge") / "results.zarr")
    compare(results, min_samples=8, on="threads", progress=False)
    return rank(results, method="structure", progress=False)


@pytest.fixture
def results(ranked, tmp_path):
    return shutil.copytree(ranked, tmp_path / "results.zarr")


def merged(results, name="map.zarr", *, on="threads", **options):
    to = merge(results, to=results.parent / name, on=on, progress=False, **{"size": 24, "top": 12, **options})
    return open_volume(to).load()


def assert_same(one, other):
    assert set(one.variables) == set(other.variables)
    for name in one.variables:
        np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=str(name), strict=True)


def indexed(results):
    return np.isfinite(open_crystals(results).crystal_rotation.values).all(axis=(1, 2))


def test_the_map_holds_the_best_hits_that_are_indexed(results):
    volume = merged(results)
    crystals, scores = open_crystals(results), open_scores(results)
    frames = crystals.hit_frame.values[indexed(results)]
    best = frames[np.argsort(-scores.frame_score.values[frames], kind="stable")[:12]]
    assert volume.merged_frame.values.tolist() == sorted(best)
    assert volume.merged_half.values.sum() == 6
    assert volume.attrs["hit_count"] == 12
    assert np.isfinite(volume.map_intensity.values).any()
    np.testing.assert_array_equal(np.isfinite(volume.map_intensity.values), volume.map_weight.values > 0)


def test_without_a_number_it_holds_those_that_are_predicted_diffuse(results):
    scores = zarr.open_group(str(results), path="scores", mode="r+")
    scores.attrs["threshold"] = float(np.nanmedian(scores["frame_score"][...]))
    frames = merged(results, top=0).merged_frame.values
    opened = open_scores(results)
    score = opened.frame_score.values
    hits = open_crystals(results).hit_frame.values[indexed(results)]
    assert set(frames) == set(hits[score[hits] >= opened.attrs["threshold"]])
    assert 2 < frames.size < hits.size


def test_info_says_how_good_the_map_is(results):
    volume = merged(results)
    told = info(results.parent / "map.zarr")
    assert told["hits"] == 12
    assert told["voxels"] == "24 x 24 x 24"
    known = np.isfinite(volume.half_map_correlation.values)
    assert len(told["half-map correlation at q, 1/angstrom"]) == known.sum() > 3


def test_a_ccp4_file_with_the_same_values_lies_beside_it(results):
    volume = merged(results)
    found = gemmi.read_ccp4_map(str(results.parent / "map.ccp4"))
    np.testing.assert_array_equal(np.array(found.grid), np.nan_to_num(volume.map_intensity.values))
    assert found.grid.unit_cell.a == pytest.approx(24 * volume.attrs["step"], rel=1e-6)
    outermost = open_hits(results).polar_ring_q.values
    edge = outermost[-1] + (outermost[-1] - outermost[-2]) / 2
    assert volume.attrs["step"] == pytest.approx(edge / 11.5)


def test_the_map_has_the_symmetry_that_hits_were_compared_with(results):
    volume = merged(results)
    assert volume.attrs["laue"] == "mmm"
    weight = volume.map_weight.values[1:, 1:, 1:]
    assert weight.any()
    for axis in range(3):
        np.testing.assert_array_equal(weight, np.flip(weight, axis))


def test_workers_and_blocks_in_any_order_do_not_matter_bit_for_bit(results, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_HITS", 5)
    place = results.parent / "place.toml"
    place.write_text('where = "laptop"\nworkers = 1\nthreads = 1\nmemory_limit = "2GB"\n')
    alone = merged(results, "one.zarr", on=place)
    assert_same(merged(results, "other.zarr", on="threads"), alone)


def test_an_interrupted_merge_goes_on_where_it_stopped(results, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_HITS", 4)
    whole = merged(results, "whole.zarr")
    embedded, embed = [], module.embed_hits

    def stop_at_the_third(hits, **options):
        embedded.append(hits.sizes["hit"])
        if len(embedded) == 5:
            raise KeyboardInterrupt
        return embed(hits, **options)

    blocks = module.blocks_of
    monkeypatch.setattr(module, "run_marked", _run_in_turn)
    monkeypatch.setattr(module, "embed_hits", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        merged(results, "again.zarr")
    assert not (results.parent / "again.zarr").exists()
    embedded.clear()
    monkeypatch.setattr(module, "embed_hits", lambda hits, **options: (embedded.append(0), embed(hits, **options))[1])
    assert_same(merged(results, "again.zarr"), whole)
    assert len(embedded) == 2 * (len(blocks(12, 4)) - 2)
    assert not list(results.parent.glob(".*"))


def _run_in_turn(client, task, blocks, done, **how):
    for block in blocks:
        if block not in done:
            task(block)


def test_the_same_map_is_not_made_twice_and_another_only_when_told(results, monkeypatch):
    first = merged(results)
    monkeypatch.setattr(module, "run_marked", None)
    assert_same(merged(results), first)
    monkeypatch.undo()
    with pytest.raises(BadStore, match=r"top: 12 there, 8 asked.*--overwrite"):
        merged(results, top=8)
    assert merged(results, top=8, overwrite=True).attrs["hit_count"] == 8


def test_a_lost_ccp4_file_is_made_again(results):
    merged(results)
    (results.parent / "map.ccp4").unlink()
    merged(results)
    assert (results.parent / "map.ccp4").is_file()


def test_the_seed_chooses_the_halves_and_changes_the_map_by_rounding_only(results):
    one, other = merged(results, "one.zarr"), merged(results, "other.zarr", seed=3)
    assert (one.merged_half.values != other.merged_half.values).any()
    np.testing.assert_allclose(one.map_intensity, other.map_intensity, rtol=1e-4, atol=1e-5)


def test_hits_are_put_on_one_scale_by_their_background(results):
    chosen = choose_hits(results, top=12, scale="background", seed=0)
    background = open_screen(results).frame_background.values[chosen.frames]
    np.testing.assert_allclose(chosen.scale, background / np.median(background))
    assert (choose_hits(results, top=12, scale="none", seed=0).scale == 1.0).all()
    merged(results, "one.zarr")
    assert (merged(results, "one.zarr", scale="none", overwrite=True).map_weight.values > 0).any()


def test_brightness_changes_nothing(results):
    """All of a hit's photons twice, background and noise as well: as if the pulse had been twice as strong."""
    first = merged(results, "one.zarr")
    chosen = choose_hits(results, top=12, scale="background", seed=0)
    background = zarr.open_array(str(results / "screen" / "frame_background"), mode="r+")
    noise = zarr.open_array(str(results / "hits" / "polar_noise"), mode="r+")
    usual = chosen.scale.argsort()[[0, 11]]  # neither lies in the middle, nor does after
    for row, factor in zip(usual, (0.5, 2.0), strict=True):
        background[chosen.frames[row]] = background[chosen.frames[row]] * factor
        noise[chosen.rows[row]] = noise[chosen.rows[row]] * factor
    second = merged(results, "two.zarr")
    np.testing.assert_allclose(second.map_intensity, first.map_intensity, rtol=1e-4, atol=1e-6)


def test_hits_are_turned_into_the_labelling_that_was_found(results):
    compare(results, laue="2/m", min_samples=8, overwrite=True, on="threads", progress=False)
    crystals = open_crystals(results)
    assert set(crystals.hit_labelling.values) >= {0, 1}
    rows = np.flatnonzero(indexed(results))
    found = load_oriented_hits(results, rows).crystal_rotation.values
    labellings = find_symmetry("2/m", crystals.attrs["parameters"]["lattice"], crystals.crystal_cell.values).labellings
    for row, rotation in zip(rows, found, strict=True):
        expected = labellings[crystals.hit_labelling.values[row]] @ crystals.crystal_rotation.values[row]
        np.testing.assert_allclose(rotation, expected)
    assert merged(results).attrs["laue"] == "2/m"


def test_hits_come_with_their_own_orientation(results):
    rows = np.flatnonzero(indexed(results))[[1, 4]]
    hits, crystals = load_oriented_hits(results, rows), open_crystals(results)
    orientation = open_frames(open_path(results)).orientation.values[crystals.hit_frame.values[rows]]
    turned = np.einsum("hij,haj->hai", hits.crystal_rotation.values, orientation)
    np.testing.assert_allclose(turned, np.broadcast_to(crystals.crystal_cell.values, turned.shape), atol=1e-3)
    np.testing.assert_array_equal(hits.polar_noise.values, open_hits(results).polar_noise.values[rows])


def open_path(results):
    from diffdask.io.results_store import frames_path

    return frames_path(results)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 3}, BadParameter, "size = 3"),
        ({"top": -1}, BadParameter, "top = -1"),
        ({"scale": "backgroun"}, BadParameter, "did you mean 'background'"),
        ({"shells": 0}, BadParameter, "no shells"),
        ({"q_min": 99.0}, BadParameter, "no shells"),
        ({"name": "map.ccp4"}, BadParameter, "must be the Zarr store"),
    ],
)
def test_what_makes_no_sense_is_refused(results, options, error, message):
    with pytest.raises(error, match=message):
        merged(results, **options)
    assert [path.name for path in results.parent.iterdir()] == ["results.zarr"]  # before anything is done


def test_hits_that_are_not_ranked_say_what_to_run(results):
    shutil.rmtree(results / "scores")
    with pytest.raises(BadStore, match="run: diffdask rank"):
        merged(results)


def test_hits_without_orientations_say_what_to_run(results):
    shutil.rmtree(results / "common-arc")
    with pytest.raises(BadStore, match="run: diffdask compare"):
        merged(results)


def test_too_few_hits_say_what_to_do(results):
    zarr.open_group(str(results), path="scores", mode="r+").attrs["threshold"] = 1e9
    with pytest.raises(BadStore, match=r"0 of .* hits .* give --top N"):
        merged(results, top=0)
