from dataclasses import replace

import numpy as np
import pytest

from diffdask.errors import BadParameter
from diffdask.kernels.rendering import render_scattering, sample_map
from diffdask.simulate import make_experiment
from diffdask.simulate.crystal import cell_axes
from diffdask.simulate.disorder import (
    _convolve_with_correlation,
    _molecular_transform,
    draw_molecule,
    make_diffuse_map,
)
from diffdask.simulate.experiment import STRENGTH_WINDOW
from diffdask.simulate.scene import background_profile
from diffdask.symmetry import laue_rotations

CELLS = {
    "monoclinic": (50.0, 60.0, 70.0, 90.0, 105.0, 90.0),
    "tetragonal": (50.0, 50.0, 70.0, 90.0, 90.0, 90.0),
    "hexagonal": (50.0, 50.0, 70.0, 90.0, 90.0, 120.0),
}


def experiment_of(lattice="tetragonal", **overrides):
    return make_experiment(4, lattice=lattice, cell=CELLS[lattice], centring="P", molecule_radius=10.0, **overrides)


def sample(diffuse_map, indices):
    return np.array([sample_map(diffuse_map.values, *(index * diffuse_map.steps), -1.0) for index in indices])


def random_indices(experiment, s_max, count=200):
    random = np.random.default_rng(5)
    points = random.normal(size=(count, 3))
    points *= random.uniform(0.05, 0.95 * s_max, size=(count, 1)) / np.linalg.norm(points, axis=1, keepdims=True)
    return points @ cell_axes(experiment.cell).T


@pytest.mark.parametrize("lattice", CELLS)
@pytest.mark.parametrize("disorder", ["liquid-like", "rigid-body"])
def test_the_map_has_the_crystals_laue_symmetry(lattice, disorder):
    experiment = experiment_of(lattice, disorder=disorder)
    diffuse_map = make_diffuse_map(experiment, 0.42)
    indices = random_indices(experiment, 0.42)
    # On grid points, since interpolation itself is not symmetric in a hexagonal grid.
    indices = np.rint(indices * diffuse_map.steps) / diffuse_map.steps
    reference = sample(diffuse_map, indices)
    assert reference.min() >= 0
    assert reference.std() > 0.1 * reference.mean()
    for rotation in laue_rotations(experiment.symmetry):
        np.testing.assert_allclose(sample(diffuse_map, indices @ rotation.T), reference, rtol=1e-4)
        np.testing.assert_allclose(sample(diffuse_map, -indices @ rotation.T), reference, rtol=1e-4)


def test_the_molecular_transform_is_the_sum_over_beads():
    experiment = experiment_of("hexagonal", wilson_b=0.0)
    transform, s2 = _molecular_transform(experiment, 0.42)
    counts = np.array([*transform.shape[:2], 2 * transform.shape[2] - 1])
    box = cell_axes(experiment.cell) * (6 * experiment.molecule_radius + 20) / np.array(experiment.cell[:3])[:, None]
    beads = draw_molecule(experiment)
    # Beads sit on the corners of voxels of about an angstrom.
    rounded = np.floor(beads @ np.linalg.inv(box) * counts) / counts
    for index in ((0, 0, 0), (3, 1, 2), (-4, 2, 7)):
        direct = abs(np.exp(-2j * np.pi * rounded @ np.array(index)).sum()) ** 2
        assert transform[index] == pytest.approx(direct, rel=1e-3)
        assert s2[index] == pytest.approx(np.sum((np.array(index) @ np.linalg.inv(box).T) ** 2), rel=1e-4, abs=1e-9)


def test_liquid_like_motions_convolve_the_transform_with_that_of_the_exponential():
    from scipy.signal import fftconvolve

    gamma = 9.0
    experiment = experiment_of("tetragonal", correlation_length=gamma)
    transform, s2 = _molecular_transform(experiment, 0.42)
    convolved = _convolve_with_correlation(transform.copy(), experiment)

    def whole(half):
        centred = np.fft.fftshift(half, axes=(0, 1))
        return np.concatenate([centred[::-1, ::-1, :0:-1], centred], axis=2)

    # The Fourier transform of exp(-r / gamma) in three dimensions, per cell of the grid.
    kernel = 8 * np.pi * gamma**3 / (1 + (2 * np.pi * gamma) ** 2 * whole(s2).astype(float)) ** 2
    kernel /= (6 * experiment.molecule_radius + 20) ** 3
    direct = fftconvolve(whole(transform).astype(float), kernel, mode="same")
    inner = whole(s2) < 0.25**2
    difference = whole(convolved)[inner] - direct[inner]
    assert np.corrcoef(whole(convolved)[inner], direct[inner])[0, 1] > 0.999
    assert difference.std() < 0.03 * direct[inner].std()


