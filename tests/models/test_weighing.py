"""How much other evidence counts, learnt from evidence made up with known truth."""

import numpy as np
import pytest
from scipy.special import logit
from scipy.stats import norm

from diffdask.models.amounts import Amounts
from diffdask.models.weighing import find_existence, learn_weighing

OTHER = Amounts(diffuse=6.0, shown=0.85, left=1.5, left_share=0.005)


def make(count=4000, share=0.05, amount=3.5, *, wrong=(), seed=0):
    """Log ratios (n, 2) of normal evidence 2 above that of others, and agreement; ``wrong`` kinds tell nothing."""
    random = np.random.default_rng(seed)
    is_diffuse = random.random(count) < share
    evidence = random.normal(size=(count, 2)) + 2.0 * is_diffuse[:, None]
    for kind in wrong:
        evidence[:, kind] = random.permutation(evidence[:, kind])
    agreement = random.normal(size=count) + amount * is_diffuse
    return 2.0 * evidence - 2.0, agreement, is_diffuse


def learn(ratios, agreement, **changes):
    return learn_weighing(ratios, agreement, **{"other": OTHER, "least_shown": 0.4, **changes})


def test_evidence_that_is_right_counts_nearly_whole():
    found = learn(*make()[:2])
    assert min(*found.speaking_for, *found.speaking_against) > 0.75
    assert found.bias == pytest.approx(logit(0.05), abs=0.5)
    assert found.shown > 0.9


@pytest.mark.parametrize("kind", [0, 1])
def test_evidence_that_tells_nothing_of_those_that_agree_counts_little(kind):
    found = learn(*make(wrong=[kind])[:2])
    assert found.speaking_for[kind] + found.speaking_against[kind] < 0.5
    assert found.speaking_for[1 - kind] + found.speaking_against[1 - kind] > 1.5


@pytest.mark.parametrize("amount", [2.5, 3.5, 8.0])
def test_odds_are_right_whatever_the_amount_and_though_all_are_alike(amount):
    expected, wrong, picked = 0.0, 0, 0
    for seed in range(3):
        ratios, agreement, is_diffuse = make(amount=amount, wrong=[0], seed=seed)
        found = learn(ratios, agreement)
        odds = found.bias + found.weigh(ratios).sum(axis=1) + found.rate(agreement)
        is_picked = odds > 0
        expected += (1.0 / (1.0 + np.exp(odds[is_picked]))).sum()
        wrong, picked = wrong + (is_picked & ~is_diffuse).sum(), picked + is_picked.sum()
    assert picked > 250
    assert abs(wrong - expected) < 3 * np.sqrt(expected + 1) + 0.02 * picked


@pytest.mark.parametrize("amount", [4.0, 8.0])
def test_the_amount_is_learnt(amount):
    """Of noise and an amount the log ratio rises by the amount, however much larger the agreement is."""
    found = learn(*make(amount=amount)[:2], other=Amounts(diffuse=6.0, shown=0.85, left=1.0, left_share=1e-60))
    low, high = found.rate(amount + np.array([1.0, 2.0]))
    assert high - low == pytest.approx(amount, abs=0.6)


def test_without_agreement_nothing_is_taken_back():
    ratios, agreement, _ = make(200)
    found = learn(ratios, np.full(agreement.shape, np.nan))
    np.testing.assert_allclose([found.speaking_for, found.speaking_against], 1.0)
    np.testing.assert_allclose(found.weigh(ratios), ratios)


def test_more_agreement_never_counts_less_and_what_is_missing_nothing():
    found = learn(*make()[:2])
    rated = found.rate(np.linspace(-9.0, 60.0, 2000))
    assert np.all(np.diff(rated) >= 0.0)
    assert rated[0] < -1.0
    assert rated[-1] > 10.0
    assert found.rate(np.array([np.nan])) == 0.0


def test_more_evidence_never_counts_less():
    found = learn(*make(wrong=[1])[:2])
    ratios = np.linspace(-50.0, 200.0, 500)
    assert np.all(np.diff(found.weigh(np.column_stack([ratios, ratios])), axis=0) >= 0.0)


def test_existence_is_proven_by_many_that_agree_a_little_and_not_by_chance():
    chance = norm.ppf((np.arange(2000) + 0.5) / 2000)
    assert find_existence(chance, OTHER) < 1.0
    assert find_existence(np.concatenate([chance, chance[::20] + 2.5]), OTHER) > 10.0
    assert find_existence(np.concatenate([chance, np.full(3, 4.0)]), OTHER) < 10.0


def test_existence_of_nothing_is_not_proven():
    assert find_existence(np.full(5, np.nan), OTHER) == 0.0
