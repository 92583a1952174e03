"""The whole pass over one frame, against the same in plain NumPy and SciPy."""

import numpy as np
import pytest
from scipy import ndimage

from diffdask.kernels.screening import COLUMNS, Screening, sum_residual, summarise_frame
from diffdask.pixels import PixelList

SHAPE = (3, 90, 100)
RINGS, AZIMUTHS = 20, 24
HOW = Screening(
    common_mode_share=-1.0, clip_low=5.0, clip_high=5.0, clip_passes=3, ring_pixels=20, snr=6.0, threshold=5.0,
    min_pixels=2, max_pixels=30, radius=4, wing=2,
)  # fmt: skip
GAIN = np.array([0.5, 0.25, 0.5], np.float32)


@pytest.fixture(scope="module")
def pixels():
    """Rings about a centre within the second panel; a fifth of the pixels masked, ring 7 masked altogether."""
    random = np.random.default_rng(0)
    panel, ss, fs = np.indices(SHAPE)
    x, y = fs - 45.3, ss - 40.2 + 100 * (panel - 1)
    ring = np.minimum(np.hypot(x, y) / 8, RINGS - 1).astype(np.int32)
    azimuth = ((np.arctan2(y, x) % (2 * np.pi)) / (2 * np.pi) * AZIMUTHS).astype(np.int32)
    used = ((random.uniform(size=SHAPE) > 0.2) & (ring != 7)).ravel()
    place = np.flatnonzero(used).astype(np.int32)
    correction = (1 + 0.3 * ring / RINGS).ravel()[place].astype(np.float32)
    return PixelList(
        place, panel.ravel()[place].astype(np.int16), ring.ravel()[place], azimuth.ravel()[place], correction
    )


def make_frame(pixels, level=6.0, spots=60, seed=1, dtype=np.int16):
    random = np.random.default_rng(seed)
    expected = np.full(np.prod(SHAPE), 1e-9)
    expected[pixels.place] = level / pixels.correction
    expected = expected.reshape(SHAPE)
    for panel, ss, fs in zip(*(random.integers(size, size=spots) for size in SHAPE), strict=True):
        expected[panel, ss : ss + 2, fs : fs + 2] += random.uniform(10, 200)
    adu = random.poisson(expected) / GAIN[:, None, None]
    return np.round(adu).astype(dtype).ravel()


def run(adu, pixels, how=HOW, gain=GAIN):
    mean, first, second = np.empty(RINGS), np.empty((RINGS, AZIMUTHS)), np.empty((RINGS, AZIMUTHS))
    count, peaks = np.empty((RINGS, AZIMUTHS), np.int64), np.empty((500, 6))
    found = sum_residual(adu, SHAPE, pixels, gain, how, mean, first, second, count, peaks)
    anisotropy, summary = np.empty(RINGS), np.empty(len(COLUMNS))
    summarise_frame(first, second, count, mean, peaks, found, 1, np.ones(RINGS, bool), anisotropy, summary)
    return {
        "mean": mean, "first": first, "second": second, "count": count, "peaks": peaks[:found],
        "ring_anisotropy": anisotropy, **dict(zip(COLUMNS, summary, strict=True)),
    }  # fmt: skip


def reference_mean(adu, pixels):
    """Ring means of what is left after clipping and after cutting out all bright pixels with their wings."""
    photons = adu[pixels.place].astype(np.float64) * GAIN[pixels.panel] * pixels.correction
    bright = np.zeros(np.prod(SHAPE), bool)
    for number in range(RINGS):
        of_ring = pixels.ring == number
        values = kept = photons[of_ring]
        if values.size < 20:
            continue
        for _ in range(3):
            kept = values[np.abs(values - kept.mean()) <= 5 * kept.std()]
        quantum = np.minimum(kept.var() / kept.mean(), pixels.correction[of_ring])
        limit = np.maximum(6 * kept.std() + 35 / 6 * quantum, 5)
        bright[pixels.place[of_ring]] = values - kept.mean() > limit
    cut = ndimage.maximum_filter(bright.reshape(SHAPE), size=(1, 5, 5), mode="constant").ravel()[pixels.place]
    pixels_left = np.bincount(pixels.ring[~cut], minlength=RINGS)
    total = np.bincount(pixels.ring[~cut], photons[~cut], RINGS)
    return np.where(pixels_left >= 20, total / np.maximum(pixels_left, 1), np.nan), pixels_left


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.float32])
def test_ring_means_are_those_of_plain_numpy_for_every_type_of_readout(pixels, dtype):
    adu = make_frame(pixels, dtype=dtype)
    found = run(adu, pixels)
    expected, left = reference_mean(adu, pixels)
    np.testing.assert_allclose(found["mean"], expected, rtol=1e-6)
    np.testing.assert_array_equal(found["count"].sum(axis=1)[~np.isnan(expected)], left[~np.isnan(expected)])
    assert np.flatnonzero(np.isnan(found["mean"])).tolist() == [7]
    assert found["good_rings"] == RINGS - 1
    assert found["peak_count"] > 30


