"""From readout to photons, against plain NumPy."""

import numpy as np
import pytest

from diffdask.kernels.photons import count_photons, find_zero_peak
from diffdask.pixels import PixelList

SHAPE = (3, 40, 50)
PANELS, PIXELS = 3, 2000


def convert(adu, index, panel, correction, offset, gain):
    """Photons of listed pixels, in two stretches as for two rings."""
    start = np.concatenate([[0], np.flatnonzero(np.diff(panel)) + 1, [panel.size]]).astype(np.int32)
    empty = np.empty(0, np.int32)
    in_panel = (index % PIXELS).astype(np.uint16)
    pixels = PixelList(index, start, panel[start[:-1]].astype(np.int32), correction, empty, empty, empty, in_panel)
    found, middle = np.empty(index.size, np.float32), int(start[1])
    run = count_photons(adu, pixels, 0, 0, middle, offset, gain, found[:middle])
    assert run == 1
    assert count_photons(adu, pixels, run, middle, index.size, offset, gain, found[middle:]) == start.size - 1
    return found


def reference_photons(adu, index, panel, correction, offset, gain):
    return (adu[index].astype(np.float64) - offset[panel]) * gain[panel] * correction


def reference_zero_peak(adu, used, gain, min_share, row_step=1):
    offset = np.zeros(gain.size)
    for number in range(gain.size):
        values, kept = adu.reshape(SHAPE)[number, ::row_step], used.reshape(SHAPE)[number, ::row_step]
        values = values[kept].astype(np.float64)
        if gain[number] * 6 > 1:
            continue
        for _ in range(3):
            inside = values[np.abs(values - offset[number]) * gain[number] < 0.5]
            offset[number] = inside.mean() if inside.size > max(min_share * values.size, 0) else 0.0
    return offset


def zero_peak(adu, used=None, gain=1 / 30, min_share=0.02, row_step=1):
    """Common modes found, ADU; ``used`` flat, all if not given."""
    cell = np.zeros(adu.size, np.int32) if used is None else np.where(used, 0, -1).astype(np.int32)
    found = np.full(PANELS, 99, np.float32)
    gain = np.broadcast_to(np.float32(gain), PANELS).astype(np.float32)
    find_zero_peak(adu, SHAPE, cell, gain, min_share, row_step, found)
    return found


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
    found = convert(adu, *detector.values())
    np.testing.assert_allclose(found, reference_photons(adu, *detector.values()), rtol=1e-5, atol=1e-4)


def test_a_reading_that_is_not_finite_is_missing_and_touches_no_other(detector):
    adu = read("float32")
    spoilt = detector["index"][[5, 6, 7]]
    plain = convert(adu, *detector.values())
    adu[spoilt] = np.nan, np.inf, -np.inf
    found = convert(adu, *detector.values())
    assert not np.isfinite(found[5:8]).any()
    plain[5:8] = found[5:8] = 0
    np.testing.assert_array_equal(found, plain)


def test_a_panel_without_gain_reads_nothing(detector):
    detector["gain"] = np.array([np.nan, 1, np.inf], np.float32)
    found = convert(read("int16"), *detector.values())
    np.testing.assert_array_equal(~np.isfinite(found), detector["panel"] != 1)


def dim_frame(common_mode, mean=1.0, adu_per_photon=30.0, seed=3):
    """Frame of three panels, ADU: Poisson counts, readout noise, and the panels' offsets."""
    random = np.random.default_rng(seed)
    photons = random.poisson(mean, size=(PANELS, PIXELS)) + random.normal(scale=0.1, size=(PANELS, PIXELS))
    return (photons * adu_per_photon + np.asarray(common_mode)[:, None]).astype(np.float32).ravel()


@pytest.fixture
def used():
    """A third of the pixels is masked."""
    return np.random.default_rng(0).uniform(size=PANELS * PIXELS) > 1 / 3


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32"])
@pytest.mark.parametrize("row_step", [1, 8])
@pytest.mark.parametrize("mean", [0.0, 0.3, 1.5, 6.0])
def test_the_common_mode_is_that_of_plain_numpy(used, mean, row_step, dtype):
    adu = np.round(dim_frame([-4, 0, 7], mean)).astype(dtype)
    expected = reference_zero_peak(adu, used, np.full(PANELS, 1 / 30, np.float32), 0.02, row_step)
    np.testing.assert_allclose(zero_peak(adu, used, row_step=row_step), expected, rtol=1e-5, atol=1e-4)


def test_a_planted_common_mode_is_found_to_a_hundredth_of_a_photon(used):
    np.testing.assert_allclose(zero_peak(dim_frame([-6, 0, 9], 1.0), used), [-6, 0, 9], atol=0.3)


def test_readings_that_are_masked_or_not_finite_have_no_say_in_the_common_mode(used):
    adu = dim_frame([-6, 0, 9], 1.0)
    expected = zero_peak(adu, used)
    np.testing.assert_array_equal(zero_peak(np.where(used, adu, np.float32(1)), used), expected)
    for value in (np.nan, np.inf, -np.inf):
        np.testing.assert_allclose(zero_peak(np.where(used, adu, np.float32(value))), expected, rtol=1e-6)


def test_a_panel_too_brightly_lit_to_tell_keeps_its_readings(used):
    np.testing.assert_array_equal(zero_peak(dim_frame([9, 9, 9], 20.0), used), 0)


def test_where_photons_are_few_adu_or_there_is_no_gain_there_is_no_common_mode():
    adu = dim_frame([0.5, 0.5, 0.5], 1.0, adu_per_photon=7.0)
    found = zero_peak(adu, gain=[1 / 7, 1 / 5.9, np.nan])
    assert found[0] == pytest.approx(0.5, abs=0.2)
    np.testing.assert_array_equal(found[1:], 0)


def test_a_panel_without_usable_pixels_has_no_common_mode():
    found = zero_peak(dim_frame([3, 3, 3]), np.arange(PANELS * PIXELS) < PIXELS, min_share=0.0)
    assert found[0] == pytest.approx(3, abs=0.5)
    np.testing.assert_array_equal(found[1:], 0)
