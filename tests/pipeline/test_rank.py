import logging
import shutil

import numpy as np
import pandas as pd
import pytest
import zarr

from diffdask.errors import BadLabels, BadParameter, BadStore
from diffdask.io.frames_store import open_frames
from diffdask.io.ranker_store import load_ranker
from diffdask.io.results_store import open_features, open_group, open_scores
from diffdask.pipeline.rank import rank, rank_scores
from diffdask.pipeline.train import choose_groups, train
from diffdask.pipeline.training_labels import draw_share

FAST = {"iterations": 3, "fold_count": 2}


def write_labels(path, rows):
    pd.DataFrame(rows, columns=["frame", "label"]).to_csv(path, index=False)
    return path


def test_labels_by_number_and_by_frame_id_train_the_same_ranker(small, tmp_path):
    ids, label = open_frames(small.frames).frame_id.values, small.label()
    by_id = write_labels(tmp_path / "labels.csv", zip(ids, label, strict=True))
    one, other = (
        load_ranker(train(small.results, labels=labels, to=tmp_path / f"{n}.zarr", **FAST))
        for n, labels in enumerate((small.labels, by_id))
    )
    assert one.frame_id.tolist() == other.frame_id.tolist() == ids[label != "blank"].tolist()
    np.testing.assert_array_equal(one.ranker.components_, other.ranker.components_)
    np.testing.assert_array_equal(one.score, other.score)


def test_a_share_is_drawn_from_each_class_and_the_same_for_the_same_seed():
    rows, y = np.arange(100, 160), np.arange(60) % 3 == 0
    first, second, other = (draw_share(rows, y.astype(int), 0.4, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], other[0])
    assert np.bincount(first[1]).tolist() == [16, 8]
    assert sorted(set(first[0])) == first[0].tolist()
    np.testing.assert_array_equal(first[1], y[first[0] - 100])


def test_a_ranker_trained_on_a_share_remembers_which_hits_it_has_seen(small, tmp_path):
    trained = load_ranker(train(small.results, labels=small.labels, to=tmp_path / "r.zarr", share=0.5, **FAST))
    label = small.label()
    number = {name: frame for frame, name in enumerate(open_frames(small.frames).frame_id.values)}
    drawn = label[[number[name] for name in trained.frame_id]]
    assert {kind: (drawn == kind).sum() for kind in ("diffuse", "non-diffuse")} == {
        kind: round(0.5 * (label == kind).sum()) for kind in ("diffuse", "non-diffuse")
    }
    assert trained.parameters["share"] == 0.5


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, np.nan])
def test_a_share_outside_its_range_is_refused(small, tmp_path, share):
    with pytest.raises(BadParameter, match="share"):
        train(small.results, labels=small.labels, to=tmp_path / "r.zarr", share=share)


def test_labelled_frames_that_are_no_hits_are_told(small, tmp_path, caplog):
    blanks = np.flatnonzero(small.label() == "blank")[:2]
    label = small.label()
    label[blanks] = "diffuse"
    labels = write_labels(tmp_path / "labels.csv", enumerate(label))
    with caplog.at_level(logging.WARNING, logger="diffdask"):
        trained = load_ranker(train(small.results, labels=labels, to=tmp_path / "r.zarr", **FAST))
    told = ", ".join(map(str, blanks))
    assert f"2 of 34 frames labelled diffuse or non-diffuse are no hits by the screen and take no part: {told}" in (
        caplog.text
    )
    assert len(trained.frame_id) == 32


@pytest.mark.parametrize(
    ("kept", "message"), [({"blank"}, "no hit is labelled"), ({"diffuse", "blank"}, "0 non-diffuse")]
)
def test_too_few_labels_are_refused_and_no_ranker_is_left(small, tmp_path, kept, message):
    rows = [(frame, label) for frame, label in enumerate(small.label()) if label in kept]
    with pytest.raises(BadLabels, match=message):
        train(small.results, labels=write_labels(tmp_path / "l.csv", rows), to=tmp_path / "r.zarr")
    assert not (tmp_path / "r.zarr").exists()


def test_results_without_features_say_what_to_run(small, tmp_path):
    results = small.copy(tmp_path / "results.zarr")
    shutil.rmtree(results / "features")
    for verb in (
        lambda: train(results, labels=small.labels, to=tmp_path / "r"),
        lambda: rank(results, ranker=small.ranker),
    ):
        with pytest.raises(BadStore, match="diffdask screen"):
            verb()


# ranking --------------------------------------------------------------------------------------


@pytest.fixture
def ranked(small, tmp_path):
    return rank(small.copy(tmp_path / "results.zarr"), ranker=small.ranker)


