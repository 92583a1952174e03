from dataclasses import replace

import numpy as np
import pytest

from diffdask.geometry import (
    momentum_transfer,
    pixel_positions,
    polarisation_factor,
    positions_on_panels,
    reciprocal_points,
    solid_angle_factor,
)
from diffdask.kernels.rendering import sample_map
from diffdask.simulate import Experiment, FramePlan, plan_campaign, plan_run, simulate_frame
from diffdask.simulate.detector import layout_of, map_pixels
from diffdask.simulate.disorder import make_diffuse_map
from diffdask.simulate.experiment import STRENGTH_WINDOW
from diffdask.simulate.scene import background_profile


@pytest.fixture(scope="module")
def campaign(small_experiment, small_detector):
    return plan_campaign(small_experiment, frames=60, runs=2, seed=3, detector=small_detector)


def plan_of(kind, *, strength=0.05, index=0, run=1):
    return FramePlan(index, run, index, kind, 0.0 if kind == "blank" else strength, True, kind != "blank")


def test_a_frame_is_the_same_whatever_came_before(campaign):
    first = simulate_frame(campaign, plan_of("diffuse", index=4)).adu
    map_pixels.cache_clear()
    for index in (7, 2):
        assert not np.array_equal(simulate_frame(campaign, plan_of("diffuse", index=index)).adu, first)
    simulate_frame(campaign, plan_of("blank", run=2))
    np.testing.assert_array_equal(simulate_frame(campaign, plan_of("diffuse", index=4)).adu, first)
    other = replace(campaign, seed=4)
    assert not np.array_equal(simulate_frame(other, plan_of("diffuse", index=4)).adu, first)


def test_asking_for_the_truth_changes_nothing(campaign):
    plan = plan_of("diffuse")
    np.testing.assert_array_equal(
        simulate_frame(campaign, plan).adu, simulate_frame(campaign, plan, keep_truth=True).adu
    )


def test_the_readout_is_the_truth_with_noise(campaign):
    frame = simulate_frame(campaign, plan_of("diffuse"), keep_truth=True)
    maps = map_pixels(campaign.experiment, campaign.geometry_text, frame.run_scene.shift)
    expected = frame.truth.background + frame.truth.diffuse + frame.truth.bragg
    photons = frame.adu / frame.adu_per_photon[:, None, None]
    usable = ~maps.is_bad & (expected < 300)
    noise2 = expected + campaign.experiment.readout_noise**2
    deviation = ((photons - expected) / np.sqrt(noise2))[usable]
    # Gain steps and the common mode are small, but not nothing.
    assert abs(deviation.mean()) < 0.08
    assert deviation.std() == pytest.approx(1.0, abs=0.06)


def test_the_orientation_predicts_the_strongest_peaks(campaign):
    layout = layout_of(campaign.geometry_text)
    for index in range(3):
        frame = simulate_frame(campaign, plan_of("non-diffuse", index=index, run=2), keep_truth=True)
        bragg = frame.truth.bragg
        # The crests of the rendered spots, from the pixels alone.
        panel, ss, fs = (axis[:15] for axis in np.unravel_index(np.argsort(-bragg, axis=None), bragg.shape))
        positions = positions_on_panels(
            layout.geometry,
            panel,
            ss + 0.5,
            fs + 0.5,
            camera_length=campaign.experiment.camera_length,
            shift=frame.run_scene.shift,
        )
        points = reciprocal_points(positions, frame.scene.photon_energy)
        # These pixels are seven times those of a CSPAD: half a pixel is up to 0.25 of an index.
        hkl = points @ np.linalg.inv(frame.crystal.reciprocal)
        assert np.quantile(np.abs(hkl - np.rint(hkl)).max(axis=1), 0.9) < 0.35
        spots = frame.spots
        strong = np.argsort(-spots.photons)[:30]
        positions = positions_on_panels(
            layout.geometry,
            spots.panel[strong],
            spots.ss[strong],
            spots.fs[strong],
            camera_length=campaign.experiment.camera_length,
            shift=frame.run_scene.shift,
        )
        hkl = reciprocal_points(positions, frame.scene.photon_energy) @ np.linalg.inv(frame.crystal.reciprocal)
        assert np.abs(hkl - spots.indices[strong]).max() < 0.2


def test_hits_have_spots_and_blanks_have_none(campaign):
    hit, blank = (simulate_frame(campaign, plan_of(kind), keep_truth=True) for kind in ("non-diffuse", "blank"))
    assert hit.spots.is_peak.sum() > 10
    assert hit.truth.bragg.sum() > 0
    assert blank.crystal is None
    assert blank.spots.photons.size == 0
    assert not blank.truth.bragg.any()
    assert not blank.truth.diffuse.any()


def ratio_over_background(campaign, kind, index):
    truth = simulate_frame(campaign, plan_of(kind, index=index), keep_truth=True).truth
    return truth.diffuse.sum() / truth.background.sum()


def test_brightness_does_not_tell_diffuse_from_non_diffuse(campaign):
    experiment = replace(campaign.experiment, jet_jitter=0.0)
    still = replace(campaign, experiment=experiment)
    diffuse, other = (
        np.array([ratio_over_background(still, kind, index) for index in range(12)])
        for kind in ("diffuse", "non-diffuse")
    )
    assert diffuse.mean() == pytest.approx(other.mean(), rel=0.03)
    assert other.std() < 3e-3 * other.mean()


