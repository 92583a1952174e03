"""The verbs on a real S3 over HTTP: what a folder gives, bit for bit, also when S3 is ill for a while."""

import contextlib
import functools
import json
import shutil
from pathlib import Path

import numpy as np
import obstore
import pandas as pd
import pytest

from diffdask.catalogue import catalogue
from diffdask.errors import BadParameter, BadStore
from diffdask.io import frames_writer, object_storage, results_store
from diffdask.io.frames_store import open_frames
from diffdask.io.marks import marked_blocks
from diffdask.io.paths import join
from diffdask.io.results_store import frames_path
from diffdask.io.storage import storage_at
from diffdask.io.volume_store import open_volume
from diffdask.pipeline import extract as extract_module
from diffdask.pipeline import grow as grow_module
from diffdask.pipeline import haloes as haloes_module
from diffdask.pipeline import hit_images as images_module
from diffdask.pipeline import merge as merge_module
from diffdask.pipeline import orient as orient_module
from diffdask.pipeline import screen as screen_module
from diffdask.pipeline.compare import compare
from diffdask.pipeline.extract import extract
from diffdask.pipeline.haloes import haloes
from diffdask.pipeline.info import info
from diffdask.pipeline.ingest import ingest
from diffdask.pipeline.merge import merge
from diffdask.pipeline.orient import orient
from diffdask.pipeline.rank import rank
from diffdask.pipeline.run import run
from diffdask.pipeline.simulate import simulate
from diffdask.pipeline.status import status

from ..s3_here import KEY, SECRET, Proxy

HOW = {"on": "threads", "progress": False}

JOB = """
folder = "{folder}"
[ingest]
sources = "{small.simulated}/r*.cxi"
geometry = "{small.geometry}"
stream = "{small.simulated}/campaign.stream"
block_frames = 8
[screen]
ring_count = 60
polar_ring_count = 20
azimuth_count = 36
ring_groups = 2
feature_q_min = 0.1
component_count = 4
[compare]
[train]
labels = "{folder}/labels.csv"
iterations = 3
fold_count = 2
[rank]
[merge]
size = 24
top = 12
[evaluate]
labels = "{folder}/labels.csv"
[report]
labels = "{folder}/labels.csv"
top = 2
[catalogue]
to = "{folder}/catalogue.csv"
"""


def bring(small, to, sources=None):
    """Ingest the small campaign."""
    stream = small.simulated / "campaign.stream"
    sources = sources or str(small.simulated / "r*.cxi")
    return ingest(sources, geometry=small.geometry, stream=stream, to=to, block_frames=8, **HOW)


def analyse(small, folder):
    """Everything from files to a catalogue, in a folder or in a bucket."""
    frames, results = bring(small, join(folder, "frames.zarr")), join(folder, "results.zarr")
    small.screen(results, frames=frames)
    compare(results, **HOW)
    rank(results, method="pairs", **HOW)
    return results


@pytest.fixture(scope="session")
def local(small, tmp_path_factory):
    return analyse(small, tmp_path_factory.mktemp("local"))


def test_all_on_s3_is_that_of_a_folder_bit_for_bit_and_holds_no_credential(small, local, bucket, s3, tmp_path, caplog):
    results = analyse(small, bucket)
    assert results == f"{bucket}/results.zarr"
    small.assert_same(local, results, "layout", "screen", "hits", "features", "crystals", "common-arc", "scores")
    catalogues = [catalogue(place, to=tmp_path / f"{number}.parquet") for number, place in enumerate((local, results))]
    one, other = map(pd.read_parquet, catalogues)
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert catalogue(results, to=join(bucket, "catalogue.csv")) == f"{bucket}/catalogue.csv"
    catalogue(local, to=tmp_path / "local.csv")
    assert storage_at(bucket).read_text("catalogue.csv") == (tmp_path / "local.csv").read_text()
    written = list(every_object(bucket))
    assert len(written) > 50
    secrets = [word.encode() for word in (KEY, SECRET, s3.removeprefix("http://"))]
    assert not [name for name, content in written for secret in secrets if secret in content]
    assert not any(word in caplog.text for word in (KEY, SECRET))


