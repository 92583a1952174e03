import itertools

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.transform import Rotation

from diffdask.errors import BadParameter, MissingVariable
from diffdask.planning import tiles_of
from diffdask.steps.similarity import (
    find_ambiguity_agreement,
    find_arc_agreement,
    find_correlation_agreement,
    find_euclidean_agreement,
    find_squared_distance,
    orient_hits,
    prepare_hits,
)
from diffdask.symmetry import ambiguity_rotations, cartesian_rotations, laue_rotations, mean_cell
from diffdask.variables import wrap

CELL = np.linalg.inv(np.array([[60.0, 0.0, 0.0], [-30.0, 60.0 * np.sqrt(0.75), 0.0], [0.0, 0.0, 80.0]])).T
Q = np.linspace(0.3, 1.8, 16)
AZIMUTHS = 144


def crystal_signal(points, rotations, seed=1):
    """A smooth random function with the symmetry of the rotations and Friedel's."""
    random = np.random.default_rng(seed)
    waves, phases = 7.0 * random.normal(size=(50, 3)), random.uniform(0, 2 * np.pi, 50)
    return sum(np.cos(sign * points @ g.T @ waves.T + phases).sum(axis=-1) for g in rotations for sign in (1, -1))


def make_hits(count, *, group="6/m", noise=0.0, relabelled=()):
    """Hits with orientation: cleaned residual, and the rotations of their group in the crystal's frame."""
    random = np.random.default_rng(0)
    laboratory = Rotation.random(count, random_state=3).as_matrix()
    orientation = CELL @ laboratory  # rows a*, b*, c*
    energy = 9500.0 * (1 + 1e-3 * random.normal(size=count))
    cell = mean_cell(orientation, laue_rotations("6/mmm"))
    rotations = cartesian_rotations(laue_rotations(group), cell)
    oriented = orient_hits(frames(orientation, energy), cell=cell)
    azimuth = 2 * np.pi * (np.arange(AZIMUTHS) + 0.5) / AZIMUTHS
    residual = np.empty((count, len(Q), AZIMUTHS))
    for hit in range(count):
        sine = Q * oriented.hit_wavelength.values[hit] / (4 * np.pi)
        two_theta = 2 * np.arcsin(sine)[:, None]
        direction = [np.sin(two_theta) * np.cos(azimuth), np.sin(two_theta) * np.sin(azimuth)]
        out = np.stack([*direction, np.broadcast_to(np.cos(two_theta), direction[0].shape)], axis=-1)
        points = (out - [0, 0, 1]) * 2 * np.pi / oriented.hit_wavelength.values[hit]
        residual[hit] = crystal_signal(points @ oriented.crystal_rotation.values[hit].T, rotations)
    residual = residual / residual.std() + noise * random.normal(size=residual.shape)
    if len(relabelled):
        orientation[list(relabelled)] = ambiguity_rotations(group, "6/mmm")[1].T @ orientation[list(relabelled)]
        oriented = orient_hits(frames(orientation, energy), cell=cell)
    cleaned = wrap(cleaned_residual=residual.astype(np.float32), polar_ring_q=Q)
    return prepare_hits(cleaned, spread_floor=0.0).merge(oriented), rotations, cell


def frames(orientation, energy):
    return wrap(orientation=orientation, photon_energy=energy)


def above(array):
    return array[np.triu_indices(len(array), 1)]


def test_prepared_rings_have_mean_0_and_spread_1():
    random = np.random.default_rng(0)
    values = random.normal(5.0, 3.0, (4, 16, 72)).astype(np.float32)
    values[0, 3, 10:20] = np.nan
    values[1, 4, 10:] = np.nan
    prepared = prepare_hits(wrap(cleaned_residual=values, polar_ring_q=Q), q_min=0.45, q_max=1.65)
    kept = prepared.standardised_residual.values
    np.testing.assert_allclose(prepared.similarity_ring_q, Q[(Q >= 0.45) & (Q <= 1.65)])
    assert kept.dtype == np.float32
    assert np.isnan(kept[1, 2]).all(), "too little of the ring"
    np.testing.assert_array_equal(np.isnan(kept[0]), np.isnan(values[0, 2:14]))
    seen = ~np.isnan(kept).all(axis=2)
    np.testing.assert_allclose(np.nanmean(kept[seen], axis=1), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.nanstd(kept[seen], axis=1), 1.0, rtol=1e-5)


def test_rings_quieter_than_counting_noise_are_not_blown_up():
    values = np.random.default_rng(0).normal(0.0, 0.1, (2, 16, 72)).astype(np.float32)
    prepared = prepare_hits(wrap(cleaned_residual=values, polar_ring_q=Q))
    np.testing.assert_allclose(np.std(prepared.standardised_residual), 0.1, rtol=0.1)
    flat = prepare_hits(wrap(cleaned_residual=np.ones((2, 16, 72), np.float32), polar_ring_q=Q), spread_floor=0.0)
    assert np.isnan(flat.standardised_residual).all()


def test_preparing_stays_lazy_and_chunks_do_not_matter():
    values = np.random.default_rng(0).normal(size=(10, 16, 72)).astype(np.float32)
    hits = wrap(cleaned_residual=values, polar_ring_q=Q)
    lazy = prepare_hits(hits.chunk({"hit": 3}), q_min=0.5)
    assert lazy.standardised_residual.chunks is not None
    xr.testing.assert_equal(lazy.compute(), prepare_hits(hits, q_min=0.5))


def test_preparing_says_what_is_missing():
    with pytest.raises(MissingVariable, match="cleaned_residual"):
        prepare_hits(wrap(polar_ring_q=Q))
    with pytest.raises(BadParameter, match=r"no ring lies between q_min = 3.0 .* from 0.300 to 1.800"):
        prepare_hits(wrap(cleaned_residual=np.zeros((1, 16, 72)), polar_ring_q=Q), q_min=3.0)


