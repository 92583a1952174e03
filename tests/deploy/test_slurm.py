"""A real SLURM, started here: jobs through ``diffdask run``, with TLS, and through what happens to them."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import diffdask.cluster.slurm_jobs as slurm_jobs
from diffdask.cluster import connect, run_blocks
from diffdask.errors import BadJob
from diffdask.pipeline.run import run

from .slurm_here import missing, slurm

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(missing()), reason=missing())]

ROOT = Path(__file__).parents[2]
DIFFDASK = str(Path(sys.executable).with_name("diffdask"))

JOB = """
[simulate]
frames = 24
runs = 2
hits = 0.7
diffuse = 0.5
crystal = 5
detector = "{geometry}"
[ingest]
block_frames = 4
[screen]
ring_count = 60
polar_ring_count = 20
azimuth_count = 36
ring_groups = 2
feature_q_min = 0.1
component_count = 4
[catalogue]
"""

PLACE = """
where = "slurm"
jobs = {jobs}
cores = {cores}
memory = "2GB"
walltime = "00:20:00"
host = "127.0.0.1"
shared_folder = "{folder}/shared"
log_folder = "{folder}/logs"
{more}
"""

GEOMETRY = """
photon_energy = /LCLS/photon_energy_eV
clen = /LCLS/detector_1/EncoderValue
coffset = 0.5
adu_per_eV = 0.00338
res = 1250
dim0 = %
dim1 = ss
dim2 = fs
data = /entry_1/data_1/data
mask = /entry_1/data_1/mask
mask_good = 0x0000
mask_bad = 0xffff
p/min_fs = 0
p/max_fs = 127
p/min_ss = 0
p/max_ss = 127
p/fs = +1.0x
p/ss = +1.0y
p/corner_x = -64
p/corner_y = -64
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """In which SLURM's commands speak to a SLURM of this module's own."""
    with slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture
