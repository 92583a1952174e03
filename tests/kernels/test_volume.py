import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from diffdask.kernels.volume import (
    add_frame,
    compare_borrowed,
    compare_frames,
    compare_with_map,
    expand_map,
    locate_voxels,
    remove_frame,
)
from diffdask.symmetry import cartesian_rotations, laue_rotations

STEP, SIZE, AZIMUTHS, WAVELENGTH = 0.06, 91, 72, 1.3
RING_Q = np.linspace(0.5, 2.5, 40)
ORTHORHOMBIC = np.diag([0.011, 0.017, 0.023])
HEXAGONAL = np.linalg.cholesky(1e-4 * np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.3]]))
GROUPS = [("-1", ORTHORHOMBIC), ("mmm", ORTHORHOMBIC), ("4/mmm", np.diag([0.01, 0.01, 0.02])), ("6/m", HEXAGONAL)]


def rotations_of(group, cell):
    return cartesian_rotations(laue_rotations(group), cell)


def turn(seed):
    return Rotation.random(rng=np.random.default_rng(seed)).as_matrix()


def locate(rotation, rotations, friedel=True, *, wavelength=WAVELENGTH, step=STEP, size=SIZE):
    voxels = np.empty((RING_Q.size, AZIMUTHS), np.int32)
    locate_voxels(rotation, wavelength, RING_Q, AZIMUTHS, rotations, friedel, step, size, voxels)
    return voxels


def points(rotation, wavelength=WAVELENGTH):
    """Bins' centres in the crystal's frame, from the rays themselves: (r, a, 3) 1/angstrom."""
    angle = 2 * np.arcsin(RING_Q * wavelength / (4 * math.pi))[:, None]
    azimuth = (np.arange(AZIMUTHS) + 0.5) * 2 * math.pi / AZIMUTHS
    ray = np.stack(
        np.broadcast_arrays(np.sin(angle) * np.cos(azimuth), np.sin(angle) * np.sin(azimuth), np.cos(angle)), axis=-1
    )
    return 2 * math.pi / wavelength * (ray - [0.0, 0.0, 1.0]) @ rotation.T


def empty_map():
    return np.zeros(SIZE**3), np.zeros(SIZE**3)


def make_values(seed, missing=0.1):
    random = np.random.default_rng(seed)
    values = random.normal(size=(RING_Q.size, AZIMUTHS)).astype(np.float32)
    values[random.random(values.shape) < missing] = np.nan
    return values


@pytest.mark.parametrize(("group", "cell"), GROUPS)
def test_a_bin_lies_in_a_voxel_of_one_of_its_mates(group, cell):
    rotations = rotations_of(group, cell)
    found = np.stack(np.unravel_index(locate(turn(0), rotations), (SIZE,) * 3), axis=-1) - SIZE // 2
    mates = np.einsum("gij,raj->grai", np.concatenate([rotations, -rotations]), points(turn(0)))
    distance = np.abs(mates - found * STEP).max(axis=-1).min(axis=0)
    assert distance.max() <= STEP / 2 + 1e-9


def test_without_symmetry_a_bin_lies_in_its_own_voxel():
    found = locate(turn(1), np.eye(3)[None], friedel=False)
    own = np.rint(points(turn(1)) / STEP).astype(int) + SIZE // 2
    np.testing.assert_array_equal(found, np.ravel_multi_index(tuple(np.moveaxis(own, -1, 0)), (SIZE,) * 3))


@pytest.mark.parametrize(("group", "cell"), GROUPS)
def test_mates_of_an_orientation_land_in_the_same_voxels(group, cell):
    rotations = rotations_of(group, cell)
    first = locate(turn(2), rotations)
    for rotation in rotations:
        np.testing.assert_array_equal(locate(rotation @ turn(2), rotations), first)


@pytest.mark.parametrize("group", ["-1", "mmm"])
def test_friedel_mates_share_a_voxel(group):
    rotations = rotations_of(group, ORTHORHOMBIC)
    # Inversion is no rotation, but the voxels of -q are those of a frame whose axes are inverted.
    np.testing.assert_array_equal(locate(-turn(3), rotations), locate(turn(3), rotations))
    assert (locate(-turn(3), rotations, friedel=False) != locate(turn(3), rotations, friedel=False)).any()


def test_what_is_outside_or_not_indexed_has_no_voxel():
    identity = np.eye(3)[None]
    voxels = locate(turn(4), identity, size=41)
    is_inside = np.abs(np.rint(points(turn(4)) / STEP)).max(axis=-1) <= 20
    np.testing.assert_array_equal(voxels >= 0, is_inside)
    assert (locate(np.full((3, 3), np.nan), identity) == -1).all()
    beyond = locate(turn(4), identity, wavelength=8.0)
    np.testing.assert_array_equal((beyond == -1).all(axis=1), RING_Q * 8.0 / (4 * math.pi) >= 1.0)


def test_a_frame_alone_in_its_map_is_compared_with_nothing():
    values, voxels = make_values(0), locate(turn(0), rotations_of("mmm", ORTHORHOMBIC))
    sums, weights = empty_map()
    add_frame(values, voxels, 0.37, sums, weights)
    assert np.unique(voxels).size < voxels.size  # several bins do share a voxel
    own = np.zeros((2, SIZE**3))
    assert compare_with_map(values, voxels, 0.37, sums, weights, 0.0, own) == (0.0, 0.0, 0.0, 0)
    assert not own.any()


