import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

import diffdask.pipeline.screen as module
from diffdask.catalogue import catalogue_table
from diffdask.cluster import connect
from diffdask.errors import BadLabels, BadParameter, BadStore, FailedBlocks
from diffdask.io.frames_store import open_frames
from diffdask.io.marks import marked_blocks
from diffdask.io.results_store import open_group, open_screen
from diffdask.pipeline.rank import rank
from diffdask.pipeline.train import train

DATA = "/entry_1/data_1/data"


def mark_times(results: Path, group: str) -> dict[str, int]:
    return {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(results / "marks" / group)}


def files_of(group: Path) -> dict[str, bytes]:
    return {str(path.relative_to(group)): path.read_bytes() for path in sorted(group.rglob("*")) if path.is_file()}


@pytest.fixture
def counted(monkeypatch):
    """Numbers of the frames that were screened, in order."""
    seen = []
    original = module.read_frame_columns

    def count(frames, start, stop, **options):
        seen.extend(range(start, stop))
        return original(frames, start, stop, **options)

    monkeypatch.setattr(module, "read_frame_columns", count)
    return seen


# where and how it runs does not matter -------------------------------------------------


def test_hits_are_the_frames_that_were_simulated_as_hits(small):
    screened = open_screen(small.results)
    np.testing.assert_array_equal(screened.frame_is_hit.values, small.label() != "blank")
    assert (screened.frame_status == "ok").all()
    for name in ("frame_anisotropy", "frame_background", "frame_diffuse_excess"):
        assert np.isfinite(screened[name].values).all(), name
    numbers = open_group(small.results, "hits").hit_frame.values
    np.testing.assert_array_equal(numbers, np.flatnonzero(small.label() != "blank"))


def test_one_process_two_processes_and_threads_give_the_same_bits(small, tmp_path):
    for workers in (1, 2):
        place = tmp_path / f"{workers}.toml"
        place.write_text(f'where = "laptop"\nworkers = {workers}\n')
        made = small.screen(tmp_path / f"{workers}.zarr", on=place)
        small.assert_same(made, small.results)


def test_the_size_of_a_block_does_not_matter(small, tmp_path):
    frames = small.ingest(tmp_path / "frames.zarr", block_frames=5)
    made = small.screen(tmp_path / "results.zarr", frames=frames)
    assert (45, 46) in marked_blocks(made, "screen")
    small.assert_same(made, small.results)


# interrupted and gone on with ---------------------------------------------------------------


def test_a_screen_that_failed_goes_on_where_it_stopped(small, tmp_path, monkeypatch, counted):
    results, original, calls = tmp_path / "results.zarr", module.screen_frames, []

    def fail_on_fourth(ds, **options):
        calls.append(1)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "the disk is full")
        return original(ds, **options)

    with monkeypatch.context() as patched:
        patched.setattr(module, "screen_frames", fail_on_fourth)
        with pytest.raises(FailedBlocks, match=r"disk is full; .* goes on where it stopped"):
            small.screen(results)
    with pytest.raises(BadStore, match=r"not finished.*goes on where it stopped"):
        open_screen(results)
    done = mark_times(results, "screen")
    assert 0 < len(done) < 6
    counted.clear()
    small.screen(results)
    marked = {frame for name in done for frame in range(*map(int, name.split("-")))}
    assert sorted(counted) == sorted(set(range(46)) - marked)
    assert mark_times(results, "screen").items() >= done.items()
    small.assert_same(results, small.results)


def test_blocks_without_a_mark_are_made_anew_whatever_their_bytes(small, tmp_path, counted):
    results = small.copy(tmp_path / "results.zarr")
    for group, block in (("screen", (8, 16)), ("hits", (0, 32))):
        (results / "marks" / group / f"{block[0]}-{block[1]}").unlink()
        opened = zarr.open_group(results, path=group, mode="r+")
        opened.attrs["complete"] = False
        for name in ("frame_anisotropy", "background_profile") if group == "screen" else ("polar_residual",):
            opened[name][slice(*block)] = 7.0
    shutil.rmtree(results / "features")
    small.screen(results)
    assert counted == list(range(8, 16))
    small.assert_same(results, small.results)


