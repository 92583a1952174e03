"""Worker jobs of a SLURM that is slow, silent, or answers in riddles: its programs are scripts here.

A real SLURM is in tests/deploy/test_slurm.py.
"""

import logging
import time

import pytest

from diffdask.cluster import connect, slurm, slurm_jobs
from diffdask.cluster.demand import Demand
from diffdask.errors import BadJob

#: Jobs are lines of the file 'queue'; a file 'slow', 'riddle', 'silent' or 'ill' has a program do so.
PROGRAMS = {
    "sbatch": """
exec 9> {here}/lock; flock 9
number=$(cat {here}/number); echo $((number + 1)) > {here}/number
[ -e {here}/slow ] && {{ touch {here}/began; sleep 2; }}
[ -e {here}/riddle ] && {{ rm {here}/riddle; echo "Welcome to SLURM"; exit 0; }}
echo "$number $(cat {here}/reason)" >> {here}/queue
echo "Submitted batch job $number"
""",
    "squeue": """
[ -e {here}/silent ] && exec sleep 60
[ -e {here}/ill ] && {{ echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; }}
cat {here}/queue
""",
    "scancel": """
exec 9> {here}/lock; flock 9
grep -v "^$1 " {here}/queue > {here}/left; mv {here}/left {here}/queue
""",
}


class Slurm:
    """The scripts, and the files by which they are told what to do."""

    def __init__(self, folder):
        self.folder = folder
        for name, text in PROGRAMS.items():
            (folder / name).write_text("#!/bin/sh" + text.format(here=folder))
            (folder / name).chmod(0o755)
        (folder / "number").write_text("1\n")
        (folder / "reason").write_text("Priority\n")
        self.cancel_all()

    def cancel_all(self):
        (self.folder / "queue").write_text("")

    def tell(self, word):
        (self.folder / word).touch()

    def has(self, word):
        return (self.folder / word).exists()

    @property
    def jobs(self):
        return [line.split()[0] for line in (self.folder / "queue").read_text().splitlines()]


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(slurm_jobs, "_LOOK_EVERY", 0.1)
    monkeypatch.setattr(slurm, "_TOLD_FIRST", 0.1)
    return Slurm(folder)


@pytest.fixture
def place(tmp_path):
    path = tmp_path / "place.toml"
    folders = f'log_folder = "{tmp_path}/logs"\nshared_folder = "{tmp_path}"\n'
    path.write_text('where = "slurm"\nhost = "127.0.0.1"\ntls = false\n' + folders)
    return path


@pytest.fixture
def kept(place, monkeypatch):
    """A cluster whose jobs are looked after; none of them ever becomes a worker."""
    monkeypatch.setattr(slurm, "_await_first_worker", lambda *_, **__: None)
    return connect(place)


def wait_until(is_true, seconds=20.0):
    stop = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < stop
        time.sleep(0.02)


def test_a_run_that_ends_while_a_job_is_submitted_leaves_none(scripts, kept):
    with kept:
        assert scripts.jobs == ["1"]
        scripts.tell("slow")
        scripts.cancel_all()
        wait_until(lambda: scripts.has("began"))
    assert scripts.jobs == []
    assert (scripts.folder / "number").read_text() == "3\n"  # there was a second


def test_the_keeper_outlives_an_answer_that_it_does_not_understand(scripts, kept, caplog):
    with kept:
        scripts.tell("riddle")
        scripts.cancel_all()
        wait_until(lambda: scripts.jobs == ["3"])
        assert "SLURM does not do as asked, trying again: Could not parse job id" in caplog.text
    assert scripts.jobs == []


def test_an_answer_to_the_first_jobs_that_is_not_understood_is_told(scripts, place):
    scripts.tell("riddle")
    with pytest.raises(BadJob, match=r"what sbatch answered is not understood: .*Welcome to SLURM"), connect(place):
        pass


