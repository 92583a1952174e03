import itertools

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from diffdask.kernels.arcs import STEPS, locate_shared_points, pack_frames, sum_arcs
from diffdask.symmetry import laue_rotations

Q = np.linspace(0.3, 2.0, 12)
AZIMUTHS = 72
LIMITS = np.array([np.sin(np.radians(5.0)), np.cos(np.pi / AZIMUTHS)])
MMM = laue_rotations("mmm").astype(float)


class Frames:
    """Frames in random orientations, with wavelengths of their own."""

    def __init__(self, count, *, q=Q, azimuths=AZIMUTHS, jitter=1e-3, seed=0):
        random = np.random.default_rng(seed)
        self.q, self.azimuths = q, azimuths
        self.axes = Rotation.random(count, random_state=seed).as_matrix()
        self.wavelength = 1.4 * (1.0 + jitter * random.normal(size=count))
        self.sines = q * self.wavelength[:, None] / (4 * np.pi)
        self.values = random.normal(size=(count, len(q), azimuths)).astype(np.float32)

    def centres(self):
        return 2 * np.pi * (np.arange(self.azimuths) + 0.5) / self.azimuths


def reciprocal_points(axes, wavelength, q, azimuth):
    """Points of reciprocal space in the crystal's frame, (..., xyz), of rings q at azimuths: from k_out - k_in."""
    two_theta = 2 * np.arcsin(q * wavelength / (4 * np.pi))
    azimuth = np.asarray(azimuth)
    out = [np.sin(two_theta) * np.cos(azimuth), np.sin(two_theta) * np.sin(azimuth), np.cos(two_theta) + 0 * azimuth]
    return (np.stack(out, axis=-1) - [0.0, 0.0, 1.0]) * (2 * np.pi / wavelength) @ axes.T


def agree(frames, *, rotations=MMM, friedel=True, oversampling=1, rows=None, columns=None, skip=None):
    everything = np.arange(len(frames.axes))
    rows, columns = everything if rows is None else rows, everything if columns is None else columns
    packed = pack_frames(frames.values, oversampling)
    sums = np.empty((len(rows), len(columns), 4), dtype=np.int64)
    skip = -len(everything) if skip is None else skip
    sum_arcs(
        *(packed[rows], packed[columns], frames.axes[rows], frames.axes[columns]),
        *(frames.sines[rows], frames.sines[columns], rotations, friedel, LIMITS, skip, sums),
    )
    return sums


def correlate(sums):
    return sums[..., 0] / np.sqrt(sums[..., 1] * sums[..., 2])


def pairs(sums):
    return sums[np.triu_indices(len(sums), 1)]


def smooth_crystal(rotations, *, seed=5, terms=60, scale=6.0, friedel=True):
    """A random smooth function of reciprocal space that has the symmetry."""
    random = np.random.default_rng(seed)
    waves, phases = scale * random.normal(size=(terms, 3)), random.uniform(0, 2 * np.pi, terms)

    def strength(points):
        mates = [sign * points @ g.T for g in rotations for sign in ((1, -1) if friedel else (1,))]
        return sum(np.cos(mate @ waves.T + phases).sum(axis=-1) for mate in mates) / np.sqrt(terms * len(mates) / 2)

    return strength


def show(frames, strength):
    frames.values = np.array(
        [
            strength(reciprocal_points(axes, wavelength, frames.q[:, None], frames.centres()))
            for axes, wavelength in zip(frames.axes, frames.wavelength, strict=True)
        ],
        dtype=np.float32,
    )


@pytest.mark.parametrize("jitter", [0.0, 1e-3, 0.1])
@pytest.mark.parametrize("is_friedel", [False, True])
def test_shared_points_are_the_same_reciprocal_point_in_both_frames(jitter, is_friedel):
    frames = Frames(8, jitter=jitter)
    found = 0
    for (i, j), g, ring in itertools.product(itertools.combinations(range(8), 2), MMM, range(len(Q))):
        mate = g @ frames.axes[j]
        points = locate_shared_points(frames.axes[i], mate, frames.sines[[i, j], ring], is_friedel)
        if np.isnan(points).any():
            continue
        one = reciprocal_points(frames.axes[i], frames.wavelength[i], Q[ring], points[:, 0])
        other = reciprocal_points(mate, frames.wavelength[j], Q[ring], points[:, 1])
        np.testing.assert_allclose(one, -other if is_friedel else other, atol=1e-9)
        assert np.linalg.norm(one[0] - one[1]) > 0, "the two branches are two points"
        found += 1
    assert found > 500


