"""Hits merged into a map: the intensities come back, symmetry is exact, halves agree where there is something."""

import numpy as np
import pytest

from diffdask.errors import BadParameter, MissingVariable
from diffdask.steps.merge import (
    MapGrid,
    correlate_halves,
    embed_hits,
    find_volume_agreement,
    merge_halves,
    plan_grid,
    points_per_bin,
)
from diffdask.steps.similarity import find_arc_agreement, prepare_hits
from diffdask.symmetry import cartesian_rotations, laue_rotations
from diffdask.variables import wrap

RINGS, AZIMUTHS, WAVELENGTH = 30, 90, 1.3
RING_Q = np.linspace(0.3, 1.75, RINGS)
TETRAGONAL = np.diag([0.02, 0.02, 0.013])


def rotations_of(group, cell=TETRAGONAL):
    return cartesian_rotations(laue_rotations(group), cell)


def draw_rotations(count, seed=0):
    matrices = np.random.default_rng(seed).normal(size=(count, 3, 3))
    q, r = np.linalg.qr(matrices)
    q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    return q * np.linalg.det(q)[:, None, None]


def points_of(rotation):
    """Independent of the kernel: diffracted ray less incident one, of every bin, in the crystal's frame."""
    theta2 = 2 * np.arcsin(RING_Q * WAVELENGTH / (4 * np.pi))[:, None]
    azimuth = (np.arange(AZIMUTHS) + 0.5) * 2 * np.pi / AZIMUTHS
    ray = np.sin(theta2) * np.cos(azimuth), np.sin(theta2) * np.sin(azimuth), np.cos(theta2) - 1 + 0 * azimuth
    return 2 * np.pi / WAVELENGTH * np.stack(ray, axis=-1) @ rotation.T


def intensity_at(q, rotations):
    """A smooth function of reciprocal space with the symmetry of the rotations and Friedel's law."""
    random = np.random.default_rng(7)
    total = np.zeros(q.shape[:-1])
    for wave in random.normal(size=(4, 3)) * 3.0:
        for rotation in rotations:
            total += np.cos(q @ (rotation @ wave))
    return 5.0 * total / len(rotations)


def make_hits(count, rotations, *, noise=0.0, signal=1.0, seed=0):
    random, oriented = np.random.default_rng(seed), draw_rotations(count, seed)
    sigma = random.uniform(0.5, 2.0, (count, RINGS, AZIMUTHS))
    intensity = np.array([signal * intensity_at(points_of(rotation), rotations) for rotation in oriented])
    intensity += noise * sigma * random.normal(size=sigma.shape)
    intensity[:, 3, 5:9] = np.nan
    return wrap(
        cleaned_residual=(intensity / sigma).astype(np.float32),
        polar_noise=sigma.astype(np.float32),
        polar_ring_q=RING_Q,
        crystal_rotation=oriented,
        hit_wavelength=np.full(count, WAVELENGTH),
    )


def make_mixed_hits(count, rotations, *, noise=0.0, seed=0):
    """Hits of two crystals in any mixture and sign, so that pairs agree to any degree; ready for comparison."""
    random, oriented = np.random.default_rng(seed), draw_rotations(count, seed)
    points = np.array([points_of(rotation) for rotation in oriented])
    angle = random.uniform(0, 2 * np.pi, count)[:, None, None]
    intensity = np.cos(angle) * intensity_at(points, rotations) + np.sin(angle) * intensity_at(1.3 * points, rotations)
    intensity = intensity / intensity.std() + noise * random.normal(size=intensity.shape)
    intensity[:, 3, 5:9] = np.nan
    hits = wrap(cleaned_residual=intensity.astype(np.float32), polar_ring_q=RING_Q)
    where = wrap(crystal_rotation=oriented, hit_wavelength=np.full(count, WAVELENGTH))
    return prepare_hits(hits, spread_floor=0.0).merge(where)


