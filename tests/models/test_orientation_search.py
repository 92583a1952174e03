"""Orientations found from a map alone: frames cut from a made-up map must be found where they were cut."""

import numpy as np
import pytest

from diffdask.errors import BadParameter
from diffdask.kernels.orientations import cut_slice
from diffdask.kernels.volume import locate_voxels
from diffdask.models.chance import set_against_chance
from diffdask.models.orientation_grid import judge_orientations, make_orientation_grid, measure_misorientation
from diffdask.models.orientation_search import (
    TWISTS,
    OrientationSearch,
    centre_rings,
    cut_slices,
    twist_rings,
)
from diffdask.symmetry import cartesian_rotations, laue_rotations

SIZE, STEP, AZIMUTHS, WAVELENGTH = 71, 0.04, 36, 1.3
RING_Q = np.linspace(0.3, 1.3, 26)
MMM = laue_rotations("mmm").astype(float)
CELLS = {
    "-1": np.diag([0.010, 0.013, 0.017]),
    "2/m": np.diag([0.010, 0.013, 0.017]),
    "4/mmm": np.diag([0.010, 0.010, 0.017]),
    "6/m": np.array([[0.01, 0, 0], [0.005, 0.005 * np.sqrt(3), 0], [0, 0, 0.017]]),
    "m-3m": np.diag([0.01, 0.01, 0.01]),
}