@contextlib.contextmanager
def stopped_after_two_marks(monkeypatch, module):
    """Let a module's third mark fail, or its third block of a map; gives the blocks that were marked."""
    name = "mark_block" if hasattr(module, "mark_block") else "write_block"
    done, mark = [], getattr(module, name)

    def stop_after_two(*given, **note):
        if len(done) == 2:
            raise BadStore("stopped")
        done.extend(one for one in given if isinstance(one, tuple))
        mark(*given, **note)

    with monkeypatch.context() as patched:
        patched.setattr(module, name, stop_after_two)
        yield done


def test_a_screen_that_was_stopped_goes_on_where_it_stopped(small, local, bucket, monkeypatch):
    frames, results = bring(small, f"{bucket}/frames.zarr"), f"{bucket}/results.zarr"
    with stopped_after_two_marks(monkeypatch, screen_module) as done, pytest.raises(BadStore, match="stopped"):
        small.screen(results, frames=frames)
    assert marked_blocks(results, "screen") == set(done)
    stamps = {block: storage_at(results).stamp(f"marks/screen/{block[0]}-{block[1]}") for block in done}
    assert status(results)["stages"]["screen"]["blocks_done"] == 2
    small.screen(results, frames=frames)
    assert len(marked_blocks(results, "screen")) == 6
    assert stamps == {block: storage_at(results).stamp(f"marks/screen/{block[0]}-{block[1]}") for block in done}
    small.assert_same(local, results)


@pytest.fixture
def brought(local, bucket):
    """The results of the folder and their frames, object by object in a bucket."""
    storage = storage_at(bucket)
    for file in local.parent.rglob("*"):
        if file.is_file():
            storage.put_file(file.relative_to(local.parent).as_posix(), file)
    return f"{bucket}/results.zarr"


@pytest.fixture
def copied(local, tmp_path):
    """The results and their frames in a folder of the test's own."""
    return Path(shutil.copytree(local.parent, tmp_path / "copied")) / "results.zarr"


@pytest.mark.parametrize(
    ("look", "module", "searched", "groups"),
    [
        (
            lambda at: orient(at, orientation_count=200, **HOW),
            orient_module,
            "search",
            ("consistency", "orientations"),
        ),
        (lambda at: haloes(at, **HOW), haloes_module, "haloes", ()),
        (lambda at: extract(at, weights="none", size=32, cleaned=True, **HOW), images_module, "images", ()),
    ],
    ids=["orient", "haloes", "pictures"],
)
def test_hits_looked_at_in_a_bucket_after_a_stop_are_those_of_a_folder(
    small, brought, copied, monkeypatch, look, module, searched, groups
):
    few_folds = functools.partial(grow_module.MapConsistency, fold_count=2)
    monkeypatch.setattr(grow_module, "MapConsistency", few_folds)  # with the hits that are not indexed, three blocks
    monkeypatch.setattr(haloes_module, "_BLOCK_HITS", 7)
    monkeypatch.setattr(images_module, "_BLOCK_HITS", 7)
    with stopped_after_two_marks(monkeypatch, module) as done, pytest.raises(BadStore, match="stopped"):
        look(brought)
    assert marked_blocks(brought, searched) == set(done)
    assert results_store.open_group(brought, searched) is None
    before = mark_stamps(brought, searched)
    assert look(brought) == brought
    after = mark_stamps(brought, searched)
    assert len(after) > len(before) == 2
    assert before.items() <= after.items()
    look(copied)
    small.assert_same(copied, brought, searched, *groups)


