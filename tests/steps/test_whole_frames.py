"""Whole CSPAD frames, simulated with their truth kept: how right background and peaks come out."""

import numpy as np
import pytest

from diffdask.pixels import list_pixels
from diffdask.simulate import make_experiment, plan_campaign, plan_run, simulate_frame
from diffdask.simulate.detector import layout_of, map_pixels
from diffdask.steps.layout import lay_out_rings
from diffdask.steps.screening import screen_frames
from diffdask.variables import STATUS_OK, wrap


@pytest.fixture(scope="module")
def screened():
    """A diffuse hit and a blank of one run: what was simulated and what the screen says."""
    # the flaws that the geometry does not tell would hide the bias that is looked for
    experiment = make_experiment(3, panel_gain_spread=0.0, streak_fraction=0.0, ice_fraction=0.0, shadow_depth=0.0)
    campaign = plan_campaign(experiment, frames=60, runs=1)
    plans = plan_run(campaign, 1)
    strongest = max((plan for plan in plans if plan.kind == "diffuse"), key=lambda plan: plan.strength)
    chosen = [strongest, next(plan for plan in plans if plan.kind == "blank")]
    frames = [simulate_frame(campaign, plan, keep_truth=True) for plan in chosen]
    file = layout_of(campaign.geometry_text)
    good = file.pixel_is_good & ~map_pixels(experiment, campaign.geometry_text, frames[0].run_scene.shift).is_bad
    shift = np.tile(frames[0].run_scene.shift, (2, 1))
    columns = wrap(
        adu=np.stack([frame.adu for frame in frames]),
        pixel_is_good=good,
        pixel_is_wide=file.pixel_is_wide,
        photon_energy=np.array([frame.scene.photon_energy for frame in frames]),
        camera_length=np.full(2, experiment.camera_length),
        run=np.ones(2, int),
        detector_shift=shift,
        frame_status=np.array([STATUS_OK] * 2, dtype=object),
    ).merge(file.geometry.to_dataset())
    layout = lay_out_rings(
        columns,
        polarisation_fraction=experiment.polarisation_fraction,
        polarisation_angle=experiment.polarisation_angle,
    )
    ds = columns.merge(layout)
    return ds, frames, screen_frames(ds)


def ring_means(ds, photons):
    """Mean of corrected photons of each ring, and the counting noise of that mean."""
    pixels = list_pixels(ds)[0]
    values = photons.ravel()[pixels.place].astype(float)
    ring = pixels.cell[pixels.place] // ds.sizes["azimuth"]
    count = np.bincount(ring, minlength=ds.sizes["ring"])
    mean = np.bincount(ring, values * pixels.correction, count.size) / np.maximum(count, 1)
    variance = np.bincount(ring, values * pixels.correction**2, count.size) / np.maximum(count, 1)
    return mean, np.sqrt(variance / np.maximum(count, 1)), count


def test_the_background_is_that_which_was_simulated_within_counting_noise(screened):
    ds, frames, made = screened
    for number, frame in enumerate(frames):
        truth, noise, count = ring_means(ds, frame.truth.background + frame.truth.diffuse)
        used = count > 1000
        off = ((made.background_profile.values[number] - truth) / noise)[used]
        assert used.sum() > 300
        assert abs(np.median(off)) < 1, "counting noise of one ring of thousands of pixels: half a part in a hundred"
        assert np.sqrt(np.mean(off**2)) < 1.5
        relative = (made.background_profile.values[number] / truth - 1)[used]
        assert abs(np.median(relative)) < 0.005


def test_the_bias_is_below_two_per_cent_of_the_counting_noise_of_a_ring(screened):
    ds, frames, made = screened
    for number, frame in enumerate(frames):
        truth, noise, count = ring_means(ds, frame.truth.background + frame.truth.diffuse)
        used = count > 1000
        off = (made.background_profile.values[number] - truth) / (noise * np.sqrt(count))
        assert abs(np.mean(off[used])) < 0.02
        assert abs(np.median(off[used])) < 0.02


def test_bragg_spots_are_found_and_a_blank_has_none(screened):
    _, frames, made = screened
    planted = int(frames[0].spots.is_peak.sum())
    assert planted > 30
    assert made.frame_peak_count.values[0] > 0.5 * planted
    assert made.frame_peak_count.values[1] < 2


def test_the_diffuse_hit_has_the_anisotropy_that_was_simulated(screened):
    _, frames, made = screened
    assert frames[0].diffuse_rms > 0.02
    assert abs(made.frame_anisotropy.values[1]) < 2e-4
    assert made.frame_anisotropy.values[0] > made.frame_anisotropy.values[1] + 2e-4
    assert made.frame_diffuse_excess.values[0] > made.frame_diffuse_excess.values[1]
