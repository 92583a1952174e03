import numpy as np
import pytest

from diffdask.errors import BadParameter
from diffdask.steps.background import remove_background


@pytest.fixture(scope="module")
def ds(small):
    return small.dataset(small.frames(small.expected()))


def test_remove_background_is_a_step(small, ds):
    small.check_step(
        remove_background, ds, ["adu", "photon_energy", "frame_setting", "pixel_ring", "pixel_azimuth", "panel_corner"]
    )


def test_what_is_said_of_a_frame_does_not_depend_on_the_others(small):
    small.check_frames_alone(remove_background)


@pytest.mark.parametrize("level", [0.02, 0.3, 6.0])
def test_the_residual_of_every_ring_averages_to_zero_within_counting_noise(small, level):
    ds = small.dataset(small.frames(small.expected(level), spots=0))
    made = remove_background(ds, common_mode="none")
    ring = ds.pixel_ring.values[0]
    for residual, profile in zip(made.residual.values, made.background_profile.values, strict=True):
        used = np.isfinite(residual)
        pixels = np.bincount(ring[used], minlength=40)
        mean = np.bincount(ring[used], residual[used], 40)[pixels > 0] / pixels[pixels > 0]
        variance = np.bincount(ring[used], residual[used] ** 2, 40)[pixels > 0] / pixels[pixels > 0]
        assert np.isfinite(profile[pixels > 20]).all()
        assert (np.abs(mean) <= 1.01 * np.sqrt(variance / pixels[pixels > 0])).all()


def test_residual_is_photons_less_the_profile_and_nan_where_nothing_is_used(ds):
    made = remove_background(ds)
    ring = ds.pixel_ring.values[0]
    for frame in range(ds.sizes["frame"]):
        photons, residual = made.photons.values[frame], made.residual.values[frame]
        profile = made.background_profile.values[frame][ring]
        np.testing.assert_array_equal(np.isnan(photons), ring < 0)
        np.testing.assert_array_equal(np.isnan(residual), (ring < 0) | np.isnan(profile))
        kept = np.isfinite(residual)
        np.testing.assert_allclose(residual[kept], (photons - profile)[kept], atol=1e-4)


def test_photons_are_corrected_for_gain_polarisation_and_solid_angle(small):
    expected = small.expected(40.0, polarisation=0.98)
    ds = small.dataset(small.frames(expected, count=30, spots=0), polarisation_fraction=0.98)
    photons = remove_background(ds).photons.values.mean(axis=0)
    truth = expected * ds.pixel_correction.values[0]
    used = np.isfinite(photons)
    assert np.mean(photons[used] / truth[used]) == pytest.approx(1, abs=0.002)
    assert np.std(photons[used] / truth[used]) == pytest.approx(np.sqrt(np.mean(1 / expected[used]) / 30), rel=0.1)


def test_bragg_peaks_stay_in_the_residual(ds):
    assert (remove_background(ds).residual.max(("panel", "ss", "fs")) > 40).all()


def test_rings_of_too_few_pixels_have_no_estimate(ds):
    profile = remove_background(ds, ring_pixels=400).background_profile
    pixels = np.bincount(ds.pixel_ring.values[ds.pixel_ring.values >= 0], minlength=40)
    assert np.isnan(profile.values[:, pixels < 400]).all()
    assert 0 < (pixels < 400).sum() < 40


def test_an_unknown_common_mode_is_refused(ds):
    with pytest.raises(BadParameter, match="zero-peak"):
        remove_background(ds, common_mode="median")
