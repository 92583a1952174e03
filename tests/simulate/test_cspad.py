import numpy as np

from diffdask.geometry import pixel_positions
from diffdask.io.crystfel_geometry import file_frame_shape, parse_geometry
from diffdask.simulate import cspad_geometry_text

FILE = parse_geometry(cspad_geometry_text())


def test_it_is_64_half_panels_on_cheetahs_slab():
    assert FILE.geometry.panel_count == 64
    assert FILE.geometry.shape == (185, 194)
    assert file_frame_shape(FILE) == (1480, 1552)
    assert FILE.geometry.panel_name[0] == "q0a0"
    assert FILE.geometry.panel_name[-1] == "q3a15"
    covered = np.zeros((1480, 1552), int)
    for ss, fs in zip(FILE.first_ss, FILE.first_fs, strict=True):
        covered[ss : ss + 185, fs : fs + 194] += 1
    assert (covered == 1).all()


def test_no_two_panels_overlap_and_the_beam_passes_through_the_middle():
    positions = pixel_positions(FILE.geometry, camera_length=0.1)[..., :2] / 109.92e-6
    column, row = np.floor(positions.reshape(-1, 2) / 2.0).astype(np.int64).T + 1000
    panel = np.repeat(np.arange(64), 185 * 194)
    # Halves of a module are 3 pixels apart, modules further: cells of 2 pixels never hold two panels.
    owned = np.unique((column * 2000 + row) * 64 + panel) // 64
    assert len(owned) == len(np.unique(owned))
    radius = np.linalg.norm(positions, axis=-1)
    assert 30 < radius.min() < 90
    assert abs(positions.mean(axis=(0, 1, 2))).max() < 20


def test_halves_of_a_module_leave_room_for_the_two_wide_columns():
    step = np.linalg.norm(FILE.geometry.corner[1::2] - FILE.geometry.corner[::2], axis=1) / 109.92e-6
    np.testing.assert_allclose(step, 197.0, atol=1e-3)
    assert FILE.pixel_is_wide.sum() == 64 * 185


def test_it_is_the_same_detector_every_time():
    assert cspad_geometry_text() == cspad_geometry_text()
    assert cspad_geometry_text(seed=12) != cspad_geometry_text()
