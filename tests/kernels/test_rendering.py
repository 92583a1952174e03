import numpy as np
import pytest

from diffdask.geometry import Geometry, positions_on_panels
from diffdask.kernels.rendering import meet_panels, sample_haloes, sample_map, stamp_spots, transmission


def half_map(function, h=4, k=5, m=6):
    grid = np.meshgrid(np.arange(-h, h + 1), np.arange(-k, k + 1), np.arange(m + 1), indexing="ij")
    return function(*grid).astype(np.float32)


def test_sampling_between_grid_points_is_linear():
    values = half_map(lambda h, k, m: 3.0 + 0.5 * h - 0.25 * k + 2.0 * m)
    assert sample_map(values, 1.3, -2.6, 3.1, -1.0) == pytest.approx(3.0 + 0.65 + 0.65 + 6.2, rel=1e-6)


def test_sampling_obeys_friedels_law():
    random = np.random.default_rng(0)
    values = random.random((9, 11, 7)).astype(np.float32)
    for point in random.uniform(-3, 3, size=(50, 3)):
        assert sample_map(values, *point, -1.0) == pytest.approx(sample_map(values, *-point, -1.0), rel=1e-6)


def test_outside_the_map_the_given_value_is_returned():
    values = half_map(lambda h, k, m: 1.0 + 0 * h)
    for point in ((4.5, 0, 0), (0, -5.5, 0), (0, 0, 6.5), (0, 0, -6.5)):
        assert sample_map(values, *map(float, point), 9.0) == 9.0


def test_a_halo_falls_off_as_the_transform_of_an_exponential_and_obeys_friedels_law():
    values = half_map(
        lambda h, k, m: 1.0 * ((abs(h) == 2) & (k == h // 2) & (m == 0)) + 3.0 * ((h == 1) & (k == 1) & (m == 3))
    )
    metric = np.array([[1e-4, 2e-5, 0], [2e-5, 2e-4, 0], [0, 0, 1e-4]])
    halo = 2 * np.pi * 200.0
    for off in ([0, 0, 0], [0.1, -0.2, 0.05], [-0.1, 0.3, 0.2]):
        point = np.array([1.0, 1.0, 3.0]) + off
        expected = 3.0 / (1 + halo**2 * (np.array(off) @ metric @ off)) ** 2
        assert sample_haloes(values, *point, metric, halo, -1.0) == pytest.approx(expected, rel=1e-6)
        assert sample_haloes(values, *-point, metric, halo, -1.0) == pytest.approx(expected, rel=1e-6)
    assert sample_haloes(values, 2.1, 1.0, 0.05, metric, halo, -1.0) == pytest.approx(
        sample_haloes(values, -2.1, -1.0, -0.05, metric, halo, -1.0)
    )
    assert sample_haloes(values, 4.5, 0.0, 0.0, metric, halo, 9.0) == 9.0


def test_rays_meet_tilted_panels_where_the_geometry_says():
    random = np.random.default_rng(1)
    corner = np.array([[0.01, 0.01, 0.0], [-0.03, 0.01, 0.002]])
    fs_step = np.array([[1e-4, 1e-6, 2e-6], [1e-4, -2e-6, 0.0]])
    ss_step = np.array([[-1e-6, 1.1e-4, 0.0], [2e-6, 1e-4, -3e-6]])
    nan = np.full(2, np.nan)
    geometry = Geometry(("a", "b"), (50, 60), corner, ss_step, fs_step, nan, nan)
    panel = random.integers(2, size=200)
    ss, fs = random.uniform(0, 50, 200), random.uniform(0, 60, 200)
    positions = positions_on_panels(geometry, panel, ss, fs, camera_length=0.1)
    found_panel, found_ss, found_fs = np.empty(200, np.int64), np.empty(200), np.empty(200)
    shapes = np.array([[50, 60], [50, 60]])
    origin = corner + np.array([0, 0, 0.1])
    rays = positions / np.linalg.norm(positions, axis=1, keepdims=True)
    meet_panels(origin, ss_step, fs_step, shapes, rays, found_panel, found_ss, found_fs)
    np.testing.assert_array_equal(found_panel, panel)
    np.testing.assert_allclose(found_ss, ss, atol=1e-9)
    np.testing.assert_allclose(found_fs, fs, atol=1e-9)
    meet_panels(origin, ss_step, fs_step, shapes, -rays, found_panel, found_ss, found_fs)
    assert (found_panel == -1).all()


def test_a_spot_keeps_its_photons_and_its_centre():
    expected = np.zeros((2, 40, 50), np.float32)
    stamp_spots(np.array([1]), np.array([20.3]), np.array([30.9]), np.array([500.0]), np.array([1.1]), expected)
    assert not expected[0].any()
    assert expected.sum() == pytest.approx(500.0, rel=2e-3)
    ss, fs = np.arange(40) + 0.5, np.arange(50) + 0.5
    assert (expected[1].sum(1) @ ss) / expected.sum() == pytest.approx(20.3, abs=0.01)
    assert (expected[1].sum(0) @ fs) / expected.sum() == pytest.approx(30.9, abs=0.01)


def test_the_shadow_is_soft_and_as_deep_as_said():
    shadow = np.array([1.0, 0.0, 0.2, 0.1, 0.01, 0.4])
    assert transmission(0.5, 0.0, shadow) == pytest.approx(0.6, abs=1e-3)
    assert transmission(0.2, 0.0, shadow) == pytest.approx(0.8, abs=1e-3)
    assert transmission(0.5, 0.3, shadow) == 1.0
    assert transmission(-0.5, 0.0, shadow) == 1.0