def test_detector_agreements_are_those_of_the_bins_in_both():
    hits, _, _ = make_hits(5, noise=1.0)
    values = hits.standardised_residual.values.copy()
    values[1, :, 20:50], values[2, 3:6] = np.nan, np.nan
    hits["standardised_residual"] = hits.standardised_residual.copy(data=values)
    correlation, euclidean = find_correlation_agreement(hits, hits), find_euclidean_agreement(hits, hits, sigma=1.7)
    for i, j in itertools.product(range(5), repeat=2):
        x, y = values[i].ravel().astype(float), values[j].ravel().astype(float)
        both = ~np.isnan(x) & ~np.isnan(y)
        expected = np.corrcoef(x[both], y[both])[0, 1]
        assert correlation.pair_agreement.values[i, j] == pytest.approx(expected, abs=1e-5)
        distance = np.mean((x[both] - y[both]) ** 2)
        assert euclidean.pair_agreement.values[i, j] == pytest.approx(-distance / 1.7, abs=1e-5)
        assert correlation.pair_samples.values[i, j] == euclidean.pair_samples.values[i, j] == both.sum()


def test_hits_without_a_common_bin_have_no_agreement():
    values = np.random.default_rng(0).normal(size=(2, 4, 72)).astype(np.float32)
    values[0, :, :36], values[1, :, 36:] = np.nan, np.nan
    hits = wrap(standardised_residual=values)
    for found in (find_correlation_agreement(hits, hits), find_euclidean_agreement(hits, hits, sigma=1.0)):
        assert np.isnan(found.pair_agreement.values).tolist() == [[False, True], [True, False]]
        assert found.pair_samples.values.tolist() == [[144, 0], [0, 144]]


def test_identical_hits_are_at_no_distance_and_wholly_correlated():
    hits, _, _ = make_hits(3)
    np.testing.assert_allclose(np.diag(find_squared_distance(hits, hits)), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.diag(find_correlation_agreement(hits, hits).pair_agreement), 1.0, atol=1e-5)
    with pytest.raises(BadParameter, match="sigma = 0"):
        find_euclidean_agreement(hits, hits, sigma=0.0)


def test_hits_of_one_crystal_agree_along_arcs_and_not_on_the_detector():
    hits, rotations, _ = make_hits(12, noise=0.5)
    arcs = above(find_arc_agreement(hits, hits, rotations=rotations).pair_agreement.values)
    detector = above(find_correlation_agreement(hits, hits).pair_agreement.values)
    assert arcs.min() > 0.4
    assert abs(detector.mean()) < 0.05


def test_tiles_of_arcs_are_parts_of_the_whole():
    hits, rotations, _ = make_hits(7, noise=1.0)
    whole = find_arc_agreement(hits, hits, rotations=rotations, is_diagonal=True)
    np.testing.assert_array_equal(whole.pair_agreement, whole.pair_agreement.values.T)
    assert np.isnan(np.diag(whole.pair_agreement)).all(), "a hit has no agreement with itself"
    for rows, columns in tiles_of(7, 3):
        here, there = hits.isel(hit=slice(*rows)), hits.isel(hit=slice(*columns))
        tile = find_arc_agreement(here, there, rotations=rotations, is_diagonal=rows == columns)
        for name in ("pair_agreement", "pair_samples"):
            np.testing.assert_array_equal(tile[name], whole[name].values[slice(*rows), slice(*columns)])


def test_a_hit_that_is_not_indexed_agrees_with_none():
    hits, rotations, _ = make_hits(4)
    hits.crystal_rotation.values[2] = np.nan
    found = find_arc_agreement(hits, hits, rotations=rotations, is_diagonal=True)
    assert np.isnan(found.pair_agreement.values[2]).all()
    assert not found.pair_samples.values[2].any()
    assert np.isfinite(found.pair_agreement.values[0, [1, 3]]).all()


def test_too_few_samples_give_no_agreement():
    hits, rotations, _ = make_hits(4)
    found = find_arc_agreement(hits, hits, rotations=rotations, min_samples=10_000)
    assert np.isnan(found.pair_agreement).all()
    assert (above(found.pair_samples.values) > 0).all()


def test_the_agreement_says_how_the_axes_were_labelled():
    """In 6/m the lattice does not tell a from b: some hits are indexed the other way up."""
    relabelled = [1, 4]
    hits, rotations, cell = make_hits(6, relabelled=relabelled)
    ambiguities = cartesian_rotations(ambiguity_rotations("6/m", "6/mmm"), cell)
    found = find_ambiguity_agreement(hits, hits, rotations=rotations, ambiguities=ambiguities, is_diagonal=True)
    assert found.ambiguity_agreement.dims == ("ambiguity", "hit", "other_hit")
    is_other = np.isin(np.arange(6), relabelled)
    best = found.ambiguity_agreement.values.argmax(axis=0)
    np.testing.assert_array_equal(above(best), above(is_other[:, None] ^ is_other).astype(int))
    plain = find_arc_agreement(hits, hits, rotations=rotations, is_diagonal=True)
    np.testing.assert_array_equal(plain.pair_agreement, found.ambiguity_agreement[0])


def test_rings_that_no_beam_reaches_are_told_of():
    hits, rotations, _ = make_hits(2)
    hits["hit_wavelength"] = hits.hit_wavelength * 10
    with pytest.raises(BadParameter, match="lower q_max"):
        find_arc_agreement(hits, hits, rotations=rotations)
    with pytest.raises(MissingVariable, match="crystal_rotation"):
        find_arc_agreement(hits.drop_vars("crystal_rotation"), hits, rotations=rotations)
