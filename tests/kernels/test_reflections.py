import numpy as np
import pytest

from diffdask.kernels.reflections import average_over_rotations, find_excited, find_near_sphere, number_mates
from diffdask.simulate.crystal import cell_axes, draw_rotation
from diffdask.symmetry import laue_rotations

CELL = (30.0, 40.0, 50.0, 90.0, 100.0, 90.0)


def test_excited_reflections_are_those_near_the_ewald_sphere():
    random = np.random.default_rng(2)
    reciprocal = np.linalg.inv(cell_axes(CELL)).T @ draw_rotation(random).T
    length, s_max, mosaicity, size = 1.3, 0.4, 0.003, 5e-4
    indices, shares = find_excited(reciprocal, np.array([12, 16, 20]), length, s_max, mosaicity, size, 0.0)
    everything = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in (12, 16, 20)), indexing="ij"), -1).reshape(-1, 3)
    points = everything @ reciprocal
    s = np.linalg.norm(points, axis=1)
    distance = np.linalg.norm(points + np.array([0, 0, 1 / length]), axis=1) - 1 / length
    share = np.exp(-0.5 * distance**2 / ((mosaicity * s) ** 2 + size**2))
    strong = (share > 0.01) & (s < s_max) & (s > 0)
    found = {tuple(index): value for index, value in zip(indices.tolist(), shares, strict=True)}
    assert strong.sum() > 50
    for index, value in zip(everything[strong].tolist(), share[strong], strict=True):
        assert found[tuple(index)] == pytest.approx(value, abs=0.02)
    assert (shares > np.exp(-6.001)).all()


@pytest.mark.parametrize("reach", [1e-4, 2e-3, 0.05])
def test_points_near_the_sphere_are_all_those_near_it(reach):
    reciprocal = np.linalg.inv(cell_axes(CELL)).T @ draw_rotation(np.random.default_rng(4)).T
    limits, length, s_max = np.array([12, 16, 20]), 1.3, 0.4
    indices, distances = find_near_sphere(reciprocal, limits, length, s_max, reach)
    everything = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in limits), indexing="ij"), -1).reshape(-1, 3)
    points = everything @ reciprocal
    s2 = np.sum(points**2, axis=1)
    distance = points[:, 2] + 0.5 * length * s2
    near = (np.abs(distance) <= reach) & (s2 > 0) & (s2 <= s_max**2)
    np.testing.assert_array_equal(indices, everything[near])
    np.testing.assert_allclose(distances, distance[near], atol=1e-14)


def test_laue_mates_share_a_number_and_others_do_not():
    rotations = laue_rotations("6/mmm")
    index = np.array([[3, 1, 5]], dtype=np.int32)
    mates = np.concatenate([rotations @ index[0], -(rotations @ index[0])]).astype(np.int32)
    assert len(set(number_mates(mates, rotations))) == 1
    assert number_mates(np.array([[3, 1, 6]], np.int32), rotations) != number_mates(index, rotations)


def test_averaging_leaves_a_symmetric_map_and_keeps_the_sum():
    rotations = laue_rotations("4/mmm")
    random = np.random.default_rng(3)
    full = random.random((7, 7, 9))
    full = full + full[::-1, ::-1, ::-1]
    half = np.fft.ifftshift(full, axes=(0, 1))[:, :, 4:]
    averaged = np.empty((7, 7, 5), np.float32)
    average_over_rotations(half.astype(np.float32), rotations, averaged)
    quarter_turn = np.rot90(averaged, axes=(0, 1))
    np.testing.assert_allclose(averaged, quarter_turn, rtol=1e-6)
    np.testing.assert_allclose(averaged.sum(axis=(0, 1)), half.sum(axis=(0, 1)), rtol=1e-5)
