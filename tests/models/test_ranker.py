import inspect

import dask.array as da
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from diffdask.errors import BadLabels, BadParameter
from diffdask.models.logistic import mean_log_likelihood
from diffdask.models.ranker import STRENGTHS, Ranker, cross_fit, find_learning_curve, score_folds


def make_features(count=400, share=0.5, seed=0, distance=1.0):
    """Features (n, 60) of decreasing spread, classes apart along some of them."""
    random = np.random.default_rng(seed)
    y = (np.arange(count) < round(share * count)).astype(int)
    random.shuffle(y)
    X = random.normal(size=(count, 60)) * np.linspace(3, 0.3, 60) + 5
    X[:, 2:8] += distance * y[:, None]
    return X, y


@pytest.fixture(scope="module")
def features():
    return make_features()


@pytest.fixture(scope="module")
def fitted(features):
    return Ranker(component_count=15, C=0.1).fit(*features)


#: The regression alone, to be held against others.
BARE = {"calibration": "none", "C": 0.1}


def reference(X, y, components, C):
    pca = PCA(components, whiten=True, svd_solver="full")
    return make_pipeline(pca, LogisticRegression(C=C, max_iter=5000, tol=1e-10)).fit(X, y)


@pytest.mark.parametrize("C", [0.1, 10.0])
@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("engine", ["dask-ml", "scikit-learn"])
def test_it_agrees_with_the_same_pipeline_of_scikit_learn(C, share, engine):
    X, y = make_features(share=share)
    ours = Ranker(component_count=15, C=C, calibration="none", engine=engine).fit(X, y)
    theirs = reference(X, y, 15, C)
    pca = theirs[0]
    signs = np.sign((ours.components_ * pca.components_).sum(axis=1))
    np.testing.assert_allclose(signs[:, None] * ours.components_, pca.components_, atol=1e-6)
    np.testing.assert_allclose(ours.mean_, pca.mean_, atol=1e-9)
    np.testing.assert_allclose(ours.scale_**2, pca.explained_variance_, rtol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-3)
    assert np.corrcoef(ours.decision_function(X), theirs.decision_function(X))[0, 1] > 0.9999


@pytest.mark.parametrize("options", [{}, {"C": 1.0, "calibration": "temperature"}, {"standardise": True}])
def test_both_engines_give_the_same_model(options):
    X, y = make_features(share=0.3)
    one, other = (Ranker(engine=engine, **options).fit(X, y) for engine in ("dask-ml", "scikit-learn"))
    np.testing.assert_allclose(one.components_, other.components_, atol=1e-6)
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=1e-3)
    assert one.C_ == other.C_
    np.testing.assert_array_equal(one.calibration_, other.calibration_)
    assert one.log_likelihood_[-1] == pytest.approx(other.log_likelihood_[-1], abs=1e-6)


def test_lazy_features_give_what_features_in_memory_give(features, fitted, monkeypatch):
    X, y = features
    lazy = da.from_array(X, chunks=(90, 60))
    np.testing.assert_array_equal(Ranker(component_count=15, C=0.1).fit(lazy, y).components_, fitted.components_)
    monkeypatch.setattr("diffdask.models.components.MEMORY", 0)
    streamed = Ranker(component_count=15, C=0.1).fit(lazy.astype("float32"), y)
    np.testing.assert_allclose(streamed.predict_proba(X), fitted.predict_proba(X), atol=1e-4)


def test_small_lazy_features_are_read_once_by_a_fit(features):
    X, y = features
    reads = []

    def read(block, block_info=None):
        reads.append(block_info[0]["chunk-location"][0])
        return block

    lazy = da.from_array(X, chunks=(100, 60)).map_blocks(read, dtype=float, meta=np.empty((0, 0)))
    Ranker().fit(lazy, y)
    assert sorted(reads) == [0, 1, 2, 3]


