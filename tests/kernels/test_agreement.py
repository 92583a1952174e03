"""Agreement with labels, against scikit-learn, SciPy and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from sklearn.metrics import confusion_matrix as reference_confusion
from sklearn.metrics import log_loss, precision_score, roc_auc_score

from diffdask.kernels import agreement

SHARES = st.floats(0.01, 0.99)
#: Few distinct values, so that there are ties.
SCORES = st.lists(st.integers(0, 8).map(lambda n: n / 8), min_size=1, max_size=30).map(np.array)


@given(SCORES, SCORES)
def test_the_area_under_the_curve_is_that_of_scikit_learn(positive: np.ndarray, negative: np.ndarray) -> None:
    truth = np.r_[np.ones(positive.size), np.zeros(negative.size)]
    expected = roc_auc_score(truth, np.r_[positive, negative])
    assert agreement.area_under_roc(positive, negative) == pytest.approx(expected)


@given(SCORES, SCORES)
def test_exchanging_the_classes_turns_the_area_over(positive: np.ndarray, negative: np.ndarray) -> None:
    there, back = agreement.area_under_roc(positive, negative), agreement.area_under_roc(negative, positive)
    assert there + back == pytest.approx(1.0)


@given(SCORES, SCORES)
def test_the_log_likelihood_is_minus_the_log_loss_of_scikit_learn(positive: np.ndarray, negative: np.ndarray) -> None:
    truth = np.r_[np.ones(positive.size), np.zeros(negative.size)]
    expected = -log_loss(truth, np.r_[positive, negative], labels=[0.0, 1.0])
    assert agreement.mean_log_likelihood(positive, negative) == pytest.approx(expected)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=40))
def test_the_confusion_matrix_is_that_of_scikit_learn_and_counts_every_frame(pairs: list[tuple[str, str]]) -> None:
    label, predicted = (np.array(column, dtype=object) for column in zip(*pairs, strict=True))
    counts = agreement.confusion_matrix(label, predicted, "abc")
    assert counts.sum() == len(pairs)
    np.testing.assert_array_equal(counts, reference_confusion(label, predicted, labels=list("abc")))


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_a_proportion_is_that_of_scipy_and_holds_the_proportion(counts: tuple[int, int]) -> None:
    successes, count = counts
    low, high = agreement.wilson_interval(successes, count)
    expected = binomtest(successes, count).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= successes / count <= high <= 1


@given(SHARES, SHARES, SHARES)
def test_the_precision_at_a_prevalence_is_that_of_counting_a_population(
    found: float, wrong: float, prevalence: float
) -> None:
    population = 1e6
    diffuse_picked = population * prevalence * found
    others_picked = population * (1 - prevalence) * wrong
    expected = diffuse_picked / (diffuse_picked + others_picked)
    assert agreement.precision_at_prevalence(found, wrong, prevalence) == pytest.approx(expected)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_at_the_prevalence_of_the_sample_it_is_the_precision_of_the_sample(pairs: list[tuple[bool, bool]]) -> None:
    truth, picked = (np.array(column) for column in zip(*pairs, strict=True))
    if truth.all() or not truth.any() or not picked.any():
        return
    at = agreement.precision_at_prevalence(picked[truth].mean(), picked[~truth].mean(), truth.mean())
    assert at == pytest.approx(precision_score(truth, picked))


@given(SHARES, SHARES, SHARES, SHARES)
def test_where_diffuse_is_rarer_precision_is_never_higher(found: float, wrong: float, one: float, two: float) -> None:
    rare, common = sorted((one, two))
    at_rare = agreement.precision_at_prevalence(found, wrong, rare)
    assert at_rare <= agreement.precision_at_prevalence(found, wrong, common) + 1e-12


@given(SCORES, st.data())
def test_precision_in_the_top_is_the_mean_over_all_orders_of_ties(score: np.ndarray, data: st.DataObject) -> None:
    is_positive = np.array(data.draw(st.lists(st.booleans(), min_size=score.size, max_size=score.size)))
    top = data.draw(st.integers(1, score.size))
    random = np.random.default_rng(0)
    shuffled = [random.permutation(score.size) for _ in range(400)]
    found = [is_positive[p[np.argsort(-score[p], kind="stable")[:top]]].mean() for p in shuffled]
    # Four standard errors of four hundred shuffles of a share.
    assert agreement.precision_in_top(score, is_positive, top) == pytest.approx(np.mean(found), abs=4 * 0.5 / 20)


def test_no_false_positive_among_few_does_not_promise_a_clean_campaign() -> None:
    random = np.random.default_rng(0)
    measure = agreement.measure_precision(50, 50, 0, 50, 0.05, 2000, random)
    assert measure["value"] == measure["high"] == 1.0
    assert measure["low"] < 0.75


def test_perfect_separation_of_few_frames_leaves_room_for_doubt_that_more_frames_take_away() -> None:
    low = []
    for count in (5, 50):
        scores = np.linspace(0.6, 0.9, count)
        measure = agreement.measure_area(scores, scores - 0.5, 200, np.random.default_rng(0))
        assert measure["value"] == measure["high"] == 1.0
        low.append(measure["low"])
    assert low[0] < low[1] < 1


def test_the_interval_of_the_area_holds_the_true_area_about_nineteen_times_in_twenty() -> None:
    from scipy.stats import norm

    random = np.random.default_rng(1)
    true = norm.cdf(1.0 / np.sqrt(2))
    held = 0
    for _ in range(200):
        measure = agreement.measure_area(random.normal(1.0, 1.0, 40), random.normal(0.0, 1.0, 40), 200, random)
        held += measure["low"] <= true <= measure["high"]
    # Bootstrap intervals of forty frames are a little narrow: 0.90 is still fair.
    assert held >= binom.ppf(0.001, 200, 0.90)


def test_nothing_to_measure_gives_no_number_rather_than_a_wrong_one() -> None:
    none, some, random = np.array([]), np.array([0.5]), np.random.default_rng(0)
    for measure in (
        agreement.measure_proportion(0, 0),
        agreement.measure_area(none, some, 10, random),
        agreement.measure_likelihood(none, none, 10, random),
        agreement.measure_top(none, none.astype(bool), 5),
        agreement.measure_precision(0, 0, 1, 2, 0.05, 10, random),
        agreement.measure_precision(0, 2, 0, 2, 0.05, 10, random),
    ):
        assert measure["value"] is None