def test_a_killed_driver_leaves_nothing_that_looks_whole(small, tmp_path):
    results = tmp_path / "results.zarr"
    script = f"""
import time
import diffdask.pipeline.screen as module
original = module.mark_block
def mark_slowly(*arguments, **note):
    original(*arguments, **note)
    time.sleep(0.5)
module.mark_block = mark_slowly
module.screen({str(small.frames)!r}, results={str(results)!r}, progress=False, on="threads", **{small.parameters!r})
"""
    driver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started = time.monotonic()
    try:
        while len(marked_blocks(results, "screen")) < 2:
            assert driver.poll() is None
            assert time.monotonic() - started < 60
            time.sleep(0.02)
    finally:
        driver.kill()
        driver.wait()
    assert driver.returncode == -signal.SIGKILL
    done = mark_times(results, "screen")
    assert len(done) < 6
    with pytest.raises(BadStore, match="not finished"):
        catalogue_table(results)
    small.screen(results)
    assert mark_times(results, "screen").items() >= done.items()
    small.assert_same(results, small.results)


@pytest.mark.parametrize("group", ["layout", "screen", "hits", "features"])
def test_a_half_made_group_is_made_anew(small, tmp_path, group):
    results = small.copy(tmp_path / "results.zarr")
    shutil.rmtree(results / group)
    zarr.open_group(results, mode="r+").create_group(group).create_array("ring_q", shape=(3,), dtype="f4")
    shutil.copytree(results / group, results / ".layout.partial")
    small.screen(results)
    small.assert_same(results, small.results)


def test_hits_not_yet_decided_are_not_taken_for_no_hits(small, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    results = tmp_path / "results.zarr"
    with monkeypatch.context() as patched:
        patched.setattr(module, "decide_hits", interrupt)
        with pytest.raises(KeyboardInterrupt):
            small.screen(results)
    assert len(marked_blocks(results, "screen")) == 6
    with pytest.raises(BadStore, match=r"'screen' .* is not finished"):
        catalogue_table(results)


def test_a_finished_screen_is_not_done_again(small, tmp_path, counted):
    results = small.copy(tmp_path / "results.zarr")
    before = {group: files_of(results / group) for group in ("layout", "screen", "hits", "features", "marks")}
    times = {group: mark_times(results, group) for group in ("screen", "hits")}
    small.screen(results)
    assert counted == []
    assert {group: mark_times(results, group) for group in times} == times
    assert {group: files_of(results / group) for group in before} == before


# other parameters ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "option", "before", "now"),
    [
        ("layout", "ring_count", 60, 80),
        ("screen", "snr", 6.0, 7.5),
        ("screen", "common_mode", "zero-peak", "none"),
        ("hits", "min_peaks", 5, 9),
        ("features", "component_count", 4, 5),
    ],
)
def test_other_parameters_are_refused_with_both_values(small, tmp_path, counted, group, option, before, now):
    results = small.copy(tmp_path / "results.zarr")
    with pytest.raises(BadStore, match=f"'{group}'.*{option}: {before!r} there, {now!r} asked.*--overwrite"):
        small.screen(results, **{option: now})
    assert counted == []
    small.assert_same(results, small.results)


def test_overwriting_makes_anew_what_changed_and_what_follows_from_it_only(small, tmp_path, counted):
    results = small.copy(tmp_path / "results.zarr")
    rank(results, ranker=small.ranker)
    times = mark_times(results, "screen"), mark_times(results, "hits")
    peaks = open_screen(results).frame_peak_count.values
    few = int(np.sort(peaks)[-10])
    small.screen(results, min_peaks=few, min_excess=np.inf, overwrite=True)
    assert counted == []
    assert mark_times(results, "screen") == times[0]
    assert mark_times(results, "hits") != times[1]
    np.testing.assert_array_equal(open_screen(results).frame_is_hit.values, peaks >= few)
    np.testing.assert_array_equal(open_group(results, "features").hit_frame.values, np.flatnonzero(peaks >= few))
    assert open_group(results, "scores") is None
    small.screen(results, overwrite=True)
    small.assert_same(results, small.results)
    small.screen(results, clip_high=3.0, overwrite=True)
    assert sorted(counted) == list(range(46))
    small.assert_same(results, small.screen(tmp_path / "fresh.zarr", clip_high=3.0))


def test_overwriting_with_equal_parameters_does_nothing(small, tmp_path, counted):
    results = small.copy(tmp_path / "results.zarr")
    small.screen(results, overwrite=True)
    assert counted == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("polar_ring_count", 7), ("snr", -1.0), ("common_mode", "median"), ("wide_columns", "keep"), ("ring_groups", 99)],
)
def test_a_senseless_number_is_refused_before_any_frame_is_read(small, tmp_path, counted, option, value):
    with pytest.raises(BadParameter, match=option.split("_")[0]):
        small.screen(tmp_path / "results.zarr", **{option: value})
    assert counted == []


