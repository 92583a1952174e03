import threading
import time
import urllib.request

import dask
import distributed
import psutil
import pytest

from diffdask.cluster import connect, read_place, run_blocks
from diffdask.errors import BadJob

LOCK = threading.Lock()
COUNTS = {"running": 0, "most": 0, "started": 0}


def square(number):
    return number**2


@pytest.fixture(scope="module")
def client():
    with connect("threads") as client:
        yield client


def listening():
    """Addresses on which this process and its children accept connections."""
    me = psutil.Process()
    found = set()
    for process in (me, *me.children(recursive=True)):
        found |= {(c.laddr.ip, c.laddr.port) for c in process.net_connections("inet") if c.status == "LISTEN"}
    return found


# where ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["threads", "laptop"])
def test_nothing_listens_to_the_network_and_the_dashboard_answers_here(place):
    before = listening()
    with connect(place) as client:
        assert client.submit(pow, 7, 2).result(timeout=60) == 49
        opened = listening() - before
        assert opened
        assert {address for address, _ in opened} == {"127.0.0.1"}
        assert client.dashboard_link.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(client.dashboard_link, timeout=20) as page:
            assert page.status == 200
    assert wait_until(lambda: not listening() - before)


def test_threads_stay_in_this_process(client):
    import os

    assert client.submit(os.getpid).result() == os.getpid()
    assert sum(client.nthreads().values()) >= 1


def test_threads_are_not_paused_for_what_else_this_process_holds(client):
    (worker,) = client.scheduler_info()["workers"].values()
    assert not worker["memory_limit"]


def test_a_running_scheduler_is_used_and_left_running():
    with distributed.LocalCluster(
        n_workers=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        for _ in range(2):
            with connect(cluster.scheduler_address) as client:
                assert client.submit(square, 3).result() == 9
        assert cluster.status == distributed.Status.running


def test_a_file_describes_a_place(tmp_path):
    place = tmp_path / "place.toml"
    place.write_text('where = "laptop"\nworkers = 1\nthreads = 3\nmemory_limit = "1GB"\n')
    with connect(place) as client:
        assert list(client.nthreads().values()) == [3]
        (worker,) = client.scheduler_info()["workers"].values()
        assert worker["memory_limit"] == 10**9


def test_a_client_that_is_given_or_open_is_used_and_stays_open(client):
    with connect(client) as same:
        assert same is client
    with client.as_current(), connect() as same:
        assert same is client
    assert client.status == "running"


def test_an_error_inside_closes_what_was_opened():
    before = listening()
    with pytest.raises(ZeroDivisionError), connect("threads"):
        raise ZeroDivisionError
    assert wait_until(lambda: not listening() - before)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('where = "moon"', r"where = 'moon' is not known; known: .*'laptop'"),
        ("workers = 2", "where = None is not known"),
        ('where = "laptop"\nworker = 2', r"unknown key 'worker'; did you mean 'workers'\?"),
        ('where = "laptop"\nworkers = "two"', "workers = 'two' must be like 0"),
        ('where = "laptop', "is not valid TOML"),
    ],
)
def test_a_mistake_in_a_place_is_told(tmp_path, text, message):
    (tmp_path / "place.toml").write_text(text)
    with pytest.raises(BadJob, match=message):
        read_place(tmp_path / "place.toml")


def test_an_unknown_place_is_told():
    with pytest.raises(BadJob, match="no place at 'moon': give 'laptop', 'threads', a scheduler"), connect("moon"):
        pass


@pytest.mark.parametrize("address", ["nonsense://127.0.0.1:1", "tcp://127.0.0.1:1"])
def test_a_scheduler_that_does_not_answer_is_told(address):
    soon = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with soon, pytest.raises(BadJob, match=f"no scheduler answers at '{address}'"), connect(address):
        pass


# blocks ------------------------------------------------------------------------------------------------


def count_running(block):
    with LOCK:
        COUNTS["running"] += 1
        COUNTS["started"] += 1
        COUNTS["most"] = max(COUNTS["most"], COUNTS["running"])
    time.sleep(0.005)
    with LOCK:
        COUNTS["running"] -= 1
    return block


@pytest.fixture
def counts():
    COUNTS.update(running=0, most=0, started=0)
    return COUNTS


def test_every_block_is_run_once_and_gives_its_own_result(client):
    found = list(run_blocks(client, square, range(50)))
    assert sorted(found) == [(number, number**2) for number in range(50)]
    assert list(run_blocks(client, square, [])) == []


@pytest.mark.parametrize("in_flight", [1, 3, 100])
def test_no_more_blocks_are_taken_than_may_be_in_flight(client, counts, in_flight):
    taken = []

    def blocks():
        for number in range(40):
            taken.append(number)
            yield number

    for done, _ in enumerate(run_blocks(client, count_running, blocks(), in_flight=in_flight), start=1):
        assert len(taken) <= done + in_flight
    assert counts["started"] == 40
    assert counts["most"] <= in_flight


def test_the_default_keeps_a_bounded_number_in_flight(client):
    taken = []
    blocks = (taken.append(number) or number for number in range(1000))
    iterator = run_blocks(client, square, blocks)
    next(iterator)
    assert len(taken) <= 16 * sum(client.nthreads().values()) + 1
    iterator.close()


def test_results_are_released_as_they_come(client):
    held = []
    for _ in run_blocks(client, square, range(60), in_flight=4):
        held.append(len(client.futures))
    assert max(held) <= 6
    assert wait_until(lambda: not client.futures)


def wait_until(is_true, seconds=10.0):
    stop = time.monotonic() + seconds
    while not is_true() and time.monotonic() < stop:
        time.sleep(0.02)
    return is_true()


def fail_on_five(block):
    count_running(block)
    if block == 5:
        raise OSError("block five cannot be read")
    return block


def test_what_a_task_raises_is_raised_and_the_rest_is_cancelled(client, counts):
    with pytest.raises(OSError, match="block five cannot be read"):
        list(run_blocks(client, fail_on_five, range(1000), in_flight=4))
    assert wait_until(lambda: not client.futures)
    assert counts["started"] < 100


def test_leaving_early_cancels_the_rest(client, counts):
    for block, _ in run_blocks(client, count_running, range(1000), in_flight=4):
        if block >= 5:
            break
    assert wait_until(lambda: not client.futures)
    assert counts["started"] < 100
