import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffdask.errors import BadGeometry
from diffdask.geometry import (
    Geometry,
    azimuths,
    check_geometry,
    momentum_transfer,
    pixel_positions,
    polarisation_factor,
    positions_on_panels,
    reciprocal_points,
    solid_angle_factor,
    wavelength,
    wide_columns,
)
from diffdask.variables import wrap

PIXEL = 1e-4


def flat(shape=(40, 50), *, corner=None, panels=1):
    """Panels in one plane across the beam, side by side."""
    corner = np.array([[-shape[1] / 2 + p * shape[1], -shape[0] / 2, 0.0] for p in range(panels)]) * PIXEL
    return Geometry(
        panel_name=tuple(f"p{p}" for p in range(panels)),
        shape=shape,
        corner=corner,
        ss_step=np.tile([0.0, PIXEL, 0.0], (panels, 1)),
        fs_step=np.tile([PIXEL, 0.0, 0.0], (panels, 1)),
        adu_per_ev=np.full(panels, 0.001),
        adu_per_photon=np.full(panels, np.nan),
    )


def tilted(seed=0):
    """Panels placed and turned at random."""
    rng = np.random.default_rng(seed)
    turns = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(3)]
    return Geometry(
        panel_name=("a", "b", "c"),
        shape=(7, 9),
        corner=rng.normal(size=(3, 3)) * 0.01,
        ss_step=np.array([t[0] for t in turns]) * PIXEL,
        fs_step=np.array([t[1] for t in turns]) * 1.5 * PIXEL,
        adu_per_ev=np.full(3, np.nan),
        adu_per_photon=np.full(3, 2.0),
    )


def test_a_pixel_covers_n_to_n_plus_one_so_that_its_centre_is_at_one_half():
    positions = pixel_positions(flat((2, 2)), camera_length=0.1)
    assert np.allclose(positions[0, 0, 0], [-0.5 * PIXEL, -0.5 * PIXEL, 0.1])
    assert np.allclose(positions[0].reshape(-1, 3).mean(axis=0), [0, 0, 0.1])


def test_positions_agree_with_a_plain_loop_on_tilted_panels():
    geometry = tilted()
    positions = pixel_positions(geometry, camera_length=0.2, shift=(1e-3, -2e-3))
    for p in range(3):
        for s in range(7):
            for f in range(9):
                for axis, moved in enumerate((1e-3, -2e-3, 0.2)):
                    expected = geometry.corner[p, axis] + moved
                    expected += (s + 0.5) * geometry.ss_step[p, axis] + (f + 0.5) * geometry.fs_step[p, axis]
                    assert positions[p, s, f, axis] == pytest.approx(expected, abs=1e-15)


def test_points_on_panels_agree_with_pixel_centres():
    geometry = tilted(1)
    p, s, f = np.indices((3, 7, 9))
    points = positions_on_panels(geometry, p, s + 0.5, f + 0.5, camera_length=0.3, shift=(1e-4, 2e-4))
    assert np.allclose(points, pixel_positions(geometry, camera_length=0.3, shift=(1e-4, 2e-4)), rtol=0, atol=1e-15)


def test_a_geometry_survives_a_dataset():
    geometry = tilted(2)
    dataset = geometry.to_dataset().merge(wrap(pixel_is_good=np.ones((3, 7, 9), bool)))
    back = Geometry.from_dataset(dataset)
    assert back.panel_name == geometry.panel_name
    assert back.shape == geometry.shape
    for name in ("corner", "ss_step", "fs_step", "adu_per_ev", "adu_per_photon"):
        np.testing.assert_array_equal(getattr(back, name), getattr(geometry, name))


def test_wavelength_of_12398_ev_is_one_angstrom():
    planck, light, charge = 6.62607015e-34, 299792458.0, 1.602176634e-19  # exact in the SI of 2019
    assert wavelength(9500.0) == pytest.approx(planck * light / (9500.0 * charge) * 1e10, rel=1e-12)


@given(st.floats(0.01, 3.0), st.floats(0.0, 6.28), st.floats(5000, 20000))
def test_q_is_four_pi_sine_theta_over_wavelength(two_theta, azimuth, energy):
    direction = np.array([np.sin(two_theta) * np.cos(azimuth), np.sin(two_theta) * np.sin(azimuth), np.cos(two_theta)])
    expected = 4 * np.pi * np.sin(two_theta / 2) / wavelength(energy)
    assert momentum_transfer(direction * 0.1, energy) == pytest.approx(expected, rel=1e-9)


def test_q_keeps_its_precision_next_to_the_beam():
    # 1 - cos(2theta) cancels there; q of half a pixel at 0.1 m must still be right to 1e-5.
    position = np.array([0.5 * PIXEL, 0.0, 0.1])
    expected = 4 * np.pi * np.sin(np.arctan2(0.5 * PIXEL, 0.1) / 2) / wavelength(9500)
    assert momentum_transfer(position, 9500) == pytest.approx(expected, rel=1e-5)


