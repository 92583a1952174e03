import numpy as np
import pytest

from diffdask.models.evidence import CARRIERS, expect_noise, learn_noise

COUNT = 4000


def make_noise(seed=0, count=COUNT, *, pairs=(0.0, 1.0), search=(0.0, 1.0), rise=0.4):
    """Evidence of hits that are not diffuse: pairs and consistency alike by 0.6, the search rising with structure."""
    random = np.random.default_rng(seed)
    shared, own, other, structure, fit = random.normal(size=(5, count))
    X = np.empty((count, 4))
    X[:, 0] = structure
    X[:, 1] = pairs[0] + pairs[1] * (np.sqrt(0.6) * shared + np.sqrt(0.4) * own)
    X[:, 2] = np.sqrt(0.6) * shared + np.sqrt(0.4) * other
    X[:, 3] = search[0] + search[1] * fit * (1 + 0.05 * np.maximum(structure, 0)) + rise * structure
    return X


def learn(X, is_signal=None):
    known = {"structure": X[:, 0], "agreement": X[:, 1] + X[:, 2], "search": X[:, 3]}
    signal = np.zeros(len(X)) if is_signal is None else is_signal
    return learn_noise(X, {name: np.isfinite(column) * (1 - signal) for name, column in known.items()}, signal)


@pytest.mark.parametrize("search", [(0.0, 1.0), (1.9, 1.2)])
def test_learnt_noise_reduces_to_standard_noise(search):
    X = make_noise(search=search)
    reduced = learn(X).reduce(X)
    assert tuple(reduced) == CARRIERS
    for name, z in reduced.items():
        assert z.mean() == pytest.approx(0.0, abs=0.05), name
        assert z.std() == pytest.approx(1.0, abs=0.03), name
    assert np.corrcoef(reduced["search"], reduced["structure"])[0, 1] == pytest.approx(0.0, abs=0.05)


def test_what_is_alike_by_chance_is_known():
    noise = learn(make_noise())
    assert noise.correlation == pytest.approx(0.6, abs=0.05)
    assert noise.rise == pytest.approx(0.4, abs=0.04)


def test_the_agreement_does_not_count_what_both_have_in_common_twice():
    X = make_noise()
    X[:, 2] = X[:, 1]
    assert learn(X).reduce(X)["agreement"].std() == pytest.approx(1.0, abs=0.1)


def test_pairs_that_tell_nothing_get_no_weight():
    X = make_noise()
    is_signal = np.zeros(COUNT)
    is_signal[:100] = 1.0
    X[:100, 2] += 6.0
    only_consistency = learn(X, is_signal).weight
    X[:100, 1] += 6.0
    both = learn(X, is_signal).weight
    assert only_consistency[0] < 0.1
    assert both == pytest.approx([0.5, 0.5], abs=0.1)


def test_agreement_is_what_is_known_of_it():
    X = make_noise(count=200)
    X[:50, 1], X[50:100, 2], X[100:120, 1:3] = np.nan, np.nan, np.nan
    noise = learn(X)
    agreement = noise.reduce(X)["agreement"]
    np.testing.assert_allclose(agreement[:50], (X[:50, 2] - noise.middle[2]) / noise.spread[2])
    np.testing.assert_allclose(agreement[50:100], (X[50:100, 1] - noise.middle[1]) / noise.spread[1])
    assert np.isnan(agreement[100:120]).all()
    assert np.isfinite(agreement[120:]).all()


def test_the_search_of_hits_without_structure_is_taken_as_it_is():
    X = make_noise(count=300)
    noise = learn(X)
    X[:, 0] = np.nan
    np.testing.assert_allclose(noise.reduce(X)["search"], (X[:, 3] - noise.middle[3]) / noise.spread[3])


def test_chance_that_spreads_is_expected_to_from_the_hits_below_zero():
    X = make_noise(pairs=(0.0, 6.0))
    X[:200, 2] += 30.0  # diffuse ones lie above
    expected = expect_noise(X)
    assert expected.spread[1] == pytest.approx(6.0, rel=0.05)
    assert expected.spread[2] == pytest.approx(1.0, abs=0.05)


def test_few_hits_leave_what_was_expected():
    noise = learn(np.full((2, 4), np.nan))
    assert noise.middle.tolist() == [0.0] * 4
    assert noise.spread.tolist() == [1.0] * 4
    assert noise.weight.tolist() == [0.5, 0.5]