def test_what_a_network_sees_of_pictures_in_a_bucket_after_a_stop_is_that_of_a_folder(
    small, brought, copied, monkeypatch
):
    """In place of the network, which takes its time, the first numbers of a picture: only its place is in question."""
    monkeypatch.setattr(extract_module, "digest_weights", lambda _: "none")
    monkeypatch.setattr(
        extract_module, "extract_block", lambda pictures, **_: pictures.reshape(len(pictures), -1)[:, :4096]
    )

    def see(results):
        return extract(results, weights="seed:0", layers=["fc2"], content="polar", batch=12, **HOW)

    with stopped_after_two_marks(monkeypatch, extract_module) as done, pytest.raises(BadStore, match="stopped"):
        see(brought)
    before = mark_stamps(brought, "vgg16")
    assert marked_blocks(brought, "vgg16") == set(done)
    see(brought)
    after = mark_stamps(brought, "vgg16")
    assert len(after) == 3
    assert before.items() <= after.items()
    see(copied)
    small.assert_same(copied, brought, "images", "vgg16")


def mark_stamps(results, group):
    """When each block of a group was marked: nothing that is done is done again."""
    storage = storage_at(results)
    return {block: storage.stamp(f"marks/{group}/{block[0]}-{block[1]}") for block in marked_blocks(results, group)}


def test_a_map_in_a_bucket_made_after_a_stop_is_that_of_a_folder(brought, copied, bucket, monkeypatch):
    monkeypatch.setattr(merge_module, "_BLOCK_HITS", 4)
    folder, how = copied.parent, {"size": 24, "top": 12, **HOW}
    with stopped_after_two_marks(monkeypatch, merge_module) as done, pytest.raises(BadStore, match="stopped"):
        merge(brought, to=f"{bucket}/map.zarr", **how)
    with pytest.raises(BadStore, match="no map at"):
        open_volume(f"{bucket}/map.zarr")
    with monkeypatch.context() as patched:
        written, write = [], merge_module.write_block
        patched.setattr(
            merge_module, "write_block", lambda at, block, halves: (written.append(block), write(at, block, halves))
        )
        assert merge(brought, to=f"{bucket}/map.zarr", **how) == f"{bucket}/map.zarr"
    assert sorted([*written, *done]) == [(0, 4), (4, 8), (8, 12)]
    merge(copied, to=folder / "map.zarr", **how)
    one, other = open_volume(folder / "map.zarr"), open_volume(f"{bucket}/map.zarr")
    assert one.attrs == other.attrs
    assert set(one.variables) == set(other.variables)
    for name in one.variables:
        np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=str(name), strict=True)
    with storage_at(bucket).open_file("map.ccp4") as file:
        assert file.read() == (folder / "map.ccp4").read_bytes()
    assert not [name for name, _ in every_object(bucket) if name.startswith(".")]
    assert info(f"{bucket}/map.zarr")["hits"] == 12
    with pytest.raises(BadStore, match=r"top: 12 there, 8 asked.*--overwrite"):
        merge(brought, to=f"{bucket}/map.zarr", **how | {"top": 8})
    storage_at(bucket).delete(["map.ccp4"])
    monkeypatch.setattr(merge_module, "run_marked", lambda *_, **__: pytest.fail("made again"))
    with pytest.raises(pytest.fail.Exception, match="made again"):
        merge(brought, to=f"{bucket}/map.zarr", **how)


def test_an_ingest_that_was_stopped_goes_on_where_it_stopped(small, local, bucket, monkeypatch):
    with stopped_after_two_marks(monkeypatch, frames_writer), pytest.raises(BadStore, match="stopped"):
        bring(small, f"{bucket}/frames.zarr")
    with pytest.raises(BadStore, match=r"unfinished \(2 blocks written, 46 frames planned\)"):
        open_frames(f"{bucket}/frames.zarr")
    assert status(f"{bucket}/frames.zarr")["stages"]["frames"]["blocks_done"] == 2
    frames = bring(small, f"{bucket}/frames.zarr")
    one, other = open_frames(frames_path(local)), open_frames(frames)
    assert set(one.variables) == set(other.variables)
    for name in one.variables:
        np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=str(name))


