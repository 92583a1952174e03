"""What of :func:`run_blocks` is not in tests/test_cluster.py: failures, and a scheduler that is gone."""

import os
import signal
import sys
import time

import psutil
import pytest
from distributed import Future

from diffdask.cluster import connect, run_blocks, warm_up
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
    found = list(run_blocks(client, fail_on_fives, [1, 2, 3], together=True))
    assert sorted(found) == [(1, None), (2, None), (3, None)]


DONE = []


def take_a_millisecond(block):
    time.sleep(0.001)
    if block in (2000, 2001, 2999):
        raise ValueError(f"block {block} is bad")
    DONE.append(block)


def take_long(block):
    time.sleep(0.25)


@pytest.fixture
def tasks(client, monkeypatch):
    """What is sent in each task."""
    submit, sent = client.submit, []

    def submit_and_note(task, blocks, **options):
        sent.append(blocks)
        return submit(task, blocks, **options)

    monkeypatch.setattr(client, "submit", submit_and_note)
    DONE.clear()
    return sent


def test_small_blocks_are_done_several_to_a_task_and_each_once(client, tasks):
    found = list(run_blocks(client, take_a_millisecond, range(2000), together=True))
    assert sorted(block for block, _ in found) == sorted(DONE) == list(range(2000))
    assert len(tasks) < 1500
    assert isinstance(tasks[0], int), "how long a block takes is not known at first"


def test_blocks_that_may_not_be_done_together_or_take_long_have_a_task_each(client, tasks):
    list(run_blocks(client, take_a_millisecond, range(1500)))
    assert tasks == list(range(1500))
    del tasks[:]
    list(run_blocks(client, take_long, range(12), together=True, in_flight=4))
    assert tasks == list(range(12))


def test_of_blocks_done_together_only_those_that_fail_are_told_and_all_others_are_done(client, tasks):
    failed = {}
    found = list(run_blocks(client, take_a_millisecond, range(3000), on_failure=failed.__setitem__, together=True))
    assert {block: str(error) for block, error in failed.items()} == {
        n: f"block {n} is bad" for n in (2000, 2001, 2999)
    }
    assert sorted(block for block, _ in found) == sorted(set(DONE)) == sorted(set(range(3000)) - failed.keys())
    assert any(isinstance(sent, tuple) and 2000 in sent for sent in tasks), "it was sent with others first"


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


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("spoil", ["lose", "reset"])
def test_a_result_that_is_lost_before_it_was_looked_at_is_made_again(client, monkeypatch, spoil, together):
    submit, lost = client.submit, []

    def submit_and_lose(*arguments, **options):
        future = submit(*arguments, **options)
        if len(lost) < 3:
            lost.append(future.key)
            tell = future.add_done_callback
            future.add_done_callback = lambda put: tell(lambda done: (getattr(done._state, spoil)(), put(done)))
        return future

    monkeypatch.setattr(client, "submit", submit_and_lose)
    found = list(run_blocks(client, wait_and_give, range(8), in_flight=4, together=together))
    assert sorted(block for block, _ in found) == list(range(8))
    assert len(lost) == 3


def test_a_worker_that_dies_with_results_that_nobody_looked_at_ends_no_run(tmp_path):
    place = tmp_path / "place.toml"
    place.write_text('where = "laptop"\nworkers = 1\n')
    with connect(place) as client:
        found = run_blocks(client, abs, range(10), in_flight=10)
        seen = [next(found)]
        wait_until(lambda: all(state.status == "finished" for state in client.futures.values()))
        (pid,) = client.run(os.getpid).values()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: any(state.status == "lost" for state in client.futures.values()))
        seen += found
    assert not psutil.pid_exists(pid)
    assert sorted(seen) == [(number, number) for number in range(10)]


def wait_until(is_true, seconds=20.0):
    stop = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < stop
        time.sleep(0.01)


def test_a_block_that_fails_when_its_lost_result_is_made_again_is_a_failed_block(client, monkeypatch):
    submit, failed = client.submit, {}

    def submit_and_spoil(task, block, **options):
        future = submit(task, block, **options)

        def result():  # as Dask does: it waits for the block to be computed once more
            future._state.set_error(ValueError("not this time"), None)
            raise ValueError("not this time")

        if block == 2:
            future.result = result
        return future

    monkeypatch.setattr(client, "submit", submit_and_spoil)
    found = list(run_blocks(client, abs, range(4), on_failure=failed.__setitem__))
    assert sorted(found) == [(0, 0), (1, 1), (3, 3)]
    assert {block: str(error) for block, error in failed.items()} == {2: "not this time"}


def test_workers_that_are_warmed_up_have_a_module_before_the_first_task(tmp_path):
    place = tmp_path / "place.toml"
    place.write_text('where = "laptop"\nworkers = 2\n')

    def are_warm():  # workers cannot import this file
        return client.run(lambda: "diffdask.pipeline.export" in sys.modules).values()

    with connect(place) as client:
        client.wait_for_workers(2)
        assert not any(are_warm())
        warm_up(client, "diffdask.pipeline.export")
        wait_until(lambda: all(are_warm()))
        warm_up(client, "diffdask.no_such_module")
        (pid, *_) = client.run(os.getpid).values()
        os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        warm_up(client, "diffdask.pipeline.train")
        assert time.monotonic() - started < 5, "a worker that does not answer holds up nothing"
        os.kill(pid, signal.SIGCONT)
        assert list(run_blocks(client, abs, [1])) == [(1, 1)]
    warm_up(client, "diffdask.pipeline.export")  # the scheduler is gone: not worth an error
