"""What of :func:`run_blocks` is not in tests/test_cluster.py: failures, and a scheduler that is gone."""

import time

import pytest
from distributed import Future

from diffdask.cluster import connect, run_blocks
from diffdask.errors import LostScheduler


@pytest.fixture(scope="module")
def client():
    with connect("threads") as client:
        yield client


def fail_on_fives(block):
    if block % 5 == 0:
        raise ValueError(f"block {block} is odd")
    return block


def test_failures_are_told_one_by_one_and_the_others_go_on(client):
    failed = {}
    found = list(run_blocks(client, fail_on_fives, range(20), on_failure=failed.__setitem__))
    assert sorted(block for block, _ in found) == [n for n in range(20) if n % 5]
    assert {block: str(error) for block, error in failed.items()} == {n: f"block {n} is odd" for n in (0, 5, 10, 15)}


def test_a_failure_that_is_not_to_be_borne_ends_the_run(client):
    def stop(block, error):
        raise KeyError(block)

    with pytest.raises(KeyError):
        list(run_blocks(client, fail_on_fives, range(1000), in_flight=2, on_failure=stop))
    deadline = time.monotonic() + 20
    while client.futures and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not client.futures


def test_results_that_nobody_wants_are_not_fetched(client):
    found = list(run_blocks(client, fail_on_fives, [1, 2, 3], wants_results=False))
    assert sorted(found) == [(1, None), (2, None), (3, None)]


def test_a_client_whose_scheduler_is_gone_says_so():
    with connect("threads") as client:
        pass
    with pytest.raises(LostScheduler, match=r"the scheduler is gone: .* goes on where it stopped"):
        list(run_blocks(client, fail_on_fives, [1]))


def wait_and_give(block):
    time.sleep(0.05)
    return block


def test_work_that_somebody_cancels_is_not_taken_for_done(client):
    found = run_blocks(client, wait_and_give, range(50), in_flight=4)
    next(found)
    client.cancel([Future(key, client) for key in list(client.futures)], force=True)
    with pytest.raises(LostScheduler, match="cancelled what it was doing"):
        list(found)