def test_in_one_wavelength_the_arc_is_the_one_of_the_half_angle():
    """azimuth = azimuth of the other beam +- arccos(-tan(theta) tan(alpha / 2))."""
    frames = Frames(2, jitter=0.0, seed=3)
    relative = frames.axes[0].T @ frames.axes[1]
    alpha, theta = np.arccos(relative[2, 2]), np.arcsin(frames.sines[0, 5])
    expected = np.arctan2(relative[1, 2], relative[0, 2]) + np.arccos(-np.tan(theta) * np.tan(alpha / 2))
    points = locate_shared_points(*frames.axes, frames.sines[:, 5])
    assert points[0, 0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("group", "friedel"), [("-1", False), ("-1", True), ("mmm", True), ("6/m", False)])
def test_the_kernel_adds_what_the_formulae_locate(group, friedel):
    frames = Frames(6)
    frames.values[:, :, 10:20] = np.nan
    rotations = laue_rotations(group).astype(float)
    if group == "6/m":  # of hexagonal axes: as rotations of vectors
        rotations = Rotation.from_rotvec(np.outer(np.arange(6) * np.pi / 3, [0, 0, 1])).as_matrix()
    sums = agree(frames, rotations=rotations, friedel=friedel)
    packed = np.rint(frames.values.astype(float) * STEPS)
    for i, j in itertools.combinations(range(6), 2):
        samples = []
        for g, law, ring in itertools.product(rotations, (False, True) if friedel else (False,), range(len(Q))):
            points = locate_shared_points(frames.axes[i], g @ frames.axes[j], frames.sines[[i, j], ring], law)
            if np.isnan(points).any() or is_grazing(frames, i, g @ frames.axes[j], points):
                continue
            cells = np.floor(points % (2 * np.pi) / (2 * np.pi) * AZIMUTHS).astype(int)
            samples += [(packed[i, ring, a], packed[j, ring, b]) for a, b in cells]
        x, y = (samples := np.array(samples))[~np.isnan(samples).any(axis=1)].T
        np.testing.assert_array_equal(sums[i, j], [x @ y, x @ x, y @ y, len(x)])


def is_grazing(frames, i, mate, points):
    relative = frames.axes[i].T @ mate
    toward = np.array([np.arctan2(relative[1, 2], relative[0, 2]), np.arctan2(relative[2, 1], relative[2, 0])])
    return (np.abs(np.cos(points - toward)) >= LIMITS[1]).any()


@pytest.mark.parametrize("is_friedel", [False, True])
def test_what_is_located_is_the_overlap_in_three_dimensions(is_friedel):
    """Finely sampled rings are put into 3D; where they come closest to each other, and touch, is common."""
    frames, step = Frames(3, q=np.array([0.5, 1.0, 1.7]), seed=2), 2 * np.pi / 3600
    fine, sign, found = step * np.arange(3600), -1 if is_friedel else 1, 0
    for (i, j), g, ring in itertools.product(itertools.combinations(range(3), 2), MMM, range(3)):
        mate = g @ frames.axes[j]
        one = reciprocal_points(frames.axes[i], frames.wavelength[i], frames.q[ring], fine)
        other = sign * reciprocal_points(mate, frames.wavelength[j], frames.q[ring], fine)
        distance, nearest = cKDTree(other).query(one)
        is_closest = (distance <= np.roll(distance, 1)) & (distance < np.roll(distance, -1))
        met = np.flatnonzero(is_closest & (distance < frames.q[ring] * step))
        overlaps = fine[np.stack([met, nearest[met]], axis=1)]
        located = locate_shared_points(frames.axes[i], mate, frames.sines[[i, j], ring], is_friedel)
        if np.isnan(located).any():
            assert len(met) == 0
        elif not is_grazing(frames, i, mate, located):
            difference = np.angle(np.exp(1j * (overlaps[:, None] - located)))
            assert len(met) == 2
            assert np.abs(difference).max(axis=2).min(axis=0).max() < 0.3 * 2 * np.pi / AZIMUTHS
            assert sorted(np.abs(difference).max(axis=2).argmin(axis=0)) == [0, 1]
            found += 1
    assert found > 15


def test_frames_of_one_crystal_agree_on_their_arcs():
    frames = Frames(10, azimuths=144)
    show(frames, smooth_crystal(MMM))
    assert correlate(pairs(agree(frames, oversampling=4))).min() > 0.97
    show(frames, smooth_crystal(MMM, friedel=False))
    assert correlate(pairs(agree(frames, oversampling=4, friedel=False))).min() > 0.97


