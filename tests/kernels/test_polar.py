"""Ring anisotropy, polar residual and diffuse excess, against plain NumPy and planted truth."""

import numpy as np
import pytest

from diffdask.kernels.polar import average_cells, find_diffuse_excess, find_ring_anisotropy
from diffdask.kernels.residual import recentre_cells

RINGS, AZIMUTHS = 24, 72
SHAPE = (RINGS, AZIMUTHS)


def sums(photons, ring, azimuth, mean, excluded=None, shape=SHAPE, min_pixels=20):
    """Cell sums, recentred, and the ring means after that."""
    mean = np.array(mean, dtype=float)
    kept = ~np.isnan(photons) & ~np.isnan(mean[ring])
    kept &= True if excluded is None else ~excluded
    cell, off = (ring * shape[1] + azimuth)[kept], (photons.astype(float) - mean[ring])[kept]
    first, second, count = (
        np.bincount(cell, weight, shape[0] * shape[1]).reshape(shape) for weight in (off, off**2, None)
    )
    recentre_cells(first, second, count, min_pixels, mean)
    return first, second, count, mean


def anisotropy_of(photons, ring, azimuth, mean, **more):
    first, second, count, mean = sums(photons, ring, azimuth, mean, **more)
    found = np.empty(mean.size)
    find_ring_anisotropy(first, second, count, mean, found)
    return found


