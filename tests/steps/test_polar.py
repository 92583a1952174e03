from functools import partial

import numpy as np
import pytest

from diffdask.errors import BadParameter
from diffdask.steps.background import remove_background
from diffdask.steps.polar import describe_polar_rings, find_polar_residual, group_rings
from diffdask.steps.screening import screening_parameters

HOW = screening_parameters(
    common_mode="none",
    clip_low=5,
    clip_high=5,
    clip_passes=3,
    snr=6,
    threshold=5,
    min_pixels=2,
    max_pixels=30,
    radius=4,
)
find = partial(find_polar_residual, how=HOW, polar_ring_count=10)


@pytest.fixture(scope="module")
def ds(small):
    return small.dataset(small.frames(small.expected(wave=0.2)))


def test_find_polar_residual_is_a_step(small, ds):
    needed = ["adu", "photon_energy", "frame_setting", "pixel_ring", "pixel_azimuth", "ring_q"]
    small.check_step(find, ds, needed)


def test_what_is_said_of_a_frame_does_not_depend_on_the_others(small):
    small.check_frames_alone(find)


def test_without_peaks_it_is_the_mean_of_residual_pixels_and_their_standard_error(small):
    ds = small.dataset(small.frames(small.expected(wave=0.2), spots=0))
    made = find(ds, bin_pixels=30)
    residual = remove_background(ds, common_mode="none", clip_low=1e9, clip_high=1e9).residual.values
    ring, azimuth = ds.pixel_ring.values[0], ds.pixel_azimuth.values[0]
    for hit in range(ds.sizes["frame"]):
        used = np.isfinite(residual[hit])
        cell = (ring[used] // 4) * 24 + azimuth[used]
        values = residual[hit][used].astype(float)
        count = np.bincount(cell, minlength=240)
        mean = np.bincount(cell, values, 240) / np.maximum(count, 1)
        variance = (np.bincount(cell, values**2, 240) - count * mean**2) / np.maximum(count - 1, 1)
        enough = count >= 30
        found, noise = made.polar_residual.values[hit].ravel(), made.polar_noise.values[hit].ravel()
        np.testing.assert_array_equal(np.isfinite(found), enough)
        np.testing.assert_allclose(found[enough], mean[enough], atol=1e-4)
        np.testing.assert_allclose(noise[enough], np.sqrt(variance / np.maximum(count, 1))[enough], rtol=1e-4)


def test_bragg_peaks_leave_hardly_a_trace(small):
    quiet, spotted = (small.dataset(small.frames(small.expected(), spots=spots, seed=3)) for spots in (0, 25))
    for ds in (quiet, spotted):
        made = find(ds)
        significance = (made.polar_residual / made.polar_noise).values
        assert np.nanstd(significance) == pytest.approx(1, abs=0.1)
        assert np.nanmax(np.abs(significance)) < 5.5


def test_turning_the_detector_by_a_quarter_rolls_the_azimuths_by_a_quarter(small, ds):
    """With 28 azimuths: the border of no bin runs along the diagonals, through the centres of pixels."""
    columns = small.columns()
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    turned = columns.copy()
    for name in ("panel_corner", "panel_ss_step", "panel_fs_step"):
        turned[name] = columns[name].copy(data=columns[name].values @ turn.T)
    straight, rolled = (find(small.dataset(ds.adu.values, columns=c, azimuth_count=28)) for c in (columns, turned))
    for name in ("polar_residual", "polar_noise"):
        np.testing.assert_allclose(rolled[name].values, np.roll(straight[name].values, 7, axis=2), atol=1e-5)


def test_the_order_of_panels_does_not_matter(small, ds):
    order = [2, 0, 3, 1]
    shuffled = small.dataset(ds.adu.values[:, order], columns=small.columns().isel(panel=order))
    one, other = find(ds), find(shuffled)
    for name in ("polar_residual", "polar_noise"):
        np.testing.assert_allclose(other[name].values, one[name].values, atol=1e-5)


def test_a_wave_is_found_with_its_amplitude_and_direction(small):
    ds = small.dataset(small.frames(small.expected(10.0, wave=0.2), count=10))
    wave = np.cos(2 * ds.azimuth.values)
    residual = find(ds).polar_residual.values.mean(axis=0)
    level = remove_background(ds).background_profile.values.mean(axis=0).reshape(10, 4).mean(axis=1)
    full = np.isfinite(residual).all(axis=1)
    assert full.sum() >= 4
    np.testing.assert_allclose(residual[full] @ wave / 12 / level[full], 0.2, atol=0.02)


def test_rings_say_where_they_are_and_how_much_of_them_is_seen(ds):
    rings = describe_polar_rings(ds, polar_ring_count=10, bin_pixels=30)
    made = find(ds, bin_pixels=30)
    np.testing.assert_allclose(rings.polar_ring_q, ds.ring_q.values.reshape(10, 4).mean(axis=1))
    # bins that have just enough pixels can lose some to Bragg peaks
    seen = np.isfinite(made.polar_residual.values).mean(axis=(0, 2))
    np.testing.assert_allclose(seen, rings.polar_coverage, atol=0.1)
    assert rings.polar_coverage.values.max() == 1
    assert rings.polar_coverage.values.min() < 0.5


def test_polar_rings_divide_the_rings():
    assert group_rings(480, 60) == 8
    for count in (0, 7, 11):
        with pytest.raises(BadParameter, match="must divide ring_count = 40"):
            group_rings(40, count)