def merge_all(hits, grid, rotations, **options):
    parts = [
        embed_hits(hits.isel(hit=slice(half, None, 2)), grid=grid, rotations=rotations, **options) for half in range(2)
    ]
    return merge_halves(*(np.stack(one) for one in zip(*parts, strict=True)), grid=grid, rotations=rotations, **options)


def centres(grid):
    place = (np.arange(grid.size) - grid.size // 2) * grid.step
    return np.stack(np.meshgrid(place, place, place, indexing="ij"), axis=-1)


@pytest.mark.parametrize("group", ["-1", "mmm", "4/m", "4/mmm"])
def test_merged_noise_free_slices_give_back_the_intensities(group):
    rotations, grid = rotations_of(group), plan_grid(size=40, q_max=1.5)
    volume = merge_all(make_hits(60, rotations), grid, rotations)
    expected = intensity_at(centres(grid), rotations)
    known = np.isfinite(volume.map_intensity.values)
    assert known.mean() > 0.35
    difference = volume.map_intensity.values[known] - expected[known]
    assert np.sqrt(np.mean(difference**2)) < 0.1 * expected[known].std()
    assert abs(difference.mean()) < 0.01 * expected[known].std()
    assert np.nanmin(volume.half_map_correlation.values[4:]) > 0.9


@pytest.mark.parametrize("size", [30, 31])
@pytest.mark.parametrize("group", ["2/m", "mmm", "4/m", "4/mmm", "m-3"])
def test_the_map_has_laue_and_friedel_symmetry_exactly(group, size):
    rotations, grid = rotations_of(group, np.eye(3) * 0.02), plan_grid(size=size, q_max=1.5)
    volume = merge_all(make_hits(6, rotations, noise=1.0), grid, rotations)
    reach = (size - 1) // 2
    place = np.stack(np.meshgrid(*(np.arange(-reach, reach + 1),) * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    for values in (volume.map_intensity.values, volume.map_weight.values):
        own = values[tuple((place + size // 2).T)]
        for rotation in np.rint(rotations).astype(int):
            for sign in (1, -1):
                np.testing.assert_array_equal(values[tuple((sign * place @ rotation.T + size // 2).T)], own)


def test_friedel_is_left_out_where_it_is_not_wanted():
    rotations, grid = np.eye(3)[None], plan_grid(size=30, q_max=1.5)
    volume = merge_all(make_hits(4, rotations, noise=1.0), grid, rotations, friedel=False)
    weight = volume.map_weight.values[1:, 1:, 1:]
    assert not np.array_equal(weight, weight[::-1, ::-1, ::-1])


def test_a_mean_is_weighted_with_inverse_variances():
    rotations, grid = np.eye(3)[None], plan_grid(size=12, q_max=1.6)
    hits = make_hits(1, rotations).isel(hit=[0, 0])
    noise = np.ones(hits.polar_noise.shape)
    noise[1] = 3.0
    value = np.ones(noise.shape)
    value[1] = 11.0
    hits = hits.merge(wrap(polar_noise=noise, cleaned_residual=value / noise), overwrite_vars=hits.data_vars)
    found = merge_all(hits, grid, rotations).map_intensity.values
    np.testing.assert_allclose(found[np.isfinite(found)], (1.0 + 11.0 / 9) / (1 + 1 / 9), rtol=1e-6)


def test_the_weights_of_all_bins_arrive_and_no_more():
    rotations, grid = rotations_of("mmm"), plan_grid(size=50, q_max=2.0)
    hits = make_hits(3, rotations)
    sums, weights = embed_hits(hits, grid=grid, rotations=rotations)
    there = np.isfinite(hits.cleaned_residual.values)
    assert weights.sum() == pytest.approx((1.0 / hits.polar_noise.values[there] ** 2).sum(), rel=1e-5)
    expected = (hits.cleaned_residual.values / hits.polar_noise.values)[there].sum()
    assert sums.sum() == pytest.approx(expected, rel=1e-4)


def test_hits_without_orientation_and_bins_without_noise_add_nothing():
    rotations, grid = np.eye(3)[None], plan_grid(size=20, q_max=1.5)
    hits = make_hits(2, rotations)
    hits["crystal_rotation"] = hits.crystal_rotation.where(hits.hit == 1)
    hits["polar_noise"] = hits.polar_noise.where(hits.hit == 0, 0.0)
    sums, weights = embed_hits(hits, grid=grid, rotations=rotations)
    assert not sums.any()
    assert not weights.any()


def test_rings_below_q_min_stay_out():
    rotations, grid = np.eye(3)[None], plan_grid(size=40, q_max=1.5)
    _, weights = embed_hits(make_hits(4, rotations), grid=grid, rotations=rotations, q_min=0.8)
    filled = np.linalg.norm(centres(grid), axis=-1).ravel()[weights > 0]
    assert filled.min() > 0.8 - 1.5 * grid.step


def test_halves_of_noise_correlate_with_nothing():
    rotations, grid = rotations_of("mmm"), plan_grid(size=30, q_max=1.5)
    volume = merge_all(make_hits(40, rotations, noise=1.0, signal=0.0), grid, rotations, friedel=True)
    found, count = volume.half_map_correlation.values, volume.half_map_voxels.values
    known = np.isfinite(found)
    assert known.sum() > 10
    # a bin lies in several voxels: fewer values are independent than there are voxels
    assert (np.abs(found[known]) < 8.0 / np.sqrt(count[known])).all()
    assert abs(np.average(found[known], weights=count[known])) < 0.05


def test_halves_of_a_signal_correlate_the_better_the_stronger_it_is():
    rotations, grid = rotations_of("mmm"), plan_grid(size=30, q_max=1.5)
    means = []
    for signal in (0.05, 0.2, 1.0):
        volume = merge_all(make_hits(40, rotations, noise=1.0, signal=signal), grid, rotations)
        found, count = volume.half_map_correlation.values, volume.half_map_voxels.values
        means.append(np.average(found[count > 200], weights=count[count > 200]))
    assert means[0] < means[1] < means[2]
    assert means[2] > 0.9


def test_shells_with_too_few_voxels_say_nothing():
    grid = plan_grid(size=21, q_max=1.0)
    random = np.random.default_rng(0)
    sums, weights = random.normal(size=(2, 21**3)), np.ones((2, 21**3))
    found = correlate_halves(sums, weights, grid=grid, shell_count=10)
    assert np.isnan(found.half_map_correlation.values[0])
    assert found.half_map_voxels.values[0] < 20
    assert np.isfinite(found.half_map_correlation.values[1:]).all()
    np.testing.assert_allclose(found.map_shell_q.values, np.arange(0.05, 1.0, 0.1))
    inside = np.linalg.norm(centres(grid), axis=-1) < 1.0 - 1e-9
    assert found.half_map_voxels.values.sum() == inside.sum()


def test_a_constant_correlates_with_nothing():
    grid = plan_grid(size=11, q_max=1.0)
    found = correlate_halves(np.ones((2, 11**3)), np.ones((2, 11**3)), grid=grid, shell_count=2)
    assert np.isnan(found.half_map_correlation.values).all()


@pytest.mark.parametrize(("size", "reach"), [(20, 9), (21, 10)])
def test_a_grid_ends_at_q_max(size, reach):
    grid = plan_grid(size=size, q_max=1.7)
    assert grid.q_max == pytest.approx(1.7)
    assert (reach + 0.5) * grid.step == pytest.approx(1.7)


def test_points_of_a_bin_are_a_voxel_apart_at_most():
    for size in (10, 37, 120):
        grid = plan_grid(size=size, q_max=2.5)
        along, around = points_per_bin(RING_Q, AZIMUTHS, grid)
        assert (RING_Q[1] - RING_Q[0]) / along <= grid.step * (1 + 1e-5)
        assert RING_Q[-1] * 2 * np.pi / AZIMUTHS / around <= grid.step * (1 + 1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4, "q_max": 1.0}, "size = 4"),
        ({"size": 2000, "q_max": 1.0}, "size = 2000"),
        ({"size": 9, "q_max": -1}, "q_max"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(options, message):
    with pytest.raises(BadParameter, match=message):
        plan_grid(**options)


def test_rings_that_are_not_even_are_refused():
    with pytest.raises(BadParameter, match="evenly spaced"):
        points_per_bin(np.array([0.1, 0.2, 0.5]), 36, MapGrid(20, 0.1))


def test_no_shells_are_refused():
    empty = np.zeros((2, 9**3))
    for options in ({"shell_count": 0}, {"q_min": 3.0}):
        with pytest.raises(BadParameter, match="no shells"):
            correlate_halves(empty, empty, grid=plan_grid(size=9, q_max=1.0), **options)


def test_what_is_missing_is_told():
    with pytest.raises(MissingVariable, match="polar_noise"):
        embed_hits(
            make_hits(1, np.eye(3)[None]).drop_vars("polar_noise"),
            grid=plan_grid(size=9, q_max=1.0),
            rotations=np.eye(3)[None],
        )


@pytest.mark.parametrize(
    ("group", "noise", "least"), [("4/mmm", 0.0, 0.95), ("-1", 0.0, 0.95), ("4/mmm", 1.0, 0.8), ("4/mmm", 4.0, 0.5)]
)
def test_embeddings_of_single_hits_rank_pairs_as_the_arcs_do(group, noise, least):
    from scipy.stats import spearmanr

    rotations = rotations_of(group)
    hits = make_mixed_hits(24, rotations, noise=noise)
    common = {"rotations": rotations, "is_diagonal": True}
    volume = find_volume_agreement(hits, hits, grid=plan_grid(size=200, q_max=1.8), **common)
    arcs = find_arc_agreement(hits, hits, **common)
    # the arcs leave out beams that are nearly parallel
    pairs = np.triu(np.isfinite(arcs.pair_agreement.values), 1)
    assert pairs.sum() > 250
    found = [one.pair_agreement.values[pairs] for one in (volume, arcs)]
    assert spearmanr(*found).statistic > least


def test_a_hit_agrees_wholly_with_its_mate_in_another_orientation():
    rotations = rotations_of("4/mmm")
    hits = make_mixed_hits(3, rotations)
    mates = hits.assign(crystal_rotation=(hits.crystal_rotation.dims, rotations[5] @ hits.crystal_rotation.values))
    options = {"grid": plan_grid(size=101, q_max=1.8), "rotations": rotations}
    found = find_volume_agreement(hits, mates, **options)
    np.testing.assert_allclose(np.diagonal(found.pair_agreement), 1.0, atol=1e-6)
    other = find_volume_agreement(mates, hits, **options)
    np.testing.assert_allclose(other.pair_agreement.T, found.pair_agreement, atol=1e-6)
    np.testing.assert_array_equal(other.pair_samples.T, found.pair_samples)


def test_hits_alone_or_without_orientation_have_no_agreement():
    rotations = rotations_of("mmm")
    hits = make_mixed_hits(4, rotations)
    hits["crystal_rotation"] = hits.crystal_rotation.where(hits.hit != 2)
    grid = plan_grid(size=60, q_max=1.8)
    found = find_volume_agreement(hits, hits, grid=grid, rotations=rotations, is_diagonal=True)
    expected = ~np.eye(4, dtype=bool)
    expected[2] = expected[:, 2] = False
    np.testing.assert_array_equal(np.isfinite(found.pair_agreement.values), expected)
    np.testing.assert_array_equal(found.pair_samples.values > 0, expected)
    np.testing.assert_array_equal(found.pair_agreement.values.T, found.pair_agreement.values)
    most = int(found.pair_samples.max())
    none = find_volume_agreement(hits, hits, grid=grid, rotations=rotations, is_diagonal=True, min_samples=most + 1)
    assert np.isnan(none.pair_agreement.values).all()