def polar_of(first, second, count, rings_per_bin=4, min_pixels=10):
    shape = (first.shape[0] // rings_per_bin, first.shape[1])
    residual, noise = np.empty(shape, np.float32), np.empty(shape, np.float32)
    average_cells(first, second, count, rings_per_bin, min_pixels, residual, noise)
    return residual, noise


def scattered(count=200_000, seed=0, shape=SHAPE):
    """Rings, azimuthal bins and angles of random pixels; cells of unequal size, a tenth of them seen thinly."""
    random = np.random.default_rng(seed)
    ring = random.integers(shape[0], size=count).astype(np.int32)
    angle = random.uniform(0, 2 * np.pi, size=count)
    azimuth = (angle / (2 * np.pi) * shape[1]).astype(np.int32)
    is_thin = (azimuth % 10 == 3) & (random.uniform(size=count) < 0.8)
    return ring[~is_thin], azimuth[~is_thin], angle[~is_thin]


@pytest.fixture(scope="module")
def noisy():
    """Photons with missing and excluded pixels, an empty ring, a ring of one pixel, a ring all excluded."""
    random = np.random.default_rng(7)
    ring, azimuth, _ = scattered()
    kept = (ring != 5) & ((ring != 6) | (np.cumsum(ring == 6) == 1))
    ring, azimuth = ring[kept], azimuth[kept]
    photons = random.poisson(4.0, size=ring.size).astype(np.float32)
    photons[::101] = np.nan
    excluded = (random.uniform(size=ring.size) < 0.01) | (ring == 9)
    mean = np.full(RINGS, 4.0) + random.normal(scale=0.1, size=RINGS)
    mean[11] = np.nan
    return photons, ring, azimuth, mean, excluded


def test_recentred_sums_are_those_about_the_final_ring_mean(noisy):
    photons, ring, azimuth, mean, excluded = noisy
    first, second, count, recentred = sums(photons, ring, azimuth, mean, excluded)
    used = ~np.isnan(photons) & ~excluded & ~np.isin(ring, [6, 11])
    values = photons[used].astype(np.float64)
    ring, cell = ring[used], ring[used] * AZIMUTHS + azimuth[used]
    pixels = np.bincount(ring, minlength=RINGS)
    with np.errstate(invalid="ignore"):
        expected = np.bincount(ring, values, RINGS) / pixels
    off = values - expected[ring]
    np.testing.assert_allclose(recentred, expected, rtol=1e-12)
    np.testing.assert_array_equal(count.ravel(), np.bincount(cell, minlength=first.size))
    np.testing.assert_allclose(first.ravel(), np.bincount(cell, off, first.size), atol=1e-9)
    np.testing.assert_allclose(second.ravel(), np.bincount(cell, off**2, first.size), rtol=1e-9, atol=1e-9)
    assert set(np.flatnonzero(np.isnan(recentred))) == {5, 6, 9, 11}


def test_the_ring_mean_that_was_guessed_does_not_matter(noisy):
    photons, ring, azimuth, mean, excluded = noisy
    one, other = (sums(photons, ring, azimuth, mean + shift, excluded) for shift in (0.0, 3.0))
    for found, expected in zip(other, one, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-8)


def test_polar_residual_and_its_noise_are_mean_and_standard_error_of_the_pixels(noisy):
    photons, ring, azimuth, mean, excluded = noisy
    first, second, count, mean = sums(photons, ring, azimuth, mean, excluded)
    residual, noise = polar_of(first, second, count, min_pixels=60)
    missing = 0
    for polar_ring, bin_ in np.ndindex(residual.shape):
        inside = (ring // 4 == polar_ring) & (azimuth == bin_) & ~excluded & ~np.isnan(mean[ring])
        values = (photons - mean[ring])[inside & ~np.isnan(photons)].astype(np.float64)
        if values.size < 60:
            assert np.isnan(residual[polar_ring, bin_])
            assert np.isnan(noise[polar_ring, bin_])
            missing += 1
            continue
        assert residual[polar_ring, bin_] == pytest.approx(values.mean(), rel=1e-5, abs=1e-6)
        assert noise[polar_ring, bin_] == pytest.approx(values.std(ddof=1) / np.sqrt(values.size), rel=1e-5)
    assert 0 < missing < residual.size / 5


def test_rings_that_do_not_fill_a_polar_ring_are_left_over():
    ring, azimuth, _ = scattered()
    photons = np.ones(ring.size, np.float32)
    assert polar_of(*sums(photons, ring, azimuth, np.ones(RINGS))[:3], rings_per_bin=7)[0].shape == (3, AZIMUTHS)


def test_the_anisotropy_is_that_of_an_analysis_of_variance(noisy):
    photons, ring, azimuth, mean, excluded = noisy
    found = anisotropy_of(photons, ring, azimuth, mean, excluded=excluded)
    for number in np.flatnonzero(np.isfinite(found)):
        used = (ring == number) & ~excluded & ~np.isnan(photons)
        values, cell = photons[used].astype(float), azimuth[used]
        groups = [values[cell == bin_] for bin_ in np.unique(cell)]
        sizes = np.array([group.size for group in groups])
        within = sum(((group - group.mean()) ** 2).sum() for group in groups) / (values.size - len(groups))
        between = sum(g.size * (g.mean() - values.mean()) ** 2 for g in groups) / (len(groups) - 1)
        typical = (values.size - (sizes**2).sum() / values.size) / (len(groups) - 1)
        assert found[number] == pytest.approx((between - within) / typical / values.mean() ** 2, rel=1e-8, abs=1e-12)
    assert np.isfinite(found).sum() == RINGS - 4


@pytest.mark.parametrize("level", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("gain", [1.0, 32.0])
def test_the_anisotropy_of_pure_noise_is_zero_within_its_error(level, gain):
    """Whatever a photon reads: the noise is taken from the scatter within cells."""
    random = np.random.default_rng(int(level * 100))
    shape = (200, AZIMUTHS)
    ring, azimuth, _ = scattered(600_000, shape=shape)
    photons = (gain * random.poisson(level, size=ring.size)).astype(np.float32)
    found = anisotropy_of(photons, ring, azimuth, np.zeros(200), shape=shape)
    error = found.std() / np.sqrt(found.size)
    pixels_of_ring = ring.size / 200
    assert abs(found.mean()) < 4 * error
    assert found.std() == pytest.approx(np.sqrt(2 * AZIMUTHS) / pixels_of_ring / level, rel=0.25), "as counting allows"
    assert (found < 0).mean() > 0.4, "negative values are kept, or averages would be biased"


@pytest.mark.parametrize("amplitude", [0.1, 0.3])
def test_a_planted_wave_of_amplitude_a_gives_half_of_a_squared(amplitude):
    random = np.random.default_rng(5)
    ring, azimuth, angle = scattered(1_500_000)
    photons = random.poisson(10 * (1 + amplitude * np.cos(2 * angle))).astype(np.float32)
    found = anisotropy_of(photons, ring, azimuth, np.full(RINGS, 10.0))
    assert found.mean() == pytest.approx(amplitude**2 / 2, rel=0.05)


def test_a_gain_factor_changes_no_anisotropy():
    random = np.random.default_rng(6)
    ring, azimuth, angle = scattered()
    photons = random.poisson(10 * (1 + 0.2 * np.cos(2 * angle))).astype(np.float32)
    once, scaled = (anisotropy_of(factor * photons, ring, azimuth, np.full(RINGS, 10.0)) for factor in (1, 30))
    np.testing.assert_allclose(scaled, once, rtol=1e-6)


def test_rings_that_are_empty_dark_or_negative_have_no_anisotropy():
    random = np.random.default_rng(8)
    ring, azimuth, _ = scattered()
    photons = random.normal(5, 1, size=ring.size).astype(np.float32)
    photons[ring == 1] = 0
    photons[ring == 2] -= 10
    photons[ring == 3] = np.nan
    azimuth[ring == 4] = azimuth[ring == 4] % 2  # two cells are too few to have a variance
    found = anisotropy_of(photons, ring, azimuth, np.full(RINGS, 5.0))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found)), [1, 2, 3, 4])


