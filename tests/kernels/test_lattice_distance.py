"""Profiles about lattice points of frames of one panel, against the same in plain NumPy."""

import numpy as np
import pytest

from diffdask.kernels.lattice_distance import Lattice, sum_lattice_profile
from diffdask.kernels.residual import Screening

SHAPE, RINGS, AZIMUTHS, WAVELENGTH = (1, 120, 130), 20, 8, 1.2
SIZE = int(np.prod(SHAPE))
EDGES, HALO = np.linspace(0.0, 0.01, 9), 300.0
HOW = Screening(
    common_mode_share=-1.0, clip_low=5.0, clip_high=5.0, clip_passes=3, ring_pixels=20, snr=6.0, threshold=5.0
)


@pytest.fixture(scope="module")
def maps(by_hand):
    """Pixels of a panel around the beam: (list, directions in the order of the list, rings (r,))."""
    _, ss, fs = np.indices(SHAPE)
    x, y = (fs - 61.3) * 2e-3, (ss - 58.2) * 2e-3
    ray = np.stack([x, y, np.ones(SHAPE)], axis=-1)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    ray[..., 2] -= 1.0
    ring = np.minimum(np.hypot(x, y) / 0.0075, RINGS - 1).astype(np.int32)
    ring[:, 30:40, 20:50] = -1
    azimuth = (np.arctan2(y, x) % (2 * np.pi) / (2 * np.pi) * AZIMUTHS).astype(np.int32)
    pixels = by_hand(ring, azimuth, 1.0 + 0.001 * fs, rings=RINGS, azimuths=AZIMUTHS)
    return pixels, ray.reshape(-1, 3)[pixels.place].astype(np.float32), by_hand.scratch(pixels, SHAPE, RINGS)


def make_lattice(**changes):
    """A triclinic lattice with spacings of about ten pixels."""
    reciprocal = np.array([[0.017, 0.002, 0.001], [-0.003, 0.0163, 0.002], [0.002, -0.001, 0.021]])
    plain = {"wavelength": WAVELENGTH, "size_width": 6e-4, "mosaicity": 2e-3, "spot_width": 1.3e-3}
    plain |= {"guard": 2.0, "shift": 0.0, **changes}
    return Lattice(direct=np.ascontiguousarray(np.linalg.inv(reciprocal).T), reciprocal=reciprocal, **plain)


def distances(maps, lattice):
    """Distance and whether outside Bragg spots of every listed pixel, (n,) each."""
    points = maps[1] / np.float64(WAVELENGTH)
    nearest = (np.rint(points @ lattice.direct.T - lattice.shift) + lattice.shift) @ lattice.reciprocal
    far2 = ((points - nearest) ** 2).sum(axis=1)
    depth = nearest[:, 2] + 0.5 * WAVELENGTH * (nearest**2).sum(axis=1)
    width2 = lattice.size_width**2 + lattice.mosaicity**2 * (nearest**2).sum(axis=1)
    across2 = np.maximum(far2 - depth**2, 0) / (lattice.spot_width**2 + 0.25 * width2)
    outside = depth**2 / width2 + across2 >= lattice.guard**2
    return np.sqrt(far2), outside & (distances(maps, lattice._replace(shift=0.0))[1] if lattice.shift else True)


def sum_frame(maps, photons, lattice, rings=(0, RINGS), mean=4.0):
    """Sums of a frame of listed photons (n,), corrected."""
    pixels, direction, scratch = maps
    adu = np.zeros(SIZE, np.float32)
    adu[pixels.place] = photons / pixels.correction
    scratch.offset[:], scratch.deviation[:] = 0.0, 2.0
    sums = np.empty((EDGES.size, 4))
    means = np.full(RINGS, mean)
    sum_lattice_profile(
        adu, SHAPE, pixels, direction, np.ones(1, np.float32), HOW, scratch, means, np.array(rings), lattice, HALO,
        EDGES, sums,
    )  # fmt: skip
    return sums


def template(far):
    return 1 / (1 + (HALO * far) ** 2) ** 2


def cells_of(maps):
    return np.repeat(np.arange(RINGS * AZIMUTHS), np.diff(maps[0].start))


def sum_plainly(maps, photons, lattice):
    far, outside = distances(maps, lattice)
    outside = outside & (photons < 4 + 12)  # the limit, 6 x 2, lies above what the skewness adds in no pixel here
    sums, cell = np.zeros((EDGES.size, 4)), cells_of(maps)
    for number in range(RINGS * AZIMUTHS):
        used = (cell == number) & outside
        if used.sum() < 12:
            continue
        off, lean = photons[used] - photons[used].mean(), template(far[used]) - template(far[used]).mean()
        weight = 1 / photons[used].var(ddof=1)
        parts = weight * off, weight * np.ones(off.size), (weight * off) ** 2, np.ones(off.size)
        sums[:-1] += np.stack([np.histogram(far[used], EDGES, weights=part)[0] for part in parts], axis=1)
        sums[-1] += (weight * lean * off).sum(), (weight * lean**2).sum(), ((weight * lean * off) ** 2).sum(), off.size
    return sums


