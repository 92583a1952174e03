"""One job file on a laptop, on a cluster with TLS reached by address, and on SLURM: the same catalogue, bit for bit."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from diffdask.cluster.security import security_in
from diffdask.pipeline.run import run
from diffdask.pipeline.simulate import simulate

from .slurm_here import missing, slurm

#: Frames by whoever simulates them once, so that the column of sources can be held against each other too.
JOB = """
[ingest]
sources = "{simulated}/r*.cxi"
geometry = "{simulated}/campaign.geom"
stream = "{simulated}/campaign.stream"
block_frames = 4
[screen]
ring_count = 60
polar_ring_count = 20
azimuth_count = 36
ring_groups = 2
feature_q_min = 0.1
component_count = 4
[compare]
[rank]
method = "pairs"
[catalogue]
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

LAPTOP = 'where = "laptop"\nworkers = 2\n'

ADDRESS = """
where = "address"
address = "{address}"
ca = "{private}/ca.pem"
certificate = "{private}/certificate.pem"
key = "{private}/key.pem"
"""

SLURM = """
where = "slurm"
jobs = 1
cores = 2
memory = "4GB"
walltime = "00:10:00"
host = "127.0.0.1"
shared_folder = "{folder}"
log_folder = "{folder}/logs"
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The job file, with its frames beside it."""
    folder = tmp_path_factory.mktemp("campaign")
    (folder / "small.geom").write_text(GEOMETRY)
    how = {"frames": 24, "runs": 2, "hits": 0.7, "diffuse": 0.5, "crystal": 5, "detector": str(folder / "small.geom")}
    simulated = simulate(folder / "simulated", on="threads", progress=False, **how)
    path = folder / "job.toml"
    path.write_text(JOB.format(simulated=simulated))
    return path


@pytest.fixture(scope="module")
def on_laptop(job):
    """What worker processes on this machine make of it."""
    return run_there(job, LAPTOP, job.parent / "laptop")


def run_there(job, place, folder):
    """Run the job at a place, and give its catalogue."""
    folder.mkdir()
    (folder / "place.toml").write_text(place)
    run(job, on=folder / "place.toml", folder=folder / "made", progress=False)
    assert json.loads((folder / "made" / "job.json").read_text())["state"] == "finished"
    return pd.read_parquet(folder / "made" / "catalogue.parquet")


def assert_same(found, expected):
    assert len(expected) == 24
    assert expected["frame_rank"].max() > 5, "hits were found and ranked"
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


@contextlib.contextmanager
def cluster_with_tls(folder: Path, seconds: float = 30.0):
    """Start a scheduler and two workers, processes with certificates; give the place that reaches them."""
    with security_in(folder) as security, (folder / "log.txt").open("wb") as log:
        (private,) = (path for path in folder.iterdir() if path.is_dir())
        files = ("--tls-ca-file", security.tls_ca_file, "--tls-cert", private / "certificate.pem")
        files += ("--tls-key", private / "key.pem")
        started = []

        def start(kind, *options):
            command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard", *options, *files]
            started.append(subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, cwd=folder))

        try:
            told = folder / "scheduler.json"
            here = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
            start("scheduler", *here, "--port", 0, "--protocol", "tls", "--scheduler-file", told)
            address = address_in(told, seconds)
            start("worker", address, "--host", "127.0.0.1", "--nworkers", 2, "--nthreads", 1, "--death-timeout", 60)
            yield ADDRESS.format(address=address, private=private)
        finally:
            for process in started:
                kill(process)


def address_in(told: Path, seconds: float) -> str:
    stop = time.monotonic() + seconds
    while not (told.is_file() and told.read_text().rstrip().endswith("}")):  # not only begun
        assert time.monotonic() < stop, (told.parent / "log.txt").read_text()
        time.sleep(0.05)
    return json.loads(told.read_text())["address"]


def kill(process: subprocess.Popen) -> None:
    """Kill a process and what it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()
    process.wait(timeout=10)


@pytest.mark.timeout(120)
def test_a_cluster_with_tls_gives_the_catalogue_of_a_laptop(job, on_laptop, tmp_path):
    with cluster_with_tls(tmp_path) as place:
        assert 'address = "tls://' in place
        assert_same(run_there(job, place, tmp_path / "there"), on_laptop)
    printed = (tmp_path / "log.txt").read_text()
    assert "tls://" in printed
    assert "tcp://" not in printed


@pytest.mark.timeout(180)
@pytest.mark.slurm
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_slurm_gives_the_catalogue_of_a_laptop(job, on_laptop, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "there").mkdir()
    with slurm(folder) as environment:
        for name in ("SLURM_CONF", "PATH"):
            monkeypatch.setenv(name, environment[name])
        place = SLURM.format(folder=folder / "there")
        assert_same(run_there(job, place, folder / "run"), on_laptop)
        assert "tls://" in "".join(path.read_text() for path in (folder / "there" / "logs").glob("*.err"))
