import itertools
import tracemalloc

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from diffdask.models.hits import HitFinder


@pytest.fixture
def campaign():
    """Two runs of other usual excess; a tenth of the frames have peaks, frames 5 and 6 only diffuse excess."""
    random = np.random.default_rng(0)
    run = np.repeat([3, 4], 200)
    peaks = np.where(
        random.uniform(size=400) < 0.1, random.integers(15, 100, size=400), random.integers(0, 10, size=400)
    )
    excess = random.normal(scale=0.05, size=400) + np.where(run == 3, 0.2, 1.5)
    peaks[[5, 206]] = 2
    excess[[5, 206]] += 1.0
    return peaks, excess, run


def find(campaign, **parameters):
    finder = HitFinder(**{"min_peaks": 15, **parameters})
    return finder.fit(*campaign).predict(*campaign)


def test_peaks_make_a_hit_and_so_does_an_excess_unusual_in_its_run(campaign):
    peaks, _, _ = campaign
    expected = peaks >= 15
    expected[[5, 206]] = True
    np.testing.assert_array_equal(find(campaign, min_excess=8.0), expected)


@pytest.mark.parametrize(("name", "values"), [("min_peaks", (1, 5, 15, 60, 1000)), ("min_excess", (2, 4, 8, 1e6))])
def test_asking_for_more_finds_no_other_hits(campaign, name, values):
    found = [set(np.flatnonzero(find(campaign, **{name: value}))) for value in values]
    if name == "min_excess":
        assert all(fewer <= more for more, fewer in itertools.pairwise(found))
    assert len(found[-1]) < len(found[0])


def test_a_constant_added_to_the_excess_of_a_run_changes_nothing(campaign):
    peaks, excess, run = campaign
    np.testing.assert_array_equal(find(campaign), find((peaks, excess + np.where(run == 3, 7.0, -2.0), run)))


def test_the_order_of_frames_does_not_matter(campaign):
    order = np.random.default_rng(1).permutation(400)
    np.testing.assert_array_equal(find([column[order] for column in campaign]), find(campaign)[order])


def test_hits_do_not_raise_the_limit_of_blanks(campaign):
    peaks, excess, run = campaign
    loud = np.where(peaks >= 15, 50.0, excess)
    one, other = (HitFinder(min_peaks=15).fit(peaks, values, run) for values in (excess, loud))
    assert one.limit_ == other.limit_


def test_an_unknown_excess_is_no_hit_unless_there_are_peaks(campaign):
    peaks, _, run = campaign
    np.testing.assert_array_equal(find((peaks, np.full(400, np.nan), run)), peaks >= 15)


def test_a_run_of_few_blanks_takes_what_all_runs_have(campaign):
    finder = HitFinder().fit(
        *(np.append(column, column[:3]) for column in campaign[:2]), np.append(campaign[2], [9] * 3)
    )
    assert finder.limit_[9] == finder.overall_limit_
    assert finder.limit_[3] != finder.overall_limit_
    assert finder.predict(np.array([0]), np.array([99.0]), np.array([77])).tolist() == [True], "a run not seen, too"


def test_few_frames_or_none_leave_the_decision_to_the_peaks():
    for count in (0, 1, 5):
        peaks = np.arange(count) * 10
        finder = HitFinder(min_peaks=15).fit(peaks, np.full(count, 99.0), np.ones(count, int))
        np.testing.assert_array_equal(finder.predict(peaks, np.full(count, 99.0), np.ones(count, int)), peaks >= 15)


def test_it_keeps_to_the_conventions_of_scikit_learn(campaign):
    finder = HitFinder(min_peaks=7, min_excess=3.0)
    assert clone(finder).get_params() == {"min_peaks": 7, "min_excess": 3.0}
    assert finder.fit(*campaign) is finder
    with pytest.raises(NotFittedError):
        clone(finder).predict(*campaign)


def test_millions_of_frames_take_less_memory_than_their_columns():
    count = 1 << 21
    random = np.random.default_rng(0)
    columns = (random.integers(0, 3, count), random.normal(size=count), np.arange(count) // 50_000)
    tracemalloc.start()
    try:
        found = HitFinder(min_peaks=5).fit(*columns).predict(*columns)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not found.any()
    assert most < sum(column.nbytes for column in columns)