@pytest.mark.parametrize("patience", [60.0, 0.5], ids=["obstore tries again", "the worker tries again"])
def test_s3_that_says_503_for_a_while_changes_nothing(small, local, bucket, s3, monkeypatch, patience):
    monkeypatch.setattr(object_storage, "PATIENCE", patience)
    mark_block, marked = screen_module.mark_block, []
    with Proxy(s3) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        frames, results = bring(small, f"{bucket}/frames.zarr"), f"{bucket}/results.zarr"

        def mark_and_fall_ill(store, group, block, **note):
            mark_block(store, group, block, **note)
            marked.append(block)
            if len(marked) == 2:
                proxy.refuse_for(3.0)

        monkeypatch.setattr(screen_module, "mark_block", mark_and_fall_ill)
        small.screen(results, frames=frames)
        assert proxy.refused > 3
        assert sorted(marked) == sorted(set(marked)) == sorted(marked_blocks(results, "screen"))
        small.assert_same(local, results)


def test_a_whole_job_runs_in_a_bucket_on_worker_processes(small, local, bucket, tmp_path):
    job = tmp_path / "job.toml"
    job.write_text(JOB.format(folder=bucket, small=small))
    storage_at(bucket).put_file("labels.csv", small.labels)
    place = tmp_path / "laptop.toml"
    place.write_text('where = "laptop"\nworkers = 1\nthreads = 2\n')
    told = run(job, on=place, progress=False)
    assert told["state"] == "finished"
    assert json.loads(storage_at(bucket).read_text("job.json"))["counts"]["frames"] == 46
    assert "<html" in storage_at(bucket).read_text("performance.html").lower()
    small.assert_same(local, f"{bucket}/results.zarr")
    assert len(storage_at(bucket).read_text("catalogue.csv").splitlines()) == 47
    assert status(f"{bucket}/results.zarr")["job"]["state"] == "finished"
    assert info(f"{bucket}/frames.zarr")["frames"] == 46
    assert info(f"{bucket}/ranker.zarr")["trained on"] > 10
    assert info(f"{bucket}/map.zarr")["hits"] == 12
    assert 'href="#map"' in storage_at(bucket).read_text("report/report.html")
    planned = run(job, on="threads", dry_run=True)["verbs"]
    assert planned["screen"]["left"] == planned["merge"]["left"] == 0


def test_results_find_frames_that_were_moved_with_them(small, bucket):
    frames = bring(small, f"{bucket}/one/frames.zarr")
    results_store.create_results(f"{bucket}/one/results.zarr", frames=frames)
    assert frames_path(f"{bucket}/one/results.zarr") == frames
    storage_at(bucket).rename("one", "other/place")
    assert frames_path(f"{bucket}/other/place/results.zarr") == f"{bucket}/other/place/frames.zarr"
    storage_at(bucket).remove("other/place/frames.zarr")
    with pytest.raises(BadStore, match="put them back"):
        frames_path(f"{bucket}/other/place/results.zarr")


def test_frames_in_a_folder_and_results_in_a_bucket_go_together(small, local, bucket):
    results = small.screen(f"{bucket}/results.zarr")
    small.assert_same(small.results, results)
    assert frames_path(results) == small.frames


@pytest.mark.parametrize(
    "use",
    [
        lambda small: simulate("s3://tests/simulated", **HOW),
        lambda small: bring(small, "frames.zarr", sources="s3://tests/r0001.cxi"),
    ],
)
def test_what_stays_on_this_machine_says_so_and_what_to_do(small, use):
    with pytest.raises(BadParameter, match=r"can only be on this machine.*copy it"):
        use(small)


def every_object(bucket):
    """Names and contents of all that is in a place."""
    storage = storage_at(bucket)
    for found in storage.list_below(""):
        yield found["path"], bytes(obstore.get(storage.zarr_store().store, found["path"]).bytes())
