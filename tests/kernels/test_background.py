"""Isotropic background, against plain NumPy and pyFAI's sigma clipping."""

import logging

import h5py
import numpy as np
import pytest

from diffdask.geometry import Geometry, momentum_transfer, pixel_positions
from diffdask.io.crystfel_geometry import read_geometry, take_panels
from diffdask.kernels.background import BRIGHTEST, RUN_COLUMNS, clip_ring, clip_runs, count_above, count_runs
from diffdask.kernels.lanes import sum_between
from diffdask.kernels.photons import NO_READING

PLAIN = {"low": 5.0, "high": 5.0, "floor": 0.0, "passes": 3, "min_pixels": 20}


def clip(photons, ring, ring_count, **how):
    """Clip every ring of unsorted photons, NaN where missing."""
    order = np.argsort(ring, kind="stable")
    values = photons[order].astype(np.float32)
    start = np.searchsorted(ring[order], np.arange(ring_count + 1))
    how = {**PLAIN, **how}.values()
    found = [clip_ring(values[start[number] : start[number + 1]], *how) for number in range(ring_count)]
    mean, deviation, count = (np.array(column) for column in zip(*found, strict=True))
    return mean, deviation, count


def reference_clip(photons, ring, ring_count, **how):
    """Ring by ring: mean, deviation and number of pixels within limits from the pass before."""
    how = {**PLAIN, **how}
    found = np.full((3, ring_count), np.nan)
    for number in range(ring_count):
        values = photons[(ring == number) & ~np.isnan(photons)].astype(np.float64)
        kept = values
        for _ in range(how["passes"]):
            if kept.size < how["min_pixels"]:
                break
            off = values - kept.mean()
            kept = values[(off >= -how["low"] * kept.std()) & (off <= max(how["high"] * kept.std(), how["floor"]))]
        enough = kept.size >= how["min_pixels"]
        found[:, number] = (kept.mean(), kept.std(), kept.size) if enough else (np.nan, np.nan, 0)
    return found


