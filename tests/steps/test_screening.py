import numpy as np
import pytest
import xarray as xr

from diffdask.errors import BadParameter
from diffdask.steps.screening import NO_RING, screen_frames, screening_parameters

#: 1/angstrom: beyond, only the corners of the detector see the rings.
FULL_RINGS = 2.6


@pytest.fixture(scope="module")
def ds(small):
    return small.dataset(small.frames(small.expected()))


def test_screen_frames_is_a_step(small, ds):
    needed = ["adu", "photon_energy", "frame_status", "frame_setting", "pixel_ring", "pixel_azimuth", "ring_q"]
    small.check_step(screen_frames, ds, needed)


def test_what_is_said_of_a_frame_does_not_depend_on_the_others(small):
    small.check_frames_alone(screen_frames)


def test_frames_given_one_by_one_give_the_same_bits_as_a_block(ds):
    screened = screen_frames(ds.drop_vars("adu"), one_by_one=iter(ds.adu.values))
    xr.testing.assert_identical(screened, screen_frames(ds))


def test_one_frame_too_few_is_no_block(ds):
    with pytest.raises(ValueError, match="shorter"):
        screen_frames(ds, one_by_one=ds.adu.values[1:2])
    with pytest.raises(ValueError, match="shorter"):
        screen_frames(ds, one_by_one=iter(ds.adu.values[:-1]))


def test_peaks_and_background_are_about_what_was_planted(ds):
    made = screen_frames(ds)
    assert (made.frame_peak_count > 12).all()
    assert (made.frame_peak_count <= 25).all()
    assert made.frame_peak_intensity.mean() == pytest.approx(4 * 110 * 1.8, rel=0.2), (
        "and corrected for the solid angle"
    )
    assert ((made.frame_background > 3) & (made.frame_background < 10)).all()


def test_frames_without_spots_have_no_peaks_and_no_peak_intensity(small):
    made = screen_frames(small.dataset(small.frames(small.expected(), spots=0)))
    assert (made.frame_peak_count == 0).all()
    assert np.isnan(made.frame_peak_intensity).all()


def test_the_anisotropy_of_pure_noise_is_zero_and_of_a_wave_its_variance(small):
    flat, wave = (small.dataset(small.frames(small.expected(8.0, wave=w), count=20, spots=5)) for w in (0.0, 0.3))
    found = screen_frames(flat, window_q_max=FULL_RINGS).frame_anisotropy
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(20)
    ring, photons = wave.pixel_ring.values[0], small.expected(8.0, wave=0.3) * wave.pixel_correction.values[0]
    full = np.flatnonzero((wave.ring_q > 1.0) & (wave.ring_q < FULL_RINGS))
    truth = np.array([photons[ring == number].var() / photons[ring == number].mean() ** 2 for number in full])
    np.testing.assert_allclose(truth, 0.3**2 / 2, rtol=0.35)  # gaps between panels take their part of the wave
    found = screen_frames(wave).ring_anisotropy.mean("frame").values[full]
    assert np.mean(found / truth) == pytest.approx(1, abs=0.05)


def test_polarisation_fakes_anisotropy_unless_it_is_corrected(small):
    adu = small.frames(small.expected(8.0, polarisation=0.98), count=12, spots=5)
    for fraction, angle, is_right in ((0.98, 0.0, True), (0.0, 0.0, False), (0.98, 90.0, False)):
        ds = small.dataset(adu, polarisation_fraction=fraction, polarisation_angle=angle)
        found = screen_frames(ds, window_q_max=FULL_RINGS).frame_anisotropy
        assert (abs(found.mean()) < 4 * found.std() / np.sqrt(12)) == is_right
        assert is_right or found.mean() > 0.001


def test_a_gain_that_is_told_wrong_changes_no_anisotropy(small):
    adu = small.frames(small.expected(8.0, wave=0.3), spots=0)
    right, wrong = (
        screen_frames(small.dataset(adu, columns=small.columns(geometry=small.geometry(gain))), common_mode="none")
        for gain in (4.0, 3.0)
    )
    np.testing.assert_allclose(wrong.frame_anisotropy, right.frame_anisotropy, rtol=1e-5)
    np.testing.assert_allclose(wrong.frame_background, right.frame_background * 4 / 3, rtol=1e-5)


def test_level_and_anisotropy_are_medians_over_the_window(ds):
    made = screen_frames(ds, window_q_min=1.5, window_q_max=2.5)
    inside = (ds.ring_q >= 1.5) & (ds.ring_q <= 2.5)
    for name, of in (("frame_background", "background_profile"), ("frame_anisotropy", "ring_anisotropy")):
        np.testing.assert_allclose(made[name], made[of][:, inside].median("ring"))
    xr.testing.assert_identical(made.background_profile, screen_frames(ds).background_profile)


def test_a_frame_that_is_not_usable_has_no_numbers_and_keeps_its_reason(small, ds):
    status = ds.frame_status.copy(data=np.array(["ok", "ok", "unreadable", "ok", "ok", "ok"], dtype=object))
    made = screen_frames(ds.assign(frame_status=status))
    assert made.frame_status.values.tolist() == status.values.tolist()
    assert made.frame_peak_count.values[2] == 0
    for name in ("frame_background", "frame_anisotropy", "frame_diffuse_excess", "background_profile"):
        np.testing.assert_array_equal(np.isnan(made[name]).values.reshape(6, -1).all(axis=1), np.arange(6) == 2)


def test_a_frame_without_photon_energy_is_no_reason_to_stop(small):
    geometry = small.geometry()
    geometry.adu_per_ev[:] = 4.0 / small.energy
    energy = np.array([small.energy, np.nan, 0.0])
    adu = small.frames(small.expected(), count=3)
    made = screen_frames(small.dataset(adu, columns=small.columns(3, geometry, photon_energy=energy)))
    assert made.frame_status.values.tolist() == ["ok", NO_RING, NO_RING]


def test_frames_of_nan_are_flagged_and_dark_frames_are_not(small):
    adu = small.frames(small.expected(), count=3).astype(np.float32)
    adu[1], adu[2] = np.nan, 0
    made = screen_frames(small.dataset(adu))
    assert made.frame_status.values.tolist() == ["ok", NO_RING, "ok"]
    assert made.frame_background.values[2] == 0
    assert np.isnan(made.frame_anisotropy.values[1:]).all()


def test_without_frames_there_are_no_rows(small):
    ds = small.dataset(small.frames(small.expected(), count=2)).isel(frame=slice(0, 0))
    assert screen_frames(ds).sizes["frame"] == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"common_mode": "mean"}, "zero-peak"),
        ({"snr": 0.0}, "positive"),
        ({"clip_passes": -1}, "not negative"),
        ({"min_pixels": 4, "max_pixels": 3}, "min_pixels 4 to max_pixels 3"),
        ({"radius": 0}, "radius"),
        ({"window_q_min": 50.0}, "window_q_min 50"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(ds, wrong, message):
    with pytest.raises(BadParameter, match=message):
        screen_frames(ds, **wrong)


def test_parameters_of_the_step_become_those_of_the_kernel():
    how = screening_parameters(
        common_mode="none", clip_low=4, clip_high=3, clip_passes=2, snr=7, threshold=8, min_pixels=1, max_pixels=9,
        radius=5,
    )  # fmt: skip
    assert how.common_mode_share < 0
    assert (how.clip_low, how.clip_high, how.clip_passes, how.snr, how.threshold) == (4, 3, 2, 7, 8)
    assert (how.min_pixels, how.max_pixels, how.radius) == (1, 9, 5)
