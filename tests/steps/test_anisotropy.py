"""Anisotropy features, against waves that were put into frames."""

import numpy as np
import pytest

from diffdask.errors import BadParameter, MissingVariable
from diffdask.steps.anisotropy import find_anisotropy_features
from diffdask.steps.screening import screen_frames
from diffdask.variables import wrap

#: 1/angstrom: beyond, only the corners of the detector see the rings.
FULL_RINGS = 2.6


def bands_of(ds, rings_per_band):
    """Rings of each band that is seen all around, and the bands."""
    inside = np.flatnonzero((ds.ring_q.values > 1.0) & (ds.ring_q.values < FULL_RINGS))
    bands = [one for one in np.unique(inside // rings_per_band) if np.isin(_rings(one, rings_per_band), inside).all()]
    return np.array(bands), [_rings(one, rings_per_band) for one in bands]


def _rings(band, rings_per_band):
    return np.arange(band * rings_per_band, (band + 1) * rings_per_band)


def find(ds, rings_per_band=2, **options):
    """Features, (frame, band), of frames as the screen sees them."""
    made = screen_frames(ds, **options).merge(ds[["ring_q"]])
    return find_anisotropy_features(made, band_count=ds.sizes["ring"] // rings_per_band).anisotropy_features.values


def test_the_amplitude_of_a_wave_is_found_in_every_band_as_its_pixels_have_it(small):
    """Against the spread of the photons expected, ring by ring, without counting noise and without our kernels."""
    wave = small.dataset(small.frames(small.expected(8.0, wave=0.3), count=20, spots=5))
    ring, photons = wave.pixel_ring.values[0], small.expected(8.0, wave=0.3) * wave.pixel_correction.values[0]
    bands, rings = bands_of(wave, 2)
    assert bands.size > 5
    relative = [[photons[ring == one].std() / photons[ring == one].mean() for one in of] for of in rings]
    expected = np.median(relative, axis=1)
    np.testing.assert_allclose(expected, 0.3 / np.sqrt(2), rtol=0.2)  # gaps between panels take their part of the wave
    np.testing.assert_allclose(find(wave)[:, bands].mean(axis=0), expected, rtol=0.05)


def test_twice_the_wave_is_twice_the_feature(small):
    one, two = (small.dataset(small.frames(small.expected(20.0, wave=w), count=12, spots=0)) for w in (0.15, 0.3))
    bands, _ = bands_of(one, 2)
    assert (find(two)[:, bands].mean() / find(one)[:, bands].mean()) == pytest.approx(2, rel=0.05)


def test_polarisation_that_is_corrected_leaves_nothing_and_else_fakes_a_wave(small):
    adu = small.frames(small.expected(8.0, polarisation=0.98), count=12, spots=5)
    right, wrong = (
        small.dataset(adu, polarisation_fraction=fraction, polarisation_angle=0.0) for fraction in (0.98, 0.0)
    )
    bands, _ = bands_of(right, 2)
    noise = find(right)[:, bands]
    assert abs(noise.mean()) < 4 * noise.std() / np.sqrt(noise.size)
    assert find(wrong)[:, bands].mean() > 5 * abs(noise.mean())


def test_noise_keeps_its_sign_and_what_is_not_known_is_zero_unless_nothing_is():
    anisotropy = np.array(
        [[0.04, 0.04, -0.09, -0.09, np.nan, np.nan], [0.01, 0.25, np.nan, 0.25, 0.0, 0.0], [np.nan] * 6]
    )
    ds = wrap(ring_anisotropy=anisotropy, ring_q=np.linspace(0.5, 1.0, 6))
    found = find_anisotropy_features(ds, band_count=3).anisotropy_features.values
    np.testing.assert_allclose(found, [[0.2, -0.3, 0.0], [np.sqrt(0.13), 0.5, 0.0], [np.nan] * 3])
    found = find_anisotropy_features(ds, band_count=3, feature_q_min=0.6).anisotropy_features.values
    np.testing.assert_allclose(found, [[0.0, -0.3, 0.0], [0.0, 0.5, 0.0], [np.nan] * 3])


def test_chunking_does_not_matter_and_nothing_is_computed_before_it_is_asked_for():
    made = wrap(ring_anisotropy=np.random.default_rng(0).normal(size=(7, 12)), ring_q=np.linspace(0.1, 2.0, 12))
    lazy = find_anisotropy_features(made.chunk(frame=3), band_count=4).anisotropy_features
    assert lazy.chunks is not None
    np.testing.assert_array_equal(lazy, find_anisotropy_features(made, band_count=4).anisotropy_features)


def test_what_is_missing_or_does_not_fit_is_told():
    with pytest.raises(MissingVariable, match="screen"):
        find_anisotropy_features(wrap(ring_q=np.arange(3.0)))
    with pytest.raises(BadParameter, match="band_count = 4 must divide the 6 rings"):
        find_anisotropy_features(wrap(ring_anisotropy=np.zeros((2, 6)), ring_q=np.arange(6.0)), band_count=4)