def random_rotations(count: int, seed: int) -> np.ndarray:
    quaternion = np.random.default_rng(seed).normal(size=(count, 4))
    w, x, y, z = (quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.ascontiguousarray(np.array(rows).transpose(2, 0, 1))


def make_map(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A reduced map of mmm: in the octant that stands for all, blobs a few voxels wide."""
    spectrum = np.fft.rfftn(np.random.default_rng(seed).normal(size=(SIZE, SIZE, SIZE)))
    frequency = np.fft.fftfreq(SIZE)[:, None, None] ** 2 + np.fft.fftfreq(SIZE)[:, None] ** 2
    blur = np.exp(-2 * (np.pi * 1.5) ** 2 * (frequency + np.fft.rfftfreq(SIZE) ** 2))
    values = np.fft.irfftn(spectrum * blur, s=(SIZE, SIZE, SIZE), axes=(0, 1, 2))
    octant = np.zeros((SIZE, SIZE, SIZE))
    octant[SIZE // 2 :, SIZE // 2 :, SIZE // 2 :] = 1.0
    return (octant * values / values.std()).ravel(), octant.ravel()


def make_search(**options) -> OrientationSearch:
    search = OrientationSearch(**{"count": 9000, "prior": 0.0, "smoothing": 0.03, **options})
    sampling = {"ring_q": RING_Q, "azimuths": AZIMUTHS, "wavelength": WAVELENGTH}
    return search.fit(*make_map(), rotations=MMM, step=STEP, size=SIZE, **sampling)


@pytest.fixture(scope="module")
def search() -> OrientationSearch:
    return make_search()


def cut(search: OrientationSearch, rotations: np.ndarray) -> np.ndarray:
    return cut_slices(search.density_, STEP, rotations, WAVELENGTH, RING_Q, AZIMUTHS)


def find(search: OrientationSearch, frames: np.ndarray):
    return search.search(frames, np.full(len(frames), WAVELENGTH))


def noise(count: int, seed: int) -> np.ndarray:
    shape = count, len(RING_Q), AZIMUTHS
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("group", CELLS)
@pytest.mark.parametrize("count", [3000, 20_000])
def test_no_orientation_is_farther_from_the_grid_than_it_says(group, count):
    rotations = cartesian_rotations(laue_rotations(group), CELLS[group])
    grid = make_orientation_grid(count, rotations, turns=36)
    assert len(grid) == pytest.approx(count, rel=0.1)
    members = grid.at(*np.divmod(np.arange(len(grid)), grid.turns)).reshape(len(grid), 9)
    for rotation in random_rotations(150, seed=1):
        trace = max((members @ (turn @ rotation).ravel()).max() for turn in rotations)
        assert np.degrees(np.arccos(min((trace - 1) / 2, 1))) <= grid.covering_angle


@pytest.mark.parametrize("group", CELLS)
def test_no_two_directions_of_the_grid_are_mates(group):
    rotations = cartesian_rotations(laue_rotations(group), CELLS[group])
    beams = make_orientation_grid(7200, rotations, turns=36).directions[:, :, 2]
    for turn in rotations[1:]:
        assert np.max(beams @ (beams @ turn.T).T) < 1 - 1e-6 or np.allclose(turn, np.eye(3))


def test_a_turn_moves_the_bins_of_a_frame_in_a_circle(search):
    turned = cut(search, search.grid_.at(np.full(3, 5), np.array([0, 1, 7])))
    for frame, turn in zip(turned, (0, 1, 7), strict=True):
        moved = np.roll(turned[0], -turn, axis=1)
        assert np.mean(np.isclose(frame, moved, atol=1e-5)) > 0.99  # rounding may choose another voxel


def test_a_slice_reads_the_voxels_in_which_frames_are_merged():
    flat = np.arange(SIZE**3, dtype=np.float32).reshape(SIZE, SIZE, SIZE)
    voxels, found = np.empty((26, AZIMUTHS), np.int32), np.empty((26, AZIMUTHS), np.float32)
    for rotation in random_rotations(5, seed=2):
        locate_voxels(rotation, WAVELENGTH, RING_Q, AZIMUTHS, np.eye(3)[None], False, STEP, SIZE, voxels)
        cut_slice(flat, STEP, rotation, WAVELENGTH, RING_Q, found)
        assert np.array_equal(found, voxels)


def test_a_slice_is_found_where_it_was_cut(search):
    rotations = random_rotations(40, seed=3)
    found = find(search, cut(search, rotations))
    share, median = judge_orientations(found.rotation, rotations, MMM)
    assert share == 1.0
    assert median < 0.5
    assert np.all(found.score / np.sqrt(found.samples) > 0.93)
    assert np.all(found.grid_score > found.runner_up)


def test_a_frame_in_strong_noise_is_found(search):
    rotations = random_rotations(40, seed=4)
    found = find(search, 0.6 * cut(search, rotations) + noise(40, seed=4))
    share, median = judge_orientations(found.rotation, rotations, MMM)
    assert share >= 0.95
    assert median < 1.5


def test_laue_mates_are_found_alike(search):
    rotations = random_rotations(12, seed=5)
    found = find(search, cut(search, rotations))
    for turn in MMM[1:]:
        mates = find(search, cut(search, turn @ rotations))
        assert np.allclose(mates.score, found.score, rtol=0.02)
        assert np.all(measure_misorientation(mates.rotation, found.rotation, MMM) < 1.0)


def test_the_mirror_image_of_a_frame_is_a_frame_from_the_other_side(search):
    rotations = random_rotations(12, seed=6)
    mirrored = cut(search, rotations)[:, :, ::-1]  # azimuth to minus azimuth
    found = find(search, mirrored)
    other_side = rotations @ np.diag([-1.0, 1.0, -1.0])
    assert np.all(measure_misorientation(found.rotation, other_side, MMM) < 1.5)


def test_missing_bins_are_left_out(search):
    rotations = random_rotations(12, seed=7)
    frames = cut(search, rotations)
    frames[np.random.default_rng(7).random(frames.shape) < 0.3] = np.nan
    frames[:, 5:9], frames[:, :, 3:10] = np.nan, np.nan
    found = find(search, frames)
    assert judge_orientations(found.rotation, rotations, MMM)[0] == 1.0
    assert np.all(found.samples <= np.isfinite(frames).sum(axis=(1, 2)))
    assert np.all(found.score / np.sqrt(found.samples) > 0.93)


def test_what_stands_on_missing_bins_of_others_does_not_matter(search):
    frames = noise(3, seed=8)
    frames[0] = np.nan
    frames[1] = 0.0
    found = find(search, frames)
    assert np.isnan(found.score).tolist() == [True, True, False]
    assert np.isnan(found.rotation[:2]).all()
    assert found.samples[:2].tolist() == [0, 0]
    assert found.score[2] == pytest.approx(find(search, frames[2:]).score[0])


def test_refinement_improves_score_and_orientation(search):
    rotations = random_rotations(30, seed=9)
    frames = cut(search, rotations) + 0.5 * noise(30, seed=9)
    refined, raw = find(search, frames), find(make_search(last_angle=0.0), frames)
    assert np.all(refined.score >= raw.score)
    before, after = (measure_misorientation(found.rotation, rotations, MMM) for found in (raw, refined))
    assert np.median(after) < 0.5 * np.median(before)


def test_more_candidates_never_fit_worse(search):
    frames = cut(search, random_rotations(10, seed=10)) + 2.0 * noise(10, seed=10)
    few, many = find(make_search(candidates=1), frames), find(make_search(candidates=6), frames)
    assert np.all(many.score >= few.score)


def test_blocks_do_not_matter_and_nothing_is_drawn(search):
    frames = cut(search, random_rotations(70, seed=11)) + noise(70, seed=11)
    whole, again = find(search, frames), find(make_search(), frames)
    parts = [find(search, frames[start:stop]) for start, stop in ((0, 9), (9, 70))]
    for name in ("rotation", "score", "runner_up", "grid_spread"):
        assert np.array_equal(getattr(whole, name), getattr(again, name))
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert np.allclose(getattr(whole, name), joined, rtol=1e-4)


def test_the_grid_compares_as_slices_turned_one_by_one_do(search):
    frames = centre_rings(noise(2, seed=12))
    frames[:, 3, 4:15] = np.nan
    slices = np.nan_to_num(cut(search, search.grid_.directions))
    is_there = np.isfinite(frames)
    found = find(search, frames)
    for row, frame in enumerate(centre_rings(frames)):
        fits = []
        for turn in range(AZIMUTHS):
            turned = np.where(is_there[row], np.roll(slices, -turn, axis=2), 0.0)
            products = (turned * np.nan_to_num(frame)).sum(axis=(1, 2))
            fits.append(products / np.sqrt((turned**2).sum(axis=(1, 2))))
        rms = np.sqrt(np.nanmean(frame**2))
        assert found.grid_score[row] == pytest.approx(np.max(fits) / rms, rel=1e-4)
        assert found.grid_mean[row] == pytest.approx(np.mean(fits) / rms, abs=1e-3)
        assert found.grid_spread[row] == pytest.approx(np.std(fits) / rms, rel=1e-3)


def test_twisted_frames_keep_their_rings_and_lose_their_orientation(search):
    frames = cut(search, random_rotations(12, seed=13))
    for bins in TWISTS:
        twisted = twist_rings(frames, bins)
        assert np.array_equal(np.sort(twisted, axis=2), np.sort(frames, axis=2), equal_nan=True)
        assert np.array_equal(twist_rings(twisted, -bins), frames, equal_nan=True)
        assert np.all(find(search, twisted).score < 0.6 * find(search, frames).score)


def test_noise_is_as_significant_as_twisted_noise_and_a_signal_is_not(search):
    frames = noise(120, seed=14)
    frames[:20] += cut(search, random_rotations(20, seed=14))
    null = np.concatenate([find(search, twist_rings(frames, bins)).score for bins in TWISTS])
    significance, p_value = set_against_chance(find(search, frames).score, null)
    assert np.all(significance[:20] > 5)
    assert np.all(p_value[:20] == 1 / 241)
    assert abs(np.median(significance[20:])) < 0.5
    assert 0.4 < np.mean(p_value[20:]) < 0.65


def test_scores_without_a_null_have_no_significance():
    significance, p_value = set_against_chance(np.array([3.0, np.nan]), np.array([np.nan, 1.0]))
    assert np.isnan(significance).all()
    assert np.isnan(p_value).all()


def test_judging_leaves_out_what_is_not_known():
    known = random_rotations(4, seed=15)
    found = MMM[[1, 2, 3, 0]] @ known
    found[1], found[2] = np.nan, known[2] @ np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    share, median = judge_orientations(found, known, MMM)
    assert share == pytest.approx(2 / 3)
    assert median < 1e-4
    assert np.isnan(judge_orientations(np.full((2, 3, 3), np.nan), known[:2], MMM)).all()


def test_what_makes_no_sense_is_refused(search):
    with pytest.raises(BadParameter, match=r"frames of \(25, 36\) rings"):
        search.search(np.zeros((1, 25, AZIMUTHS), np.float32), np.ones(1))
    sampling = {"ring_q": RING_Q, "azimuths": AZIMUTHS, "wavelength": WAVELENGTH}
    empty = np.zeros((2, SIZE**3))
    with pytest.raises(BadParameter, match="the map is empty"):
        OrientationSearch().fit(*empty, rotations=MMM, step=STEP, size=SIZE, **sampling)
    with pytest.raises(BadParameter, match=r"count=10.*at least 36"):
        make_search(count=10)