@pytest.mark.parametrize("chunks", [(90, 60), (90, 25)])
def test_lazy_probabilities_have_the_shape_they_announce_and_the_values(features, fitted, chunks):
    X, _ = features
    lazy = da.from_array(X, chunks=chunks)
    for announced, values in (
        (fitted.predict_proba(lazy), fitted.predict_proba(X)),
        (fitted.decision_function(lazy), fitted.decision_function(X)),
        (fitted.predict(lazy), fitted.predict(X)),
    ):
        assert announced.shape == values.shape
        assert [announced.blocks[0].compute().shape[0]] == [announced.chunks[0][0]]
        np.testing.assert_allclose(announced.compute(), values, rtol=1e-12)


def test_a_prevalence_moves_the_odds_and_nothing_else(features):
    X, y = features
    plain, rare = (Ranker(prevalence=p).fit(X, y).decision_function(X) for p in (None, 0.05))
    np.testing.assert_allclose(rare - plain, np.log(0.05 / 0.95) - np.log(y.mean() / (1 - y.mean())))


def test_rare_diffuse_hits_put_to_one_half_give_the_odds_of_a_balanced_training():
    """Only the intercept knows how many of each class were labelled; weights for classes would do the same."""
    X, y = make_features(20_000, share=0.05, distance=1.0)
    balanced, same = make_features(20_000, share=0.5, distance=1.0, seed=1)
    options = {"component_count": 60, "C": 100.0, "calibration": "none", "engine": "scikit-learn"}
    plain = Ranker(**options).fit(X, y).decision_function(balanced)
    moved = Ranker(prevalence=0.5, **options).fit(X, y).decision_function(balanced)
    wanted = Ranker(**options).fit(balanced, same).decision_function(balanced)
    weighted = LogisticRegression(C=100.0, class_weight="balanced", max_iter=5000).fit(X, y)
    off = {name: np.abs(one - wanted).mean() for name, one in (("plain", plain), ("moved", moved))}
    assert off["moved"] < 0.3 < 2.0 < off["plain"]
    assert np.abs(weighted.decision_function(balanced) - moved).mean() < 0.3


def test_the_strength_chosen_is_the_better_for_hits_not_seen():
    """Many components and few hits ask for a strong ridge; it is found."""
    X, y = make_features(160, distance=0.7)
    unseen, truth = make_features(2000, distance=0.7, seed=1)
    options = {"component_count": 60, "calibration": "none", "engine": "scikit-learn"}
    chosen, loose = (Ranker(C=C, **options).fit(X, y) for C in (0.0, 100.0))
    assert STRENGTHS[0] < chosen.C_ < 1
    told, untold = (mean_log_likelihood(r.decision_function(unseen), truth) for r in (chosen, loose))
    assert told > untold + 0.1


def test_calibrated_probabilities_hold_on_hits_not_seen():
    X, y = make_features(160, distance=0.7)
    unseen, truth = make_features(2000, distance=0.7, seed=1)
    options = {"component_count": 60, "C": 100.0, "engine": "scikit-learn"}
    sure, calibrated = (Ranker(calibration=c, **options).fit(X, y) for c in ("none", "platt"))
    assert calibrated.calibration_[0] < 0.7, "it was too sure of itself"
    told, untold = (mean_log_likelihood(r.decision_function(unseen), truth) for r in (calibrated, sure))
    assert told > untold + 0.1
    order = np.argsort(sure.decision_function(unseen))
    assert (np.diff(calibrated.decision_function(unseen)[order]) > 0).all(), "and the order stays"


def test_the_log_likelihood_of_every_iteration_is_kept(features):
    X, y = features
    fitted = Ranker(**BARE).fit(X, y)
    assert fitted.log_likelihood_.size > 4
    assert (np.diff(fitted.log_likelihood_) > -1e-3).all()
    assert fitted.log_likelihood_[-1] == pytest.approx(mean_log_likelihood(fitted.decision_function(X), y))
    stopped = Ranker(iterations=2, **BARE).fit(X, y)
    np.testing.assert_allclose(stopped.log_likelihood_, fitted.log_likelihood_[:2])
    assert fitted.is_converged_
    assert not stopped.is_converged_


