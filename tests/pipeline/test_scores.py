"""Scores without labels, and what the catalogue says of them."""

import logging

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from diffdask.catalogue import catalogue_table
from diffdask.errors import BadParameter, BadStore
from diffdask.evaluation import evaluate
from diffdask.io.frames_store import open_frames
from diffdask.io.results_store import open_features, open_group, open_scores
from diffdask.models.chance import standardise_scores
from diffdask.pipeline.compare import compare
from diffdask.pipeline.features import take_features
from diffdask.pipeline.info import info
from diffdask.pipeline.rank import rank
from diffdask.pipeline.train import choose_coordinates, train


@pytest.fixture
def results(small, tmp_path):
    return small.copy(tmp_path / "results.zarr")


@pytest.fixture
def compared(results):
    return compare(results, min_samples=8, on="threads", progress=False)


def is_indexed(small, hit_frame):
    return np.isfinite(open_frames(small.frames).orientation.values[hit_frame]).all(axis=(1, 2))


def test_without_a_ranker_hits_are_ranked_by_all_that_needs_no_labels_and_what_it_needs_is_made(results):
    rank(results, on="threads", progress=False)
    assert open_group(results, "common-arc") is not None
    assert open_group(results, "orientations") is not None
    scores = open_scores(results)
    assert scores.attrs["method"] == "label-free"
    hits = open_features(results).hit_frame.values
    assert np.isfinite(scores.frame_score.values[hits]).all()
    assert all(source.startswith("label-free: ") for source in scores.frame_score_source.values[hits])


def test_every_frame_says_which_score_it_has_and_why(small, compared):
    table = catalogue_table(rank(compared, method="pairs"))
    hits = open_features(compared).hit_frame.values
    indexed = is_indexed(small, hits)
    source = table["frame_score_source"]
    assert set(source[hits[indexed]]) == {"pairs"}
    assert set(source[hits[~indexed]]) == {"structure: not indexed"}
    assert set(source.drop(hits)) == {"not a hit"}
    assert table["frame_score"].notna().sum() == hits.size
    assert table["frame_pairs"].notna().sum() == indexed.sum()
    np.testing.assert_array_equal(
        table["frame_score"][hits[~indexed]].to_numpy(), table["frame_structure"][hits[~indexed]].to_numpy()
    )


def test_structure_needs_no_orientation(small, tmp_path):
    frames = small.ingest(tmp_path / "frames.zarr", with_stream=False)
    results = small.screen(tmp_path / "results.zarr", frames=frames)
    scores = open_scores(rank(results, method="structure"))
    hits = open_features(results).hit_frame.values
    assert np.isfinite(scores.frame_score.values[hits]).all()
    assert scores.attrs["threshold"] == 4.0


@pytest.mark.parametrize("method", ["pairs", "structure"])  # thirty hits make no map
def test_diffuse_hits_rank_higher_without_labels(small, compared, method):
    scores = open_scores(rank(compared, method=method)).frame_score.values
    hits = open_features(compared).hit_frame.values
    y = small.label()[hits] == "diffuse"
    assert roc_auc_score(y, scores[hits]) > 0.6  # 30 hits on two small panels


def test_map_consistency_says_which_share_of_its_picks_it_expects_to_be_wrong(small, compared, caplog):
    with caplog.at_level(logging.INFO, logger="diffdask"):
        scores = open_scores(rank(compared, method="map-consistency"))
    hits = open_features(compared).hit_frame.values
    known = is_indexed(small, hits)
    np.testing.assert_array_equal(np.isfinite(scores.frame_consistency.values[hits]), known)
    found = scores.frame_false_discovery.values[hits[known]]
    assert ((found >= 0) & (found <= 1)).all()
    picked = found[scores.frame_consistency.values[hits[known]] >= 4.0]
    assert scores.attrs["expected_wrong_share"] == (float(picked.max()) if picked.size else None)
    by_structure = (scores.frame_structure.values[hits[~known]] >= 4.0).sum()
    assert scores.attrs["picks_without_promise"] == by_structure
    assert scores.attrs["picked_count"] == picked.size + by_structure
    assert f"{picked.size + by_structure} of {hits.size} hits are predicted diffuse" in caplog.text
    assert ("expected to be wrong" in caplog.text) == (picked.size > 0)
    told = info(compared)["scores"]
    assert told["picked_count"] == picked.size + by_structure
    assert told["expected_wrong_share"] == scores.attrs["expected_wrong_share"]


