"""Files of deploy/: every key is known, of its type, and told in the documents."""

import builtins
import re
from pathlib import Path

import pytest

from diffdask.cluster import capacity_of, connect, find_place, read_place
from diffdask.cluster.places import KINDS
from diffdask.cluster.slurm import cluster_options, plan_lifetime, read_walltime
from diffdask.errors import BadJob

ROOT = Path(__file__).parents[2]


def written(folder, text):
    path = folder / "place.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("where", KINDS)
def test_there_is_a_place_of_every_kind_and_it_can_be_read(where):
    place = read_place(ROOT / "deploy" / f"{where}.toml")
    assert place["where"] == where
    assert capacity_of(place).told


@pytest.mark.parametrize("where", KINDS)
def test_the_documents_explain_every_key(where):
    page = (ROOT / "docs" / "deploy.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE))
    missing = [
        f"| `{name}` | {key.meaning} |" for name, key in KINDS[where].KEYS.items() if rows.get(name) != key.meaning
    ]
    if where == "kubernetes":
        pytest.skip("docs/kubernetes.md is about these")
    shared = {name for name in KINDS[where].KEYS for other in KINDS if other != where and name in KINDS[other].KEYS}
    assert not [row for row in missing if row.split("`")[1] not in shared], "\n".join(missing)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('where = "slrm"', r"where = 'slrm' is not known; did you mean ''slurm''\?"),
        ('where = "slurm"\nque = "x"', r"unknown key 'que'; did you mean 'queue'\?"),
        ('where = "slurm"\ncores = "8"', r"cores = '8' must be like 1"),
        ('where = "slurm"\ncores = true', r"cores = True must be like 1"),
        ('where = "slurm"\njobs = -1', r"jobs = -1 is below zero"),
        ('where = "slurm"\ntls = 1', r"tls = 1 must be like True"),
        ('where = "slurm"\nprologue = "module load x"', r"prologue = 'module load x' must be like \[\]"),
        ('where = "slurm"\nprologue = [1]', r"prologue = \[1\] must be like \[\]"),
        ('where = "address"', "lacks address: address of the scheduler"),
        ('where = "laptop"\ncost_per_core_hour = "1"', "cost_per_core_hour = '1' must be like 0.0"),
    ],
)
def test_a_mistake_in_a_place_is_told(tmp_path, text, message):
    with pytest.raises(BadJob, match=message):
        read_place(written(tmp_path, text))


def test_an_integer_will_do_for_a_price(tmp_path):
    assert read_place(written(tmp_path, 'where = "laptop"\ncost_per_core_hour = 1'))["cost_per_core_hour"] == 1


def test_tls_is_on_off_the_laptop():
    assert not find_place(None)["tls"]
    assert not find_place("laptop")["tls"]
    for where in ("slurm", "address"):
        assert KINDS[where].KEYS["tls"].default is True


@pytest.mark.parametrize(
    ("address", "tls"), [("tls://node042:8786", True), ("tcp://node042:8786", False), ("inproc://10.0.0.1/7/1", False)]
)
def test_the_place_of_an_address_tells_what_its_scheme_says_of_tls(address, tls):
    place = find_place(address)
    assert (place["where"], place["address"], place["tls"]) == ("address", address, tls)


def test_nothing_is_open_to_the_network_by_default():
    for where in ("laptop", "slurm"):
        assert KINDS[where].KEYS["dashboard"].default.startswith("127.0.0.1:")
        assert read_place(ROOT / "deploy" / f"{where}.toml")["dashboard"].startswith("127.0.0.1:")
    options = cluster_options(read_place(ROOT / "deploy" / "slurm.toml"))
    extra = options["worker_extra_args"]
    assert extra[extra.index("--dashboard-address") + 1] == "127.0.0.1:0"


# SLURM -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 1800), ("30:15", 1815), ("04:00:00", 14400), ("1-12", 129600), ("1-12:30", 131400), ("2-00:00:10", 172810)],
)
def test_a_walltime_is_read_as_slurm_reads_it(text, seconds):
    assert read_walltime(text) == seconds


@pytest.mark.parametrize("text", ["", "four", "1:2:3:4", "-1"])
def test_what_is_no_walltime_is_told(text):
    with pytest.raises(BadJob, match="is not like '04:00:00'"):
        read_walltime(text)


@pytest.mark.parametrize("walltime", [600, 3600, 4 * 3600, 86400])
def test_workers_retire_within_the_walltime_and_far_apart(walltime):
    lifetime, stagger = plan_lifetime(walltime)
    assert lifetime + stagger < walltime - 30
    assert lifetime - stagger > walltime / 2
    assert 2 * stagger > 120, "much longer than a new worker takes"


def test_a_place_says_how_much_it_can_do(tmp_path):
    text = 'where = "slurm"\njobs = 5\ncores = 8\nmemory = "32GB"\nprocesses = 4\ncost_per_core_hour = 0.02'
    capacity = capacity_of(read_place(written(tmp_path, text)))
    assert (capacity.workers, capacity.threads, capacity.memory) == (20, 2, 8 * 10**9)
    assert (capacity.cores, capacity.cost_per_core_hour) == (40, 0.02)


def test_without_sbatch_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadJob, match="no 'sbatch' here"), connect(ROOT / "deploy" / "slurm.toml"):
        pass


def test_without_dask_jobqueue_it_is_told_what_to_install(monkeypatch):
    real = builtins.__import__

    def absent(name, *arguments, **options):
        if name == "dask_jobqueue":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(BadJob, match=r"pip install 'diffdask\[slurm\]'"), connect(ROOT / "deploy" / "slurm.toml"):
        pass
