"""What the stream says of orientations, held against the true ones."""

from dataclasses import replace

import numpy as np
import pytest

from diffdask.errors import BadParameter
from diffdask.simulate import make_experiment, plan_campaign, plan_run
from diffdask.simulate.crystal import draw_crystal
from diffdask.simulate.draw import draw_frame
from diffdask.simulate.indexing import index_crystal, relabel_axes, turn_about
from diffdask.simulate.render import render_isotropic_and_diffuse
from diffdask.symmetry import ambiguity_rotations, laue_rotations


def index_many(experiment, count=400):
    random = np.random.default_rng(3)
    crystals = [draw_crystal(experiment, random) for _ in range(count)]
    return crystals, [index_crystal(experiment, crystal, random) for crystal in crystals]


def angles_between(crystals, indexed):
    """Angles, in degrees, of the rotations from true to indexed axes."""
    turns = [np.linalg.inv(c.reciprocal) @ i.reciprocal for c, i in zip(crystals, indexed, strict=True)]
    np.testing.assert_allclose(
        [turn @ turn.T for turn in turns], np.broadcast_to(np.eye(3), (len(turns), 3, 3)), atol=1e-9
    )
    return np.rad2deg(np.arccos(np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1)))


def test_without_errors_the_stream_tells_the_truth():
    crystals, indexed = index_many(make_experiment(1), 20)
    for crystal, found in zip(crystals, indexed, strict=True):
        np.testing.assert_array_equal(found.reciprocal, crystal.reciprocal)
        assert not found.is_misindexed
        assert found.ambiguity == 0


@pytest.mark.parametrize("error", [0.1, 1.0])
def test_orientations_are_off_by_the_angle_asked_for_about_any_axis(error):
    crystals, indexed = index_many(make_experiment(1, orientation_error=error))
    angles = angles_between(crystals, indexed)
    assert np.sqrt(np.mean(angles**2)) == pytest.approx(error, rel=0.1)
    assert angles.max() < 4 * error


def test_the_share_asked_for_is_misindexed_to_any_orientation_of_the_same_cell():
    crystals, indexed = index_many(make_experiment(1, misindexed_fraction=0.3))
    wrong = np.array([found.is_misindexed for found in indexed])
    angles = angles_between(crystals, indexed)
    assert wrong.mean() == pytest.approx(0.3, abs=0.07)
    assert (angles[~wrong] < 1e-5).all()
    assert np.median(angles[wrong]) > 60


def test_misindexing_leaves_frames_and_other_orientations_as_they_are(small_experiment, small_detector):
    drawn = []
    for share in (0.0, 0.5):
        experiment = replace(small_experiment, misindexed_fraction=share, orientation_error=0.2)
        campaign = plan_campaign(experiment, frames=30, runs=1, hits=1.0, detector=small_detector)
        drawn.append([draw_frame(campaign, plan) for plan in plan_run(campaign, 1)])
    for one, other in zip(*drawn, strict=True):
        np.testing.assert_array_equal(one.crystal.reciprocal, other.crystal.reciprocal)
        assert one.scene.pulse == other.scene.pulse
        if one.indexing is not None and not other.indexing.is_misindexed:
            np.testing.assert_array_equal(one.indexing.reciprocal, other.indexing.reciprocal)


def test_a_turn_is_a_rotation_by_its_length():
    turn = turn_about(np.array([0.0, 0.0, 0.3]))
    np.testing.assert_allclose(turn @ [1, 0, 0], [np.cos(0.3), np.sin(0.3), 0])
    np.testing.assert_allclose(turn_about(np.zeros(3)), np.eye(3))


