"""The whole pass over one frame, against the same in plain NumPy and SciPy."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from diffdask.kernels.peaks import GROWTH
from diffdask.kernels.residual import Screening, subtract_rings, sum_residual
from diffdask.pixels import PixelList

SHAPE = (3, 90, 100)
SIZE = 3 * 90 * 100
RINGS, AZIMUTHS = 20, 24
HOW = Screening(
    common_mode_share=-1.0, clip_low=5.0, clip_high=5.0, clip_passes=3, ring_pixels=20, snr=6.0, threshold=5.0,
    min_pixels=2, max_pixels=30, radius=4, wing=2,
)  # fmt: skip
GAIN = np.array([0.5, 0.25, 0.5], np.float32)

SOME = settings(
    derandomize=True, max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Maps(NamedTuple):
    """A detector as plain maps (panel, ss, fs), and the list that is made of them."""

    ring: np.ndarray
    azimuth: np.ndarray
    correction: np.ndarray
    pixels: PixelList

    def __repr__(self):  # short, so that a failing example can be read
        return "Maps(...)"


class Result(NamedTuple):
    mean: np.ndarray
    first: np.ndarray
    second: np.ndarray
    count: np.ndarray
    peaks: np.ndarray
    peak_count: int


@pytest.fixture(scope="module")
def make_maps(by_hand):
    """What makes a detector: rings about a centre within the second panel; a fifth of the pixels is masked."""

    def make(without=None):
        panel, ss, fs = np.indices(SHAPE)
        x, y = fs - 45.3, ss - 40.2 + 100 * (panel - 1)
        ring = np.minimum(np.hypot(x, y) / 8, RINGS - 1).astype(np.int32)
        azimuth = ((np.arctan2(y, x) % (2 * np.pi)) / (2 * np.pi) * AZIMUTHS).astype(np.int32)
        used = np.random.default_rng(0).uniform(size=SHAPE) > 0.2
        used &= True if without is None else ~without(panel, ring)
        correction = (1 + 0.3 * ring / RINGS).astype(np.float32)
        return from_maps(by_hand, np.where(used, ring, -1), azimuth, correction)

    return make


def from_maps(by_hand, ring, azimuth, correction):
    return Maps(ring, azimuth, correction, by_hand(ring, azimuth, correction, rings=RINGS, azimuths=AZIMUTHS))


@pytest.fixture(scope="module")
def maps(make_maps):
    """Ring 7 is masked altogether."""
    return make_maps(lambda panel, ring: ring == 7)


def make_frame(maps, level=6.0, spots=60, seed=1, dtype=np.int16):
    """(panel, ss, fs) ADU."""
    random = np.random.default_rng(seed)
    expected = np.where(maps.ring >= 0, level / maps.correction, 1e-9)
    for panel, ss, fs in zip(*(random.integers(size, size=spots) for size in SHAPE), strict=True):
        expected[panel, ss : ss + 2, fs : fs + 2] += random.uniform(10, 200)
    return np.round(random.poisson(expected) / GAIN[:, None, None]).astype(dtype)


def run(by_hand, adu, maps, how=HOW, gain=GAIN, scratch=None, room=500):
    mean, first, second = np.empty(RINGS), np.empty((RINGS, AZIMUTHS)), np.empty((RINGS, AZIMUTHS))
    count, peaks = np.empty((RINGS, AZIMUTHS), np.int64), np.empty((room, 6))
    scratch = scratch or by_hand.scratch(maps.pixels, adu.shape, RINGS)
    found = sum_residual(adu.ravel(), adu.shape, maps.pixels, gain, how, scratch, mean, first, second, count, peaks)
    assert not scratch.state.any(), "left as it was found"
    return Result(mean, first, second, count, peaks[:found], found)


def assert_same(found, expected, rtol=1e-9, atol=1e-9, fields=Result._fields):
    for name in fields:
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=rtol, atol=atol, err_msg=name
        )  # fmt: skip


def reference(adu, maps, gain=GAIN, how=HOW):
    """Ring means and cell sums of what is left after clipping and after cutting out bright pixels with their wings."""
    with np.errstate(invalid="ignore"):
        photons = adu.astype(np.float64) * gain[:, None, None] * maps.correction
    used = (maps.ring >= 0) & np.isfinite(photons)
    bright, has_mean = np.zeros(adu.shape, bool), np.zeros(RINGS, bool)
    for number in range(RINGS):
        inside = used & (maps.ring == number)
        values = kept = photons[inside]
        for _ in range(how.clip_passes):
            if kept.size >= how.ring_pixels:
                off = values - kept.mean()
                kept = values[(off >= -how.clip_low * kept.std()) & (off <= how.clip_high * kept.std())]
        if kept.size < how.ring_pixels:
            continue
        has_mean[number] = True
        quantum = np.minimum(kept.var() / kept.mean() if kept.mean() > 0 else np.inf, maps.correction[inside])
        limit = np.maximum(how.snr * kept.std() + (how.snr**2 - 1) / 6 * quantum, how.threshold)
        bright[inside] = values - kept.mean() > limit
    side = 2 * how.wing + 1
    cut = ndimage.maximum_filter(bright, size=(1, side, side), mode="constant")
    kept = used & ~cut & has_mean[maps.ring]
    ring, cell = maps.ring[kept], (maps.ring * AZIMUTHS + maps.azimuth)[kept]
    pixels = np.bincount(ring, minlength=RINGS)
    kept_ring = pixels >= how.ring_pixels
    mean = np.where(kept_ring, np.bincount(ring, photons[kept], RINGS) / np.maximum(pixels, 1), np.nan)
    off = np.where(kept_ring[ring], photons[kept] - mean[ring], 0)
    weights = (off, off**2, kept_ring[ring].astype(float))
    return (mean, *(np.bincount(cell, weight, RINGS * AZIMUTHS).reshape(RINGS, AZIMUTHS) for weight in weights))


def assert_reference(found, expected):
    mean, first, second, count = expected
    np.testing.assert_array_equal(found.count, count)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.first, first, atol=1e-5 * (1 + np.abs(second).max()))
    np.testing.assert_allclose(found.second, second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.float32])
def test_means_and_sums_are_those_of_plain_numpy_for_every_type_of_readout(by_hand, maps, dtype):
    adu = make_frame(maps, dtype=dtype)
    found = run(by_hand, adu, maps)
    assert_reference(found, reference(adu, maps))
    assert np.flatnonzero(np.isnan(found.mean)).tolist() == [7]
    assert found.peak_count > 30
    assert_same(found, run(by_hand, adu.astype(np.int16), maps), rtol=0, atol=0)


@pytest.mark.parametrize("level", [0.0, 0.02, 0.3, 6.0, 50.0])
@pytest.mark.parametrize("wing", [1, 2, 4])
def test_means_and_sums_are_those_of_plain_numpy_at_every_level(by_hand, maps, level, wing):
    adu, how = make_frame(maps, level, seed=int(level * 100), dtype=np.float32), HOW._replace(wing=wing)
    assert_reference(run(by_hand, adu, maps, how), reference(adu, maps, how=how))


@pytest.mark.parametrize(
    "without",
    [
        lambda panel, ring: (ring == 3) | (ring > 15),
        lambda panel, ring: panel == 1,
        lambda panel, ring: ring >= 0,
    ],
    ids=["empty rings", "a lost panel", "nothing usable"],
)
def test_rings_and_panels_that_are_lost_do_no_harm(by_hand, make_maps, without):
    maps = make_maps(without)
    adu = make_frame(maps)
    found = run(by_hand, adu, maps)
    assert_reference(found, reference(adu, maps))
    assert (found.count.sum(axis=1)[np.isnan(found.mean)] == 0).all()


def test_after_removal_every_ring_averages_to_zero(by_hand, maps):
    found = run(by_hand, make_frame(maps), maps)
    np.testing.assert_allclose(found.first.sum(axis=1), 0, atol=1e-6)


@pytest.mark.parametrize("level", [0.02, 0.3, 5.0])
def test_with_bragg_peaks_the_background_is_right_within_counting_noise(by_hand, maps, level):
    frames = [make_frame(maps, level, spots=12, seed=seed) for seed in range(12)]
    means = np.array([run(by_hand, frame, maps).mean for frame in frames])
    pixels_of_ring = np.bincount(maps.ring[maps.ring >= 0], minlength=RINGS)
    noise = np.sqrt(level * 1.2 / pixels_of_ring.clip(1))
    bias = np.nanmean((means - level) / noise, where=pixels_of_ring > 0)
    assert abs(bias) < 0.5, "of one frame's counting noise, averaged over rings and frames"


def test_a_frame_without_a_photon_has_a_background_of_zero_and_nothing_else(by_hand, maps):
    found = run(by_hand, np.zeros(SHAPE, np.int16), maps)
    assert (found.mean[np.arange(RINGS) != 7] == 0).all()
    assert not found.first.any()
    assert not found.second.any()
    assert found.peak_count == 0


def test_a_frame_of_negative_readings_or_of_nan_does_not_stop_the_run(by_hand, maps):
    negative = run(by_hand, np.full(SHAPE, -300, np.int16), maps)
    assert (negative.mean[np.arange(RINGS) != 7] < 0).all()
    assert negative.peak_count == 0
    for value in (np.nan, np.inf, -np.inf):
        blind = run(by_hand, np.full(SHAPE, value, np.float32), maps)
        assert np.isnan(blind.mean).all()
        assert (blind.count.sum(), blind.peak_count) == (0, 0)
    lost = run(by_hand, make_frame(maps), maps, gain=np.full(3, np.nan, np.float32))
    assert np.isnan(lost.mean).all()


@pytest.mark.parametrize(("dtype", "top"), [("int16", 32767), ("uint16", 65535), ("int32", 2**31 - 1), ("f4", 4e9)])
def test_saturated_pixels_cost_their_neighbourhood_and_no_more(by_hand, maps, dtype, top):
    adu = make_frame(maps, spots=0).astype(dtype)
    clean = run(by_hand, adu, maps)
    adu[0, 40:43, 50:53] = adu[2, 10, 10] = top
    found = run(by_hand, adu, maps)
    assert 0 < clean.count.sum() - found.count.sum() <= 49 + 25
    assert_reference(found, reference(adu, maps))
    np.testing.assert_allclose(found.mean, clean.mean, rtol=0.02)
    assert found.peak_count == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e25, 1e18])
def test_a_reading_that_cannot_be_one_costs_one_pixel_or_its_neighbourhood(by_hand, maps, value):
    adu = make_frame(maps, spots=20, dtype=np.float32)
    places = maps.pixels.place[[100, 5000, 12000]]
    clean = run(by_hand, adu, maps)
    adu.ravel()[places] = value
    found = run(by_hand, adu, maps)
    expected = reference(np.where(adu == np.float32(value), np.float32(np.nan), adu), maps)
    if np.isfinite(value):
        assert clean.count.sum() - found.count.sum() <= 75
        np.testing.assert_allclose(found.mean, clean.mean, rtol=0.05)
    else:
        assert clean.count.sum() - found.count.sum() == 3
        assert_reference(found, expected)
    assert np.isfinite(found.second).all()
    assert (found.second >= 0).all()


def test_the_scratch_memory_of_one_frame_has_no_say_in_the_next(by_hand, maps):
    frames = [make_frame(maps, level, spots, seed) for seed, (level, spots) in enumerate([(6, 60), (0.1, 200), (9, 0)])]
    frames.insert(1, np.full(SHAPE, 30000, np.int16))
    frames[1][:, ::3] = 0
    how = HOW._replace(common_mode_share=0.02)
    scratch = by_hand.scratch(maps.pixels, SHAPE, RINGS)
    for frame in frames + frames[::-1]:
        assert_same(run(by_hand, frame, maps, how, scratch=scratch), run(by_hand, frame, maps, how), rtol=0, atol=0)


def test_more_peaks_than_are_listed_are_counted_and_left_out_all_the_same(by_hand, maps):
    adu = make_frame(maps)
    few, everything = run(by_hand, adu, maps, room=3), run(by_hand, adu, maps)
    assert few.peak_count == everything.peak_count > 30
    np.testing.assert_array_equal(few.peaks, everything.peaks[:3])
    assert_same(few, everything, rtol=0, atol=0, fields=["mean", "first", "second", "count"])


@SOME
@given(pedestal=st.integers(-500, 5000), seed=st.integers(0, 99), spots=st.integers(0, 60))
def test_a_pedestal_moves_the_ring_means_by_it_and_nothing_else(by_hand, maps, pedestal, seed, spots):
    """Limits that do not ask what a photon reads: that is told from deviation^2 / mean, which a pedestal does move."""
    gain, how = np.full(3, 0.5, np.float32), HOW._replace(snr=1.0, threshold=25.0, max_pixels=60)
    adu = make_frame(maps, 20.0, spots, seed)
    plain, raised = (run(by_hand, frame, maps, how, gain) for frame in (adu, adu + np.int16(pedestal)))
    factor = [maps.correction[maps.ring == n].mean() if (maps.ring == n).any() else np.nan for n in range(RINGS)]
    np.testing.assert_allclose(raised.mean - plain.mean, 0.5 * pedestal * np.array(factor), rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(raised.count, plain.count)
    np.testing.assert_allclose(raised.second, plain.second, rtol=1e-4, atol=0.1)
    assert raised.peak_count == plain.peak_count
    np.testing.assert_allclose(raised.peaks, plain.peaks, rtol=1e-3, atol=1e-3)


@SOME
@given(order=st.permutations(range(3)), seed=st.integers(0, 99), spots=st.integers(0, 60))
def test_a_permutation_of_panels_changes_nothing_but_the_panel_numbers_of_peaks(by_hand, maps, order, seed, spots):
    order = list(order)
    adu = make_frame(maps, spots=spots, seed=seed)
    plain = run(by_hand, adu, maps)
    shuffled = from_maps(by_hand, maps.ring[order], maps.azimuth[order], maps.correction[order])
    found = run(by_hand, adu[order], shuffled, gain=GAIN[order])
    assert_same(found, plain, rtol=1e-5, atol=1e-3, fields=["mean", "first", "second", "count", "peak_count"])
    found.peaks[:, 0] = np.array(order)[found.peaks[:, 0].astype(int)]
    np.testing.assert_allclose(
        found.peaks[np.lexsort(found.peaks[:, 2::-1].T)], plain.peaks[np.lexsort(plain.peaks[:, 2::-1].T)], rtol=1e-5
    )


@SOME
@given(quarters=st.integers(1, 3), seed=st.integers(0, 99), spots=st.integers(0, 60))
def test_a_rotation_by_right_angles_rolls_the_azimuth(by_hand, maps, quarters, seed, spots):
    roll = quarters * AZIMUTHS // 4
    adu = make_frame(maps, spots=spots, seed=seed)
    plain = run(by_hand, adu, maps)
    turned = from_maps(by_hand, maps.ring, (maps.azimuth + roll) % AZIMUTHS, maps.correction)
    found = run(by_hand, adu, turned)
    for name in ("first", "second", "count"):
        expected = np.roll(getattr(plain, name), roll, axis=1)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(found.mean, plain.mean, rtol=1e-6)
    assert abs(found.peak_count - plain.peak_count) <= 1, "what joins a peak is no neighbourhood to the next"


@SOME
@given(seed=st.integers(0, 99), level=st.floats(0.0, 30.0), spots=st.integers(0, 60), low=st.integers(-40, 0))
def test_the_same_numbers_of_another_type_give_the_same_results(by_hand, maps, seed, level, spots, low):
    adu = make_frame(maps, level, spots, seed) + np.int16(low)
    how = HOW._replace(common_mode_share=0.02)
    kinds = ["int32", "float32"] + (["uint16"] if low == 0 else [])
    expected = run(by_hand, adu, maps, how)
    for kind in kinds:
        assert_same(run(by_hand, adu.astype(kind), maps, how), expected, rtol=0, atol=0)


def test_an_ice_ring_is_background_and_its_peaks_are_found(by_hand, maps):
    adu = make_frame(maps, spots=0)
    random = np.random.default_rng(0)
    adu += np.where(maps.ring == 10, 4 * random.poisson(300, size=SHAPE), 0).astype(np.int16)
    clean = run(by_hand, make_frame(maps, spots=0), maps)
    found = run(by_hand, adu, maps)
    np.testing.assert_allclose(np.delete(found.mean, 10), np.delete(clean.mean, 10), rtol=1e-3)
    assert found.mean[10] > 100
    assert found.peak_count == 0
    panel, ss, fs = np.argwhere(maps.ring == 10)[1000]
    adu[panel, ss : ss + 2, fs : fs + 2] += 8000
    assert run(by_hand, adu, maps).peak_count == 1


def test_a_half_shadowed_panel_takes_its_rings_down_and_makes_no_peaks(by_hand, maps):
    adu = make_frame(maps, level=20.0, spots=0)
    adu[2, 45:] //= 10
    found = run(by_hand, adu, maps)
    assert_reference(found, reference(adu, maps))
    assert found.peak_count == 0
    assert (np.isfinite(found.mean) == (np.arange(RINGS) != 7)).all()


def test_an_offset_of_each_panel_is_taken_out(by_hand, maps):
    random = np.random.default_rng(3)
    gain = np.full(3, 1 / 30, np.float32)
    photons = random.poisson(1.0, size=SHAPE) + random.normal(scale=0.1, size=SHAPE)
    adu = (30 * photons).astype(np.float32)
    shifted = adu + np.array([6.0, -12.0, 3.0], np.float32)[:, None, None]
    how = HOW._replace(common_mode_share=0.02)
    one, other = (run(by_hand, frame, maps, how, gain) for frame in (adu, shifted))
    np.testing.assert_allclose(other.mean, one.mean, atol=0.01)
    assert np.nanmax(np.abs(run(by_hand, shifted, maps, gain=gain).mean - one.mean)) > 0.1


def test_a_gain_factor_that_is_told_changes_nothing(by_hand, maps):
    adu = make_frame(maps, dtype=np.float32)
    once, scaled = run(by_hand, adu, maps), run(by_hand, 16 * adu, maps, gain=GAIN / 16)
    assert_same(scaled, once, rtol=1e-6, atol=1e-6)


def test_peaks_are_told_in_photons_above_the_background(by_hand, maps):
    adu = make_frame(maps, spots=0)
    adu[1, 20:22, 30:32] += 4000
    found = run(by_hand, adu, maps)
    lit = maps.ring[1, 20:22, 30:32] >= 0
    ((panel, ss, fs, intensity, snr, size),) = found.peaks
    assert (panel, size) == (1, lit.sum())
    assert (ss, fs) == pytest.approx(np.add(np.argwhere(lit).mean(axis=0), (20, 30)), abs=0.05)
    assert intensity == pytest.approx((4000 * GAIN[1] * maps.correction[1, 20:22, 30:32])[lit].sum(), rel=0.01)
    assert snr > 100
    assert 0 < GROWTH < 1


def test_photons_and_residual_of_a_whole_frame_are_those_of_plain_numpy(by_hand, maps):
    adu = make_frame(maps, dtype=np.float32)
    adu.ravel()[maps.pixels.place[[7, 4000]]] = np.nan, np.inf
    how = HOW._replace(clip_high=3.0)
    mean, photons, residual = np.empty(RINGS), *np.full((2, SIZE), np.nan, np.float32)
    scratch = by_hand.scratch(maps.pixels, SHAPE, RINGS)
    subtract_rings(adu.ravel(), SHAPE, maps.pixels, AZIMUTHS, GAIN, how, scratch, mean, photons, residual)
    expected = np.where(maps.ring >= 0, adu.astype(float) * GAIN[:, None, None] * maps.correction, np.nan)
    expected[np.isinf(expected)] = np.nan
    np.testing.assert_allclose(photons.reshape(SHAPE), expected, rtol=1e-6)
    for number in range(RINGS):
        values = kept = expected[(maps.ring == number) & np.isfinite(expected)]
        for _ in range(3 if values.size else 0):
            off = values - kept.mean()
            kept = values[(off >= -5 * kept.std()) & (off <= max(3 * kept.std(), how.threshold))]
        assert mean[number] == pytest.approx(kept.mean() if kept.size else np.nan, rel=1e-6, nan_ok=True)
    np.testing.assert_allclose(residual.reshape(SHAPE), expected - mean[maps.ring], rtol=1e-5, atol=1e-4)
    assert not scratch.state.any()
