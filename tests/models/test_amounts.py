import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.stats import gamma, norm

from diffdask.models.amounts import Amounts, expect_amount, log_density, split_evidence, split_pair

Z = np.linspace(-8.0, 60.0, 400)
SOME = Amounts(diffuse=8.0, shown=0.9, left=2.0, left_share=0.1)
OTHER = Amounts(diffuse=15.0, shown=0.8, left=3.0, left_share=0.05)
APART = np.outer([0.9, 0.1], [0.95, 0.05])
TOGETHER = np.array([[0.85, 0.01], [0.04, 0.10]])


def convolve(z: float, mean: float, shape: int) -> tuple[float, float]:
    """Density of noise and an amount at z, and the mean amount there, by summing over amounts."""
    amount = np.linspace(0.0, 120.0, 200_001)
    weight = gamma.pdf(amount, shape, scale=mean / shape) * norm.pdf(z - amount)
    return trapezoid(weight, amount), trapezoid(weight * amount, amount) / trapezoid(weight, amount)


@pytest.mark.parametrize("shape", [1, 2])
@pytest.mark.parametrize("mean", [1.0, 3.0, 20.0])
@pytest.mark.parametrize("z", [-5.0, -0.5, 0.0, 2.0, 9.0, 40.0])
def test_density_and_mean_amount_are_those_of_the_convolution(z, mean, shape):
    density, amount = convolve(z, mean, shape)
    assert np.exp(log_density(np.array(z), mean, shape=shape)) == pytest.approx(density, rel=1e-4)
    assert expect_amount(np.array(z), mean, shape=shape) == pytest.approx(amount, rel=1e-3)


@pytest.mark.parametrize("amounts", [SOME, OTHER, Amounts(4.0, 0.4, 2.0, 0.5), Amounts(3.0, 0.99, 1.0, 0.002)])
def test_more_evidence_never_speaks_less_for_diffuse(amounts):
    assert np.all(np.diff(split_evidence(Z, amounts).ratio) > -1e-9)


def test_missing_evidence_tells_nothing():
    found = split_evidence(np.array([np.nan]), SOME)
    assert found.ratio[0] == pytest.approx(0.0, abs=1e-12)
    assert found.shown[0] == pytest.approx(SOME.shown)
    assert found.left[0] == pytest.approx(SOME.left_share)


def test_evidence_is_never_infinite():
    found = split_evidence(np.array([-8.0, 1e6]), SOME)
    assert np.isfinite(found).all()


def test_a_pair_that_shows_nothing_together_is_the_sum_of_both():
    one, other = np.meshgrid(Z[::20], Z[::20])
    one, other = one.ravel(), other.ravel()
    found = split_pair((one, SOME), (other, OTHER), APART, 1e-12)
    apart = split_evidence(one, SOME), split_evidence(other, OTHER)
    np.testing.assert_allclose(found.one.ratio, apart[0].ratio, atol=1e-6)
    np.testing.assert_allclose(found.other.ratio, apart[1].ratio, atol=1e-6)
    np.testing.assert_allclose(found.one.left, apart[0].left, atol=1e-9)
    np.testing.assert_allclose(found.other.left, apart[1].left, atol=1e-9)


def test_what_shows_in_both_beside_diffuse_scattering_speaks_less_for_it():
    one, other = np.array([5.0]), np.array([5.0])
    shares = TOGETHER.sum(axis=1), TOGETHER.sum(axis=0)
    apart, together = (split_pair((one, SOME), (other, OTHER), table, 0.1) for table in (np.outer(*shares), TOGETHER))
    assert together.one.ratio == pytest.approx(apart.one.ratio)
    assert together.other.ratio[0] < apart.other.ratio[0] - 0.5
    assert together.left[0, 1, 1] > 0.9


def test_probabilities_of_a_pair_sum_to_one():
    found = split_pair((Z, SOME), (Z[::-1], OTHER), TOGETHER, 0.2)
    np.testing.assert_allclose(found.left.sum(axis=(1, 2)), 1.0)
    np.testing.assert_allclose(found.left[:, 1].sum(axis=1), found.one.left)
    np.testing.assert_allclose(found.left[:, :, 1].sum(axis=1), found.other.left)
    assert np.all((found.faint >= 0.0) & (found.faint <= 1.0))


def test_a_pair_of_which_one_is_missing_is_the_other():
    missing = np.full(Z.size, np.nan)
    first = split_pair((Z, SOME), (missing, OTHER), TOGETHER, 0.2)
    second = split_pair((missing, SOME), (Z, OTHER), TOGETHER, 0.2)
    np.testing.assert_allclose(first.other.ratio, 0.0, atol=1e-9)
    np.testing.assert_allclose(second.one.ratio, 0.0, atol=1e-9)
    np.testing.assert_allclose(first.one.ratio, split_pair((Z, SOME), (Z, OTHER), TOGETHER, 0.2).one.ratio)


def test_absence_counts_against_a_hit_by_no_more_than_faint_hits_allow():
    none = np.full(1, -3.0)
    for faint in (0.3, 0.05):
        found = split_pair((none, SOME), (none, OTHER), TOGETHER, faint)
        assert found.one.ratio + found.other.ratio >= np.log(faint)
        assert found.faint[0] > 0.5
