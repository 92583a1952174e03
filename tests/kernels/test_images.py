import numpy as np
import pytest

from diffdask.kernels.images import (
    interpolate_polar,
    multiply_neighbours,
    pool_significance,
    standardise_cells,
    to_bytes,
    to_vgg_input,
)

NAN = np.float32(np.nan)


def interpolate(polar, ring_share, turn, least_weight=0.5):
    values = np.empty(len(ring_share), np.float32)
    interpolate_polar(polar, np.asarray(ring_share, float), np.asarray(turn, float), least_weight, values)
    return values


def test_at_the_centres_of_bins_stand_the_bins_and_half_way_their_means():
    polar = np.random.default_rng(0).normal(size=(5, 8))
    ring, azimuth = np.indices(polar.shape).reshape(2, -1)
    found = interpolate(polar, (ring + 0.5) / 5, (azimuth + 0.5) / 8)
    np.testing.assert_allclose(found, polar.ravel(), atol=1e-6)
    between = interpolate(polar, (ring + 0.5) / 5, azimuth / 8)
    np.testing.assert_allclose(between, ((polar + np.roll(polar, 1, axis=1)) / 2).ravel(), atol=1e-6)


def test_outside_the_rings_there_is_nothing_and_within_half_a_bin_of_their_ends_the_last_bin():
    polar = np.arange(4.0)[:, None] * np.ones(6)
    np.testing.assert_array_equal(interpolate(polar, [-0.01, 1.01, np.nan], [0.3] * 3), [NAN] * 3)
    np.testing.assert_allclose(interpolate(polar, [0, 0.1, 0.9, 1], [0.3] * 4), [0, 0, 3, 3], atol=1e-6)


def test_missing_bins_lend_nothing_and_leave_gaps_where_they_are():
    polar = np.full((3, 8), 7.0)
    polar[1, 2] = np.nan
    ring_share, turn = np.full(9, 0.5), (2.5 + np.linspace(-1, 1, 9)) / 8
    found = interpolate(polar, ring_share, turn)
    np.testing.assert_array_equal(np.isnan(found), np.abs(np.linspace(-1, 1, 9)) < 0.49)
    np.testing.assert_allclose(found[np.isfinite(found)], 7)
    np.testing.assert_array_equal(np.isnan(interpolate(polar, ring_share, turn, 0.0)), np.linspace(-1, 1, 9) == 0)


def test_pooled_significance_of_noise_has_unit_variance_and_leaves_gaps_alone():
    random = np.random.default_rng(1)
    noise = random.uniform(0.5, 3, (60, 60)).astype(np.float32)
    residual = (noise * random.normal(size=noise.shape)).astype(np.float32)
    residual[10:14, 20:30] = noise[10:14, 20:30] = np.nan
    residual[40, 40] = np.nan
    pooled = np.empty_like(residual)
    pool_significance(residual, noise, 2, pooled)
    np.testing.assert_array_equal(np.isnan(pooled), np.isnan(residual))
    assert np.nanstd(pooled) == pytest.approx(1, abs=0.1)
    part = slice(0, 5), slice(0, 5)
    assert pooled[2, 2] == pytest.approx(residual[part].sum() / np.sqrt((noise[part] ** 2).sum()), rel=1e-5)


def test_neighbours_agree_by_chance_with_unit_variance_and_in_a_feature_much_more():
    random = np.random.default_rng(2)
    products = np.empty((60, 72), np.float32)
    noise = random.normal(size=products.shape)
    noise[20:23, 30:33] = np.nan
    multiply_neighbours(noise, products)
    np.testing.assert_array_equal(np.isnan(products), np.isnan(noise))
    assert np.nanmean(products) == pytest.approx(0, abs=0.1)
    assert np.nanstd(products) == pytest.approx(1, abs=0.05)
    noise[40:44, 70:] += 3
    multiply_neighbours(noise, products)
    assert products[41:43, 71].min() > 5
    lonely = np.full((5, 5), np.nan)
    lonely[2, 2] = 1.0
    alone = np.empty((5, 5), np.float32)
    multiply_neighbours(lonely, alone)
    assert np.isnan(alone).all()


def test_each_group_has_median_zero_and_unit_spread_whatever_it_was_before():
    random = np.random.default_rng(3)
    group = random.integers(0, 4, 4000)
    values = (random.normal(size=4000) * np.array([1, 5, 0.1, 30])[group] + group).astype("f4")
    values[::9] = np.nan
    values[::50] *= 100  # a few outliers decide nothing
    order = np.argsort(group, kind="stable").astype(np.int32)
    start = np.searchsorted(group[order], np.arange(5))
    standardise_cells(values, order, start, 20)
    for number in range(4):
        own = values[group == number]
        own = own[np.isfinite(own)]
        assert np.median(own) == pytest.approx(0, abs=1e-6)
        assert np.median(np.abs(own)) * 1.4826 == pytest.approx(1, rel=1e-5)
    assert np.isnan(values[::9]).all()


def test_small_groups_take_the_spread_of_all_and_constants_become_zero():
    values = np.concatenate([np.random.default_rng(4).normal(5, 2, 1001), [9.0, 9.0]]).astype(np.float32)
    expected = (values - np.median(values)) / (1.4826 * np.median(np.abs(values - np.median(values))))
    standardise_cells(values, np.arange(1003, dtype=np.int32), np.array([0, 1001, 1003]), 20)
    np.testing.assert_allclose(values[1001:], expected[1001:], rtol=1e-5)
    constant = np.full(100, 3.0, np.float32)
    standardise_cells(constant, np.arange(100, dtype=np.int32), np.array([0, 50, 100]), 20)
    np.testing.assert_array_equal(constant, 0)


def test_bytes_are_symmetric_about_128_which_is_zero_and_gaps():
    values = np.array([0, NAN, 4, -4, 1e9, -1e9, 2, -2], np.float32)
    np.testing.assert_array_equal(to_bytes(values, 4.0), [128, 128, 255, 1, 255, 1, 192, 64])
    assert to_bytes(values, 4.0).dtype == np.uint8


@pytest.mark.parametrize("channels", [1, 3])
def test_the_input_of_vgg16_is_what_keras_makes_of_the_same_picture(channels, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    from keras.applications.vgg16 import preprocess_input

    images = np.random.default_rng(5).integers(0, 256, (3, 32, 32, channels), dtype=np.uint8)
    before = images.copy()
    made = to_vgg_input(images)
    expected = preprocess_input(np.repeat(images, 3 // channels, axis=-1).astype(np.float32))
    np.testing.assert_array_equal(made, expected)
    assert made.dtype == np.float32
    assert made.flags.c_contiguous
    np.testing.assert_array_equal(images, before)