def excess_of(residual, noise=None):
    noise = np.ones(residual.shape) if noise is None else noise
    return find_diffuse_excess(residual.astype(np.float32), noise.astype(np.float32))


def reference_excess(residual, noise):
    significance = np.where(noise > 0, residual / np.where(noise > 0, noise, 1), np.nan)
    bins = significance.shape[1]
    along = np.full(significance.shape, np.nan)
    for ring, bin_ in np.ndindex(significance.shape):
        near = significance[ring, np.arange(bin_ - 4, bin_ + 5) % bins]
        n = np.isfinite(near).sum()
        if n > 4 and np.isfinite(significance[ring, bin_]):
            along[ring, bin_] = (significance[ring, bin_] - np.nanmean(near)) / np.sqrt(1 - 1 / n)
    squares = []
    for ring, bin_ in np.ndindex(significance.shape):
        near = along[max(ring - 4, 0) : ring + 5, bin_]
        n = np.isfinite(near).sum()
        if n > 4 and np.isfinite(along[ring, bin_]):
            squares.append((along[ring, bin_] - np.nanmean(near)) ** 2 / (1 - 1 / n))
    return np.median(squares) / 0.4549364 - 1 if squares else np.nan


@pytest.fixture(scope="module")
def pure():
    """Residual and noise of thirty frames of pure noise; some bins missing."""
    random = np.random.default_rng(9)
    noise = random.uniform(0.2, 2.0, size=(30, 60, AZIMUTHS))
    residual = noise * random.normal(size=noise.shape)
    is_missing = random.uniform(size=noise.shape) < 0.15
    return np.where(is_missing, np.nan, residual), np.where(is_missing, np.nan, noise)


def test_the_diffuse_excess_is_that_of_plain_numpy(pure):
    for residual, noise in zip(*pure, strict=True):
        expected = reference_excess(residual.astype(np.float32), noise.astype(np.float32))
        assert excess_of(residual, noise) == pytest.approx(expected, abs=1e-5)
        break


def test_the_diffuse_excess_of_pure_noise_is_zero_within_its_error(pure):
    found = np.array([excess_of(residual, noise) for residual, noise in zip(*pure, strict=True)])
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(found.size)
    assert found.std() < 0.06


def smooth(kind):
    ring, azimuth = np.mgrid[:60, :AZIMUTHS]
    if kind == "beam shift":
        return 10 * np.cos(azimuth * 2 * np.pi / AZIMUTHS) * np.exp(-ring / 30)
    if kind == "shadow":
        return -8 / (1 + np.exp((ring - 25) / 4)) * np.exp(-((azimuth - 30) ** 2) / 200)
    return np.where((azimuth == 17) | (azimuth == 53), 10.0, 0.0)  # a jet streak along the radius


@pytest.mark.parametrize("kind", ["beam shift", "shadow", "streak"])
def test_what_is_smooth_along_rings_or_radii_drops_out_of_the_diffuse_excess(pure, kind):
    change = [excess_of(r + smooth(kind) * n, n) - excess_of(r, n) for r, n in zip(*pure, strict=True)]
    assert abs(np.mean(change)) < 0.1


def test_local_features_raise_the_diffuse_excess(pure):
    random = np.random.default_rng(10)
    ring, azimuth = np.mgrid[:60, :AZIMUTHS]
    blobs = np.zeros((60, AZIMUTHS))
    for r, a in zip(random.integers(60, size=150), random.integers(AZIMUTHS, size=150), strict=True):
        blobs += 3 * np.exp(-((ring - r) ** 2 + (azimuth - a) ** 2) / 3)
    raised = [excess_of(r + blobs * n, n) - excess_of(r, n) for r, n in zip(*pure, strict=True)]
    assert np.min(raised) > 0.1
    doubled = [excess_of(r + 2 * blobs * n, n) - excess_of(r, n) for r, n in zip(*pure, strict=True)]
    assert np.mean(doubled) > 2 * np.mean(raised)


def test_a_frame_without_noise_or_without_bins_has_no_diffuse_excess():
    assert np.isnan(excess_of(np.zeros((60, AZIMUTHS)), np.zeros((60, AZIMUTHS))))
    assert np.isnan(excess_of(np.full((60, AZIMUTHS), np.nan), np.full((60, AZIMUTHS), np.nan)))
    assert np.isnan(excess_of(np.ones((3, AZIMUTHS))))
