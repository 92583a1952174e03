import numpy as np
import pytest
from scipy import stats

from diffdask.kernels.counting import COUNTS, MEAN_STEP, MEANS, read_out, tabulate_poisson

TABLES = tabulate_poisson()
NORMALS = stats.norm.ppf((np.arange(65536) + 0.5) / 65536).astype(np.float32)


def counts_of(mean, size=400_000, seed=7):
    adu = np.empty((1, size), np.int32)
    expected = np.full((1, size), mean, np.float32)
    gain = np.ones((1, size), np.float32)
    read_out(expected, gain, 1.0, np.zeros(1), 0.0, NORMALS, *TABLES, np.uint64(seed), 1e6, adu)
    return adu.ravel()


@pytest.mark.parametrize("mean", [0.004, 0.11, 0.9, 3.3, 7.77, 41.2, 63.99, 64.0, 101.3, 900.5])
def test_counts_have_poissons_mean_and_variance(mean):
    counts = counts_of(mean)
    five_errors = 5 / np.sqrt(counts.size)
    assert abs(counts.mean() - mean) < five_errors * np.sqrt(mean)
    # The variance of a sample's variance is (mu4 - variance^2) / n, and mu4 = mean + 3 mean^2.
    assert abs(counts.var() - mean) < five_errors * np.sqrt(mean + 2 * mean**2)


@pytest.mark.parametrize("mean", [0.3, 5.19, 64.4])
def test_counts_have_poissons_distribution(mean):
    counts = counts_of(mean)
    values = np.arange(counts.max() + 1)
    wanted = counts.size * stats.poisson.pmf(values, mean)
    common = wanted > 20
    found = np.bincount(counts, minlength=values.size)
    chi2 = np.sum((found - wanted)[common] ** 2 / wanted[common])
    assert chi2 < stats.chi2.ppf(0.9999, common.sum())


def test_alias_tables_hold_poissons_probabilities():
    thresholds, aliases = (table.astype(float) for table in TABLES)
    for row in (0, 1, 40, MEANS - 1):
        kept = thresholds[row] / 2**32 / COUNTS
        probability = kept.copy()
        np.add.at(probability, aliases[row].astype(int), 1 / COUNTS - kept)
        np.testing.assert_allclose(probability, stats.poisson.pmf(np.arange(COUNTS), row * MEAN_STEP), atol=1e-9)


def test_neighbouring_pixels_and_seeds_are_not_correlated():
    one, other = counts_of(5.0), counts_of(5.0, seed=8)
    for pair in ((one[1:], one[:-1]), (one, other)):
        assert abs(np.corrcoef(*pair)[0, 1]) < 5 / np.sqrt(one.size)


def test_readout_is_gain_times_photons_plus_offset_plus_noise_and_ends_at_saturation():
    shape = (2, 200_000)
    adu = np.empty(shape, np.int16)
    expected = np.full(shape, 4.0, np.float32)
    gain = np.full(shape, 10.0, np.float32)
    read_out(expected, gain, 1.1, np.array([0.0, 7.0]), 3.0, NORMALS, *TABLES, np.uint64(3), 120.0, adu)
    assert adu.max() == 120
    np.testing.assert_allclose(adu.mean(axis=1), [44.0, 51.0], atol=0.5)
    # Rounding to whole ADU adds 1/12.
    np.testing.assert_allclose(adu[0].var(), 4 * 11.0**2 + 3.0**2 + 1 / 12, rtol=0.02)


def test_a_dead_pixel_shows_noise_only():
    adu = np.empty((1, 1000), np.int16)
    read_out(
        np.full((1, 1000), 50.0, np.float32),
        np.zeros((1, 1000), np.float32),
        1.0,
        np.zeros(1),
        0.0,
        NORMALS,
        *TABLES,
        np.uint64(3),
        120.0,
        adu,
    )
    assert not adu.any()