@pytest.mark.parametrize(("group", "count"), [("6/m", 2), ("P 61", 2), ("-3", 4), ("6/mmm", 1)])
def test_of_the_labellings_that_fit_the_lattice_the_stream_has_any(group, count):
    experiment = make_experiment(3, lattice="hexagonal", laue_group=group)
    crystals, indexed = index_many(experiment)
    chosen = np.bincount([found.ambiguity for found in indexed], minlength=count)
    assert len(chosen) == count
    assert chosen.min() > 0.7 * 400 / count
    rotations = ambiguity_rotations(group, "hexagonal P c")
    hkl = np.random.default_rng(0).integers(-9, 10, size=(20, 3))
    for crystal, found in zip(crystals[:20], indexed, strict=False):
        np.testing.assert_allclose(
            found.reciprocal @ found.reciprocal.T, crystal.reciprocal @ crystal.reciprocal.T, atol=1e-12
        )
        relabelled = hkl @ rotations[found.ambiguity].T
        np.testing.assert_allclose(relabelled @ found.reciprocal, hkl @ crystal.reciprocal, atol=1e-12)


@pytest.mark.parametrize("disorder", ["liquid-like", "long-correlation"])
@pytest.mark.parametrize(("group", "lattice"), [("mmm", "orthorhombic"), ("4/m", "tetragonal"), ("2/m", "monoclinic")])
def test_only_labellings_of_the_laue_group_leave_the_diffuse_scattering_as_it_is(group, lattice, disorder):
    experiment = make_experiment(4, laue_group=group, molecule_radius=10.0, disorder=disorder, halo_length=150.0)
    assert experiment.lattice == lattice
    campaign = plan_campaign(experiment, frames=20, runs=1, hits=1.0, diffuse=1.0)
    plan = plan_run(campaign, 1)[0]
    drawn = draw_frame(campaign, plan)
    rays = np.random.default_rng(2).normal(size=(4000, 3)) * [0.25, 0.25, 0.0] + [0, 0, 1]
    scattering = (rays / np.linalg.norm(rays, axis=1, keepdims=True) - [0, 0, 1]).astype(np.float32)

    def render(reciprocal):
        crystal = replace(drawn.crystal, reciprocal=reciprocal)
        collected = np.ones(len(scattering), np.float32)
        return render_isotropic_and_diffuse(experiment, plan, drawn.scene, crystal, scattering, collected, 0.42)[1]

    truth = render(drawn.crystal.reciprocal)
    assert truth.std() > 0.01
    for rotation in laue_rotations(group):
        mate = render(relabel_axes(drawn.crystal.reciprocal, rotation))
        assert np.abs(mate - truth).max() < 2e-3 * truth.max()
    assert np.abs(render(-drawn.crystal.reciprocal) - truth).max() < 2e-3 * truth.max(), "Friedel's law"
    if group == "4/m":
        other = render(relabel_axes(drawn.crystal.reciprocal, ambiguity_rotations(group, "4/mmm")[1]))
        assert np.corrcoef(other, truth)[0, 1] < 0.9


def test_a_group_that_the_lattice_cannot_have_is_refused():
    with pytest.raises(BadParameter, match="is no subgroup"):
        make_experiment(1, lattice="orthorhombic", laue_group="4/m")
    with pytest.raises(BadParameter, match="did you mean '6/mmm'"):
        make_experiment(1, laue_group="6/mm")
    with pytest.raises(BadParameter, match="no lattice"):
        make_experiment(1, laue_group="m-3")
    with pytest.raises(BadParameter, match="misindexed_fraction=2"):
        make_experiment(1, misindexed_fraction=2.0)
    with pytest.raises(BadParameter, match="orientation_error=-1"):
        make_experiment(1, orientation_error=-1.0)


@pytest.mark.parametrize(
    ("group", "lattice"), [("2/m", "monoclinic"), ("mmm", "orthorhombic"), ("4/mmm", "tetragonal")]
)
def test_a_laue_group_brings_its_lattice(group, lattice):
    experiment = make_experiment(8, laue_group=group)
    assert experiment.lattice == lattice
    assert experiment.symmetry == group
    assert make_experiment(8, lattice=lattice).symmetry == group