def test_q_is_two_pi_times_the_length_of_the_reciprocal_point():
    positions = pixel_positions(flat(), camera_length=0.05)
    points = reciprocal_points(positions, 9500)
    assert np.allclose(2 * np.pi * np.linalg.norm(points, axis=-1), momentum_transfer(positions, 9500))


def test_reciprocal_points_lie_on_the_ewald_sphere():
    points = reciprocal_points(pixel_positions(flat(), camera_length=0.05), 9500)
    beam = np.array([0, 0, 1 / wavelength(9500)])
    assert np.allclose(np.linalg.norm(points + beam, axis=-1), 1 / wavelength(9500))


def test_asking_for_reciprocal_points_leaves_the_positions_alone():
    positions = pixel_positions(flat(), camera_length=0.05)
    before = positions.copy()
    reciprocal_points(positions, 9500)
    np.testing.assert_array_equal(positions, before)


def test_azimuths_run_from_x_towards_y():
    directions = np.array([[1, 0, 1], [0, 1, 1], [-1, 0, 1], [0, -1, 1.0]])
    assert np.allclose(azimuths(directions), np.pi / 2 * np.arange(4))


def test_azimuths_stay_below_a_full_turn():
    assert (azimuths(np.array([[1.0, -1e-300, 1.0], [1.0, -1e-20, 1.0]])) < 2 * np.pi).all()


def test_light_polarised_along_x_does_not_go_along_x():
    at_90_degrees = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    assert np.allclose(polarisation_factor(at_90_degrees, fraction=1.0), [0.0, 1.0])
    assert np.allclose(polarisation_factor(at_90_degrees, fraction=1.0, angle=90.0), [1.0, 0.0])


def test_polarisation_is_the_dipole_rule():
    # Unpolarised = half of each direction; intensity of a dipole along e is 1 - (e . n)^2.
    positions = pixel_positions(flat(), camera_length=0.004)
    direction = positions / np.linalg.norm(positions, axis=-1, keepdims=True)
    along_x, along_y = 1 - direction[..., 0] ** 2, 1 - direction[..., 1] ** 2
    for fraction in (0.0, 0.9, 1.0):
        expected = (1 + fraction) / 2 * along_x + (1 - fraction) / 2 * along_y
        assert np.allclose(polarisation_factor(positions, fraction=fraction), expected)


def test_solid_angle_on_a_flat_detector_is_cosine_cubed():
    geometry = flat()
    positions = pixel_positions(geometry, camera_length=0.003)
    cosine = positions[..., 2] / np.linalg.norm(positions, axis=-1)
    assert np.allclose(solid_angle_factor(geometry, positions, camera_length=0.003), cosine**3)


def test_solid_angle_of_a_closed_box_is_the_whole_sphere():
    # Six faces about the sample, each of 40 x 40 pixels, edges of 4 mm.
    faces = [(axis, sign) for axis in range(3) for sign in (-1, 1)]
    corner, ss, fs = [], [], []
    for axis, sign in faces:
        a, b = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
        corner.append(sign * np.eye(3)[axis] * 0.002 - (a + b) * 0.002)
        ss.append(a * PIXEL)
        fs.append(b * PIXEL)
    nan = np.full(6, np.nan)
    box = Geometry(tuple("abcdef"), (40, 40), np.array(corner), np.array(ss), np.array(fs), nan, nan)
    positions = pixel_positions(box, camera_length=0.0)
    total = solid_angle_factor(box, positions, camera_length=1.0).sum() * PIXEL**2
    assert total == pytest.approx(4 * np.pi, rel=1e-3)


@pytest.mark.parametrize(("shape", "first_fs", "expected"), [((185, 388), [0], [193, 194]), ((185, 194), [0], [193])])
def test_wide_columns_of_cspad_are_the_two_in_the_middle_of_a_module(shape, first_fs, expected):
    wide = wide_columns(flat(shape), np.array(first_fs))
    assert sorted(set(np.nonzero(wide)[2])) == expected
    assert wide[:, :, expected].all()


def test_the_right_half_of_a_cspad_module_begins_with_a_wide_column():
    wide = wide_columns(flat((185, 194), panels=4), np.array([0, 194, 388, 582]))
    assert [sorted(set(np.nonzero(panel)[1])) for panel in wide] == [[193], [0], [193], [0]]


def test_other_detectors_have_no_wide_columns():
    assert not wide_columns(flat((512, 128)), np.array([0])).any()


def test_a_panel_without_area_is_refused():
    geometry = flat()
    broken = Geometry(**{**geometry.__dict__, "ss_step": geometry.fs_step * 2})
    with pytest.raises(BadGeometry, match="parallel"):
        check_geometry(broken)


def test_a_corner_that_is_no_number_is_refused():
    geometry = flat()
    broken = Geometry(**{**geometry.__dict__, "corner": geometry.corner * np.nan})
    with pytest.raises(BadGeometry, match="corner must be finite"):
        check_geometry(broken)
