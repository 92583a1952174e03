"""Memory of workers: what every place that is shipped gives one is enough for every job that is shipped."""

import re
from pathlib import Path

import pytest
import yaml

import diffdask.pipeline.plan as module
from diffdask.cluster import capacity_of, find_place
from diffdask.cluster.capacity import PAUSES_AT, Capacity
from diffdask.cluster.kubernetes_resources import KUBERNETES, memory_needed, worker_memory
from diffdask.pipeline.frame_supply import FrameSupply
from diffdask.pipeline.plan import all_arguments, plan_job
from diffdask.pipeline.run import plan_calls, read_job

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "kubernetes.md"
JOBS = sorted([*ROOT.glob("jobs/*.toml"), *ROOT.glob("deploy/kubernetes/overlays/*/job.toml")])
CSPAD_PIXELS = 32 * 185 * 388
SETTINGS = 8  # of the detector: as many as docs/kubernetes.md promises room for


def block_frames(job):
    """Frames a block: as the job ingests them, or else as any job that is shipped may have before."""
    asked = [read_job(path).get("ingest") for path in ([job] if "ingest" in read_job(job) else JOBS)]
    return max(all_arguments("ingest", ingest)["block_frames"] for ingest in asked if ingest is not None)


def campaign(job):
    """Frames of a CSPAD, as many as there may be."""
    block = block_frames(job)
    return FrameSupply(None, 0, 8_000_000, block, CSPAD_PIXELS, item_bytes=2, settings=SETTINGS)


def plan(job, capacity, folder, monkeypatch):
    """Plan a job without its files."""
    monkeypatch.setattr(module, "find_supply", lambda calls: campaign(job))
    sections = {name: given for name, given in read_job(job).items() if name != "folder"}
    return plan_job(plan_calls(sections, folder), folder, capacity)["total"]


def of_place(name):
    return capacity_of(find_place(ROOT / "deploy" / name))


def of_manifests(deployment):
    """Worker pods of all manifests, by what Dask is told in them."""
    found = [one for path in deployment.folder.rglob("*.yaml") for one in yaml.safe_load_all(path.read_text())]
    workers = [one for one in deployment.containers(found) if one["command"] == ["dask", "worker"]]
    assert len(workers) == 3
    for worker in workers:
        told = dict(zip(worker["args"][::2], worker["args"][1::2], strict=True))
        yield Capacity("pods", workers=1, threads=int(told["--nthreads"]), memory=int(told["--memory-limit"]))


@pytest.mark.parametrize("job", JOBS, ids=lambda path: "-".join(path.parts[-2:]))
def test_a_worker_of_every_place_has_room_for_every_job(job, deployment, tmp_path, monkeypatch):
    default = Capacity("pods", workers=1, memory=worker_memory(KUBERNETES["memory"]))
    for capacity in (of_place("kubernetes.toml"), of_place("slurm.toml"), default, *of_manifests(deployment)):
        assert plan(job, capacity, tmp_path, monkeypatch)["fits"] is True, capacity


def test_a_worker_of_half_the_memory_has_no_room_for_a_whole_campaign(tmp_path, monkeypatch):
    half = Capacity("pods", workers=1, memory=worker_memory("2Gi"))
    assert plan(ROOT / "jobs" / "triage.toml", half, tmp_path, monkeypatch)["fits"] is False


def test_memory_needed_grows_with_threads_by_four_blocks_each():
    block = campaign(ROOT / "jobs" / "triage.toml").block_bytes
    one, two = (memory_needed(block, threads=threads) for threads in (1, 2))
    assert two - one == 4 * block


def test_figures_of_the_documents_follow_from_the_rule():
    supply = campaign(ROOT / "jobs" / "triage.toml")
    told = re.sub(r"\s+", " ", PAGE.read_text().partition("## Memory")[2].partition("\n## ")[0])
    needed = memory_needed(supply.block_bytes, settings=SETTINGS)
    has = worker_memory(KUBERNETES["memory"])
    assert f"{supply.block} CSPAD frames" in told
    assert f"({supply.block_bytes / 1e6:.0f} MB) and {SETTINGS} detector settings make {needed / 1e9:.1f} GB" in told
    assert f"`extract` takes {module._HIT_MEMORY['extract'] / 1e9} GB" in told
    assert f"The {KUBERNETES['memory']} of the manifests leave {PAUSES_AT * has / 1e9:.1f} GB" in told


def test_figures_of_the_slurm_place_follow_from_the_rule():
    text = (ROOT / "deploy" / "slurm.toml").read_text()
    needed = memory_needed(campaign(ROOT / "jobs" / "triage.toml").block_bytes, settings=SETTINGS)
    assert f"{of_place('slurm.toml').memory / 1e9:.0f} GB a worker" in text
    assert f"takes {needed / 1e9:.1f} GB" in text
