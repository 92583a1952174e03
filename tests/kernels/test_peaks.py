"""Bragg peaks, against labelling by SciPy and planted truth."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from diffdask.kernels.peaks import EXCLUDED, UNUSED, exclude_peaks, join_candidates, mark_candidates

PLAIN = {"snr": 6.0, "threshold": 5.0, "min_pixels": 2, "max_pixels": 30, "radius": 4}


def find_peaks(image, used=None, *, level=None, correction=None, wing=2, **how):
    """Peaks of (panel, ss, fs) photons on one ring of known level; (m, 6), the states and the candidates."""
    how = {**PLAIN, **how}
    flat = np.ascontiguousarray(image, dtype=np.float32).ravel()
    place = np.flatnonzero(np.ones(flat.size, bool) if used is None else used.ravel()).astype(np.int32)
    level = level or np.median(flat[place])
    ring = np.zeros(place.size, np.int32)
    correction = np.ones(place.size, np.float32) if correction is None else correction
    state, scratch = np.zeros(flat.size, np.uint8), np.empty(flat.size, np.float32)
    candidates, peaks = np.empty(place.size, np.int32), np.empty((500, 6))
    mean, deviation = np.array([level]), np.array([np.sqrt(level)])
    bright = mark_candidates(
        flat[place], place, ring, correction, mean, deviation, how["snr"], how["threshold"], state, scratch, candidates
    )
    found = join_candidates(
        candidates[:bright], image.shape, state, scratch, how["min_pixels"], how["max_pixels"], how["radius"],
        how["snr"], peaks,
    )  # fmt: skip
    exclude_peaks(candidates[:bright], image.shape, state, wing)
    return peaks[: min(found, 500)], state.reshape(image.shape), np.sort(candidates[:bright])


def noise(shape=(4, 60, 70), level=10.0, seed=0):
    return np.random.default_rng(seed).poisson(level, size=shape).astype(np.float32)


def plant(image, centres, photons=300.0, width=0.8):
    """Add Gaussian spots at (panel, ss, fs), coordinates being indices of pixel centres."""
    ss, fs = np.mgrid[: image.shape[1], : image.shape[2]]
    for panel, s, f in centres:
        spot = np.exp(-0.5 * ((ss - s) ** 2 + (fs - f) ** 2) / width**2) / (2 * np.pi * width**2)
        image[panel] += np.random.default_rng(int(panel * 1e6 + s * 1e3 + f)).poisson(photons * spot)
    return image


def spread_centres(seed=1):
    random = np.random.default_rng(seed)
    grid = [(p, s, f) for p in range(4) for s in range(8, 60, 14) for f in range(8, 70, 14)]
    return [(p, s + random.uniform(-1, 1), f + random.uniform(-1, 1)) for p, s, f in grid]


def reference_peaks(image, level, *, snr, threshold, min_pixels, max_pixels, radius):
    """Label candidates, eight neighbours joined, and test each against the square around its brightest pixel."""
    limit = max(snr * np.sqrt(level) + (snr**2 - 1) / 6, threshold)
    off = image.astype(np.float64) - level
    rows = []
    for panel, plane in enumerate(off):
        bright = plane > limit
        label, count = ndimage.label(bright, np.ones((3, 3)))
        for number in range(1, count + 1):
            where = np.argwhere(label == number)
            if not min_pixels <= len(where) <= max_pixels:
                continue
            s, f = where[np.argmax(plane[tuple(where.T)])]
            square = (slice(max(s - radius, 0), s + radius + 1), slice(max(f - radius, 0), f + radius + 1))
            around = plane[square][~bright[square]]
            if around.size < 2 * radius or plane[s, f] - around.mean() <= snr * around.std():
                continue
            weight = plane[tuple(where.T)] - around.mean()
            centre = weight @ where / weight.sum()
            snr_sum = weight.sum() / (around.std() * np.sqrt(len(where)))
            rows.append([panel, *centre, weight.sum(), snr_sum, len(where)])
    return np.array(rows)


@pytest.fixture(scope="module")
def crowded():
    return plant(noise(), spread_centres())


def test_peaks_are_those_of_labelling_by_scipy(crowded):
    found, _, _ = find_peaks(crowded, level=10.0)
    expected = reference_peaks(crowded, 10.0, **PLAIN)
    assert len(expected) > 50
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], rtol=1e-4)


def test_planted_peaks_are_found_where_they_were_planted(crowded):
    found, _, _ = find_peaks(crowded, level=10.0)
    planted = np.array(spread_centres())
    nearest = np.array([planted[np.argmin(np.abs(planted - peak[:3]).max(axis=1))] for peak in found])
    assert len(found) == len(planted), "every planted peak, and nothing else"
    assert len(np.unique(nearest, axis=0)) == len(planted)
    off = found[:, 1:3] - nearest[:, 1:]
    assert np.sqrt((off**2).mean()) < 0.15
    assert np.abs(off.mean(axis=0)).max() < 0.05, "no bias: pixel n has index n"


def test_the_centre_of_a_strong_peak_is_right_to_a_tenth_of_a_pixel():
    centres = spread_centres(2)
    found, _, _ = find_peaks(plant(noise(), centres, photons=20_000), level=10.0, max_pixels=60)
    planted = np.array(centres)
    assert len(found) == len(planted)
    assert (
        np.abs(found[np.lexsort(found[:, 2::-1].T)][:, 1:3] - planted[np.lexsort(planted[:, ::-1].T)][:, 1:]).max()
        < 0.1
    )


def test_the_intensity_of_a_peak_is_what_was_planted_but_for_its_wings(crowded):
    found, _, _ = find_peaks(plant(noise(level=1.0), spread_centres(), 3000), level=1.0)
    assert found[:, 3].mean() == pytest.approx(3000, rel=0.03)


@pytest.mark.parametrize("level", [0.02, 0.05, 0.2, 1.0, 5.0, 50.0])
def test_pure_counting_noise_of_a_whole_cspad_has_less_than_one_peak(level):
    image = noise((32, 185, 388), level, seed=int(level * 100))
    assert len(find_peaks(image, level=level)[0]) < 1


@pytest.mark.parametrize("level", [0.001, 0.01, 0.1])
def test_readout_noise_does_not_hide_peaks_in_dark_rings(level):
    """Deviation^2 / mean is then far above what a photon reads, and must not set the limit."""
    random = np.random.default_rng(5)
    image = plant(noise(level=level), spread_centres(), photons=100) + random.normal(scale=0.15, size=(4, 60, 70))
    flat = image.astype(np.float32).ravel()
    place = np.arange(flat.size, dtype=np.int32)
    ones, ring = np.ones(flat.size, np.float32), np.zeros(flat.size, np.int32)
    deviation = np.array([np.sqrt(level + 0.15**2)])
    state, scratch, candidates = np.zeros(flat.size, np.uint8), np.empty_like(flat), np.empty(flat.size, np.int32)
    bright = mark_candidates(
        flat, place, ring, ones, np.array([level]), deviation, 6.0, 5.0, state, scratch, candidates
    )
    peaks = np.empty((500, 6))
    found = join_candidates(candidates[:bright], image.shape, state, scratch, 2, 30, 4, 6.0, peaks)
    assert found == len(spread_centres())


@pytest.mark.parametrize(("name", "values"), [("threshold", (0, 10, 40, 80, 1e4)), ("snr", (3, 5, 8, 15, 100))])
def test_a_higher_limit_never_finds_more_candidates(crowded, name, values):
    bright = [set(find_peaks(crowded, level=10.0, **{name: value})[2].tolist()) for value in values]
    assert all(higher <= lower for lower, higher in itertools.pairwise(bright))
    assert len(bright[0]) > len(bright[-1]) == 0


@pytest.mark.parametrize(("name", "values"), [("threshold", (10, 40, 80, 1e4)), ("snr", (5, 8, 15, 100))])
def test_a_higher_limit_never_finds_more_separate_peaks(crowded, name, values):
    counts = [len(find_peaks(crowded, level=10.0, min_pixels=1, **{name: value})[0]) for value in values]
    assert counts == sorted(counts, reverse=True)


def test_peaks_have_the_size_that_was_asked_for(crowded):
    sizes = find_peaks(crowded, level=10.0, min_pixels=1)[0][:, 5]
    chosen = find_peaks(crowded, level=10.0, min_pixels=4, max_pixels=5)[0][:, 5]
    assert sizes.min() < 4
    assert sizes.max() > 5
    assert set(chosen) == {4, 5}
    assert len(chosen) == ((sizes >= 4) & (sizes <= 5)).sum()


def test_peaks_never_cross_panels_and_never_wrap_around():
    image = np.full((3, 20, 20), 10.0)
    image += noise(image.shape, 1.0) - 1
    image[0, -1, 5:7] = image[1, 0, 5:7] = 500  # neighbours in memory
    image[1, 10, -2:] = image[1, 11, :2] = 500  # the end of a row and the start of the next
    peaks, _, _ = find_peaks(image, level=10.0, max_pixels=3)
    assert sorted(map(tuple, peaks[:, [0, 5]].tolist())) == [(0, 2), (1, 2), (1, 2), (1, 2)]


def test_permuting_panels_permutes_peaks(crowded):
    order = [2, 0, 3, 1]
    straight, shuffled = find_peaks(crowded, level=10.0)[0], find_peaks(crowded[order], level=10.0)[0]
    shuffled[:, 0] = np.array(order)[shuffled[:, 0].astype(int)]
    np.testing.assert_allclose(
        shuffled[np.lexsort(shuffled[:, 2::-1].T)], straight[np.lexsort(straight[:, 2::-1].T)], rtol=1e-9
    )


def test_pixels_that_are_not_used_are_neither_peaks_nor_neighbourhood(crowded):
    used = np.random.default_rng(3).uniform(size=crowded.shape) > 0.1
    spoilt = np.where(used, crowded, 1e9)
    found, state, candidates = find_peaks(spoilt, used, level=10.0)
    np.testing.assert_array_equal(found, find_peaks(np.where(used, crowded, -1e9), used, level=10.0)[0])
    assert used.ravel()[candidates].all()
    assert (state[~used] == UNUSED).all()


def test_a_lonely_peak_without_a_neighbourhood_is_not_judged():
    used = np.zeros((1, 30, 30), bool)
    used[0, 10, 10:12] = True
    image = np.full((1, 30, 30), 10.0)
    image[0, 10, 10:12] = 900
    assert len(find_peaks(image, used, level=10.0)[0]) == 0


def test_nan_is_no_candidate_and_a_ring_without_an_estimate_has_none():
    image = noise((1, 30, 30))
    image[0, 3, 3:6] = np.nan
    assert len(find_peaks(image, level=10.0)[0]) == 0
    image[0, 10, 10:12] = 900
    assert len(find_peaks(image, level=10.0)[0]) == 1
    assert len(find_peaks(image, level=np.nan)[2]) == 0


def test_the_wings_of_bright_pixels_are_excluded_and_nothing_else():
    image = np.full((2, 20, 20), 10.0)
    image[0, 5, 5] = image[0, 0, 19] = image[1, 12, 18] = 900
    used = np.ones(image.shape, bool)
    used[1, 12, 17] = False
    _, state, _ = find_peaks(image, used, level=10.0, wing=2)
    expected = ndimage.maximum_filter(image == 900, size=(1, 5, 5), mode="constant") & used
    np.testing.assert_array_equal(state == EXCLUDED, expected)


def test_more_peaks_than_there_is_room_for_are_counted(crowded):
    flat = crowded.ravel()
    ones, ring = np.ones(flat.size, np.float32), np.zeros(flat.size, np.int32)
    state, scratch, candidates = np.zeros(flat.size, np.uint8), np.empty_like(flat), np.empty(flat.size, np.int32)
    bright = mark_candidates(
        flat, np.arange(flat.size, dtype=np.int32), ring, ones, np.array([10.0]), np.array([np.sqrt(10.0)]),
        6.0, 5.0, state, scratch, candidates,
    )  # fmt: skip
    peaks = np.full((3, 6), -1.0)
    found = join_candidates(candidates[:bright], crowded.shape, state, scratch, 2, 30, 4, 6.0, peaks)
    assert found == len(find_peaks(crowded, level=10.0)[0])
    assert (peaks[:, 3] > 0).all()
