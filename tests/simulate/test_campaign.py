import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffdask.errors import BadGeometry, BadParameter
from diffdask.simulate import Campaign, Experiment, plan_campaign, plan_run


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.integers(1, 9), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**31))
def test_counts_are_exact_and_frames_are_numbered_in_ingest_order(frames, runs, hits, diffuse, seed):
    runs = min(runs, frames)
    campaign = Campaign(Experiment(), "", frames, runs, hits, diffuse, seed)
    plans = [plan for run in range(1, runs + 1) for plan in plan_run(campaign, run)]
    assert [plan.frame for plan in plans] == list(range(frames))
    hit_count = sum(plan.kind != "blank" for plan in plans)
    assert abs(hit_count - hits * frames) <= 0.5
    assert abs(sum(plan.kind == "diffuse" for plan in plans) - diffuse * hit_count) <= 0.5
    assert all((plan.strength > 0) == (plan.kind != "blank") for plan in plans)
    assert not any(plan.is_indexed for plan in plans if plan.kind == "blank")


def test_a_campaign_travels_to_workers_small_and_whole():
    campaign = plan_campaign(Experiment(), frames=8_000_000, runs=200)
    assert pickle.loads(pickle.dumps(campaign)) == campaign
    assert len(pickle.dumps(campaign)) < 40_000
    assert hash(campaign) == hash(pickle.loads(pickle.dumps(campaign)))


def test_a_run_does_not_depend_on_the_others():
    campaign = plan_campaign(Experiment(), frames=30, runs=3, seed=1)
    assert plan_run(campaign, 2) == plan_run(campaign, 2)
    assert [p.kind for p in plan_run(campaign, 2)] != [p.kind for p in plan_run(campaign, 3)]
    another = plan_campaign(Experiment(), frames=30, runs=3, seed=2)
    assert plan_run(another, 2) != plan_run(campaign, 2)


def test_a_geometry_with_numbers_wins_over_the_experiment(small_detector, tmp_path):
    text = small_detector.read_text()
    text = text.replace("clen = /LCLS/detector_1/EncoderValue", "clen = -0.38")
    text = text.replace("photon_energy = /LCLS/photon_energy_eV", "photon_energy = 9300")
    text = text.replace("adu_per_eV = 0.00338\n", "")
    path = tmp_path / "numbers.geom"
    path.write_text(text)
    campaign = plan_campaign(Experiment(), detector=path)
    assert campaign.experiment.camera_length == pytest.approx(0.12)
    assert campaign.experiment.photon_energy == 9300
    assert campaign.experiment.photon_energy_jitter == 0
    assert "adu_per_eV = 0.00338" in campaign.geometry_text


def test_what_cannot_be_planned_says_why(small_detector, tmp_path):
    with pytest.raises(BadParameter, match=r"hits=1\.2"):
        plan_campaign(Experiment(), hits=1.2)
    with pytest.raises(BadParameter, match="frames=2, runs=3"):
        plan_campaign(Experiment(), frames=2, runs=3)
    path = tmp_path / "events.geom"
    path.write_text(small_detector.read_text().replace("/entry_1/data_1/data", "/%/data"))
    with pytest.raises(BadGeometry, match="one dataset"):
        plan_campaign(Experiment(), detector=path)
