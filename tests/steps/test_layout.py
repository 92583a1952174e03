import numpy as np
import pytest

from diffdask.errors import BadGeometry, BadParameter, MissingVariable
from diffdask.geometry import Geometry
from diffdask.io.crystfel_geometry import read_geometry
from diffdask.steps.layout import lay_out_rings

PLAIN = {"ring_count": 40, "azimuth_count": 24, "polarisation_fraction": 0.0}


def lay_out(columns, **layout):
    return lay_out_rings(columns, **{**PLAIN, **layout})


def positions(small, shift=(0.0, 0.0), length=None):
    """Pixel centres, panel by panel and pixel by pixel as CrystFEL says."""
    geometry = small.geometry()
    found = np.empty((4, *small.shape, 3))
    for panel, ss, fs in np.ndindex(4, *small.shape):
        found[panel, ss, fs] = (
            geometry.corner[panel] + (ss + 0.5) * geometry.ss_step[panel] + (fs + 0.5) * geometry.fs_step[panel]
        )
    return found + np.array([*shift, small.length if length is None else length])


def test_rings_and_azimuths_are_those_of_an_independent_computation(small):
    columns = small.columns()
    made = lay_out(columns, q_min=0.4, q_max=3.0)
    x, y, z = np.moveaxis(positions(small), -1, 0)
    two_theta = np.arctan2(np.hypot(x, y), z)
    q = 4 * np.pi * np.sin(two_theta / 2) / (12398.419843320026 / small.energy)
    edges = np.linspace(0.4, 3.0, 41)
    ring = np.digitize(q, edges) - 1
    ring[(ring >= 40) | ~columns.pixel_is_good.values] = -1
    np.testing.assert_array_equal(made.pixel_ring.values[0], ring)
    np.testing.assert_allclose(made.ring_q, (edges[1:] + edges[:-1]) / 2, rtol=1e-6)
    turned = np.degrees(np.arctan2(y, x)) % 360
    is_clear = np.abs((turned / 15) % 1 - 0.5) < 0.4999  # not on the border of two bins
    np.testing.assert_array_equal(made.pixel_azimuth.values[0][is_clear], (turned // 15).astype(int)[is_clear])
    np.testing.assert_allclose(np.degrees(made.azimuth), np.arange(24) * 15 + 7.5)


def test_rings_agree_with_the_q_and_solid_angle_and_polarisation_of_pyfai(small):
    from pyFAI.detectors import Detector
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    size = (120, 130)
    geometry = Geometry(
        panel_name=("p",), shape=size, corner=np.array([[-0.03, -0.05, 0.0]]),
        ss_step=np.array([[0, small.pixel, 0]]), fs_step=np.array([[small.pixel, 0, 0]]),
        adu_per_ev=np.array([np.nan]), adu_per_photon=np.array([1.0]),
    )  # fmt: skip
    good = np.ones((1, *size), bool)
    columns = small.columns(1, geometry, pixel_is_good=good, pixel_is_wide=~good)
    their = AzimuthalIntegrator(
        dist=small.length, poni1=0.05, poni2=0.03, wavelength=12398.419843320026 / small.energy * 1e-10,
        detector=Detector(pixel1=small.pixel, pixel2=small.pixel, max_shape=size),
    )  # fmt: skip
    q = their.qArray() / 10
    made = lay_out(columns, ring_count=100)
    low, high = made.attrs["q_range"]
    assert (low, high) == pytest.approx((q.min(), q.max()), rel=2e-6, abs=1e-6)
    place = (q - low) / (high - low) * 100
    is_clear = np.abs(place % 1 - 0.5) < 0.499  # pyFAI's own positions are good to 1e-6 only
    np.testing.assert_array_equal(made.pixel_ring.values[0, 0][is_clear], np.floor(place)[is_clear])
    np.testing.assert_allclose(1 / made.pixel_correction.values[0, 0], their.solidAngleArray() / 2 * (
        1 + np.cos(their.twoThetaArray()) ** 2
    ), rtol=1e-5)  # fmt: skip
    for angle, axis in ((0.0, 0.0), (90.0, np.pi / 2), (30.0, -np.pi / 6)):
        made = lay_out(columns, polarisation_fraction=0.9, polarisation_angle=angle)
        expected = their.solidAngleArray() * their.polarization(factor=0.9, axis_offset=axis)
        np.testing.assert_allclose(1 / made.pixel_correction.values[0, 0], expected, rtol=1e-5)


def test_polarisation_is_that_of_the_formula_and_solid_angle_the_cubed_cosine(small):
    made = lay_out(small.columns(), polarisation_fraction=0.98, polarisation_angle=0.0)
    x, y, z = np.moveaxis(positions(small), -1, 0)
    r = np.sqrt(x**2 + y**2 + z**2)
    # a dipole along x sends 1 - x^2 / r^2, along y 1 - y^2 / r^2
    polarisation = 0.99 * (1 - x**2 / r**2) + 0.01 * (1 - y**2 / r**2)
    np.testing.assert_allclose(made.pixel_correction.values[0], 1 / (polarisation * (z / r) ** 3), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:mypy_extensions.TypedDict:DeprecationWarning")
def test_rings_of_cspad_are_those_of_extra_geom(small, shared):
    from cfelpyutils.geometry import load_crystfel_geometry
    from extra_geom import GenericGeometry
    from extra_geom.base import GeometryFragment

    path = shared / "cspad_sim_a" / "A_dev.geom"
    file = read_geometry(path)
    geometry = file.geometry
    panels = load_crystfel_geometry(str(path)).detector["panels"].values()
    their = GenericGeometry([[GeometryFragment.from_panel_dict(panel)] for panel in panels])
    their.frag_ss_pixels, their.frag_fs_pixels = geometry.shape
    their.n_modules, their.n_tiles_per_module, their.ss_tiles, their.fs_tiles = len(panels), 1, 1, 1
    their.expected_data_shape = (len(panels), *geometry.shape)
    x, y, _ = np.moveaxis(their.get_pixel_positions(), -1, 0)
    columns = small.columns(1, geometry, pixel_is_good=file.pixel_is_good, pixel_is_wide=file.pixel_is_wide)
    made = lay_out(columns, ring_count=480)
    theta = np.arctan(np.hypot(x, y) / small.length) / 2
    q = 4 * np.pi * np.sin(theta) / (12398.419843320026 / small.energy)
    ring = made.pixel_ring.values[0]
    used = ring >= 0
    place = (q[used] - made.attrs["q_range"][0]) / np.diff(made.attrs["q_range"]) * 480
    is_clear = np.abs(place % 1 - 0.5) < 0.49999
    assert is_clear.mean() > 0.99
    np.testing.assert_array_equal(ring[used][is_clear], np.floor(place[is_clear]))
    assert not used[file.pixel_is_wide].any()
    assert not used[~file.pixel_is_good].any()


def test_bad_and_wide_pixels_have_no_ring_and_wide_ones_can_be_divided_by_their_area(small):
    wide = np.zeros((4, *small.shape), bool)
    wide[:, :, 33] = True
    columns = small.columns(pixel_is_wide=wide)
    left_out, divided = lay_out(columns), lay_out(columns, wide_columns="divide")
    bad = ~columns.pixel_is_good.values
    assert (left_out.pixel_ring.values[0][bad | wide] == -1).all()
    assert (left_out.pixel_ring.values[0][~(bad | wide)] >= 0).all()
    assert (divided.pixel_ring.values[0][wide & ~bad] >= 0).all()
    ratio = divided.pixel_correction.values[0] / lay_out(small.columns()).pixel_correction.values[0]
    np.testing.assert_allclose(ratio, np.where(wide, 1 / 2.5, 1.0), rtol=1e-6)


def test_dividing_restores_the_level_of_wide_pixels(small):
    from diffdask.steps.background import remove_background

    wide = np.zeros((4, *small.shape), bool)
    wide[:, :, 33] = True
    adu = small.frames(small.expected(20.0) * np.where(wide, 2.5, 1.0), count=20, spots=0)
    columns = small.columns(20, pixel_is_wide=wide)
    residual = remove_background(
        small.dataset(adu, columns=columns, wide_columns="divide"), common_mode="none"
    ).residual
    assert float(residual.where(wide).mean()) == pytest.approx(0, abs=0.2)
    assert float(residual.where(~wide).mean()) == pytest.approx(0, abs=0.1)


def test_frames_that_differ_little_share_a_setting_and_others_do_not(small):
    columns = small.columns(
        6,
        photon_energy=np.array([9500, 9503, 9496, 9900, 9500, np.nan]),
        camera_length=np.array([0.08, 0.08001, 0.08, 0.08, 0.0812, 0.08]),
    )
    made = lay_out(columns)
    setting = made.frame_setting.values
    assert len(set(setting[:3])) == 1
    assert len({setting[0], setting[3], setting[4]}) == made.sizes["setting"] == 3
    assert 0 <= setting[5] < 3, "a frame without energy gets a setting, to be told apart by its status"


def test_a_run_takes_the_median_shift_of_its_indexed_frames(small):
    shift = np.full((7, 2), np.nan)
    shift[0], shift[1], shift[2] = (4e-4, -2e-4), (5e-4, -2e-4), (90e-4, 1e-4)  # the last one misindexed
    columns = small.columns(7, run=np.array([1, 1, 1, 1, 2, 2, 2]), detector_shift=shift)
    made = lay_out(columns)
    assert made.frame_setting.values.tolist() in ([1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1])
    x, y, z = np.moveaxis(positions(small, shift=(5e-4, -2e-4)), -1, 0)
    q = 4 * np.pi * np.sin(np.arctan2(np.hypot(x, y), z) / 2) / (12398.419843320026 / small.energy)
    low, high = made.attrs["q_range"]
    ring = made.pixel_ring.values[made.frame_setting.values[0]]
    place = (q - low) / (high - low) * 40
    used = (ring >= 0) & (np.abs(place % 1 - 0.5) < 0.4999)
    np.testing.assert_array_equal(ring[used], np.floor(place[used]))


def test_rings_keep_to_the_range_that_was_asked_for_and_are_the_same_in_all_settings(small):
    columns = small.columns(2, camera_length=np.array([0.08, 0.09]))
    made = lay_out(columns, q_min=1.0, q_max=2.0)
    assert made.sizes["setting"] == 2
    assert ((made.ring_q > 1) & (made.ring_q < 2)).all()
    np.testing.assert_allclose(np.diff(made.ring_q), 1 / 40, rtol=1e-6)
    assert (made.pixel_ring.values[0] != made.pixel_ring.values[1]).any()
    assert (made.pixel_ring == -1).mean() > 0.3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ring_count": 0}, "ring_count = 0"),
        ({"azimuth_count": 15}, "at least 1 and 16"),
        ({"q_min": -1.0}, "must not be negative"),
        ({"q_min": 2.0, "q_max": 1.0}, "must be below"),
        ({"polarisation_fraction": 1.5}, "between -1 and 1"),
        ({"wide_columns": "mask"}, "'leave-out', 'divide'"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(small, wrong, message):
    with pytest.raises(BadParameter, match=message):
        lay_out(small.columns(), **wrong)


def test_a_detector_without_a_good_pixel_or_frames_without_energy_are_refused(small):
    with pytest.raises(BadGeometry, match="no pixel is good"):
        lay_out(small.columns(pixel_is_good=np.zeros((4, *small.shape), bool)))
    with pytest.raises(BadGeometry, match="photon energy"):
        lay_out(small.columns(2, photon_energy=np.array([np.nan, 0.0])))
    with pytest.raises(BadGeometry, match=r"camera length -0\.3 m"):
        lay_out(small.columns(2, camera_length=np.array([-0.3, -0.3])))


@pytest.mark.parametrize("name", ["pixel_is_good", "photon_energy", "camera_length", "run", "detector_shift"])
def test_it_says_what_is_missing(small, name):
    with pytest.raises(MissingVariable, match=f"'{name}'.*made by 'ingest'"):
        lay_out(small.columns().drop_vars(name))


def test_only_new_variables_come_back_and_frames_are_not_read(small):
    columns = small.columns()
    made = lay_out(columns)
    assert not set(made.variables) & set(columns.variables)