def test_after_removal_every_ring_averages_to_zero(pixels):
    found = run(make_frame(pixels), pixels)
    np.testing.assert_allclose(found["first"].sum(axis=1), 0, atol=1e-6)


@pytest.mark.parametrize("level", [0.02, 0.3, 5.0])
def test_with_bragg_peaks_the_background_is_right_within_counting_noise(pixels, level):
    means = np.array([run(make_frame(pixels, level, spots=12, seed=seed), pixels)["mean"] for seed in range(12)])
    pixels_of_ring = np.bincount(pixels.ring, minlength=RINGS)
    noise = np.sqrt(level * 1.2 / pixels_of_ring.clip(1))
    bias = np.nanmean((means - level) / noise, where=pixels_of_ring > 0)
    assert abs(bias) < 0.5, "of one frame's counting noise, averaged over rings and frames"


def test_a_frame_without_a_photon_has_a_background_of_zero_and_nothing_else(pixels):
    found = run(np.zeros(np.prod(SHAPE), np.int16), pixels)
    assert (found["background"], found["peak_count"], found["good_rings"]) == (0, 0, RINGS - 1)
    for name in ("anisotropy", "diffuse_excess", "peak_intensity"):
        assert np.isnan(found[name]).all()


def test_a_frame_of_negative_readings_or_of_nan_does_not_stop_the_run(pixels):
    negative = run(np.full(np.prod(SHAPE), -300, np.int16), pixels)
    assert negative["background"] < 0
    assert negative["peak_count"] == 0
    blind = run(np.full(np.prod(SHAPE), np.nan, np.float32), pixels)
    assert (blind["good_rings"], blind["peak_count"]) == (0, 0)
    assert np.isnan(blind["background"])


def test_without_a_usable_pixel_nothing_is_found():
    nothing = PixelList(*(np.empty(0, kind) for kind in (np.int32, np.int16, np.int32, np.int32, np.float32)))
    found = run(np.ones(np.prod(SHAPE), np.int16), nothing)
    assert (found["good_rings"], found["peak_count"]) == (0, 0)


def test_saturated_pixels_cost_their_neighbourhood_and_no_more(pixels):
    adu = make_frame(pixels, spots=0).reshape(SHAPE)
    clean = run(adu.ravel(), pixels)
    adu[0, 40:43, 50:53] = adu[2, 10, 10] = 32767
    found = run(adu.ravel(), pixels)
    assert clean["count"].sum() - found["count"].sum() <= 49 + 25
    np.testing.assert_allclose(found["mean"], clean["mean"], rtol=0.02)
    assert found["peak_count"] == 1


def test_a_single_reading_of_infinity_costs_one_pixel(pixels):
    adu = make_frame(pixels, spots=0, dtype=np.float32)
    clean = run(adu, pixels)
    adu[pixels.place[[100, 5000]]] = np.inf, -np.inf
    found = run(adu, pixels)
    assert clean["count"].sum() - found["count"].sum() == 2
    np.testing.assert_allclose(found["mean"], clean["mean"], rtol=0.05)


def test_an_offset_of_each_panel_is_taken_out(pixels):
    random = np.random.default_rng(3)
    adu = make_frame(pixels, level=1.0, spots=5, dtype=np.float32) + random.normal(scale=0.2, size=np.prod(SHAPE))
    shifted = adu.reshape(SHAPE) + np.array([0.6, -1.2, 0.3])[:, None, None]
    how = HOW._replace(common_mode_share=0.02)
    one, other = (run(frame.astype(np.float32).ravel(), pixels, how) for frame in (adu, shifted))
    np.testing.assert_allclose(other["mean"], one["mean"], atol=0.01)


def test_a_gain_factor_that_is_told_changes_nothing(pixels):
    adu = make_frame(pixels, dtype=np.float32)
    once, scaled = run(adu, pixels), run(16 * adu, pixels, gain=GAIN / 16)
    for name in ("mean", "anisotropy", "peaks", "diffuse_excess"):
        np.testing.assert_allclose(scaled[name], once[name], rtol=1e-6)
