import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from diffdask.errors import BadLabels
from diffdask.models.ranker import CURVE_ITERATIONS, Ranker, _folds, cross_fit, find_learning_curve, mean_log_likelihood


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


def reference(X, y, components, C):
    pca = PCA(components, whiten=True, svd_solver="full")
    return make_pipeline(pca, LogisticRegression(C=C, max_iter=5000, tol=1e-10)).fit(X, y)


@pytest.mark.parametrize("C", [0.1, 10.0])
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_it_agrees_with_the_same_pipeline_of_scikit_learn(C, share):
    X, y = make_features(share=share)
    ours, theirs = Ranker(component_count=15, C=C, iterations=1000).fit(X, y), reference(X, y, 15, C)
    pca = theirs[0]
    signs = np.sign((ours.components_ * pca.components_).sum(axis=1))
    np.testing.assert_allclose(signs[:, None] * ours.components_, pca.components_, atol=1e-6)
    np.testing.assert_allclose(ours.mean_, pca.mean_, atol=1e-9)
    np.testing.assert_allclose(ours.scale_**2, pca.explained_variance_, rtol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-3)
    assert np.corrcoef(ours.decision_function(X), theirs.decision_function(X))[0, 1] > 0.9999


def test_many_hits_in_several_blocks_rank_as_those_of_one_block(monkeypatch):
    X, y = make_features(1000)
    one = Ranker(component_count=15).fit(X, y).decision_function(X)
    monkeypatch.setattr("diffdask.models.ranker._BLOCK_ROWS", 300)
    several = Ranker(component_count=15).fit(X, y)
    np.testing.assert_allclose(several.mean_, X.mean(axis=0), atol=1e-9)
    assert roc_auc_score(y, several.decision_function(X)) == pytest.approx(roc_auc_score(y, one), abs=0.01)


def test_the_mean_probability_is_the_share_of_diffuse_hits():
    for share in (0.5, 0.1, 0.05):
        X, y = make_features(share=share)
        assert Ranker().fit(X, y).predict_proba(X)[:, 1].mean() == pytest.approx(y.mean(), abs=1e-9)


def test_probabilities_odds_and_predictions_tell_the_same(fitted, features):
    X, _ = features
    odds, probability = fitted.decision_function(X), fitted.predict_proba(X)
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    np.testing.assert_allclose(probability[:, 1], 1 / (1 + np.exp(-odds)))
    np.testing.assert_array_equal(fitted.predict(X), (probability[:, 1] >= 0.5).astype(int))
    assert fitted.classes_.tolist() == [0, 1]


def test_exchanging_the_labels_turns_the_odds_over(features):
    X, y = features
    one, other = (Ranker(iterations=1000).fit(X, labels).decision_function(X) for labels in (y, 1 - y))
    np.testing.assert_allclose(other, -one, atol=0.02)


def test_a_constant_or_a_rotation_of_the_features_changes_nothing(features):
    X, y = features
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(60, 60)))[0]
    plain = Ranker(component_count=10, iterations=1000).fit(X, y).decision_function(X)
    moved = X @ rotation * 7 + 3
    found = Ranker(component_count=10, iterations=1000).fit(moved, y).decision_function(moved)
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


@pytest.mark.parametrize("members", [6, 7, 8, 9, 15, 100])
@pytest.mark.parametrize("fold_count", [2, 5, 10])
def test_folds_leave_every_ranker_enough_of_the_rarer_class(members, fold_count):
    y = np.arange(200) < members
    folds = _folds(y.astype(int), fold_count, 0)
    assert np.sort(np.concatenate([test for _, test in folds])).tolist() == list(range(200))
    assert min(y[train].sum() for train, _ in folds) >= 5
    assert len(folds) == fold_count or members < max(10, 2 * fold_count)


def test_the_fewest_hits_that_can_be_cross_fitted_are():
    X, y = make_features(60, share=6 / 60)
    assert np.isfinite(cross_fit(Ranker(component_count=5), X, y, fold_count=10, seed=0)).all()


def test_too_few_hits_to_cross_fit_are_said_to_be_so():
    X, y = make_features(60, share=5 / 60)
    with pytest.raises(BadLabels, match=r"5 labelled hits.*label more"):
        cross_fit(Ranker(), X, y, fold_count=5, seed=0)


def test_the_learning_curve_rises_on_training_and_stays_below_it_on_held_out_hits():
    curve = find_learning_curve(Ranker(component_count=8, C=1.0), *make_features(150), seed=0)
    assert curve["iteration"] == list(CURVE_ITERATIONS)
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
    assert clone(ranker).get_params() == {"component_count": 4, "C": 2.0, "iterations": 9}
    assert ranker.fit(*features) is ranker
    with pytest.raises(NotFittedError):
        clone(ranker).predict_proba(features[0])
