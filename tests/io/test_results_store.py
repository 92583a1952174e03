import shutil

import numpy as np
import pytest
import xarray as xr
import zarr

import diffdask.io.results_store as module
from diffdask.errors import BadStore
from diffdask.io.marks import mark_block, marked_blocks
from diffdask.io.results_store import (
    check_made,
    create_results,
    finish_group,
    frames_path,
    open_features,
    open_group,
    open_hits,
    open_scores,
    open_screen,
    open_unfinished,
    read_column,
    remove_group,
    replace_group,
    start_group,
    write_rows,
)
from diffdask.pipeline.ingest import ingest
from diffdask.variables import VARIABLES, wrap

NAMES = ("frame_is_hit", "frame_peak_count", "frame_anisotropy", "frame_status", "background_profile")


@pytest.fixture
def frames(tiny):
    return put(tiny, "f.zarr")


def put(tiny, name):
    source = tiny.folder / "a.cxi"
    if not source.exists():
        tiny.write("a.cxi", 5)
    return ingest(source, geometry=tiny.geometry, to=tiny.folder / name, on="threads", progress=False)


@pytest.fixture
def results(tiny, frames):
    create_results(tiny.folder / "r.zarr", frames=frames)
    return tiny.folder / "r.zarr"


def start(results, *, count=5, snr=6.0, **options):
    sizes = {"frame": count, "ring": 3}
    constants = wrap(ring_q=np.array([0.1, 0.2, 0.3]))
    options = {"names": NAMES, "block": 2, "parameters": {"snr": snr, "bins": (1, 2)}, **options}
    return start_group(results, "screen", sizes=sizes, constants=constants, **options)


def rows(count, seed=0):
    random = np.random.default_rng(seed)
    return wrap(
        frame_is_hit=random.uniform(size=count) > 0.5,
        frame_peak_count=random.integers(0, 9, count),
        frame_anisotropy=random.normal(size=count),
        frame_status=np.array(["ok", "no photons", "ok: \u00e9", "ok", "ok"][:count], dtype=object),
        background_profile=random.normal(size=(count, 3)).astype(np.float32),
    )


def test_what_is_written_block_by_block_comes_back_with_units_and_meaning(results):
    start(results)
    wanted = rows(5)
    for block in ((4, 5), (0, 2), (2, 4)):
        write_rows(results, "screen", block[0], wanted.isel(frame=slice(*block)))
    finish_group(results, "screen")
    found = open_screen(results)
    xr.testing.assert_equal(found[list(NAMES)].load(), wanted)
    assert found.ring_q.values.tolist() == [0.1, 0.2, 0.3]
    for name in NAMES:
        assert found[name].attrs["units"] == VARIABLES[name].units
        assert found[name].dims == VARIABLES[name].dims
    assert found.attrs["parameters"] == {"snr": 6.0, "bins": [1, 2]}


def test_a_group_is_not_there_until_it_is_finished(results):
    assert open_group(results, "screen") is None
    with pytest.raises(BadStore, match="has no 'screen' yet; run: diffdask screen"):
        open_screen(results)
    start(results)
    assert open_group(results, "screen") is None
    with pytest.raises(BadStore, match="goes on where it stopped"):
        open_screen(results)
    finish_group(results, "screen", note="x")
    assert open_screen(results).attrs["note"] == "x"
    start(results)
    assert open_group(results, "screen") is None


def test_a_group_grows_and_keeps_its_rows_and_its_marks(results):
    start(results, count=3)
    write_rows(results, "screen", 0, rows(3))
    mark_block(results, "screen", (0, 2))
    start(results, count=5)
    finish_group(results, "screen")
    found = open_screen(results)
    assert found.sizes["frame"] == 5
    xr.testing.assert_equal(found[list(NAMES)].isel(frame=slice(3)).load(), rows(3))
    assert np.isnan(found.frame_anisotropy.values[3:]).all()
    assert found.frame_status.values[3:].tolist() == ["", ""]
    assert marked_blocks(results, "screen") == {(0, 2)}


def test_rows_go_to_the_group_that_is_there_now_not_to_one_that_was(results):
    start(results, count=3)
    write_rows(results, "screen", 0, rows(3))
    start(results, count=5)  # grown
    write_rows(results, "screen", 3, rows(2, seed=1))
    finish_group(results, "screen")
    xr.testing.assert_equal(open_screen(results)[list(NAMES)].isel(frame=slice(3, 5)).load(), rows(2, seed=1))
    remove_group(results, "screen")
    start(results, count=2)  # made anew
    write_rows(results, "screen", 0, rows(2, seed=2))
    finish_group(results, "screen")
    xr.testing.assert_equal(open_screen(results)[list(NAMES)].load(), rows(2, seed=2))


def test_a_worker_that_outlived_its_run_cannot_write_to_a_group_made_anew(results):
    made = start(results)
    write_rows(results, "screen", 0, rows(2), made=made)
    assert start(results, count=7) == made  # grown, and still the same
    check_made(results, "screen", made)
    remove_group(results, "screen")
    start(results)  # with the same parameters, from another layout
    for outlived in (
        lambda: write_rows(results, "screen", 0, rows(2), made=made),
        lambda: check_made(results, "screen", made),
    ):
        with pytest.raises(BadStore, match="has been made anew in the meantime"):
            outlived()
    assert np.isnan(open_unfinished(results, "screen").frame_anisotropy.values).all()


def test_a_long_column_is_written_and_read_in_pieces(results, monkeypatch):
    monkeypatch.setattr(module, "_CHUNKS_AT_ONCE", 1)
    start(results)
    write_rows(results, "screen", 0, rows(5))
    for name in NAMES:
        np.testing.assert_array_equal(read_column(results, "screen", name), rows(5)[name].values)