def frame(seed=0, rings=40, level=5.0, count=40_000):
    """Photons with Bragg spots on Poisson counts; rings from a handful of pixels to thousands."""
    random = np.random.default_rng(seed)
    ring = (rings * np.sqrt(random.uniform(size=count))).astype(np.int32)
    photons = random.poisson(level, size=count).astype(np.float32)
    photons[random.integers(count, size=count // 200)] += random.uniform(10, 400)
    return photons, ring


@pytest.mark.parametrize("passes", [0, 1, 3])
@pytest.mark.parametrize(("low", "high", "floor"), [(5.0, 5.0, 0.0), (6.0, 3.0, 0.0), (5.0, 3.0, 9.0)])
def test_ring_means_are_those_of_plain_numpy(passes, low, high, floor):
    photons, ring = frame()
    photons[::97] = np.nan
    how = {"passes": passes, "low": low, "high": high, "floor": floor}
    for found, expected in zip(clip(photons, ring, 45, **how), reference_clip(photons, ring, 45, **how), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-12)


def test_rings_of_too_few_pixels_or_only_nan_have_no_estimate():
    photons, ring = frame()
    photons[ring == 30] = np.nan
    mean, deviation, count = clip(photons, ring, 42, min_pixels=100)
    without = np.bincount(ring[~np.isnan(photons)], minlength=42) < 100
    assert without[[0, 1, 30, 40, 41]].all()
    assert not without[20:29].any()
    np.testing.assert_array_equal(np.isnan(mean), without)
    np.testing.assert_array_equal(np.isnan(deviation), without)
    assert (count[without] == 0).all()


def test_a_large_pedestal_changes_nothing_but_the_level():
    """E[x^2] - E[x]^2 in float32 would give a variance that is wrong by more than itself."""
    photons, ring = frame(level=30.0)
    _, deviation, count = clip(photons, ring, 40)
    mean_high, deviation_high, count_high = clip(photons + np.float32(1e6), ring, 40)
    used = count > 0
    np.testing.assert_array_equal(count, count_high)
    np.testing.assert_allclose(deviation_high[used], deviation[used], rtol=1e-4)
    np.testing.assert_allclose(mean_high[used] - 1e6, clip(photons, ring, 40)[0][used], atol=1e-4)


def test_most_of_a_ring_missing_does_not_cost_the_rest_its_precision():
    random = np.random.default_rng(0)
    photons = (1e6 + random.poisson(30.0, size=5000)).astype(np.float32)
    photons[random.uniform(size=5000) < 0.9] = np.nan
    mean, deviation, count = clip(photons, np.zeros(5000, np.int32), 1)
    assert mean[0] == pytest.approx(np.nanmean(photons.astype(float)), abs=1e-3)
    assert deviation[0] == pytest.approx(np.nanstd(photons.astype(float)), rel=1e-4)
    assert count[0] == np.isfinite(photons).sum()


@pytest.mark.parametrize("size", [0, 1, 7, 2048, 5000])
def test_sums_are_those_of_plain_numpy(size):
    photons = np.random.default_rng(size).poisson(9.0, size=size).astype(np.float32)
    inside = photons[(photons >= 4) & (photons <= 12)].astype(float) - 9
    shift = np.float32(9)
    found = sum_between(photons, np.float32(4), np.float32(12), shift)
    np.testing.assert_allclose(found, (inside.sum(), (inside**2).sum(), inside.size), rtol=1e-6)
    off = photons.astype(float) - 9
    assert count_above(photons, np.float32(12)) == (photons > 12).sum()
    spoilt = np.where(photons > 12, np.nan, photons).astype(np.float32)
    kept = off[photons <= 12]
    found = sum_between(spoilt, -NO_READING, NO_READING, shift)
    np.testing.assert_allclose(found, (kept.sum(), (kept**2).sum(), kept.size), rtol=1e-6)


def clip_all_anew(photons, low, high, floor, passes, shift):
    """The same passes with every sum taken of all pixels each time."""
    lowest, highest = -NO_READING, NO_READING
    for turn in range(passes + 1):
        first, second, pixels = sum_between(photons, lowest, highest, shift)
        off = first / pixels
        mean, deviation = float(shift) + off, np.sqrt(max(second / pixels - off * off, 0.0))
        if turn < passes:
            lowest = np.float32(mean - low * deviation - 1e-6 * abs(mean))
            highest = np.float32(mean + max(high * deviation, floor) + 1e-6 * abs(mean))
    return mean, deviation, pixels


@pytest.mark.parametrize("size", [20, 1024, 5000, 11546])
@pytest.mark.parametrize(("low", "high", "floor"), [(5.0, 5.0, 0.0), (1.5, 1.2, 0.0), (0.3, 4.0, 0.0), (5.0, 1.0, 9.0)])
@pytest.mark.parametrize("tail", ["above", "below", "far above"])
def test_sums_that_are_kept_from_pass_to_pass_are_those_taken_anew_bit_for_bit(size, low, high, floor, tail):
    random = np.random.default_rng(size)
    photons = random.gamma(0.7, 9.0, size) * (-1 if tail == "below" else 1)
    photons[random.uniform(size=size) < 0.01] += 4000 if tail == "far above" else 0
    photons = (photons + 3).astype(np.float32)
    evenly = np.sort(photons[[size * i // 9 for i in range(9)]])
    for passes in (0, 1, 2, 3, 9):
        expected = clip_all_anew(photons, low, high, floor, passes, evenly[4])
        if expected[2] >= 20:
            assert clip_ring(photons, low, high, floor, passes, 20) == expected


def test_pixels_that_were_clipped_count_again_where_limits_widen():
    """Part of a ring lies in shadow: once that is clipped, the mean is so much higher that the brightest are near."""
    random = np.random.default_rng(0)
    photons = np.where(random.uniform(size=6000) < 0.4, np.float32(0), np.float32(10))
    photons[5::300] = 12
    shift = np.sort(photons[[6000 * i // 9 for i in range(9)]])[4]
    assert clip_ring(photons, 1.1, 1.0, 5.0, 1, 20)[2] == (photons == 10).sum()
    assert clip_ring(photons, 1.1, 1.0, 5.0, 2, 20)[2] == (photons > 0).sum()
    for passes in (1, 2, 3):
        assert clip_ring(photons, 1.1, 1.0, 5.0, passes, 20) == clip_all_anew(photons, 1.1, 1.0, 5.0, passes, shift)


def test_the_table_of_runs_tells_the_brightest_reading_of_each_before_clipping():
    photons, _ = frame(count=5000)
    photons[[7, 2100]] = np.nan, 1e20
    runs = np.empty((count_runs(photons.size), RUN_COLUMNS))
    clip_runs(photons, *PLAIN.values(), runs)
    kept = np.where(photons < NO_READING, photons, -np.inf)
    expected = [kept[start : start + 1024].max() for start in range(0, 5000, 1024)]
    np.testing.assert_array_equal(runs[:, BRIGHTEST], expected)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e7])
@pytest.mark.parametrize("passes", [0, 3])
def test_a_ring_that_reads_the_same_everywhere_has_that_mean_and_no_deviation(value, passes):
    photons = np.full(1000, value, np.float32)
    mean, deviation, count = clip(photons, np.zeros(1000, np.int32), 1, passes=passes)
    assert mean[0] == pytest.approx(float(np.float32(value)), rel=1e-12)
    assert deviation[0] == pytest.approx(0.0, abs=1e-6 * abs(value))
    assert count[0] == 1000


@pytest.mark.parametrize("passes", [3, 8])
def test_spots_on_a_ring_without_a_photon_do_not_cost_the_ring_its_estimate(passes):
    """The mean then reaches zero but for rounding, and the limits must still hold the zeros."""
    random = np.random.default_rng(0)
    ring = np.repeat(np.arange(400), 500).astype(np.int32)
    photons = np.zeros(ring.size, np.float32)
    spots = random.uniform(size=ring.size) < 0.003
    photons[spots] = random.uniform(0.3, 900, size=spots.sum())
    mean, _, count = clip(photons, ring, 400, passes=passes)
    assert (count >= np.bincount(ring[~spots])).all()
    assert np.isfinite(mean).all()


def test_spots_and_dead_pixels_are_left_out_by_their_own_limits():
    random = np.random.default_rng(2)
    photons = random.poisson(100.0, size=5000).astype(np.float32)
    photons[:40], photons[40:60] = 500, 0
    ring = np.zeros(5000, np.int32)
    assert clip(photons, ring, 1)[2][0] == pytest.approx(4940, abs=2)
    assert clip(photons, ring, 1, low=1e9)[2][0] == pytest.approx(4960, abs=2)
    assert clip(photons, ring, 1, high=1e9)[2][0] > 4975


@pytest.mark.parametrize("level", [0.001, 0.01, 0.1, 0.3, 1.0, 5.0, 50.0])
def test_after_removal_every_ring_averages_to_zero_within_counting_noise(level):
    random = np.random.default_rng(3)
    ring = (60 * np.sqrt(random.uniform(size=300_000))).astype(np.int32)
    expected = level * (1 + np.cos(ring / 9) / 2)
    photons = random.poisson(expected).astype(np.float32)
    mean, _, count = clip(photons, ring, 60, floor=5.0)
    residual = np.bincount(ring, photons - mean[ring], 60) / np.bincount(ring, minlength=60)
    truth = level * (1 + np.cos(np.arange(60) / 9) / 2)
    noise = np.sqrt(truth / np.maximum(count, 1))
    used = count > 0
    assert used.sum() > 55
    assert np.abs(residual[used] / noise[used]).max() < 0.5, "less than noise: the mean was taken from these pixels"
    assert np.sqrt(np.mean(((mean - truth) / noise)[used] ** 2)) < 1.4, "and the level is the true one"


def pyfai_clip(photons, ring, ring_count, *, threshold, cycles):
    """Give what pyFAI's compressed-row engine, no pixel splitting, finds on exactly our rings."""
    from pyFAI.containers import ErrorModel
    from pyFAI.ext.splitBBoxCSR import HistoBBox1d

    engine = HistoBBox1d(ring + 0.5, None, bins=ring_count, pos0_range=(0, ring_count - 1e-3), empty=np.nan)
    found = engine.sigma_clip(photons, error_model=ErrorModel.AZIMUTHAL, cutoff=threshold, cycle=cycles, safe=False)
    return np.asarray(found.intensity), np.asarray(found.std), np.asarray(found.count)


def assert_pyfai_agrees(photons, ring, ring_count, min_pixels=100, floor=0.0):
    mean, deviation, count = clip(photons, ring, ring_count, min_pixels=min_pixels, floor=floor)
    their_mean, their_deviation, their_count = pyfai_clip(photons, ring, ring_count, threshold=5.0, cycles=3)
    used = count > 0
    off = np.abs(mean - their_mean)[used] / deviation[used]
    assert used.sum() > 0.8 * ring_count
    assert off.max() < 0.01
    np.testing.assert_allclose(their_deviation[used], deviation[used], rtol=0.02)
    np.testing.assert_allclose(their_count[used], count[used], rtol=2e-3)


def test_pyfai_agrees_to_a_hundredth_of_the_deviation_on_a_synthetic_frame():
    assert_pyfai_agrees(*frame(level=8.0, count=200_000), 40)


def test_pyfai_agrees_through_its_own_geometry():
    """The whole public way: its geometry, its q, its rings, its sigma clipping."""
    from pyFAI.detectors import Detector
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    logging.getLogger("pyFAI").setLevel(logging.ERROR)
    pixel, size, length, energy, rings = 1e-3, 200, 0.1, 9000.0, 50
    their = AzimuthalIntegrator(
        dist=length, poni1=0.11, poni2=0.09, wavelength=12398.419843320026 / energy * 1e-10,
        detector=Detector(pixel1=pixel, pixel2=pixel, max_shape=(size, size)),
    )  # fmt: skip
    ours = Geometry(
        panel_name=("p",), shape=(size, size), corner=np.array([[-0.09, -0.11, 0.0]]),
        ss_step=np.array([[0, pixel, 0]]), fs_step=np.array([[pixel, 0, 0]]),
        adu_per_ev=np.array([np.nan]), adu_per_photon=np.array([1.0]),
    )  # fmt: skip
    q = momentum_transfer(pixel_positions(ours, camera_length=length), energy)[0]
    edges = np.linspace(0.1, 0.95 * q.max(), rings + 1)
    ring = np.floor((q.ravel() - edges[0]) / (edges[1] - edges[0])).astype(np.int32)
    inside = (ring >= 0) & (ring < rings)
    random = np.random.default_rng(4)
    photons = random.poisson(20 / (1 + q)).astype(np.float32)
    photons.ravel()[random.integers(photons.size, size=200)] = 300
    mean, deviation, count = clip(photons.ravel()[inside], ring[inside], rings)
    found = their.sigma_clip(
        photons, rings, correctSolidAngle=False, error_model="azimuthal", unit="q_A^-1", thres=5.0, max_iter=3,
        radial_range=(edges[0], edges[-1]), method=("no", "csr", "cython"),
    )  # fmt: skip
    np.testing.assert_allclose(found.radial, (edges[1:] + edges[:-1]) / 2, rtol=1e-6)
    assert (count > 0).all()
    off = np.abs(mean - found.intensity) / deviation
    assert off[1:].max() < 0.01, "pyFAI's first ring takes in pixels from below the range"


def test_pyfai_agrees_on_cspad_frames_of_another_simulator(shared):
    folder = shared / "cspad_sim_a"
    geometry = read_geometry(folder / "A_dev.geom")
    with h5py.File(folder / "A_dev.cxi") as file:
        frames = file["/entry_1/data_1/data"][[0, 7]]
        energy = float(np.median(file["/LCLS/photon_energy_eV"][:]))
    positions = pixel_positions(geometry.geometry, camera_length=0.128)
    good = geometry.pixel_is_good & ~geometry.pixel_is_wide
    q = momentum_transfer(positions, energy)
    ring = np.floor((q - q[good].min()) / np.ptp(q[good]) * 479.999).astype(np.int32)[good]
    for slab in frames:
        photons = take_panels(slab, geometry)[good].astype(np.float32) / 2
        assert_pyfai_agrees(photons, ring, 480)