def test_a_shorter_correlation_makes_a_smoother_map():
    roughness = []
    for gamma in (5.0, 12.0, 40.0):
        experiment = experiment_of(correlation_length=gamma, disorder="liquid-like")
        values = make_diffuse_map(experiment, 0.42).values
        shell = slice(20, -20)
        inner = values[shell, shell, 5:25]
        roughness.append(np.diff(inner, axis=0).std() / inner.std())
    assert roughness[0] < roughness[1] < roughness[2]


@pytest.mark.parametrize("disorder", ["liquid-like", "rigid-body"])
def test_a_strength_of_one_is_an_anisotropy_as_large_as_the_background(disorder):
    experiment = experiment_of("monoclinic", disorder=disorder)
    diffuse_map = make_diffuse_map(experiment, 0.42)
    random = np.random.default_rng(6)
    s = np.sqrt(random.uniform(1 / STRENGTH_WINDOW[0] ** 2, 1 / STRENGTH_WINDOW[1] ** 2, size=20000))
    points = random.normal(size=(20000, 3))
    points *= s[:, None] / np.linalg.norm(points, axis=1, keepdims=True)
    found = sample(diffuse_map, points @ cell_axes(experiment.cell).T)
    table = np.linspace(0, diffuse_map.s_max, diffuse_map.isotropic.size)
    anisotropy = (found - np.interp(s, table, diffuse_map.isotropic)) / background_profile(experiment, s)
    assert np.sqrt(np.mean(anisotropy**2)) == pytest.approx(1.0, abs=0.1)
    assert abs(anisotropy.mean()) < 0.1


def test_haloes_of_strength_one_are_as_bright_and_as_rough_as_the_map_says():
    experiment = experiment_of("monoclinic", disorder="long-correlation", halo_length=130.0)
    diffuse_map = make_diffuse_map(experiment, 0.42)
    random = np.random.default_rng(6)
    s = np.sqrt(random.uniform(1 / STRENGTH_WINDOW[0] ** 2, 1 / STRENGTH_WINDOW[1] ** 2, size=1_000_000))
    points = random.normal(size=(s.size, 3))
    points *= s[:, None] / np.linalg.norm(points, axis=1, keepdims=True)
    found = np.empty(s.size, np.float32)
    ignored = np.empty_like(found)
    render_scattering(
        points.astype(np.float32), np.ones(s.size, np.float32), 1.0, np.zeros((2, 3)), 1.0,
        cell_axes(experiment.cell), diffuse_map.values, diffuse_map.metric, diffuse_map.halo, 1.0,
        np.array([1.0, 0.0, 9.0, 0.1, 0.01, 0.0]), ignored, found,
    )  # fmt: skip
    isotropic = np.interp(s, np.linspace(0, diffuse_map.s_max, diffuse_map.isotropic.size), diffuse_map.isotropic)
    # The eight nearest haloes have most of the photons; the square is nearly all in the crests.
    assert found.mean() == pytest.approx(isotropic.mean(), rel=0.2)
    anisotropy = (found - isotropic) / background_profile(experiment, s)
    assert np.sqrt(np.mean(anisotropy**2)) == pytest.approx(1.0, abs=0.1)


def test_crests_have_the_crystals_laue_symmetry_and_its_centring():
    experiment = replace(experiment_of("tetragonal", disorder="long-correlation"), laue_group="4/m", centring="I")
    values = make_diffuse_map(experiment, 0.42).values

    def crest(h, k, index_l):
        return values[values.shape[0] // 2 + h, values.shape[1] // 2 + k, index_l]

    assert crest(5, 2, 3) > 0
    assert crest(-2, 5, 3) == crest(-5, -2, 3) == pytest.approx(crest(5, 2, 3))
    assert crest(2, 5, 3) != pytest.approx(crest(5, 2, 3)), "a mirror that 4/m lacks"
    assert crest(5, 2, 4) == 0


def test_haloes_shorter_than_the_cell_are_refused():
    with pytest.raises(BadParameter, match="halo_length=60"):
        experiment_of(disorder="long-correlation", halo_length=60.0)


def test_the_molecule_and_its_map_belong_to_the_seed():
    one, other = experiment_of(), replace(experiment_of(), seed=9)
    assert not np.array_equal(draw_molecule(one), draw_molecule(other))
    np.testing.assert_array_equal(draw_molecule(one), draw_molecule(experiment_of()))


def test_a_detector_that_sees_no_diffuse_scattering_says_so():
    with pytest.raises(BadParameter, match="8 angstrom"):
        make_diffuse_map(experiment_of(), 0.1)