def test_a_column_that_cannot_be_written_is_told_once_the_others_are(results):
    start(results)
    written = rows(2)
    (results / "screen" / "frame_anisotropy" / "c").write_text("no folder")
    with pytest.raises(OSError, match="frame_anisotropy"):
        write_rows(results, "screen", 0, written)
    for name in set(NAMES) - {"frame_anisotropy"}:
        np.testing.assert_array_equal(open_unfinished(results, "screen")[name].values[:2], written[name].values)


def test_no_two_blocks_share_a_file(results):
    start(results, count=5)
    group = zarr.open_group(results, path="screen", mode="r")
    assert {group[name].chunks[0] for name in NAMES if name != "frame_is_hit"} == {2}
    assert group["frame_is_hit"].chunks == (65536,)  # no block writes it
    assert {group[name].chunks[1:] for name in ("background_profile",)} == {(3,)}


def test_other_parameters_are_refused_and_leave_the_group_alone(results):
    start(results)
    finish_group(results, "screen")
    with pytest.raises(BadStore, match=r"snr: 6.0 there, 7.0 asked\); give --overwrite"):
        start(results, snr=7.0)
    assert open_group(results, "screen") is not None


def test_a_group_of_another_version_is_refused(results):
    start(results)
    zarr.open_group(results, path="screen", mode="r+").attrs["version"] = "0.0.1"
    with pytest.raises(BadStore, match=r"version: 0.0.1 there, .* now"):
        start(results)


def test_a_group_without_a_stamp_is_made_anew_and_its_marks_forgotten(results):
    zarr.open_group(results, mode="r+").create_group("screen").create_array("frame_anisotropy", shape=(9,), dtype="i1")
    mark_block(results, "screen", (0, 2))
    start(results)
    assert marked_blocks(results, "screen") == set()
    assert zarr.open_group(results, path="screen", mode="r")["frame_anisotropy"].shape == (5,)


def test_a_replaced_group_holds_the_new_and_nothing_of_the_old(results):
    score = np.array([0.1, np.nan, 0.7])
    replace_group(results, "scores", wrap(frame_score=score, frame_rank=np.array([2, 0, 1])), {"method": "a"})
    replace_group(results, "scores", wrap(frame_score=score[::-1]), {"method": "b"})
    found = open_scores(results)
    np.testing.assert_array_equal(found.frame_score.values, score[::-1])
    assert list(found.variables) == ["frame_score"]
    assert found.attrs["method"] == "b"


def test_a_replacement_that_fails_leaves_the_old_group(results, monkeypatch):
    replace_group(results, "scores", wrap(frame_score=np.ones(3)), {})

    def fail(*arguments):
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_arrays", fail)
        with pytest.raises(OSError, match="disk"):
            replace_group(results, "scores", wrap(frame_score=np.zeros(3)), {})
    assert open_scores(results).frame_score.values.tolist() == [1, 1, 1]
    replace_group(results, "scores", wrap(frame_score=np.zeros(3)), {})
    assert open_scores(results).frame_score.values.tolist() == [0, 0, 0]


def test_removing_a_group_removes_its_marks_and_is_no_error_where_there_is_none(results):
    start(results)
    mark_block(results, "screen", (0, 2))
    for _ in range(2):
        remove_group(results, "screen")
        assert marked_blocks(results, "screen") == set()
        assert open_group(results, "screen") is None


def test_groups_that_are_not_there_say_what_to_run(results):
    for opener in (open_screen, open_hits, open_features):
        with pytest.raises(BadStore, match="diffdask screen"):
            opener(results)
    assert open_scores(results) is None


# whose results ------------------------------------------------------------------------------------


def test_creating_results_again_is_no_error_and_changes_nothing(results, frames):
    start(results)
    create_results(results, frames=frames)
    assert "screen" in zarr.open_group(results, mode="r")


def test_results_of_other_frames_are_refused(tiny, results):
    with pytest.raises(BadStore, match=r"holds results of '.*f.zarr', not of '.*other.zarr'; choose another --results"):
        create_results(results, frames=put(tiny, "other.zarr"))


def test_results_of_frames_that_were_replaced_are_refused(tiny, results, frames):
    shutil.rmtree(frames)
    put(tiny, "f.zarr")
    with pytest.raises(BadStore, match="not of the one there now"):
        create_results(results, frames=frames)


def test_results_without_frames_are_refused(tiny):
    with pytest.raises(BadStore, match="no frames store"):
        create_results(tiny.folder / "r.zarr", frames=tiny.folder / "absent.zarr")
    assert not (tiny.folder / "r.zarr").exists()


@pytest.mark.parametrize("what", ["nothing", "frames", "file", "array", "spoilt"])
def test_something_else_is_never_taken_for_results(tiny, frames, what):
    path = {"frames": frames, "file": tiny.geometry}.get(what, tiny.folder / "other")
    if what in ("nothing", "spoilt"):
        path.mkdir()
    if what == "array":
        zarr.save_array(path, np.arange(3))
    if what == "spoilt":
        (path / "zarr.json").write_text("{")
    with pytest.raises(BadStore):
        create_results(path, frames=frames)
    with pytest.raises(BadStore):
        open_screen(path)


def test_results_and_frames_may_be_moved_together(tiny, results, frames):
    assert frames_path(results) == frames
    moved = tiny.folder / "moved"
    moved.mkdir()
    for store in (results, frames):
        shutil.move(store, moved / store.name)
    assert frames_path(moved / "r.zarr").resolve() == (moved / "f.zarr").resolve()
    create_results(moved / "r.zarr", frames=moved / "f.zarr")
    shutil.rmtree(moved / "f.zarr")
    with pytest.raises(BadStore, match="put them back"):
        frames_path(moved / "r.zarr")
