from dataclasses import replace

import numpy as np
import pytest

from diffdask.simulate import make_experiment
from diffdask.simulate.scene import background_profile, draw_frame_scene, draw_run_scene


def test_the_background_is_as_bright_as_said_and_has_its_ring_where_said():
    experiment = make_experiment(2)
    s = np.linspace(1 / 8, 1 / 2.5, 3000)
    profile = background_profile(experiment, s)
    assert np.average(profile, weights=s) == pytest.approx(experiment.background, rel=1e-3)
    assert s[profile.argmax()] == pytest.approx(experiment.water_ring, abs=0.02)


def test_without_a_jet_only_air_scatters():
    experiment = make_experiment(2)
    s = np.linspace(1 / 8, 1 / 2.5, 3000)
    without = background_profile(experiment, s, jet=0.0)
    assert np.average(without, weights=s) == pytest.approx(experiment.air * experiment.background, rel=1e-3)


def test_nuisances_come_as_often_as_said_and_one_choice_leaves_the_others():
    experiment = replace(make_experiment(2), streak_fraction=0.3, ice_fraction=0.1)
    run = draw_run_scene(experiment, np.random.default_rng(0))
    scenes = [draw_frame_scene(experiment, run, np.random.default_rng(i), has_jet=True) for i in range(1500)]
    assert np.mean([scene.streak is not None for scene in scenes]) == pytest.approx(0.3, abs=0.05)
    assert np.mean([scene.ice is not None for scene in scenes]) == pytest.approx(0.1, abs=0.035)
    never = replace(experiment, ice_fraction=0.0)
    again = [draw_frame_scene(never, run, np.random.default_rng(i), has_jet=True) for i in range(100)]
    assert [scene.pulse for scene in again] == [scene.pulse for scene in scenes[:100]]
    assert [scene.streak for scene in again] == [scene.streak for scene in scenes[:100]]
    assert np.std(np.log([scene.pulse for scene in scenes])) == pytest.approx(experiment.pulse_jitter, rel=0.1)