def test_evaluation_predicts_diffuse_from_the_methods_threshold_on(small, compared):
    rank(compared, method="structure")
    table = catalogue_table(compared)
    picked = (table["frame_score"] >= 4.0).to_numpy() & table["frame_is_hit"].to_numpy()
    found = evaluate(compared, labels=small.labels)
    assert sum(row[0] for row in found["confusion"]["counts"]) == picked.sum()
    assert found["log_likelihood"] is None
    assert found["note"] == "no label had a part in the scores"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "pair"}, "pairs"),
        ({"method": "ranker"}, "give both or neither"),
        ({"method": "structure", "ranker": "r.zarr"}, "give both or neither"),
    ],
)
def test_a_method_that_cannot_be_is_refused(results, options, message):
    with pytest.raises(BadParameter, match=message):
        rank(results, **options)


def test_a_ranker_on_diffusion_coordinates_serves_its_own_hits_only(small, compared, tmp_path):
    options = {"labels": small.labels, "iterations": 3, "fold_count": 2, "features": "diffusion-map"}
    ranker = train(compared, to=tmp_path / "ranker.zarr", **options)
    scores = open_scores(rank(compared, ranker=ranker))
    hits = open_features(compared).hit_frame.values
    np.testing.assert_array_equal(np.isfinite(scores.frame_score.values[hits]), is_indexed(small, hits))
    other = small.screen(tmp_path / "other.zarr", min_peaks=1)
    compare(other, min_samples=8, on="threads", progress=False)
    if not np.array_equal(open_features(other).hit_frame, hits):
        with pytest.raises(BadStore, match="hits"):
            rank(other, ranker=ranker)


def test_unions_of_features_stand_side_by_side(compared):
    one, two, both = (
        take_features(compared, features=name) for name in ("azimuthal", "structure", "azimuthal+structure")
    )
    scales = both.made_with["scales"]
    expected = [one.values / scales["azimuthal"], two.values / scales["structure"]]
    np.testing.assert_array_equal(both.values, np.concatenate(expected, axis=1))
    for values in expected:
        assert values.var(axis=0).sum() == pytest.approx(1.0)


def test_unknown_features_name_the_nearest(compared):
    with pytest.raises(BadParameter, match="azimuthal"):
        take_features(compared, features="azimutal")


def test_coordinates_that_tell_nothing_are_left_out():
    from diffdask.models.ranker import Ranker

    random = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = random.normal(size=(60, 30))
    X[:, :2] += 1.5 * y[:, None]
    assert 2 <= choose_coordinates(Ranker(iterations=10), X, y, fold_count=4, seed=0) < 30


@pytest.mark.parametrize("diffuse", [20, 100, 1000])
def test_scores_are_put_over_those_of_hits_that_are_not_diffuse_however_many_are(diffuse):
    random = np.random.default_rng(1)
    score = np.concatenate([random.normal(7.0, 2.0, size=2000 - diffuse), random.normal(60.0, 9.0, size=diffuse)])
    found = standardise_scores(score)[:-diffuse]
    assert abs(found.mean()) < 0.4
    assert found.std() == pytest.approx(1.0, rel=0.25)


def test_a_hit_without_a_score_keeps_none():
    assert np.isnan(standardise_scores(np.array([1.0, np.nan, 2.0, 3.0]))[1])
    assert np.isnan(standardise_scores(np.array([np.nan]))).all()
