import itertools

import numpy as np
import pytest

from diffdask.kernels.lattice_fit import (
    find_nearest_points,
    find_primitive_axes,
    find_reach,
    measure_widths,
    refine_axes,
)
from diffdask.simulate.crystal import cell_axes, is_present

CELL = (60.0, 75.0, 90.0, 90.0, 103.0, 90.0)
WAVELENGTH = 1.3


@pytest.fixture(scope="module")
def axes():
    """Reciprocal axes of a monoclinic cell, turned somehow: rows, 1/angstrom."""
    random = np.random.default_rng(3)
    rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    return np.linalg.inv(cell_axes(CELL)).T @ rotation.T


def turned(axes, degrees, seed=0):
    axis = np.random.default_rng(seed).normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    cross, angle = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]), np.radians(degrees)
    return axes @ (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross).T


def peaks_of(axes, mosaicity=0.0, size_width=2e-4, count=150, seed=1):
    """Lattice points near the Ewald sphere, normally spread in depth, and the points of the sphere they excite."""
    random = np.random.default_rng(seed)
    indices = np.stack(np.meshgrid(*[np.arange(-36, 37)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    points = random.permutation(indices) @ axes
    s2 = (points**2).sum(axis=1)
    depth = points[:, 2] + 0.5 * WAVELENGTH * s2
    width = np.sqrt(size_width**2 + mosaicity**2 * s2)
    seen = (s2 > 0) & (s2 < 0.16) & (random.uniform(size=len(points)) < np.exp(-0.5 * (depth / width) ** 2))
    points = points[seen][:count]
    ray = points * WAVELENGTH + [0, 0, 1]
    return points, (ray / np.linalg.norm(ray, axis=1, keepdims=True) - [0, 0, 1]) / WAVELENGTH


def angle_between(one, other):
    rotation = np.linalg.inv(one) @ other
    return np.degrees(np.arccos(min(1.0, (np.trace(rotation) - 1) / 2)))


@pytest.mark.parametrize("centring", "PCI")
def test_whole_multiples_of_primitive_axes_are_the_reflections_that_the_centring_leaves(axes, centring):
    indices = np.array(list(itertools.product(range(-4, 5), repeat=3)))
    in_primitive = indices @ axes @ np.linalg.inv(find_primitive_axes(axes, centring))
    whole = np.abs(in_primitive - np.rint(in_primitive)).max(axis=1) < 1e-9
    np.testing.assert_array_equal(whole, is_present(indices.astype(np.int32), centring))


@pytest.mark.parametrize(("centring", "points"), [("P", 1), ("A", 2), ("B", 2), ("C", 2), ("I", 2), ("F", 4), ("H", 3)])
def test_a_primitive_cell_holds_one_lattice_point(axes, centring, points):
    ratio = np.linalg.det(find_primitive_axes(axes, centring)) / np.linalg.det(axes)
    assert ratio == pytest.approx(points)


def test_points_of_the_hexagonal_setting_obey_its_reflection_condition():
    primitive = find_primitive_axes(np.linalg.inv(cell_axes((80, 80, 120, 90, 90, 120))).T, "H")
    axes = np.linalg.inv(cell_axes((80, 80, 120, 90, 90, 120))).T
    indices = np.array(list(itertools.product(range(-4, 5), repeat=3)))
    in_primitive = indices @ axes @ np.linalg.inv(primitive)
    whole = np.abs(in_primitive - np.rint(in_primitive)).max(axis=1) < 1e-9
    np.testing.assert_array_equal(whole, (-indices[:, 0] + indices[:, 1] + indices[:, 2]) % 3 == 0)


@pytest.mark.parametrize("error", [0.0, 0.1, 0.3, 1.0])
def test_peaks_tell_the_orientation_however_it_was_off(axes, error):
    points, seen = peaks_of(axes)
    assert len(points) > 80
    refined, near = refine_axes(seen, turned(axes, error))
    assert angle_between(axes, refined) < 0.01
    assert near.mean() > 0.98
    np.testing.assert_allclose(np.linalg.det(refined), np.linalg.det(axes))


def test_a_tenth_of_the_peaks_elsewhere_does_not_matter(axes):
    _, seen = peaks_of(axes)
    seen[::10] = np.random.default_rng(2).uniform(-0.3, 0.3, size=seen[::10].shape)
    refined, near = refine_axes(seen, turned(axes, 0.3))
    assert angle_between(axes, refined) < 0.015
    assert near[1::10].all()
    assert near[::10].mean() < 0.3


def test_peaks_of_a_wrong_orientation_are_not_on_its_lattice(axes):
    _, seen = peaks_of(axes)
    shares = [refine_axes(seen, turned(axes, 35.0, seed))[1].mean() for seed in range(10)]
    assert max(shares) < 0.3


def test_no_peaks_leave_the_axes_as_they_were(axes):
    refined, near = refine_axes(np.empty((0, 3)), axes)
    np.testing.assert_array_equal(refined, axes)
    assert near.size == 0


def test_widths_are_those_that_peaks_were_drawn_with(axes):
    for mosaicity, size_width in ((1e-3, 1e-4), (2.5e-3, 3e-4), (3e-4, 5e-4)):
        points, _ = peaks_of(axes, mosaicity, size_width, count=250)
        found = measure_widths(points, WAVELENGTH, find_reach(axes))
        for s in (0.15, 0.35):
            expected = np.hypot(size_width, mosaicity * s)
            assert np.hypot(found[0], found[1] * s) == pytest.approx(expected, rel=0.25)


def test_the_nearest_point_of_a_lattice_point_is_itself(axes):
    points = np.random.default_rng(5).integers(-9, 10, size=(50, 3)) @ axes
    nudged = points + 0.1 * find_reach(axes)
    np.testing.assert_allclose(find_nearest_points(nudged, axes), points, atol=1e-12)
