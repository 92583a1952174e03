import tracemalloc

import numpy as np
import pytest

from diffdask import frame_settings as module
from diffdask.errors import BadGeometry
from diffdask.frame_settings import extend_settings, group_settings


@pytest.fixture
def campaign():
    """3000 frames of five runs that come in turn, with a beam centre each; some without energy, a third indexed."""
    random = np.random.default_rng(3)
    run = np.repeat([4, 1, 4, 2, 7, 5], 500)
    length, energy = 0.1 + random.normal(scale=2e-4, size=3000), 9500 * np.exp(random.normal(scale=0.01, size=3000))
    energy[random.random(3000) < 0.1] = np.nan
    energy[1000:1500] = 0.0
    shift = run[:, None] * 1e-4 + random.normal(scale=1e-5, size=(3000, 2))
    shift[random.random(3000) < 0.7] = np.nan
    return length, energy, run, shift


def test_a_single_setting_is_exact():
    columns = (np.full(1000, 0.080037), np.full(1000, 9487.31), np.ones(1000, int), np.full((1000, 2), np.nan))
    settings, setting = group_settings(*columns)
    assert settings == [(0.080037, 9487.31, 0.0, 0.0)]
    assert not setting.any()


def test_no_frame_lies_further_than_half_a_step_from_its_setting():
    random = np.random.default_rng(0)
    length, energy = 0.1 + random.normal(scale=3e-4, size=300), 9500 * np.exp(random.normal(scale=0.03, size=300))
    run = np.repeat(np.arange(3), 100)
    settings, setting = group_settings(length, energy, run, np.full((300, 2), np.nan))
    mine = np.array(settings)[setting]
    assert np.abs(mine[:, 0] - length).max() <= 1e-4
    assert np.abs(np.log(mine[:, 1] / energy)).max() <= 1e-2


def test_a_setting_is_the_mean_of_its_frames_and_no_two_settings_are_close(campaign):
    length, energy, run, shift = campaign
    settings, setting = group_settings(*campaign)
    usable = energy > 0
    centre = {number: np.nanmedian(shift[run == number], axis=0) for number in set(run.tolist())}
    numbers = np.column_stack([length, energy, [centre[number] for number in run.tolist()]])
    for index, told in enumerate(settings):
        np.testing.assert_allclose(told, numbers[usable & (setting == index)].mean(axis=0), rtol=1e-12)
    steps = np.round(np.column_stack([numbers[:, 0] / 1e-4, numbers[:, 2:] / 2.5e-5]))
    for index in range(len(settings)):
        assert len(np.unique(steps[usable & (setting == index)], axis=0)) == 1


@pytest.mark.parametrize("piece", [7, 500, 2999])
def test_settings_are_the_same_however_many_frames_are_looked_at_together(campaign, monkeypatch, piece):
    settings, setting = group_settings(*campaign)
    before = 1200
    first = [column[:before] for column in campaign[:3]]
    shift = np.where(np.arange(3000)[:, None] < before, campaign[3], np.nan)
    start = group_settings(*first, shift[:before])
    grown = extend_settings(*start, *campaign[:3], shift)
    monkeypatch.setattr(module, "_PIECE", piece)
    for one, other in ((group_settings(*campaign), (settings, setting)),
                       (extend_settings(*start, *campaign[:3], shift), grown)):  # fmt: skip
        np.testing.assert_allclose(one[0], other[0], rtol=1e-12)
        np.testing.assert_array_equal(one[1], other[1])


def test_frames_that_come_later_leave_the_settings_of_others_alone(campaign):
    length, energy, run, shift = campaign
    shift = np.full_like(shift, 2e-4)
    settings, setting = group_settings(length[:900], energy[:900], run[:900], shift[:900])
    grown, found = extend_settings(settings, setting, length, energy, run, shift)
    assert grown[: len(settings)] == settings
    np.testing.assert_array_equal(found[:900], setting)
    with pytest.raises(BadGeometry, match="of 1 frames changed"):
        extend_settings(settings, setting, np.where(np.arange(3000) == 3, 0.2, length), energy, run, shift)
    with pytest.raises(BadGeometry, match="fewer than the 900 before"):
        extend_settings(settings, setting, length[:800], energy[:800], run[:800], shift[:800])


def test_grouping_takes_less_memory_than_the_columns_of_all_frames():
    count = 1 << 22
    columns = (np.full(count, 0.1), np.full(count, 9500.0), np.arange(count) // 50_000, np.full((count, 2), np.nan))
    tracemalloc.start()
    try:
        settings, _ = group_settings(*columns)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(settings) == 1
    assert most < sum(column.nbytes for column in columns)