def slurm_here(environment, monkeypatch):
    """The same for this process, and jobs are looked after every second."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, environment[name])
    monkeypatch.setattr(slurm_jobs, "_LOOK_EVERY", 1.0)
    return environment


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """The job, and the catalogue that it gives without a SLURM."""
    folder = tmp_path_factory.mktemp("campaign")
    (folder / "small.geom").write_text(GEOMETRY)
    job = folder / "job.toml"
    job.write_text(JOB.format(geometry=folder / "small.geom"))
    run(job, on="threads", folder=folder / "here", progress=False)
    return job, catalogue_of(folder / "here")


def catalogue_of(folder):
    return pd.read_parquet(folder / "catalogue.parquet").drop(columns="source")


def write_place(folder, *, jobs=1, cores=1, more=""):
    path = folder / "place.toml"
    path.write_text(PLACE.format(folder=folder, jobs=jobs, cores=cores, more=more))
    return path


def ask(environment, *command, check=True, seconds=60, **options):
    """Run a command, but not for ever."""
    return subprocess.run(
        command, env=environment, check=check, capture_output=True, text=True, timeout=seconds, **options
    )


def queue(environment, *options):
    return ask(environment, "squeue", "--noheader", *options).stdout.split()


def wait_until(is_true, complaint, seconds=60.0):
    stop = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < stop, complaint()
        time.sleep(0.1)


def test_a_job_gives_the_same_catalogue_on_slurm_with_tls_and_leaves_nothing_behind(slurm_here, campaign, tmp_path):
    job, expected = campaign
    place = write_place(tmp_path, jobs=2)
    command = [DIFFDASK, "run", str(job), "--on", str(place), "--folder", str(tmp_path / "made"), "--no-progress"]
    done = ask(slurm_here, *command, check=False, seconds=240)
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(catalogue_of(tmp_path / "made"), expected, check_exact=True)
    record = json.loads((tmp_path / "made" / "job.json").read_text())
    assert record["state"] == "finished"
    assert record["place"]["tls"] is True
    printed = "".join(path.read_text() for path in (tmp_path / "logs").glob("*.err"))
    assert "tls://" in printed
    assert "tcp://" not in printed
    assert not list((tmp_path / "shared").iterdir()), "the key of the run is gone"
    wait_until(lambda: not queue(slurm_here), lambda: "worker jobs outlive the run")


def test_worker_jobs_of_several_workers_come_back_after_scancel_and_the_run_finishes(slurm_here, tmp_path):
    def slow_block(block):  # workers cannot import this file: a function inside goes there whole
        time.sleep(0.2)
        return os.environ["SLURM_JOB_ID"], block

    with connect(write_place(tmp_path, jobs=1, cores=2)) as client:
        client.wait_for_workers(2, timeout=60)
        found = []
        for _, result in run_blocks(client, slow_block, range(40), in_flight=4):
            found.append(result)
            if len(found) == 5:
                ask(slurm_here, "scancel", *queue(slurm_here, "--format", "%A"))
    assert sorted(block for _, block in found) == list(range(40))
    assert len({job for job, _ in found}) == 2


def test_jobs_follow_the_load_and_no_block_is_lost_by_it(slurm_here, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_jobs, "_LOOK_EVERY", 1.0)

    def slow_block(block):  # as above
        time.sleep(0.2)
        return os.environ["SLURM_JOB_ID"], block

    more = "fewest_jobs = 1\nidle_timeout = 3"
    with connect(write_place(tmp_path, jobs=2, more=more)) as client:
        client.wait_for_workers(2, timeout=60)
        found = [result for _, result in run_blocks(client, slow_block, range(20))]
        wait_until(lambda: len(queue(slurm_here, "--format", "%A")) == 1, lambda: "no job was given up")
        jobs = set()
        blocks = itertools.takewhile(lambda block: block < 300 and len(jobs) < 2, itertools.count(20))
        for _, result in run_blocks(client, slow_block, blocks):
            jobs.add(result[0])
            found.append(result)
    assert len(jobs) == 2, "it came back"
    assert sorted(block for _, block in found) == list(range(len(found)))


def test_a_job_that_is_cancelled_while_it_waits_comes_back(slurm_here, tmp_path):
    wait_until(lambda: not queue(slurm_here), lambda: "jobs of an earlier test are left")
    more = 'directives = ["--begin=now+1hour"]'
    place = write_place(tmp_path, more=more)
    program = f"from diffdask.cluster import connect\nwith connect({str(place)!r}): pass"
    process = subprocess.Popen([sys.executable, "-c", program], env=slurm_here)
    try:
        wait_until(lambda: queue(slurm_here), lambda: "no job was submitted")
        (first,) = queue(slurm_here, "--format", "%A")
        ask(slurm_here, "scancel", first)
        wait_until(lambda: set(queue(slurm_here, "--format", "%A")) - {first}, lambda: "it did not come back")
    finally:
        process.kill()
        process.wait(10)
        ask(slurm_here, "scancel", "--user", "root")


def test_a_job_that_is_held_ends_the_run_with_slurms_reason(slurm_here, tmp_path):
    place = write_place(tmp_path, more='directives = ["--hold"]')
    told = "no worker job will start by itself; SLURM says why: 1 x JobHeldUser"
    with pytest.raises(BadJob, match=told), connect(place):
        pass
    wait_until(lambda: not queue(slurm_here), lambda: "jobs are left")


def test_what_slurm_refuses_is_told_in_its_own_words(slurm_here, tmp_path):
    with (
        pytest.raises(BadJob, match=r"SLURM refused the worker jobs: .*invalid partition"),
        connect(write_place(tmp_path, more='queue = "nowhere"')),
    ):
        pass
    assert not queue(slurm_here)


def test_jobs_that_end_before_a_worker_starts_are_told_and_not_submitted_for_ever(slurm_here, tmp_path):
    place = write_place(tmp_path, more='prologue = ["exit 3"]')
    with (
        pytest.raises(BadJob, match=rf"worker jobs ended before a worker started; .*'{tmp_path}/logs'"),
        connect(place),
    ):
        pass
    wait_until(lambda: not queue(slurm_here), lambda: "jobs are left")


@pytest.mark.timeout(600)
def test_the_driver_is_a_job_that_ends_in_time_and_goes_on_from_the_queue(slurm_here, campaign, tmp_path):
    job, expected = campaign
    place, made = write_place(tmp_path), tmp_path / "made"
    script = shutil.copy(ROOT / "deploy" / "slurm.sh", tmp_path)
    command = [
        "sbatch",
        "--parsable",
        "--time=10",
        "--mem=1G",
        script,
        str(job),
        "--on",
        str(place),
        "--folder",
        str(made),
    ]
    submitted = ask({**slurm_here, "DIFFDASK": DIFFDASK}, *command, cwd=tmp_path)
    number = submitted.stdout.strip()

    def log():
        return (tmp_path / f"diffdask-{number}.log").read_text()

    wait_until((made / "job.json").exists, log)
    ask(slurm_here, "scancel", "--batch", "--signal=USR1", number)
    wait_until(lambda: (tmp_path / f"diffdask-{number}.log").exists() and "goes back to the queue" in log(), log)
    ended = json.loads((made / "job.json").read_text())
    assert (ended["state"], ended["error"]) == ("ended", "Terminated: ")
    assert "ended by SIGTERM; the same command goes on where it stopped" in log()

    def is_finished():
        if json.loads((made / "job.json").read_text())["state"] == "finished":  # soon SLURM knows no such job any more
            return True
        # SLURM lets a job that was requeued wait for two minutes; an order that comes while it still ends is forgotten
        if "PENDING" in queue(slurm_here, "--jobs", number, "--format", "%T"):
            now = ("scontrol", "update", f"JobId={number}", "StartTime=now")
            subprocess.run(now, env=slurm_here, capture_output=True, timeout=60, check=False)
            time.sleep(2.0)
        return False

    wait_until(is_finished, log, seconds=300)
    pd.testing.assert_frame_equal(catalogue_of(made), expected, check_exact=True)
    record = json.loads((made / "job.json").read_text())
    assert [attempt["state"] for attempt in record["attempts"]] == ["ended"]
    wait_until(lambda: not queue(slurm_here), log)
