"""SIGTERM on a real process: a clean end, and the same command goes on."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from diffdask.interruption import EXIT_CODE, Terminated, ended_by_sigterm

JOB = """
[simulate]
frames = 300
runs = 150
"""


def get_sigterm_twice():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # once more, while it closes


def test_sigterm_is_raised_once_and_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), ended_by_sigterm():
        get_sigterm_twice()
    assert signal.getsignal(signal.SIGTERM) == before


def test_other_threads_are_left_alone():
    seen = []

    def work():
        with ended_by_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


@contextlib.contextmanager
def ended(command, **options):
    """Start a process that is gone in the end with all that it started, whatever the test found."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def test_a_run_that_gets_sigterm_ends_its_workers_and_says_how_to_go_on(tmp_path):
    (tmp_path / "job.toml").write_text(JOB)
    (tmp_path / "place.toml").write_text('where = "laptop"\nworkers = 1\n')
    command = [sys.executable, "-m", "diffdask", "run", "job.toml", "--on", "place.toml", "--folder", "made"]
    with open(tmp_path / "stderr", "w") as printed, ended(command, cwd=tmp_path, stderr=printed) as process:
        stop = time.monotonic() + 90
        while not list((tmp_path / "made" / "simulated").glob("*.cxi")):
            assert time.monotonic() < stop
            assert process.poll() is None
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    told = (tmp_path / "stderr").read_text()
    assert process.returncode == EXIT_CODE == 143
    assert told.endswith("diffdask run: ended by SIGTERM; the same command goes on where it stopped\n")
    assert "Traceback" not in told
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    record = json.loads((tmp_path / "made" / "job.json").read_text())
    assert (record["state"], record["verbs"]) == ("ended", {})
    assert (tmp_path / "made" / "performance.html").exists()