def test_scores_by_run_come_from_rankers_that_have_not_seen_the_run():
    """A mark of the run that tells the label within it helps by hit, and not by run."""
    X, y = make_features(300, distance=0.0)
    run = np.arange(300) % 10
    y = (run < 5).astype(int)
    X[:, 10:20] += 8 * np.eye(10)[run]
    ranker = Ranker(component_count=60, C=10.0, calibration="none", engine="scikit-learn")
    by_hit, by_run = (cross_fit(ranker, X, y, fold_count=5, seed=0, group=group) for group in (None, run))
    assert roc_auc_score(y, by_hit) > 0.85
    assert roc_auc_score(y, by_run) < 0.65


def test_a_held_out_hit_can_take_any_value_without_any_other_score_changing_in_its_fold():
    X, y = make_features(200)
    train, test = np.arange(150), np.arange(150, 200)
    ranker, spoilt = Ranker(engine="scikit-learn"), X.copy()
    spoilt[199] = 1e3
    one, other = (score_folds(ranker, features, y, [(train, test)]) for features in (X, spoilt))
    np.testing.assert_array_equal(one[150:199], other[150:199])
    assert np.isnan(one[:150]).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"C": -1.0},
        {"C": np.nan},
        {"prevalence": 0.0},
        {"prevalence": 1.0},
        {"iterations": 0},
        {"component_count": 0},
        {"engine": "sklearn"},
        {"calibration": "isotonic"},
    ],
)
def test_a_parameter_out_of_range_is_told(features, wrong):
    with pytest.raises(BadParameter, match=next(iter(wrong))):
        Ranker(**wrong).fit(*features)


def test_many_hits_in_several_blocks_rank_as_those_of_one_block(monkeypatch):
    X, y = make_features(1000)
    one = Ranker(component_count=15).fit(X, y).decision_function(X)
    monkeypatch.setattr("diffdask.models.components.BLOCK_ROWS", 300)
    monkeypatch.setattr("diffdask.models.logistic.BLOCK_ROWS", 300)
    several = Ranker(component_count=15).fit(X, y)
    np.testing.assert_allclose(several.mean_, X.mean(axis=0), atol=1e-9)
    assert roc_auc_score(y, several.decision_function(X)) == pytest.approx(roc_auc_score(y, one), abs=0.01)


def test_the_mean_probability_is_the_share_of_diffuse_hits():
    for share in (0.5, 0.1, 0.05):
        X, y = make_features(share=share)
        assert Ranker(**BARE).fit(X, y).predict_proba(X)[:, 1].mean() == pytest.approx(y.mean(), abs=1e-9)


def test_probabilities_odds_and_predictions_tell_the_same(fitted, features):
    X, _ = features
    odds, probability = fitted.decision_function(X), fitted.predict_proba(X)
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    np.testing.assert_allclose(probability[:, 1], 1 / (1 + np.exp(-odds)))
    np.testing.assert_array_equal(fitted.predict(X), (probability[:, 1] >= 0.5).astype(int))
    assert fitted.classes_.tolist() == [0, 1]


def test_exchanging_the_labels_turns_the_odds_over(features):
    X, y = features
    one, other = (Ranker(**BARE).fit(X, labels).decision_function(X) for labels in (y, 1 - y))
    np.testing.assert_allclose(other, -one, atol=0.02)


def test_a_constant_or_a_rotation_of_the_features_changes_nothing(features):
    X, y = features
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(60, 60)))[0]
    plain = Ranker(component_count=10, **BARE).fit(X, y).decision_function(X)
    moved = X @ rotation * 7 + 3
    found = Ranker(component_count=10, **BARE).fit(moved, y).decision_function(moved)
    np.testing.assert_allclose(found, plain, atol=0.02)


def test_rare_diffuse_hits_are_found_all_the_same():
    X, y = make_features(2000, share=0.05, distance=2.0)
    seen, unseen = np.arange(2000) < 1000, np.arange(2000) >= 1000
    ranker = Ranker().fit(X[seen], y[seen])
    assert roc_auc_score(y[unseen], ranker.decision_function(X[unseen])) > 0.8
    assert ranker.predict_proba(X[unseen])[:, 1].mean() == pytest.approx(y[unseen].mean(), abs=0.02)


def test_features_that_never_change_do_no_harm():
    X, y = make_features(100)
    X[:, :] = 1.0
    assert np.isfinite(Ranker().fit(X, y).predict_proba(X)).all()
    X[:, 0] = y
    assert roc_auc_score(y, Ranker().fit(X, y).decision_function(X)) == 1


