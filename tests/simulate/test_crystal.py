import numpy as np
import pytest

from diffdask.errors import BadParameter
from diffdask.simulate import Experiment, make_experiment
from diffdask.simulate.crystal import (
    cell_axes,
    draw_crystal,
    draw_rotation,
    excite_reflections,
    wilson_intensities,
)


def test_axes_have_the_cells_lengths_and_angles():
    cell = (50.0, 60.0, 70.0, 80.0, 105.0, 95.0)
    axes = cell_axes(cell)
    lengths = np.linalg.norm(axes, axis=1)
    np.testing.assert_allclose(lengths, cell[:3])
    cosines = (axes @ axes.T) / np.outer(lengths, lengths)
    np.testing.assert_allclose(np.rad2deg(np.arccos([cosines[1, 2], cosines[0, 2], cosines[0, 1]])), cell[3:])


def test_random_rotations_are_rotations_and_favour_no_direction():
    random = np.random.default_rng(0)
    rotations = np.array([draw_rotation(random) for _ in range(4000)])
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (4000, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1.0)
    assert np.abs(rotations.mean(axis=0)).max() < 5 / np.sqrt(3 * 4000)


def test_laue_mates_have_the_same_intensity_and_intensities_are_wilsons():
    experiment = make_experiment(1, lattice="tetragonal", cell=(50.0, 50.0, 70.0, 90.0, 90.0, 90.0))
    one = wilson_intensities(experiment, np.array([[3, 1, 2], [1, -3, 2], [-3, -1, -2]], np.int32))
    assert len(set(one)) == 1
    indices = np.stack(np.meshgrid(*[np.arange(1, 31)] * 3, indexing="ij"), -1).reshape(-1, 3).astype(np.int32)
    triclinic = make_experiment(1, lattice="triclinic")
    many = wilson_intensities(triclinic, indices)
    assert many.mean() == pytest.approx(1.0, abs=0.03)
    assert (many**2).mean() == pytest.approx(2.0, abs=0.12)


def test_centring_takes_reflections_away():
    for centring, rule in (("C", [1, 1, 0]), ("I", [1, 1, 1])):
        experiment = make_experiment(2, centring=centring)
        crystal = draw_crystal(experiment, np.random.default_rng(0))
        indices = excite_reflections(experiment, crystal, 9500.0, 0.3).indices
        assert len(indices) > 20
        assert not ((indices @ rule) % 2).any()


def test_another_seed_is_another_experiment_and_the_same_seed_the_same():
    assert make_experiment(3) == make_experiment(3)
    drawn = [make_experiment(seed) for seed in range(12)]
    for field in ("cell", "photon_energy", "camera_length", "background"):
        assert len({getattr(experiment, field) for experiment in drawn}) == 12
    assert len({experiment.lattice for experiment in drawn}) > 2
    assert {experiment.disorder for experiment in drawn} == {"liquid-like", "rigid-body"}


def test_an_unknown_field_or_word_says_what_is_known():
    with pytest.raises(BadParameter, match="did you mean 'camera_length'"):
        make_experiment(1, camera_lenght=0.1)
    with pytest.raises(BadParameter, match="liquid-like"):
        Experiment(disorder="liquidlike")
    with pytest.raises(BadParameter, match="hexagonal"):
        make_experiment(1, lattice="hexagona")