def test_a_squeue_that_does_not_answer_is_waited_for_in_vain_only_for_a_while(scripts, kept, caplog, monkeypatch):
    monkeypatch.setattr(slurm_jobs, "_ANSWER_WITHIN", 0.3)
    with kept:
        scripts.tell("silent")
        wait_until(lambda: "squeue: no answer in 0 s" in caplog.text)
        (scripts.folder / "silent").unlink()
        scripts.cancel_all()
        wait_until(lambda: scripts.jobs == ["2"])


@pytest.mark.parametrize("reason", ["JobHeldUser", "launch failed requeued held", "BadConstraints"])
def test_jobs_that_will_never_start_end_the_run_with_slurms_reason(scripts, place, reason):
    (scripts.folder / "reason").write_text(reason)
    told = f"no worker job will start by itself; SLURM says why: 1 x {reason}"
    with pytest.raises(BadJob, match=told), connect(place):
        pass
    assert scripts.jobs == []


@pytest.mark.parametrize("reason", ["Priority", "Resources", "PartitionDown", "ReqNodeNotAvail, UnavailableNodes:n1"])
def test_jobs_that_queue_are_waited_for_and_slurms_reason_is_told(caplog, reason):
    class Client:
        asked = 0

        def nthreads(self):
            self.asked += 1
            return {} if self.asked < 2 else {"a worker": 1}

    keeper = slurm_jobs.JobKeeper(None, Demand(fewest=3, most=3, threads=1, patience=600.0))
    keeper.reasons = {"1": reason, "2": reason, "3": "JobHeldUser"}
    with caplog.at_level(logging.INFO), pytest.MonkeyPatch.context() as patch:
        patch.setattr(slurm, "_TOLD_FIRST", -1.0)
        slurm._await_first_worker(Client(), keeper, log_folder="logs")
    assert f"no worker yet; worker jobs wait: 2 x {reason}, 1 x JobHeldUser" in caplog.text


def test_a_slurm_that_is_gone_for_long_ends_a_run_that_has_no_worker_yet(scripts, place, monkeypatch):
    monkeypatch.setattr(slurm, "_PATIENCE", 0.5)
    scripts.tell("ill")
    told = r"SLURM did not do as asked: slurm_load_jobs error: .*; does 'squeue --me' work\?"
    with pytest.raises(BadJob, match=told), connect(place):
        pass


def test_jobs_outlive_a_slurm_that_is_gone_for_a_while(scripts, kept, caplog):
    with kept:
        scripts.tell("ill")
        wait_until(lambda: "Unable to contact slurm controller" in caplog.text)
        (scripts.folder / "ill").unlink()
        scripts.cancel_all()
        wait_until(lambda: scripts.jobs == ["2"])
    assert scripts.jobs == []


def test_jobs_that_there_is_nothing_to_do_for_are_given_up_and_come_back_with_work(scripts, place, monkeypatch):
    monkeypatch.setattr(slurm, "_await_first_worker", lambda *_, **__: None)
    place.write_text(place.read_text() + "jobs = 3\nfewest_jobs = 1\nidle_timeout = 1\n")
    with connect(place) as client:
        time.sleep(2.0)  # nothing has been asked for yet: they may be on their way
        assert len(scripts.jobs) == 3
        wanted = [client.submit(abs, number) for number in range(4)]
        time.sleep(2.0)
        assert len(scripts.jobs) == 3
        del wanted
        wait_until(lambda: len(scripts.jobs) == 1)
        wanted = [client.submit(abs, number) for number in range(4)]
        wait_until(lambda: len(scripts.jobs) == 3)
        del wanted
    assert scripts.jobs == []


@pytest.mark.parametrize(
    ("wrong", "told"), [("fewest_jobs = 0", "at least one"), ("fewest_jobs = 2", "no more than jobs = 1"),
                        ("idle_timeout = -1", "is below zero")],
)  # fmt: skip
def test_numbers_of_jobs_that_make_no_sense_are_refused(scripts, place, wrong, told):
    place.write_text(place.read_text() + wrong + "\n")
    with pytest.raises(BadJob, match=told), connect(place):
        pass
    assert scripts.jobs == []