def test_results_of_other_frames_are_refused(small, tmp_path):
    frames = small.ingest(tmp_path / "frames.zarr", small.simulated / "r0001.cxi")
    with pytest.raises(BadStore, match="holds results of"):
        small.screen(small.copy(tmp_path / "copy.zarr"), frames=frames)
    results = small.screen(tmp_path / "results.zarr", frames=frames)
    shutil.rmtree(frames)
    small.ingest(frames, small.simulated / "r0002.cxi")
    with pytest.raises(BadStore, match="not of the one there now"):
        small.screen(results, frames=frames)


# frames that come later --------------------------------------------------------------------------


def change_energy(path: Path, factor: float) -> None:
    with h5py.File(path, "r+") as file:
        file["/LCLS/photon_energy_eV"][...] = file["/LCLS/photon_energy_eV"][...] * factor


@pytest.mark.parametrize("factor", [1.0, 1.006, 1.05])
def test_frames_ingested_later_are_screened_and_nothing_else_is(small, tmp_path, counted, factor):
    simulated = Path(shutil.copytree(small.simulated, tmp_path / "simulated"))
    change_energy(simulated / "r0003.cxi", factor)
    early = [simulated / f"r000{run}.cxi" for run in (1, 2)]
    frames = small.ingest(tmp_path / "frames.zarr", early, simulated=simulated)
    results = small.screen(tmp_path / "results.zarr", frames=frames)
    rank(results, ranker=small.ranker)
    before, times = small.read(results), mark_times(results, "screen")
    old = open_frames(frames).sizes["frame"]
    assert old % 8
    small.ingest(frames, simulated / "r0003.cxi", simulated=simulated)
    table = catalogue_table(results)
    assert (table["frame_status"][old:] == "not screened").all()
    assert len(table) == 46
    counted.clear()
    small.screen(results, frames=frames)
    assert sorted(counted) == list(range(old // 8 * 8, 46))
    assert mark_times(results, "screen").items() >= times.items()
    after = small.read(results)
    np.testing.assert_array_equal(after["layout/ring_q"], before["layout/ring_q"])
    for name in before:
        if name.startswith("screen/") and name != "screen/ring_q":
            np.testing.assert_array_equal(after[name][:old], before[name], err_msg=name)
    np.testing.assert_array_equal(after["screen/frame_is_hit"], small.label() != "blank")
    np.testing.assert_array_equal(after["features/hit_frame"], np.flatnonzero(small.label() != "blank"))
    assert open_group(results, "scores") is None
    assert len(catalogue_table(results)) == 46


def test_hits_move_when_frames_of_their_run_make_them_usual(small, tmp_path, monkeypatch):
    results = small.copy(tmp_path / "results.zarr")
    rank(results, ranker=small.ranker)
    first = int(open_group(results, "hits").hit_frame.values[0])
    peaks = zarr.open_group(results, path="screen", mode="r+")["frame_peak_count"]
    kept = int(peaks[first])
    peaks[first] = 0  # as if the threshold had moved: the first hit is none now
    small.screen(results)
    hits = open_group(results, "hits").hit_frame.values
    expected = np.setdiff1d(np.flatnonzero(small.label() != "blank"), [first])
    np.testing.assert_array_equal(hits, expected)
    reference = small.read(small.results, "hits")["hits/polar_residual"]
    np.testing.assert_array_equal(small.read(results, "hits")["hits/polar_residual"], reference[1:])
    np.testing.assert_array_equal(open_group(results, "features").hit_frame.values, expected)
    assert open_group(results, "scores") is None
    peaks[first] = kept
    small.screen(results)
    small.assert_same(results, small.results)


def test_a_stream_that_moves_the_beam_afterwards_is_refused(small, tmp_path):
    frames = small.ingest(tmp_path / "frames.zarr", with_stream=False)
    results = small.screen(tmp_path / "results.zarr", frames=frames)
    before = small.read(results)
    shifted = tmp_path / "simulated"
    shutil.copytree(small.simulated, shifted)
    text = (shifted / "campaign.stream").read_text().splitlines()
    stream = [
        "predict_refine/det_shift x = 0.400 y = -0.300 mm" if line.startswith("predict_refine/det_shift") else line
        for line in text
    ]
    (shifted / "campaign.stream").write_text("\n".join(stream) + "\n")
    small.ingest(frames, simulated=small.simulated, with_stream=False)
    from diffdask.pipeline.ingest import ingest

    ingest(
        str(small.simulated / "r*.cxi"),
        geometry=small.geometry,
        stream=shifted / "campaign.stream",
        to=frames,
        on="threads",
        progress=False,
    )
    assert np.isfinite(open_frames(frames).detector_shift.values).any()
    with pytest.raises(BadStore, match=r"beam centre of \d+ frames changed.*choose another --results"):
        small.screen(results, frames=frames)
    after = small.read(results)
    assert all(np.array_equal(before[name], after[name], equal_nan=True) for name in before if name != "layout/q")


# frames that are not as they should be -----------------------------------------------------------


@pytest.fixture
def odd_frames(small, tmp_path):
    """Float32 frames of a run: 1 is zero, 2 all NaN, 3 one number, 4 half NaN, 5 cannot be read, 6 infinite."""
    path = tmp_path / "r0001.cxi"
    with h5py.File(small.simulated / "r0001.cxi") as source, h5py.File(path, "w") as file:
        for name in ("/LCLS/photon_energy_eV", "/LCLS/detector_1/EncoderValue", "/entry_1/data_1/mask"):
            file[name] = source[name][...]
        frames = source[DATA][...].astype(np.float32)
        frames[1], frames[2], frames[3], frames[6] = 0, np.nan, 500, np.inf
        frames[4, :64] = np.nan
        file.create_dataset(DATA, data=frames, chunks=(1, *frames.shape[1:]), compression="gzip")
    with h5py.File(path) as file:
        info = file[DATA].id.get_chunk_info(5)
    with path.open("r+b") as raw:
        raw.seek(info.byte_offset)
        raw.write(b"\xff" * info.size)
    return small.ingest(tmp_path / "frames.zarr", path)


def test_a_bad_frame_costs_one_frame_and_says_why(small, tmp_path, odd_frames):
    results = small.screen(tmp_path / "results.zarr", frames=odd_frames)
    table = catalogue_table(results)
    assert len(table) == 15
    bad = table.loc[[1, 2, 3, 5, 6]]
    assert not bad["frame_is_hit"].any()
    assert table.loc[5, "frame_status"] != "ok"
    assert np.isnan(table.loc[5, ["frame_anisotropy", "frame_background"]].astype(float)).all()
    assert table.loc[2, "frame_status"] != "ok"
    assert not np.isinf(table.select_dtypes("float").to_numpy()).any()
    for frame in bad.index:
        said_so = table.loc[frame, "frame_status"] != "ok"
        assert said_so or np.isfinite(table.loc[frame, "frame_background"]), f"frame {frame} says nothing"
    good = [0, *range(7, 15)]
    assert (table.loc[good, "frame_status"] == "ok").all()
    undisturbed = small.ingest(tmp_path / "undisturbed.zarr", small.simulated / "r0001.cxi")
    reference = catalogue_table(small.screen(tmp_path / "reference.zarr", frames=undisturbed)).loc[good]
    columns = ["frame_peak_count", "frame_anisotropy", "frame_background"]
    np.testing.assert_allclose(table.loc[good, columns], reference[columns], rtol=1e-3)


def test_a_frame_half_of_which_is_missing_is_judged_by_the_other_half(small, tmp_path, odd_frames):
    table = catalogue_table(small.screen(tmp_path / "results.zarr", frames=odd_frames))
    assert table.loc[4, "frame_status"] == "ok"
    assert table.loc[4, "frame_background"] == pytest.approx(
        catalogue_table(small.results).loc[4, "frame_background"], rel=0.1
    )


# campaigns of unusual make-up -----------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "hits"), [(21, 0.0), (21, 1 / 21), (21, 1.0), (1, 1.0)])
def test_a_campaign_may_have_any_number_of_hits(small, tmp_path, frames, hits):
    simulated = small.simulate(tmp_path / "simulated", frames=frames, hits=hits)
    store = small.ingest(tmp_path / "frames.zarr", simulated=simulated)
    results = small.screen(tmp_path / "results.zarr", frames=store, min_excess=np.inf)
    assert open_screen(results).frame_is_hit.values.sum() == round(frames * hits)
    assert open_group(results, "features").sizes["hit"] == round(frames * hits)
    if frames * hits < 10:
        with pytest.raises(BadLabels):
            train(results, labels=simulated / "labels.csv", to=tmp_path / "ranker.zarr")
    rank(results, ranker=small.ranker)
    table = catalogue_table(results)
    assert sorted(table["frame_rank"])[-1] == round(frames * hits)
    assert table["frame_score"].notna().sum() == round(frames * hits)
    small.screen(results, frames=store, min_excess=np.inf)


def test_a_client_that_is_there_is_used(small, tmp_path):
    with connect("threads") as client:
        small.assert_same(small.screen(tmp_path / "results.zarr", on=client), small.results)
        assert client.status == "running"
