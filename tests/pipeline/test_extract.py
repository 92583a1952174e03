"""Pictures and VGG16 features of a small campaign, of random weights: whatever the blocks and interruptions."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from diffdask.errors import BadParameter, BadStore, BadWeights
from diffdask.io.ranker_store import load_ranker
from diffdask.io.results_store import open_features, open_group
from diffdask.io.vgg16_weights import digest_weights, extract_block
from diffdask.kernels.images import to_vgg_input
from diffdask.pipeline import hit_images as module
from diffdask.pipeline.extract import extract
from diffdask.pipeline.features import take_features
from diffdask.pipeline.rank import rank
from diffdask.pipeline.train import train

#: Blocks of the 32 hits: two of 12 and one of 8, filled up.
BATCH = 12

FAST = {"iterations": 8, "fold_count": 4, "component_count": 4, "C": 0.1}


@pytest.fixture(scope="module")
def extracted(small, tmp_path_factory):
    """Results with pictures and features; tests write to copies."""
    results = small.copy(tmp_path_factory.mktemp("extract") / "results.zarr")
    return run(results, weights="seed:0")


@pytest.fixture
def results(extracted, tmp_path):
    return Path(shutil.copytree(extracted, tmp_path / "results.zarr"))


@pytest.fixture
def bare(small, tmp_path):
    """Results without pictures."""
    return small.copy(tmp_path / "bare.zarr")


def run(results, *, weights="seed:0", on="threads", **options) -> Path:
    return extract(results, weights=weights, on=on, progress=False, **{"batch": BATCH, **options})


def draw(results, **options) -> xr.Dataset:
    """Pictures only, small ones."""
    return open_group(run(results, weights="none", **{"size": 32, **options}), "images").load()


def spoil(results, group, name) -> None:
    """Write over all that was made; what is done again is right again."""
    zarr.open_array(str(results / group / name), mode="r+")[...] = 99


def unfinish(results, group, block) -> None:
    zarr.open_group(str(results), path=group, mode="r+").attrs["complete"] = False
    (results / "marks" / group / block).unlink()


# what is made --------------------------------------------------------------------------------


def test_features_are_those_of_the_network_on_the_pictures(extracted):
    drawn, found = open_group(extracted, "images"), open_group(extracted, "vgg16")
    hit_frame = open_features(extracted).hit_frame.values
    np.testing.assert_array_equal(drawn.hit_frame, hit_frame)
    np.testing.assert_array_equal(found.hit_frame, hit_frame)
    assert drawn.hit_image.shape == (hit_frame.size, 224, 224, 1)
    assert drawn.hit_image.dtype == np.uint8
    assert found.vgg16_features.dtype == np.float32
    last = slice(hit_frame.size - hit_frame.size % BATCH, None)
    expected = extract_block(to_vgg_input(drawn.hit_image.values[last]), weights="seed:0", batch=BATCH, threads=2)
    np.testing.assert_allclose(found.vgg16_features.values[last], expected, rtol=1e-5, atol=1e-6 * expected.max())
    assert len(np.unique(found.vgg16_features.values, axis=0)) == hit_frame.size


def test_what_made_them_is_kept_and_random_weights_are_named(extracted):
    attributes = open_group(extracted, "vgg16").attrs
    assert attributes["weights"] == attributes["parameters"]["weights"] == "random, seed 0 (for tests only)"
    assert attributes["parameters"]["digest"] == digest_weights("seed:0")
    assert attributes["parameters"]["layers"] == ["fc1", "fc2"]
    assert {name: attributes["parameters"][name] for name in ("content", "cleaned", "precision")} == {
        "content": "residual", "cleaned": False, "precision": "float32",
    }  # fmt: skip


@pytest.mark.parametrize("cleaned", [False, True])
@pytest.mark.parametrize(
    ("content", "channels"), [("residual", 1), ("significance", 1), ("polar", 1), ("three-channels", 3)]
)
def test_every_content_is_drawn_and_cleaning_changes_it(bare, content, channels, cleaned):
    drawn = draw(bare, content=content, cleaned=cleaned)
    assert drawn.hit_image.shape[1:] == (32, 32, channels)
    assert (drawn.hit_image.values != 128).any(axis=(1, 2)).all()
    other = draw(bare, content=content, cleaned=not cleaned, overwrite=True)
    assert (drawn.hit_image.values != other.hit_image.values).any()


def test_blocks_and_workers_do_not_matter_to_pictures_bit_for_bit(small, bare, monkeypatch, tmp_path):
    expected = draw(bare, cleaned=True)
    place = tmp_path / "place.toml"
    place.write_text('where = "laptop"\nworkers = 1\nthreads = 1\nmemory_limit = "2GB"\n')
    monkeypatch.setattr(module, "_BLOCK_HITS", 7)
    other = draw(small.copy(tmp_path / "other.zarr"), cleaned=True, on=place)
    np.testing.assert_array_equal(other.hit_image, expected.hit_image)


# going on ------------------------------------------------------------------------------------


def test_interrupted_work_goes_on_where_it_stopped_with_the_same_bits(extracted, results):
    first = open_group(extracted, "vgg16").vgg16_features.values
    for group, name, block in (("images", "hit_image", "0-32"), ("vgg16", "vgg16_features", "12-24")):
        unfinish(results, group, block)
        if group == "vgg16":
            spoil(results, group, name)
    with pytest.raises(BadStore, match="run: diffdask extract"):
        take_features(results, features="vgg16")
    again = open_group(run(results), "vgg16").vgg16_features.values
    np.testing.assert_array_equal(again[12:24], first[12:24])
    assert (np.delete(again, np.s_[12:24], axis=0) == 99).all()
    np.testing.assert_array_equal(open_group(results, "images").hit_image, open_group(extracted, "images").hit_image)


def test_new_frames_are_gone_on_with_and_cleaned_pictures_are_drawn_anew(small, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_HITS", 7)
    frames = small.ingest("part.zarr", str(small.simulated / "r000[12].cxi"))
    results = small.screen(tmp_path / "results.zarr", frames=frames)
    cleaned = Path(shutil.copytree(results, tmp_path / "cleaned.zarr"))
    before = draw(results)
    draw(cleaned, cleaned=True)
    small.ingest("part.zarr")
    for one in (results, cleaned):
        spoil(one, "images", "hit_image")
        small.screen(one, frames=frames)
        assert open_group(one, "images") is None
    after = draw(results).hit_image.values
    assert len(after) == open_features(results).sizes["hit"] > before.sizes["hit"]
    assert (after[:7] == 99).all()
    assert not (after[-7:] == 99).all()
    assert not (draw(cleaned, cleaned=True).hit_image.values[:7] == 99).all()


def test_another_screen_throws_them_away(small, results):
    small.screen(results, snr=7.0, overwrite=True)
    for group in ("images", "vgg16"):
        assert not (results / group).exists()
        assert not (results / "marks" / group).exists()


def test_other_parameters_are_refused_unless_told_to_overwrite(results):
    with pytest.raises(BadStore, match=r"'images'.*content: 'residual' there, 'polar' asked.*--overwrite"):
        run(results, content="polar")
    with pytest.raises(BadStore, match=r"'vgg16'.*layers: .*--overwrite"):
        run(results, layers=["fc2"])
    with pytest.raises(BadStore, match=r"'vgg16'.*weights: 'random, seed 0 .*--overwrite"):
        run(results, weights="seed:1")
    assert open_group(results, "vgg16") is not None
    draw(results, content="polar", overwrite=True)
    assert not (results / "vgg16").exists()  # features go with their pictures


# mistakes ------------------------------------------------------------------------------------


def test_without_weights_it_says_what_to_fetch_before_any_work(bare, monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("diffdask.io.vgg16_weights.IMAGENET_URL", "https://127.0.0.1:9/weights.h5")
    with pytest.raises(BadWeights, match=r"553 MB, MD5 [0-9a-f]{32}"):
        extract(bare, on="threads", progress=False)
    with pytest.raises(BadWeights, match="no weights at"):
        run(bare, weights=str(tmp_path / "absent.h5"))
    assert not (bare / "images").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"content": "residuum"}, "did you mean 'residual'"),
        ({"normalise": "rings"}, "did you mean 'ring'"),
        ({"normalise": "none"}, "normalise 'none' leaves photons"),
        ({"layers": ["fc3"]}, "layer 'fc3'"),
        ({"precision": "float16"}, "precision 'float16'"),
        ({"batch": 0}, "batch = 0"),
        ({"size": 100}, "VGG16 takes pictures of 224 x 224"),
        ({"size": 4, "weights": "none"}, "size = 4"),
        ({"size": 4, "weights": "none", "content": "polar"}, "size = 4"),
        ({"weights": "seed"}, "write seed:0"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_work(bare, options, message):
    with pytest.raises(BadParameter, match=message):
        run(bare, **options)
    assert not (bare / "images").exists()


def test_results_that_are_not_screened_say_what_to_run(bare):
    shutil.rmtree(bare / "features")
    with pytest.raises(BadStore, match="diffdask screen"):
        run(bare)


# training on them ----------------------------------------------------------------------------


@pytest.mark.parametrize("features", ["vgg16", "azimuthal+vgg16"])
def test_a_ranker_learns_from_them_and_random_weights_are_said_loudly(small, results, tmp_path, caplog, features):
    with caplog.at_level(logging.WARNING, logger="diffdask"):
        ranker = train(results, labels=small.labels, to=tmp_path / "ranker.zarr", features=features, **FAST)
    assert "weights that are random, seed 0 (for tests only)" in caplog.text
    made_with = load_ranker(ranker).features
    assert made_with["digest"] == digest_weights("seed:0")
    scores = open_group(rank(results, ranker=ranker), "scores")
    assert np.isfinite(scores.frame_score.values).sum() == open_features(results).sizes["hit"]
    assert scores.attrs["weights"] == "random, seed 0 (for tests only)"


def test_sets_of_a_union_count_alike_whatever_their_units_and_hits(results):
    found = take_features(results, features="azimuthal+vgg16")
    parts = {name: take_features(results, features=name).values for name in ("azimuthal", "vgg16")}
    start = 0
    for name, values in parts.items():
        taken = found.values[:, start : start + values.shape[1]]
        np.testing.assert_allclose(taken * found.made_with["scales"][name], values, rtol=1e-12)
        assert taken.var(axis=0).sum() == pytest.approx(1.0)
        start += values.shape[1]
    asked = take_features(results, features="azimuthal+vgg16", scales={"azimuthal": 2.0, "vgg16": 4.0})
    np.testing.assert_array_equal(asked.values, np.hstack([parts["azimuthal"] / 2.0, parts["vgg16"] / 4.0]))
    assert "scales" not in take_features(results, features="vgg16").made_with


def test_a_ranker_serves_features_of_the_same_making_only(small, results, tmp_path):
    ranker = train(results, labels=small.labels, to=tmp_path / "ranker.zarr", features="vgg16", **FAST)
    group = zarr.open_group(str(results), path="vgg16", mode="r+")
    group.attrs["parameters"] = {**group.attrs["parameters"], "cleaned": True}
    with pytest.raises(BadStore, match="cleaned: False for the ranker, True for the results"):
        rank(results, ranker=ranker)


def test_features_of_other_hits_are_refused(results):
    frames = zarr.open_array(str(results / "vgg16" / "hit_frame"), mode="r+")
    frames[0] = 45
    with pytest.raises(BadStore, match="run: diffdask extract"):
        take_features(results, features="vgg16")
    shutil.rmtree(results / "vgg16")
    with pytest.raises(BadStore, match="run: diffdask extract"):
        take_features(results, features="vgg16")