@pytest.mark.parametrize("wrong", [np.arange(20) % 2 + 1, np.arange(20) % 3, np.where(np.arange(20) % 2, 1.0, np.nan)])
def test_labels_other_than_0_and_1_are_refused(wrong):
    with pytest.raises(BadLabels, match="0 and 1"):
        Ranker().fit(np.random.default_rng(0).normal(size=(20, 5)), wrong)


@pytest.mark.parametrize("diffuse", [0, 4, 16, 20])
def test_fewer_than_five_of_a_class_are_refused(diffuse):
    X, y = np.random.default_rng(0).normal(size=(20, 5)), (np.arange(20) < diffuse).astype(int)
    with pytest.raises(BadLabels, match=f"{diffuse} diffuse and {20 - diffuse} non-diffuse"):
        Ranker().fit(X, y)


def test_every_score_of_a_cross_fit_comes_from_a_ranker_that_has_not_seen_the_label(features):
    """A hit's own label changes all scores but those of its fold, and its own."""
    X, y = features
    scores = cross_fit(Ranker(), X, y, fold_count=5, seed=0)
    assert ((scores > 0) & (scores < 1)).all()
    assert 0.7 < roc_auc_score(y, scores) < roc_auc_score(y, Ranker().fit(X, y).decision_function(X))
    unrelated = np.random.default_rng(1).permutation(y)
    assert roc_auc_score(unrelated, cross_fit(Ranker(), X, unrelated, fold_count=5, seed=0)) == pytest.approx(
        0.5, abs=0.1
    )


def test_a_cross_fit_is_reproducible_and_leaves_the_ranker_alone(features):
    ranker = Ranker(component_count=7)
    one, again, other = (cross_fit(ranker, *features, fold_count=2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3
    assert not hasattr(ranker, "coefficient_")


def test_the_fewest_hits_that_can_be_cross_fitted_are():
    X, y = make_features(60, share=6 / 60)
    assert np.isfinite(cross_fit(Ranker(component_count=5), X, y, fold_count=10, seed=0)).all()


def test_too_few_hits_to_cross_fit_are_said_to_be_so():
    X, y = make_features(60, share=5 / 60)
    with pytest.raises(BadLabels, match=r"5 labelled hits.*label more"):
        cross_fit(Ranker(), X, y, fold_count=5, seed=0)


def test_the_learning_curve_rises_on_training_and_stays_below_it_on_held_out_hits():
    curve = find_learning_curve(Ranker(component_count=8, C=1.0), *make_features(150), seed=0)
    assert curve["iteration"] == [float(n) for n in range(1, len(curve["iteration"]) + 1)]
    assert len(curve["iteration"]) > 4
    training, held_out = np.array(curve["training"]), np.array(curve["held_out"])
    assert (np.diff(training) > -1e-3).all()
    assert np.log(0.5) < training[0] < training[-1] < 0
    assert (held_out < training).all()


def test_the_log_likelihood_is_that_of_the_probabilities(fitted, features):
    X, y = features
    probability = fitted.predict_proba(X)[np.arange(len(y)), y]
    assert mean_log_likelihood(fitted.decision_function(X), y) == pytest.approx(np.log(probability).mean())
    assert np.isfinite(mean_log_likelihood(np.array([1e4, -1e4]), np.array([0, 1]))), "and never minus infinity"


def test_it_works_while_a_cluster_is_connected(features, fitted):
    import distributed

    cluster = {"processes": False, "n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    with distributed.Client(**cluster):
        other = Ranker(component_count=15, C=0.1).fit(*features)
    np.testing.assert_allclose(other.decision_function(features[0]), fitted.decision_function(features[0]), atol=1e-6)


def test_it_keeps_to_the_conventions_of_scikit_learn(features):
    ranker = Ranker(component_count=4, C=2.0, iterations=9)
    assert clone(ranker).get_params() == ranker.get_params()
    assert set(ranker.get_params()) == set(inspect.signature(Ranker).parameters)
    assert ranker.fit(*features) is ranker
    with pytest.raises(NotFittedError):
        clone(ranker).predict_proba(features[0])
