"""Hits on polar bins, held against whole frames of the same plans."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from diffdask.errors import BadParameter
from diffdask.geometry import wavelength
from diffdask.simulate import make_experiment, plan_campaign, plan_run, simulate_frame, simulate_polar_hits
from diffdask.simulate.detector import layout_of, map_pixels
from diffdask.simulate.draw import draw_frame
from diffdask.simulate.polar import samples_of_run, simulate_polar_hit
from diffdask.simulate.polar_bragg import cut_haloes
from diffdask.simulate.polar_layout import make_grid
from diffdask.simulate.render import render_isotropic_and_diffuse
from diffdask.steps.layout import lay_out_rings
from diffdask.steps.polar import find_polar_residual
from diffdask.steps.screening import screening_parameters
from diffdask.variables import STATUS_OK, wrap

SIZES = {"rings": 12, "azimuths": 24}


@pytest.fixture(scope="module")
def few(small_experiment, small_detector):
    """Makes small sets of hits."""

    def make(experiment=small_experiment, **options):
        return simulate_polar_hits(experiment, detector=small_detector, **{"hits": 40, "runs": 3, **SIZES, **options})

    return make


@pytest.fixture(scope="module")
def experiment():
    """A crystal of small molecules in front of a CSPAD."""
    return make_experiment(
        5,
        molecule_radius=12.0,
        lattice="orthorhombic",
        cell=(60.0, 70.0, 80.0, 90.0, 90.0, 90.0),
        disorder="liquid-like",
        streak_fraction=0.0,
        ice_fraction=0.5,
        bragg=2000.0,
    )


@pytest.fixture(scope="module")
def compared(experiment):
    """Of two plans: the frame, what the polar step makes of it without counting noise and spots, and the polar hit."""
    campaign = plan_campaign(experiment, frames=30, runs=1, hits=1.0, diffuse=0.5)
    plans = plan_run(campaign, 1)
    strong = [plan for plan in plans if plan.strength == max(experiment.strengths)]
    chosen = [next(plan for plan in strong if plan.kind == kind) for kind in ("diffuse", "non-diffuse")]
    grid = make_grid(campaign.experiment, campaign.geometry_text, rings=40, azimuths=72, q_max=2.4)
    samples = samples_of_run(campaign, 1, grid)
    without_spots = replace(campaign, experiment=replace(experiment, bragg=1e-9))
    made = []
    for plan in chosen:
        frame = simulate_frame(campaign, plan, keep_truth=True)
        counted = simulate_polar_hit(campaign, plan, samples)
        expected = simulate_polar_hit(without_spots, plan, samples).expected
        made.append((plan, frame, _polar_of_frame(campaign, plan, frame, grid), counted, expected, samples))
    return made


def _polar_of_frame(campaign, plan, frame, grid):
    """Polar residual of a frame as read without noise and Bragg spots, and of the frame as read."""
    experiment, file = campaign.experiment, layout_of(campaign.geometry_text)
    maps = map_pixels(experiment, campaign.geometry_text, frame.run_scene.shift)
    photons = frame.truth.background + frame.truth.diffuse
    flaws = maps.gain.reshape(photons.shape) / maps.adu_per_photon[:, None, None]
    common_mode = draw_frame(campaign, plan).draw_common_mode(len(photons))
    free = (photons * flaws + common_mode[:, None, None]) * frame.adu_per_photon[:, None, None]
    columns = wrap(
        adu=np.stack([free, frame.adu]).astype(np.float32),
        pixel_is_good=file.pixel_is_good & ~maps.is_bad,
        pixel_is_wide=file.pixel_is_wide,
        photon_energy=np.full(2, frame.scene.photon_energy),
        camera_length=np.full(2, experiment.camera_length),
        run=np.ones(2, int),
        detector_shift=np.tile(frame.run_scene.shift, (2, 1)),
        frame_status=np.array([STATUS_OK] * 2, dtype=object),
    ).merge(file.geometry.to_dataset())
    layout = lay_out_rings(
        columns,
        ring_count=8 * grid.rings,
        q_min=grid.q_min,
        q_max=grid.q_max,
        polarisation_fraction=experiment.polarisation_fraction,
        polarisation_angle=experiment.polarisation_angle,
    )
    how = screening_parameters(
        common_mode="zero-peak", clip_low=5.0, clip_high=5.0, clip_passes=3, snr=6.0, threshold=5.0,
        min_pixels=2, max_pixels=30, radius=4,
    )  # fmt: skip
    return find_polar_residual(columns.merge(layout), how=how, polar_ring_count=grid.rings)


def test_a_polar_hit_is_the_polar_residual_of_its_frame(compared):
    for plan, _, frame, _, expected, samples in compared:
        seen = (samples.bin_pixels >= 10) & np.isfinite(frame.polar_residual.values[0])
        assert np.mean(seen == (samples.bin_pixels >= 10)) > 0.98
        one, other = frame.polar_residual.values[0][seen], expected[seen]
        assert np.corrcoef(one, other)[0, 1] > 0.99, plan.kind
        assert other.std() == pytest.approx(one.std(), rel=0.03)
        # What is left is far below the counting noise of a bin.
        assert np.std((one - other) / frame.polar_noise.values[1][seen]) < 0.2


def test_its_noise_is_that_of_the_frame_and_what_its_bins_scatter_by(compared):
    for _, _, frame, counted, _, samples in compared:
        seen = (samples.bin_pixels >= 30) & np.isfinite(frame.polar_residual.values).all(axis=0)
        assert np.median(counted.noise[seen] / frame.polar_noise.values[1][seen]) == pytest.approx(1.0, abs=0.02)
        scatter = (counted.residual - counted.expected)[seen] / counted.noise[seen]
        assert scatter.std() == pytest.approx(1.0, abs=0.06)
        assert abs(scatter.mean()) < 0.06


def test_what_bragg_spots_leave_is_in_the_frame_too(compared):
    along, across = 0.0, 0.0
    for _, _, frame, counted, expected, samples in compared:
        free, read = frame.polar_residual.values
        seen = (samples.bin_pixels >= 30) & np.isfinite(free) & np.isfinite(read)
        weight = 1 / frame.polar_noise.values[1][seen] ** 2
        left = (counted.expected - expected)[seen]
        along += np.sum(weight * left * (read - free)[seen])
        across += np.sum(weight * left**2)
    # Slope 1 if the spots left are the same ones, 0 if they are others; across is one over its variance.
    assert along / across == pytest.approx(0.85, abs=0.35)
    assert along / np.sqrt(across) > 5


def test_a_polar_hit_is_the_same_crystal_in_the_same_scene(compared):
    for _, frame, _, counted, _, _ in compared:
        np.testing.assert_array_equal(counted.drawn.crystal.reciprocal, frame.crystal.reciprocal)
        np.testing.assert_array_equal(counted.drawn.scene.shadow, frame.scene.shadow)
        assert counted.drawn.scene.photon_energy == frame.scene.photon_energy


def test_any_hits_and_any_threads_give_the_same(few):
    everything = few(diffuse=0.3)
    xr.testing.assert_identical(few(diffuse=0.3, threads=3), everything)
    some = few(diffuse=0.3, only=[38, 3, 17])
    whole = everything.isel(hit=[3, 17, 38])
    for name in ("polar_residual", "polar_noise", "orientation", "strength", "run"):
        np.testing.assert_array_equal(some[name], whole[name])
    assert some.hit.values.tolist() == [3, 17, 38]
    assert not np.array_equal(few(diffuse=0.3, seed=1).orientation, everything.orientation)


def test_the_set_is_what_was_asked_for(few, small_experiment):
    made = few(diffuse=0.25, strengths=(0.04,), rings=10, q_max=2.5)
    assert dict(made.sizes) == {"hit": 40, "polar_ring": 10, "azimuth": 24, "reciprocal_axis": 3, "xyz": 3}
    assert made.polar_residual.dtype == made.polar_noise.dtype == np.float32
    assert int(made.is_diffuse.sum()) == 10
    assert np.unique(made.run).tolist() == [1, 2, 3]
    assert (made.strength == 0.04).all()
    assert made.attrs["laue_group"] == "mmm"
    assert made.polar_ring_q.values[-1] + (made.polar_ring_q.values[1] - made.polar_ring_q.values[0]) / 2 == (
        pytest.approx(2.5)
    )
    missing = np.isnan(made.polar_residual.values)
    np.testing.assert_array_equal(missing, np.isnan(made.polar_noise.values))
    assert 0.02 < missing.mean() < 0.6
    assert (made.polar_noise.values[~missing] > 0).all()
    indexed = np.isfinite(made.orientation.values).all(axis=(1, 2))
    np.testing.assert_array_equal(indexed, made.lattice.values == "orthorhombic P *")
    np.testing.assert_array_equal(made.orientation.values[indexed], made.true_orientation.values[indexed])
    assert few(replace(small_experiment, indexed_fraction=0.0)).orientation.isnull().all()


def test_brightness_does_not_tell_the_classes_apart(few, small_experiment):
    still = replace(small_experiment, pulse_jitter=0.0, jet_jitter=0.0, strengths=(0.05,), common_mode=0.0, bragg=1e-9)
    made = few(still, hits=60, runs=1, diffuse=0.5)
    level = (made.polar_noise**2).mean(("polar_ring", "azimuth"))
    assert float(level[made.is_diffuse].mean()) == pytest.approx(float(level[~made.is_diffuse].mean()), rel=0.02)


def test_diffuse_hits_have_structure_and_others_have_none(few, small_experiment):
    plain = replace(
        small_experiment, shadow_depth=0.0, panel_gain_spread=0.0, common_mode=0.0, strengths=(0.1,), bragg=1e-9
    )
    made = few(plain, diffuse=0.5)
    score = ((made.polar_residual / made.polar_noise) ** 2).mean(("polar_ring", "azimuth"))
    assert float(score[made.is_diffuse].quantile(0.1)) > float(score[~made.is_diffuse].quantile(0.9))


def test_haloes_cut_on_bins_are_means_of_haloes_rendered_point_by_point(small_experiment, small_detector):
    experiment = replace(small_experiment, disorder="long-correlation", halo_length=200.0)
    campaign = plan_campaign(experiment, frames=2, runs=1, hits=1.0, diffuse=1.0, detector=small_detector)
    grid = make_grid(campaign.experiment, campaign.geometry_text, rings=3, azimuths=24, q_min=1.2, q_max=1.8)
    samples = samples_of_run(campaign, 1, grid)
    plan = plan_run(campaign, 1)[0]
    drawn = draw_frame(campaign, plan)
    cut = cut_haloes(campaign.experiment, plan, drawn.scene, drawn.crystal, samples).mean(axis=1)
    # Points of equal area on the sphere, many a bin; the cells lie where the experiment's photon energy has them.
    rings, turns = 900, 2400
    size = np.sqrt(np.linspace(*grid.s_range**2, 2 * rings + 1)[1::2]) * wavelength(experiment.photon_energy)
    azimuth = (np.arange(turns) + 0.5) * 2 * np.pi / turns
    across = size * np.sqrt(1 - size**2 / 4)
    points = [
        np.outer(across, np.cos(azimuth)),
        np.outer(across, np.sin(azimuth)),
        np.outer(-(size**2) / 2, 0 * azimuth + 1),
    ]
    scattering = np.stack(points, axis=-1).reshape(-1, 3).astype(np.float32)
    _, rendered = render_isotropic_and_diffuse(
        campaign.experiment,
        plan,
        drawn.scene,
        drawn.crystal,
        scattering,
        np.ones(rings * turns, np.float32),
        samples.s_max,
    )
    ring = np.minimum(
        (size / wavelength(experiment.photon_energy) - grid.s_range[0]) / np.diff(grid.s_range) * 3, 2.999
    )
    by_azimuth = rendered.reshape(rings, 24, -1).mean(axis=2)
    direct = np.stack([by_azimuth[ring.astype(int) == number].mean(axis=0) for number in range(3)])
    assert np.corrcoef(cut.ravel(), direct.ravel())[0, 1] > 0.99
    assert cut.mean() == pytest.approx(direct.mean(), rel=0.05)
    assert cut.std() == pytest.approx(direct.std(), rel=0.05)


def test_what_makes_no_sense_is_refused(few):
    with pytest.raises(BadParameter, match=r"misindexed_fraction=1\.5"):
        few(misindexed=1.5)
    with pytest.raises(BadParameter, match="hits are numbered from 0 to 39"):
        few(only=[40])
    with pytest.raises(BadParameter, match="q_min=3"):
        few(q_min=3.0, q_max=2.0)
    with pytest.raises(BadParameter, match="azimuths=8"):
        few(azimuths=8)