def test_a_comparison_is_one_with_the_map_of_the_others():
    rotations = rotations_of("mmm", ORTHORHOMBIC)
    frames = [(make_values(seed), locate(turn(seed), rotations)) for seed in range(6)]
    merged, others = empty_map(), empty_map()
    for number, frame in enumerate(frames):
        add_frame(*frame, 0.1 + number, *merged)
        if number != 2:
            add_frame(*frame, 0.1 + number, *others)
    own = np.zeros((2, SIZE**3))
    found = compare_with_map(*frames[2], 2.1, *merged, 0.5, own)
    np.testing.assert_allclose(found, compare_with_map(*frames[2], 0.0, *others, 0.5, own), rtol=1e-9)
    values, voxels = frames[2]
    is_seen = ~np.isnan(values) & (others[1][voxels] > 0)
    x, y = values[is_seen].astype(float), (others[0] / (others[1] + 0.5))[voxels[is_seen]]
    np.testing.assert_allclose(found, [(x * y).sum(), (x * x).sum(), (y * y).sum(), is_seen.sum()], rtol=1e-9)
    remove_frame(*frames[2], 2.1, *merged)
    np.testing.assert_allclose(merged, others, atol=1e-12)


def test_whole_numbers_leave_no_trace_and_their_order_does_not_matter():
    rotations = rotations_of("4/mmm", GROUPS[2][1])
    frames = [(np.rint(64 * make_values(seed)) / 64, locate(turn(seed), rotations)) for seed in range(4)]
    one, other = empty_map(), empty_map()
    for values, voxels in frames:
        add_frame(values, voxels, 0.75, *one)
    for values, voxels in frames[::-1]:
        add_frame(values, voxels, 0.75, *other)
    np.testing.assert_array_equal(one, other)
    for values, voxels in frames:
        remove_frame(values, voxels, 0.75, *one)
    assert not np.any(one)


def test_a_borrowed_orientation_meets_neither_the_frame_nor_its_lender():
    rotations = rotations_of("mmm", ORTHORHOMBIC)
    values = np.stack([make_values(seed) for seed in range(4)])
    voxels = np.stack([locate(turn(seed), rotations) for seed in range(4)])
    weight = np.array([1.0, 0.5, 0.25, 2.0])
    merged, others = empty_map(), empty_map()
    for n in range(4):
        add_frame(values[n], voxels[n], weight[n], *merged)
    for n in (2, 3):
        add_frame(values[n], voxels[n], weight[n], *others)
    own, found = np.zeros((2, SIZE**3)), np.empty((1, 4))
    chosen, lender = np.array([0]), np.array([1])
    compare_borrowed(values, voxels, weight, chosen, lender, voxels[1:2], *merged, 0.0, own, found)
    np.testing.assert_allclose(found[0], compare_with_map(values[0], voxels[1], 0.0, *others, 0.0, own), rtol=1e-9)
    assert not own.any()


def test_frames_compared_together_are_those_compared_one_by_one():
    rotations = rotations_of("mmm", ORTHORHOMBIC)
    values = np.stack([make_values(seed) for seed in range(3)])
    voxels = np.stack([locate(turn(seed), rotations) for seed in range(3)])
    weight, (sums, weights) = np.array([1.0, 0.0, 2.0]), empty_map()
    for n in range(3):
        add_frame(values[n], voxels[n], weight[n], sums, weights)
    own, found = np.zeros((2, SIZE**3)), np.empty((2, 4))
    compare_frames(values, voxels, weight, np.array([2, 1]), sums, weights, 0.0, own, found)
    for row, n in enumerate((2, 1)):
        assert tuple(found[row]) == compare_with_map(values[n], voxels[n], weight[n], sums, weights, 0.0, own)


def intensity(q, rotations):
    """A smooth function with the symmetry: the mean of some waves over all mates."""
    waves = np.random.default_rng(9).normal(scale=1.5, size=(4, 3))
    return sum(np.cos(q @ rotation.T @ waves.T).sum(axis=-1) for rotation in rotations) / len(rotations)


@pytest.mark.parametrize(("group", "cell"), GROUPS)
def test_merged_noise_free_slices_give_back_the_intensities_in_the_whole_cube(group, cell):
    rotations = rotations_of(group, cell)
    sums, weights = empty_map()
    for seed in range(25):
        values = intensity(points(turn(seed)), rotations).astype(np.float32)
        add_frame(values, locate(turn(seed), rotations), 1.0 + seed, sums, weights)
    all_sums, all_weights = expand_map(sums, weights, rotations, True, SIZE)
    is_filled = all_weights > 0
    assert is_filled.sum() > 1.5 * len(rotations) * (weights > 0).sum()  # Friedel's law and rotations
    centres = STEP * (np.argwhere(is_filled) - SIZE // 2)
    merged, true = all_sums[is_filled] / all_weights[is_filled], intensity(centres, rotations)
    # Points lie up to 0.05 off a voxel's centre, in hexagonal groups 0.1, where the waves have a slope of about 3.
    assert np.corrcoef(merged, true)[0, 1] > 0.99
    assert np.sqrt(np.mean((merged - true) ** 2)) < 0.15 * true.std()


@pytest.mark.parametrize(("group", "cell"), GROUPS[:3])
def test_an_unfolded_map_has_the_symmetry(group, cell):
    rotations = rotations_of(group, cell)
    sums, weights = empty_map()
    add_frame(make_values(5), locate(turn(5), rotations), 1.0, sums, weights)
    unfolded, all_weights = expand_map(sums, weights, rotations, True, SIZE)
    np.testing.assert_array_equal(unfolded, unfolded[::-1, ::-1, ::-1])
    grid = np.argwhere(all_weights > 0) - SIZE // 2
    for rotation in rotations:
        mates = np.rint(grid @ rotation.T).astype(int) + SIZE // 2
        np.testing.assert_allclose(unfolded[tuple(mates.T)], unfolded[tuple((grid + SIZE // 2).T)], atol=1e-12)