def test_the_anisotropy_is_as_strong_as_asked_for_and_only_in_diffuse_frames(campaign):
    layout = layout_of(campaign.geometry_text)
    camera_length = campaign.experiment.camera_length
    found = {"diffuse": [], "non-diffuse": []}
    for kind, measured in found.items():
        for index in range(8):
            frame = simulate_frame(campaign, plan_of(kind, index=index), keep_truth=True)
            shift = frame.run_scene.shift
            positions = pixel_positions(layout.geometry, camera_length=camera_length, shift=shift)
            s = momentum_transfer(positions, frame.scene.photon_energy) / (2 * np.pi)
            window = (s > 1 / STRENGTH_WINDOW[0]) & (s < 1 / STRENGTH_WINDOW[1])
            ring = (s[window] * 200).astype(int)
            ratio = (frame.truth.diffuse / frame.truth.background)[window].astype(float)
            mean = np.bincount(ring, ratio) / np.maximum(np.bincount(ring), 1)
            measured.append(np.sqrt(np.mean((ratio - mean[ring]) ** 2)))
    assert np.mean(found["diffuse"]) == pytest.approx(0.05, rel=0.25)
    assert max(found["non-diffuse"]) < 0.005


def test_diffuse_scattering_is_the_crystals_map_where_the_orientation_puts_each_pixel(campaign):
    layout = layout_of(campaign.geometry_text)
    calm = replace(campaign, experiment=replace(campaign.experiment, shadow_depth=0.0))
    frame = simulate_frame(calm, plan_of("diffuse", strength=0.027), keep_truth=True)
    length, shift = calm.experiment.camera_length, frame.run_scene.shift
    positions = pixel_positions(layout.geometry, camera_length=length, shift=shift)
    factor = polarisation_factor(positions, fraction=calm.experiment.polarisation_fraction)
    factor *= solid_angle_factor(layout.geometry, positions, camera_length=length)
    maps = map_pixels(calm.experiment, calm.geometry_text, shift)
    diffuse_map = make_diffuse_map(calm.experiment, maps.s_max)
    hkl = reciprocal_points(positions, frame.scene.photon_energy) @ np.linalg.inv(frame.crystal.reciprocal)
    for place in [(0, 5, 9), (1, 30, 30), (2, 50, 12), (3, 20, 55)]:
        wanted = sample_map(diffuse_map.values, *(hkl[place] * diffuse_map.steps), -1.0)
        wanted *= 0.027 * frame.scene.pulse * factor[place]
        assert frame.truth.diffuse[place] == pytest.approx(wanted, rel=1e-3)


def test_intensities_carry_polarisation_and_solid_angle(campaign):
    layout = layout_of(campaign.geometry_text)
    calm = replace(campaign, experiment=replace(campaign.experiment, shadow_depth=0.0, polarisation_angle=90.0))
    frame = simulate_frame(calm, plan_of("blank"), keep_truth=True)
    length, shift = calm.experiment.camera_length, frame.run_scene.shift
    positions = pixel_positions(layout.geometry, camera_length=length, shift=shift)
    factor = polarisation_factor(positions, fraction=calm.experiment.polarisation_fraction, angle=90.0)
    factor *= solid_angle_factor(layout.geometry, positions, camera_length=length)
    s = momentum_transfer(positions, frame.scene.photon_energy) / (2 * np.pi)
    isotropic = frame.scene.pulse * background_profile(calm.experiment, s, jet=frame.scene.jet)
    np.testing.assert_allclose(frame.truth.background, isotropic * factor, rtol=5e-3)
    assert (factor.max() / factor.min()) > 1.3


def test_every_kind_of_nuisance_shows(campaign):
    calm = simulate_frame(campaign, plan_of("blank"), keep_truth=True).truth.background
    for change in ({"streak_fraction": 1.0}, {"ice_fraction": 1.0}):
        loud = replace(campaign, experiment=replace(campaign.experiment, **change))
        extra = simulate_frame(loud, plan_of("blank"), keep_truth=True).truth.background - calm
        assert extra.min() > -1e-4
        assert extra.max() > 0.5
    shaded = replace(campaign, experiment=replace(campaign.experiment, shadow_depth=0.9))
    assert (simulate_frame(shaded, plan_of("blank"), keep_truth=True).truth.background <= calm + 1e-4).all()


def test_a_full_cspad_frame_has_wide_columns_that_read_more():
    campaign = plan_campaign(replace(Experiment(), streak_fraction=0.0, ice_fraction=0.0), frames=2, runs=1)
    layout = layout_of(campaign.geometry_text)
    frame = simulate_frame(campaign, plan_of("blank"))
    assert frame.adu.shape == (64, 185, 194)
    assert frame.adu.dtype == np.int16
    maps = map_pixels(campaign.experiment, campaign.geometry_text, frame.run_scene.shift)
    adu = np.where(maps.is_bad, np.nan, frame.adu)
    left, right = adu[::2], adu[1::2]
    for wide, normal in ((left[:, :, 193], left[:, :, 190:193]), (right[:, :, 0], right[:, :, 1:4])):
        assert np.median(np.nanmean(wide, axis=1) / np.nanmean(normal, axis=(1, 2))) == pytest.approx(2.5, abs=0.1)
    assert layout.pixel_is_wide[::2, :, 193].all()


def test_the_plan_of_a_run_can_be_simulated_frame_by_frame(campaign):
    for plan in plan_run(campaign, 1)[:4]:
        assert simulate_frame(campaign, plan).plan is plan