def test_interpolation_in_azimuth_brings_them_closer():
    frames = Frames(10)
    show(frames, smooth_crystal(MMM, scale=12.0))
    nearest, linear = (correlate(pairs(agree(frames, oversampling=n))).mean() for n in (1, 4))
    assert linear > nearest + 0.01


def test_frames_in_shuffled_orientations_do_not_agree():
    frames = Frames(40)
    show(frames, smooth_crystal(MMM))
    frames.values -= frames.values.mean(axis=2, keepdims=True)
    true = correlate(pairs(agree(frames)))
    frames.axes = np.roll(frames.axes, 7, axis=0)
    false = correlate(pairs(agree(frames)))
    assert abs(false.mean()) < 4 * false.std() / np.sqrt(40)  # pairs share frames: not more than 40 are independent
    assert true.mean() > 0.8


def test_noise_agrees_as_little_as_its_samples_allow():
    sums = pairs(agree(Frames(60)))
    z = correlate(sums) * np.sqrt(sums[:, 3])
    assert abs(z.mean()) < 0.1
    assert z.std() == pytest.approx(1.0, abs=0.08)


def test_the_order_of_two_frames_changes_nothing():
    frames = Frames(12)
    sums = agree(frames)
    np.testing.assert_array_equal(sums, sums.transpose(1, 0, 2)[..., [0, 2, 1, 3]])


def test_an_operation_of_the_laue_group_on_one_frame_changes_nothing():
    frames, turned = Frames(6), Frames(6)
    turned.axes[3] = MMM[2] @ turned.axes[3]
    np.testing.assert_array_equal(pairs(agree(turned)), pairs(agree(frames)))


def test_turning_the_crystals_frame_changes_nothing():
    frames, turned = Frames(6), Frames(6)
    turn = Rotation.from_rotvec([0.3, -1.0, 0.4]).as_matrix()
    turned.axes = turn @ turned.axes
    np.testing.assert_array_equal(pairs(agree(turned, rotations=turn @ MMM @ turn.T)), pairs(agree(frames)))


def test_turning_a_detector_with_its_crystal_changes_nothing():
    frames, turned = Frames(6), Frames(6)
    turned.values[2] = np.roll(turned.values[2], 10, axis=1)
    turned.axes[2] = turned.axes[2] @ Rotation.from_euler("z", -10 * 360 / AZIMUTHS, degrees=True).as_matrix()
    for oversampling in (1, 4):
        np.testing.assert_array_equal(
            pairs(agree(turned, oversampling=oversampling)), pairs(agree(frames, oversampling=oversampling))
        )


def test_tiles_do_not_matter():
    frames = Frames(9)
    whole = agree(frames)
    for rows, columns in itertools.product((range(4), range(4, 9)), (range(2), range(2, 9))):
        tile = agree(frames, rows=list(rows), columns=list(columns))
        np.testing.assert_array_equal(tile, whole[np.ix_(rows, columns)])
    above = agree(frames, skip=1)
    np.testing.assert_array_equal(pairs(above), pairs(whole))
    assert not above[np.tril_indices(9)].any()


def test_missing_bins_take_no_part():
    frames = Frames(2)
    everywhere = pairs(agree(frames))[0, 3]
    frames.values[0, :, :36] = np.nan
    half = pairs(agree(frames))[0]
    assert half[3] == pytest.approx(everywhere / 2, rel=0.25)
    frames.values[1] = 3.0
    assert pairs(agree(frames))[0, 2] == half[3] * (3 * STEPS) ** 2
    frames.values[1] = np.nan
    assert not pairs(agree(frames)).any()


def test_frames_without_orientation_and_near_parallel_ones_have_no_samples():
    frames = Frames(3)
    frames.axes[1] = np.nan
    frames.axes[2] = Rotation.from_rotvec([0.01, 0.0, 0.0]).as_matrix() @ frames.axes[0]
    sums = agree(frames, rotations=np.eye(3)[None])
    assert not sums[1].any()
    assert not sums[0, 2].any()


def test_finer_azimuths_lie_on_the_lines_between_the_bins():
    values = np.array([[[0.0, 4.0, np.nan, 1.0]]], dtype=np.float32)
    packed = pack_frames(values, 2)[0]
    expected = np.array([0.25, 1.0, 3.0, 4.0, np.nan, np.nan, 1.0, 0.75]) * STEPS
    np.testing.assert_array_equal(np.where(packed == -128, np.nan, packed), [*expected, np.nan])
    np.testing.assert_array_equal(pack_frames(np.array([[[99.0, -99.0]]], dtype=np.float32), 1)[0], [127, -127, -128])
