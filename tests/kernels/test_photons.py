"""From readout to photons, against plain NumPy."""

import numpy as np
import pytest

from diffdask.kernels.photons import count_photons, find_zero_peak

PANELS, PIXELS = 3, 2000


def reference_photons(adu, index, panel, correction, offset, gain):
    photons = (adu[index].astype(np.float64) - offset[panel]) * gain[panel] * correction
    return np.where(np.isfinite(photons), photons, np.nan)


def reference_zero_peak(adu, index, panel, gain, min_share):
    offset = np.zeros(gain.size)
    for number in range(gain.size):
        values = adu[index[panel == number]].astype(np.float64)
        for _ in range(3):
            inside = values[np.abs(values - offset[number]) * gain[number] < 0.5]
            offset[number] = inside.mean() if inside.size > max(min_share * values.size, 0) else 0.0
    return offset


@pytest.fixture
def detector():
    random = np.random.default_rng(0)
    index = np.sort(random.choice(PANELS * PIXELS, size=4000, replace=False)).astype(np.int32)
    return {
        "index": index,
        "panel": (index // PIXELS).astype(np.int16),
        "correction": random.uniform(0.5, 3, size=index.size).astype(np.float32),
        "offset": np.array([-3.5, 0, 12], np.float32),
        "gain": np.array([0.03, 0.04, 1.0], np.float32),
    }


def read(dtype, size=PANELS * PIXELS, seed=1):
    random = np.random.default_rng(seed)
    low = 0 if np.dtype(dtype).kind == "u" else -200
    return random.integers(low, 30000, size=size).astype(dtype)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "float32"])
def test_photons_are_those_of_the_formula_for_every_type_of_readout(detector, dtype):
    adu = read(dtype)
    found = np.empty(detector["index"].size, np.float32)
    count_photons(adu, *detector.values(), found)
    np.testing.assert_allclose(found, reference_photons(adu, *detector.values()), rtol=1e-5, atol=1e-4)


def test_a_reading_that_is_not_finite_becomes_nan_and_touches_no_other(detector):
    adu = read("float32")
    spoilt = detector["index"][[5, 6, 7]]
    found = np.empty((2, detector["index"].size), np.float32)
    count_photons(adu, *detector.values(), found[0])
    adu[spoilt] = np.nan, np.inf, -np.inf
    count_photons(adu, *detector.values(), found[1])
    assert np.isnan(found[1, 5:8]).all()
    found[:, 5:8] = 0
    np.testing.assert_array_equal(found[0], found[1])


def test_a_panel_without_gain_gives_nan(detector):
    detector["gain"] = np.array([np.nan, 1, np.inf], np.float32)
    found = np.empty(detector["index"].size, np.float32)
    count_photons(read("int16"), *detector.values(), found)
    np.testing.assert_array_equal(np.isnan(found), detector["panel"] != 1)


def dim_frame(common_mode, mean=1.0, adu_per_photon=30.0, seed=3):
    """Frame of three panels, ADU: Poisson counts, readout noise, and the panels' offsets."""
    random = np.random.default_rng(seed)
    photons = random.poisson(mean, size=(PANELS, PIXELS)) + random.normal(scale=0.1, size=(PANELS, PIXELS))
    return (photons * adu_per_photon + np.asarray(common_mode)[:, None]).astype(np.float32).ravel()


@pytest.mark.parametrize("mean", [0.0, 0.3, 1.5, 6.0])
def test_the_common_mode_is_that_of_plain_numpy(detector, mean):
    adu, gain = dim_frame([-4, 0, 7], mean), np.full(PANELS, 1 / 30, np.float32)
    found = np.empty(PANELS, np.float32)
    find_zero_peak(adu, detector["index"], detector["panel"], gain, 0.02, found)
    expected = reference_zero_peak(adu, detector["index"], detector["panel"], gain, 0.02)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_a_planted_common_mode_is_found_to_a_hundredth_of_a_photon(detector):
    found = np.empty(PANELS, np.float32)
    gain = np.full(PANELS, 1 / 30, np.float32)
    find_zero_peak(dim_frame([-6, 0, 9], 1.0), detector["index"], detector["panel"], gain, 0.02, found)
    np.testing.assert_allclose(found, [-6, 0, 9], atol=0.3)


def test_a_panel_too_brightly_lit_to_tell_keeps_its_readings(detector):
    found = np.full(PANELS, 99, np.float32)
    gain = np.full(PANELS, 1 / 30, np.float32)
    find_zero_peak(dim_frame([9, 9, 9], 20.0), detector["index"], detector["panel"], gain, 0.02, found)
    np.testing.assert_array_equal(found, 0)


def test_a_panel_without_usable_pixels_has_no_common_mode():
    index = np.arange(PIXELS, dtype=np.int32)
    found = np.full(PANELS, 99, np.float32)
    gain = np.full(PANELS, 1 / 30, np.float32)
    find_zero_peak(dim_frame([3, 3, 3]), index, np.zeros(PIXELS, np.int16), gain, 0.0, found)
    assert found[0] == pytest.approx(3, abs=0.5)
    np.testing.assert_array_equal(found[1:], 0)
