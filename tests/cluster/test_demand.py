"""How many worker jobs are wanted, from what is in flight: up at once, down after a while."""

import pytest

from diffdask.cluster.demand import Demand


@pytest.fixture
def demand():
    return Demand(fewest=2, most=10, threads=4, patience=60.0)


def test_all_jobs_are_wanted_until_there_was_something_to_do(demand):
    assert [demand.update(0, 0, now) for now in (0.0, 100.0, 10_000.0)] == [10, 10, 10]


def test_they_stay_as_long_as_more_is_in_flight_than_workers_can_do(demand):
    assert [demand.update(16 * threads, threads, 1000.0 * threads) for threads in (1, 4, 40)] == [10, 10, 10]


def test_only_when_there_was_less_to_do_for_a_while_are_there_fewer(demand):
    demand.update(640, 40, 0.0)
    assert [demand.update(3, 40, now) for now in (10.0, 40.0, 69.0, 70.0)] == [10, 10, 10, 2]


def test_as_many_stay_as_were_of_use_in_that_while(demand):
    demand.update(640, 40, 0.0)
    assert [demand.update(n, 40, now) for n, now in ((1, 10.0), (21, 30.0), (0, 50.0), (0, 70.0))] == [10, 10, 10, 6]
    assert demand.update(0, 24, 71.0) == 6
    assert demand.update(0, 24, 131.0) == 2


def test_work_that_comes_back_brings_jobs_back_at_once_and_the_while_begins_anew(demand):
    demand.update(640, 40, 0.0)
    demand.update(0, 40, 10.0)
    assert demand.update(640, 40, 50.0) == 10
    assert demand.update(0, 40, 80.0) == 10
    assert demand.update(0, 40, 140.0) == 2
    assert demand.update(9, 8, 150.0) == 3
    assert demand.update(17, 8, 151.0) == 10


@pytest.mark.parametrize(("in_flight", "threads"), [(0, 0), (1, 0), (1, 40), (10**6, 40), (79, 40)])
def test_there_are_never_fewer_or_more_than_said(demand, in_flight, threads):
    for now in range(0, 500, 20):
        assert 2 <= demand.update(in_flight, threads, float(now)) <= 10
