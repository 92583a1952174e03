"""Correlations of polar bins, against loops and NumPy's Fourier transform."""

import numpy as np
import pytest

from diffdask.kernels.azimuthal import correlate_neighbours, find_angular_power

GROUPS = [slice(0, 12), slice(0, 5), slice(5, 12)]


@pytest.fixture
def values():
    random = np.random.default_rng(0)
    values = random.normal(size=(5, 12, 30))
    values[random.uniform(size=values.shape) < 0.2] = np.nan
    values[2] = np.nan
    return values


def reference_correlation(values, groups, ring_lag, azimuth_lag):
    found = np.zeros((len(values), len(groups)))
    for hit, plane in enumerate(values):
        for number, group in enumerate(groups):
            products = [
                plane[ring, bin_] * plane[ring + ring_lag, (bin_ + azimuth_lag) % plane.shape[1]]
                for ring in range(group.start, group.stop - ring_lag)
                for bin_ in range(plane.shape[1])
            ]
            products = np.array(products)[np.isfinite(products)] if products else np.empty(0)
            found[hit, number] = products.mean() if products.size else 0.0
    return found


@pytest.mark.parametrize(("ring_lag", "azimuth_lag"), [(0, 1), (0, 15), (1, 0), (1, -4), (2, 3), (6, 2)])
def test_correlations_are_the_mean_products_of_a_plain_loop(values, ring_lag, azimuth_lag):
    found = correlate_neighbours(values, GROUPS, ring_lag, azimuth_lag)
    np.testing.assert_allclose(found, reference_correlation(values, GROUPS, ring_lag, azimuth_lag), atol=1e-12)


@pytest.mark.parametrize("bins", [16, 30, 31, 72])
def test_the_angular_power_is_that_of_the_fourier_transform_less_the_lag_zero(bins):
    signal = np.random.default_rng(bins).normal(size=bins)
    along = [correlate_neighbours(signal[None, None], [slice(0, 1)], 0, lag)[0, 0] for lag in range(1, bins // 2 + 1)]
    power = np.abs(np.fft.fft(signal)[1:8] / bins) ** 2
    np.testing.assert_allclose(find_angular_power(np.array(along), bins, 7), power - np.mean(signal**2) / bins)


def test_a_wave_has_power_in_its_own_harmonic():
    bins, amplitude = 72, 3.0
    signal = amplitude * np.cos(5 * np.arange(bins) * 2 * np.pi / bins + 0.3)
    along = [correlate_neighbours(signal[None, None], [slice(0, 1)], 0, lag)[0, 0] for lag in range(1, 37)]
    power = find_angular_power(np.array(along), bins, 12)
    assert np.argmax(power) == 4
    assert power[4] == pytest.approx(amplitude**2 / 4, rel=0.05)


def test_noise_averages_to_zero_at_every_lag_and_harmonic():
    values = np.random.default_rng(1).normal(size=(400, 20, 36))
    along = np.stack([correlate_neighbours(values, [slice(0, 20)], 0, lag)[:, 0] for lag in range(1, 19)], axis=1)
    for found in (along, find_angular_power(along, 36, 12)):
        assert np.abs(found.mean(axis=0) / found.std(axis=0) * np.sqrt(400)).max() < 4