def test_ranks_are_one_to_n_in_the_order_of_the_scores_and_only_hits_have_one(small, ranked):
    scores = open_scores(ranked)
    score, order = scores.frame_score.values, scores.frame_rank.values
    is_hit = small.label() != "blank"
    np.testing.assert_array_equal(np.isfinite(score), is_hit)
    assert ((score[is_hit] >= 0) & (score[is_hit] <= 1)).all()
    assert sorted(order[is_hit]) == list(range(1, is_hit.sum() + 1))
    assert (order[~is_hit] == 0).all()
    assert (np.diff(score[is_hit][np.argsort(order[is_hit])]) <= 0).all()
    assert scores.attrs["cross_fitted"] is True
    assert scores.attrs["trained_on"] == is_hit.sum()


def test_equal_scores_keep_their_order():
    assert rank_scores(np.array([0.5, np.nan, 0.5, 0.9])).tolist() == [2, 0, 3, 1]


def test_hits_used_in_training_get_the_score_of_a_ranker_that_had_not_seen_them(small, ranked):
    trained = load_ranker(small.ranker)
    is_hit = small.label() != "blank"
    score = open_scores(ranked).frame_score.values[is_hit]
    np.testing.assert_array_equal(score, trained.score)
    seen = trained.ranker.predict_proba(open_features(ranked).azimuthal_features.values)[:, 1]
    assert not np.allclose(score, seen)


def test_hits_not_used_in_training_get_the_score_of_the_ranker(small, tmp_path):
    ranker = train(small.results, labels=small.labels, to=tmp_path / "r.zarr", share=0.5, **FAST)
    results = rank(small.copy(tmp_path / "results.zarr"), ranker=ranker)
    trained, features = load_ranker(ranker), open_features(results)
    ids = open_frames(small.frames).frame_id.values[features.hit_frame.values]
    is_new = ~np.isin(ids, trained.frame_id)
    assert 0 < is_new.sum() < len(ids)
    score = open_scores(results).frame_score.values[features.hit_frame.values]
    seen = trained.ranker.predict_proba(features.azimuthal_features.values)[:, 1]
    np.testing.assert_array_equal(score[is_new], seen[is_new])


def test_another_store_with_the_same_frame_ids_is_not_taken_for_the_one_trained_on(small, tmp_path):
    frames = small.ingest(tmp_path / "frames.zarr")
    assert open_frames(frames).frame_id.values.tolist() == open_frames(small.frames).frame_id.values.tolist()
    results = rank(small.screen(tmp_path / "results.zarr", frames=frames), ranker=small.ranker)
    features = open_features(results).azimuthal_features.values
    expected = load_ranker(small.ranker).ranker.predict_proba(features)[:, 1]
    np.testing.assert_array_equal(open_scores(results).frame_score.values[small.label() != "blank"], expected)


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [("features", "ring_groups", 3), ("hits", "polar_ring_count", 30), ("layout", "azimuth_count", 40)],
)
def test_features_made_with_other_parameters_are_refused(small, tmp_path, group, name, value):
    results = small.copy(tmp_path / "results.zarr")
    attributes = zarr.open_group(results, path=group, mode="r+").attrs
    attributes["parameters"] = {**attributes["parameters"], name: value}
    before = small.parameters[name]
    with pytest.raises(BadStore, match=f"{name}: {before} for the ranker, {value} for the results.*train anew"):
        rank(results, ranker=small.ranker)
    assert open_group(results, "scores") is None


def test_ranking_again_with_another_ranker_replaces_the_scores(small, tmp_path, ranked):
    before = open_scores(ranked).frame_score.values
    ranker = train(ranked, labels=small.labels, to=tmp_path / "r.zarr", C=1e-4, **FAST)
    after = open_scores(rank(ranked, ranker=ranker)).frame_score.values
    assert np.nanmax(np.abs(before - after)) > 0


def test_folds_by_run_are_made_where_there_are_runs_enough_and_it_is_said(caplog):
    y, run = np.arange(60) % 2, np.arange(60) // 20
    options = {"fold_count": 4, "seed": 0}
    assert choose_groups(y, run, "auto", **options) is run
    assert choose_groups(y, run, "hit", **options) is None
    one = np.zeros(60)
    with caplog.at_level("INFO"):
        assert choose_groups(y, one, "auto", **options) is None
    assert "by hit" in caplog.text
    with pytest.raises(BadLabels, match="more runs"):
        choose_groups(y, one, "run", **options)
    with pytest.raises(BadParameter, match="run"):
        choose_groups(y, run, "runs", **options)


def test_a_ranker_says_how_its_folds_were_made_and_which_strength_was_chosen(small, tmp_path):
    trained = load_ranker(
        train(small.results, labels=small.labels, to=tmp_path / "r.zarr", engine="scikit-learn", prevalence=0.05)
    )
    assert trained.parameters["fold_by"] in ("run", "hit")
    assert trained.parameters["C"] == trained.ranker.C_ > 0
    assert trained.score.mean() < 0.4, "at the prevalence asked for"