def make_photons(maps, seed=0, crest=0.0, lattice=None):
    far, _ = distances(maps, lattice or make_lattice())
    expected = 4.0 + crest * template(far)
    # half photons, so that no reading is a limit or an edge
    return np.random.default_rng(seed).poisson(expected) + np.random.default_rng(seed + 1).normal(0, 0.2, far.size)


@pytest.mark.parametrize("changes", [{}, {"shift": 0.5}, {"guard": 3.5}, {"mosaicity": 8e-3}])
def test_the_sums_are_those_of_plain_numpy(maps, changes):
    lattice = make_lattice(**changes)
    photons = np.minimum(make_photons(maps, crest=3.0), 15.5)
    found = sum_frame(maps, photons, lattice)
    np.testing.assert_allclose(found, sum_plainly(maps, photons, lattice), rtol=1e-4, atol=1e-3)
    assert found[-1, 3] > 3000


def test_the_crest_is_that_of_the_haloes_and_half_way_there_is_none(maps):
    crests, halfway = [], []
    for seed in range(12):
        photons = make_photons(maps, seed=10 * seed, crest=2.0)
        for lattice, kept in ((make_lattice(), crests), (make_lattice(shift=0.5), halfway)):
            total, weight, variance, _ = sum_frame(maps, photons, lattice)[-1]
            kept.append((total / weight, total / np.sqrt(variance)))
    assert np.mean(crests, axis=0)[0] == pytest.approx(2.0, abs=0.3)
    assert np.mean(crests, axis=0)[1] > 5
    assert abs(np.mean(halfway, axis=0)[1]) < 2  # what lies half-way is a little below the mean of its cell


def test_counting_noise_alone_has_mean_zero_and_unit_variance(maps):
    score = []
    for seed in range(150):
        total, _, variance, _ = sum_frame(maps, make_photons(maps, seed=7 * seed), make_lattice())[-1]
        score.append(total / np.sqrt(variance))
    assert abs(np.mean(score)) < 0.3
    assert np.std(score) == pytest.approx(1, abs=0.2)


def test_the_profile_falls_with_the_distance(maps):
    sums = np.sum(
        [sum_frame(maps, make_photons(maps, s, crest=4.0), make_lattice(guard=1.0)) for s in range(6)], axis=0
    )
    profile = (sums[:-1, 0] / sums[:-1, 1])[sums[:-1, 3] > 200]
    assert profile[0] > 1.0
    assert profile[-1] < 0
    assert (np.diff(profile) < 0.15).all()


def test_a_level_of_each_cell_and_a_wrong_background_change_nothing(maps):
    photons, lattice = np.minimum(make_photons(maps, crest=2.0), 10.0), make_lattice()
    levels = np.random.default_rng(4).uniform(-1, 1, RINGS * AZIMUTHS)[cells_of(maps)]
    before = sum_frame(maps, photons, lattice)
    np.testing.assert_allclose(sum_frame(maps, photons + levels, lattice), before, rtol=1e-3, atol=2e-2)
    np.testing.assert_allclose(sum_frame(maps, photons, lattice, mean=3.0), before, rtol=1e-4, atol=1e-3)


def test_bragg_spots_and_bright_pixels_add_nothing(maps):
    photons, lattice = np.minimum(make_photons(maps), 15.0), make_lattice(guard=6.0)
    before = sum_frame(maps, photons, lattice)
    _, outside = distances(maps, lattice)
    assert 0.01 < (~outside).mean() < 0.5
    np.testing.assert_array_equal(sum_frame(maps, np.where(outside, photons, 11.0), lattice), before)
    bright = photons.copy()
    bright[::50] = np.nan
    with_gaps = sum_frame(maps, bright, lattice)
    bright[::50] = 500.0
    np.testing.assert_array_equal(sum_frame(maps, bright, lattice), with_gaps)


def test_only_the_rings_asked_for_count(maps):
    photons, lattice = make_photons(maps), make_lattice()
    parts = [sum_frame(maps, photons, lattice, rings) for rings in ((0, 8), (8, RINGS), (0, RINGS))]
    np.testing.assert_allclose(parts[0] + parts[1], parts[2], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(sum_frame(maps, photons, lattice, mean=np.nan), 0)
