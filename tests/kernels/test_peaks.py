"""Bragg peaks, against labelling by SciPy and planted truth."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from diffdask.kernels.peaks import CANDIDATE, GROWTH, TAKEN, UNSEEN, join_candidates
from diffdask.kernels.residual import Screening

PLAIN = {"snr": 6.0, "threshold": 5.0, "min_pixels": 2, "max_pixels": 30, "radius": 4}


def make_finder(by_hand, dtype):
    def find(image, used=None, *, level=None, deviation=None, room=500, **how):
        """Peaks of (panel, ss, fs) photons on one ring of known level: (m, 6), the states and the candidates."""
        how = {**PLAIN, **how}
        image = np.ascontiguousarray(image, dtype=dtype)
        used = np.ones(image.shape, bool) if used is None else used
        level = level or np.median(image[used])
        deviation = deviation or np.sqrt(level)
        pixels = by_hand(np.where(used, 0, -1), rings=1)
        is_bright = used & (image.astype(float) - level > limit_of(level, deviation, how["snr"], how["threshold"]))
        candidates = np.flatnonzero(is_bright).astype(np.int32)
        state = np.where(is_bright, CANDIDATE, UNSEEN).astype(np.uint8).ravel()
        peaks = np.full((room, 6), -1.0)
        none, one = np.zeros(len(image), np.float32), np.ones(len(image), np.float32)
        found = join_candidates(
            image.ravel(), image.shape, pixels, none, one, np.array([level]), np.array([deviation]), candidates, state,
            Screening(-1.0, 5.0, 5.0, 3, 20, **how), peaks,
        )  # fmt: skip
        return peaks[: min(found, room)], state.reshape(image.shape), candidates, found

    return find


@pytest.fixture
def find_peaks(by_hand):
    """What finds peaks in an image."""
    return make_finder(by_hand, np.float32)


def limit_of(level, deviation, snr, threshold):
    """Photons above the ring that a candidate exceeds where a photon reads one."""
    with np.errstate(invalid="ignore"):
        quantum = min(deviation**2 / level, 1.0)
        return np.maximum(snr * deviation + (snr**2 - 1) / 6 * quantum, threshold)


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
    """Label candidates, eight neighbours joined, let neighbours join, and test against the square around the brightest.

    What joins belongs to the peak that comes first in memory, and is no neighbourhood to those after it.
    """
    off = image.astype(np.float64) - level
    rows = []
    for panel, plane in enumerate(off):
        bright = plane > limit_of(level, np.sqrt(level), snr, threshold)
        label, count = ndimage.label(bright, np.ones((3, 3)))
        taken = bright.copy()
        for number in range(1, count + 1):
            near = ndimage.binary_dilation(label == number, np.ones((3, 3)))
            joins = near & ~taken & (plane > GROWTH * snr * np.sqrt(level))
            taken |= joins
            where = np.argwhere(joins | (label == number))
            if not min_pixels <= len(where) <= max_pixels:
                continue
            s, f = where[np.argmax(plane[tuple(where.T)])]
            square = (slice(max(s - radius, 0), s + radius + 1), slice(max(f - radius, 0), f + radius + 1))
            around = plane[square][~taken[square]]
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


def test_peaks_are_those_of_labelling_by_scipy(find_peaks, crowded):
    found, *_ = find_peaks(crowded, level=10.0)
    expected = reference_peaks(crowded, 10.0, **PLAIN)
    assert len(expected) > 50
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], rtol=1e-4)


def test_planted_peaks_are_found_where_they_were_planted(find_peaks, crowded):
    found, *_ = find_peaks(crowded, level=10.0)
    planted = np.array(spread_centres())
    nearest = np.array([planted[np.argmin(np.abs(planted - peak[:3]).max(axis=1))] for peak in found])
    assert len(found) == len(planted), "every planted peak, and nothing else"
    assert len(np.unique(nearest, axis=0)) == len(planted)
    off = found[:, 1:3] - nearest[:, 1:]
    assert np.sqrt((off**2).mean()) < 0.15
    assert np.abs(off.mean(axis=0)).max() < 0.05, "no bias: pixel n has index n"


def test_the_centre_of_a_strong_peak_is_right_to_a_tenth_of_a_pixel(find_peaks):
    centres = spread_centres(2)
    found, *_ = find_peaks(plant(noise(), centres, photons=20_000), level=10.0, max_pixels=60)
    planted = np.array(centres)
    assert len(found) == len(planted)
    assert (
        np.abs(found[np.lexsort(found[:, 2::-1].T)][:, 1:3] - planted[np.lexsort(planted[:, ::-1].T)][:, 1:]).max()
        < 0.1
    )


def test_the_intensity_of_a_peak_is_what_was_planted_but_for_its_wings(find_peaks, crowded):
    found, *_ = find_peaks(plant(noise(level=1.0), spread_centres(), 3000), level=1.0)
    assert found[:, 3].mean() == pytest.approx(3000, rel=0.03)


@pytest.mark.parametrize("level", [0.02, 0.05, 0.2, 1.0, 5.0, 50.0])
def test_pure_counting_noise_of_a_whole_cspad_has_less_than_one_peak(find_peaks, level):
    image = noise((32, 185, 388), level, seed=int(level * 100))
    assert len(find_peaks(image, level=level)[0]) < 1


@pytest.mark.parametrize("level", [0.001, 0.01, 0.1])
def test_readout_noise_does_not_hide_peaks_in_dark_rings(find_peaks, level):
    """Deviation^2 / mean is then far above what a photon reads, and must not set the limit."""
    random = np.random.default_rng(5)
    image = plant(noise(level=level), spread_centres(), photons=100) + random.normal(scale=0.15, size=(4, 60, 70))
    found = find_peaks(image, level=level, deviation=np.sqrt(level + 0.15**2))[0]
    assert len(found) == len(spread_centres())


@pytest.mark.parametrize(("name", "values"), [("threshold", (0, 10, 40, 80, 1e4)), ("snr", (3, 5, 8, 15, 100))])
def test_a_higher_limit_never_finds_more_candidates(find_peaks, crowded, name, values):
    bright = [set(find_peaks(crowded, level=10.0, **{name: value})[2].tolist()) for value in values]
    assert all(higher <= lower for lower, higher in itertools.pairwise(bright))
    assert len(bright[0]) > len(bright[-1]) == 0


@pytest.mark.parametrize(("name", "values"), [("threshold", (10, 40, 80, 1e4)), ("snr", (5, 8, 15, 100))])
def test_a_higher_limit_never_finds_more_separate_peaks(find_peaks, crowded, name, values):
    counts = [len(find_peaks(crowded, level=10.0, min_pixels=1, **{name: value})[0]) for value in values]
    assert counts == sorted(counts, reverse=True)


def test_peaks_have_the_size_that_was_asked_for(find_peaks, crowded):
    sizes = find_peaks(crowded, level=10.0, min_pixels=1)[0][:, 5]
    chosen = find_peaks(crowded, level=10.0, min_pixels=6, max_pixels=7)[0][:, 5]
    assert sizes.min() < 6
    assert sizes.max() > 7
    assert set(chosen) == {6, 7}
    assert len(chosen) == ((sizes >= 6) & (sizes <= 7)).sum()


def test_peaks_never_cross_panels_and_never_wrap_around(find_peaks):
    image = np.full((3, 20, 20), 10.0)
    image += noise(image.shape, 1.0) - 1
    image[0, -1, 5:7] = image[1, 0, 5:7] = 500  # neighbours in memory
    image[1, 10, -2:] = image[1, 11, :2] = 500  # the end of a row and the start of the next
    peaks, *_ = find_peaks(image, level=10.0, max_pixels=3)
    assert sorted(map(tuple, peaks[:, [0, 5]].tolist())) == [(0, 2), (1, 2), (1, 2), (1, 2)]


def test_permuting_panels_permutes_peaks(find_peaks, crowded):
    order = [2, 0, 3, 1]
    straight, shuffled = find_peaks(crowded, level=10.0)[0], find_peaks(crowded[order], level=10.0)[0]
    shuffled[:, 0] = np.array(order)[shuffled[:, 0].astype(int)]
    np.testing.assert_allclose(
        shuffled[np.lexsort(shuffled[:, 2::-1].T)], straight[np.lexsort(straight[:, 2::-1].T)], rtol=1e-9
    )


def test_pixels_that_are_not_used_are_neither_peaks_nor_neighbourhood(find_peaks, crowded):
    used = np.random.default_rng(3).uniform(size=crowded.shape) > 0.1
    spoilt = np.where(used, crowded, 1e9)
    found, state, candidates, _ = find_peaks(spoilt, used, level=10.0)
    np.testing.assert_array_equal(found, find_peaks(np.where(used, crowded, -1e9), used, level=10.0)[0])
    assert used.ravel()[candidates].all()
    assert (state[~used] == UNSEEN).all()


def test_a_lonely_peak_without_a_neighbourhood_is_not_judged(find_peaks):
    used = np.zeros((1, 30, 30), bool)
    used[0, 10, 10:12] = True
    image = np.full((1, 30, 30), 10.0)
    image[0, 10, 10:12] = 900
    assert len(find_peaks(image, used, level=10.0)[0]) == 0


def test_nan_is_no_candidate_and_a_ring_without_an_estimate_has_none(find_peaks):
    image = noise((1, 30, 30))
    image[0, 3, 3:6] = np.nan
    assert len(find_peaks(image, level=10.0)[0]) == 0
    image[0, 10, 10:12] = 900
    assert len(find_peaks(image, level=10.0)[0]) == 1
    assert len(find_peaks(image, level=np.nan)[2]) == 0


def test_after_the_search_candidates_and_what_joined_them_are_taken_and_nothing_else(find_peaks, crowded):
    _, state, candidates, _ = find_peaks(crowded, level=10.0)
    bright = np.zeros(crowded.shape, bool)
    bright.ravel()[candidates] = True
    near = ndimage.binary_dilation(bright, np.ones((1, 3, 3))) & (crowded - 10 > GROWTH * 6 * np.sqrt(10))
    assert near.sum() > bright.sum()
    np.testing.assert_array_equal(state, np.where(near | bright, TAKEN, UNSEEN))


def test_neighbours_nearly_as_bright_join_a_peak_and_their_neighbours_do_not(find_peaks):
    image = np.where(np.indices((1, 30, 30)).sum(axis=0) % 2, 10.5, 9.5)
    image[0, 10, 10], image[0, 10, 11:15] = 200, 10 + 0.75 * 6 * np.sqrt(10)
    image[0, 20, 10], image[0, 20, 11] = 200, 10 + 0.65 * 6 * np.sqrt(10)
    sizes = find_peaks(image, level=10.0, min_pixels=1)[0][:, 5]
    assert sizes.tolist() == [2, 1]


def test_more_peaks_than_there_is_room_for_are_counted(find_peaks, crowded):
    peaks, _, _, found = find_peaks(crowded, level=10.0, room=3)
    everything = find_peaks(crowded, level=10.0)[0]
    assert found == len(everything) > 3
    np.testing.assert_array_equal(peaks, everything[:3])
    assert find_peaks(crowded, level=10.0, room=0)[3] == found


@pytest.mark.parametrize("size", [6, 40])
def test_a_bright_patch_of_more_than_max_pixels_is_one_patch_and_no_peak(find_peaks, size):
    image = noise((2, 60, 70))
    image[0, 5 : 5 + size, 8 : 8 + size] = 5000
    image[1, 20:22, 20:22] = 5000
    peaks, state, _, found = find_peaks(image, level=10.0, max_pixels=30)
    assert found == 1
    assert peaks[0, :3].tolist() == pytest.approx([1, 20.5, 20.5], abs=0.1)
    assert (state[0, 5 : 5 + size, 8 : 8 + size] == TAKEN).all()
    assert find_peaks(image, level=10.0, max_pixels=size**2 - 1, radius=size)[3] == 1
    assert find_peaks(image, level=10.0, max_pixels=size**2 + 9, radius=size)[3] == 2


@pytest.mark.parametrize("corner", list(itertools.product((0, -2), (0, -2))))
def test_a_peak_in_the_corner_of_a_panel_is_a_peak(find_peaks, corner):
    image = noise((3, 20, 24))
    rows, columns = (np.arange(2) + start for start in corner)
    for panel in range(3):
        image[panel, rows[:, None], columns] = 500
    peaks, *_ = find_peaks(image, level=10.0)
    expected = [(panel, rows[0] % 20 + 0.5, columns[0] % 24 + 0.5) for panel in range(3)]
    np.testing.assert_allclose(peaks[:, :3], expected, atol=0.15)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.float64])
def test_every_type_of_readout_gives_the_same_peaks(by_hand, find_peaks, crowded, dtype):
    same = make_finder(by_hand, dtype)(crowded, level=10.0)[0]
    np.testing.assert_array_equal(same, find_peaks(crowded, level=10.0)[0])
