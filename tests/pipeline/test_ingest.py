import logging
import os
import shutil
import time
from pathlib import Path

import extra_geom
import h5py
import numpy as np
import pytest
import zarr

from diffdask.errors import BadFrames, BadGeometry, BadStore, BadStream, DiffdaskError
from diffdask.io import frames_writer
from diffdask.io.crystfel_geometry import file_frame_shape, read_geometry, take_panels
from diffdask.io.frames_store import open_frames
from diffdask.pipeline.ingest import ingest

DATA = "/entry_1/instrument_1/detector_1/data"


@pytest.fixture
def put(tiny):
    """Ingest into the test's store, in threads of this process."""

    def call(sources, **options):
        options = {"geometry": tiny.geometry, "to": tiny.folder / "f.zarr", "block_frames": 4, **options}
        return ingest(sources, on="threads", progress=False, **options)

    return call


def crystal(a=0.1, reflections=5, centring="P"):
    return (
        "--- Begin crystal\nCell parameters 10 10 10 nm, 90 90 90 deg\n"
        f"astar = +{a:.7f} +0.0000000 +0.0000000 nm^-1\nbstar = +0.0 +0.2 +0.0 nm^-1\ncstar = +0.0 +0.0 +0.3 nm^-1\n"
        f"lattice_type = cubic\ncentering = {centring}\nunique_axis = *\n"
        f"predict_refine/det_shift x = 0.1 y = -0.2 mm\nnum_reflections = {reflections}\n--- End crystal\n"
    )


def write_stream(path: Path, *chunks):
    text = "CrystFEL stream format 2.3\n"
    for image, event, *crystals in chunks:
        told = f"Event: {event}\n" if event else ""
        text += f"----- Begin chunk -----\nImage filename: {image}\n{told}{''.join(crystals)}----- End chunk -----\n"
    path.write_text(text)
    return path


def spoil_chunk(path, number):
    with h5py.File(path) as file:
        info = file[DATA].id.get_chunk_info(number)
    with path.open("r+b") as file:
        file.seek(info.byte_offset)
        file.write(b"\xff" * info.size)


def grow(path, tiny, count, *, seed=0):
    """Write the same frames again, and more of them."""
    return tiny.write(path.name, count, seed=seed)


# what goes in comes out ------------------------------------------------------------------


def test_every_frame_comes_out_in_order_with_what_belongs_to_it(tiny, put):
    one, two = tiny.write("one.cxi", 5, seed=1, run=3), tiny.write("two.cxi", 6, seed=2, run=4)
    ds = open_frames(put([two, one]))
    np.testing.assert_array_equal(ds.adu, np.concatenate([tiny.panels(6, seed=2), tiny.panels(5, seed=1)]))
    assert ds.source.values.tolist() == [str(two)] * 6 + [str(one)] * 5
    assert ds.event.values.tolist() == [f"//{n}" for n in (*range(6), *range(5))]
    assert ds.run.values.tolist() == [4] * 6 + [3] * 5
    assert ds.photon_energy.values.tolist() == [*(9000.0 + np.arange(6)), *(9000.0 + np.arange(5))]
    assert ds.frame_id.values[[0, 10]].tolist() == ["r0004-two-000000", "r0003-one-000004"]
    assert (ds.frame_status == "ok").all()
    assert np.isnan(ds.orientation).all()


def test_files_of_a_glob_come_by_name_and_each_once(tiny, put):
    for name in ("b.cxi", "c.cxi", "a.cxi"):
        tiny.write(name, 1)
    ds = open_frames(put([tiny.folder / "c.cxi", str(tiny.folder / "*.cxi"), tiny.folder / "a.cxi"]))
    assert [Path(source).name for source in ds.source.values] == ["c.cxi", "a.cxi", "b.cxi"]


def test_block_size_codec_and_place_do_not_matter(tiny, put):
    path = tiny.write("a.cxi", 7)
    stores = [
        put(path, to=tiny.folder / f"{number}.zarr", **options)
        for number, options in enumerate([{}, {"block_frames": 1}, {"block_frames": 100}, {"codec": "zstd"}])
    ]
    first = open_frames(stores[0]).compute()
    assert all(open_frames(store).compute().identical(first) for store in stores[1:])


def test_a_link_to_a_file_is_the_same_file(tiny, put):
    path = tiny.write("a.cxi", 3)
    link = tiny.folder / "link.cxi"
    link.symlink_to(path)
    assert open_frames(put([path, link])).sizes["frame"] == 3
    assert open_frames(put(link)).sizes["frame"] == 3


def test_frame_ids_are_unique_over_files_of_the_same_name(tiny, put):
    paths = [tiny.write(f"{folder}/data.cxi", 4, run=1) for folder in ("x", "y", "z")]
    put(paths[:2])
    ds = open_frames(put(paths[2]))
    assert len(set(ds.frame_id.values)) == 12
    assert ds.frame_id.values[[0, 4, 8]].tolist() == [f"r0001-{name}-000000" for name in ("data", "data.2", "data.3")]


def test_a_run_number_given_overrides_the_files(tiny, put):
    ds = open_frames(put(tiny.write("a.cxi", 2, run=3), run=17))
    assert ds.run.values.tolist() == [17, 17]
    assert ds.frame_id.values[0].startswith("r0017-")


def test_bad_and_wide_pixels_and_masks_are_in_the_store(tiny, put):
    tiny.geometry.write_text(
        tiny.geometry.read_text() + "bad/min_x = -9\nbad/max_x = -2\nbad/min_y = -9\nbad/max_y = 9\n"
    )
    paths = [tiny.write(name, 2) for name in ("a.cxi", "b.cxi")]
    for path, pixel in zip(paths, ((0, 3), (7, 0)), strict=True):
        with h5py.File(path, "r+") as file:
            file["/entry_1/data_1/mask"][pixel] = 1
    ds = open_frames(put(paths))
    expected = read_geometry(tiny.geometry).pixel_is_good.copy()
    assert not expected[0, :, 0].any()
    expected[0, 0, 3] = expected[1, 3, 0] = False
    np.testing.assert_array_equal(ds.pixel_is_good, expected)
    assert not ds.pixel_is_wide.any()


# resume, append ---------------------------------------------------------------------------


def test_the_same_command_again_changes_nothing(tiny, put):
    path = tiny.write("a.cxi", 6)
    store = put(path)
    before = {file: file.stat().st_mtime_ns for file in store.rglob("*") if file.is_file()}
    put(path)
    assert {file: file.stat().st_mtime_ns for file in store.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(("first", "second"), [(6, 5), (8, 4), (1, 1), (3, 0 + 12)])
def test_further_files_are_appended_and_old_frames_stay(tiny, put, first, second):
    one = tiny.write("a.cxi", first, seed=1)
    before = open_frames(put(one)).compute()
    one.unlink()  # raw data may go once they are ingested
    two = tiny.write("b.cxi", second, seed=2)
    ds = open_frames(put(two)).compute()
    assert ds.isel(frame=slice(0, first)).identical(before)
    np.testing.assert_array_equal(ds.adu[first:], tiny.panels(second, seed=2))
    assert len(set(ds.frame_id.values)) == first + second


def test_a_file_that_grew_gives_its_new_frames_only(tiny, put):
    path = tiny.write("a.cxi", 5)
    put(path)
    ids = open_frames(tiny.folder / "f.zarr").frame_id.values
    # The generator of frames is seeded: the first frames of more are other frames, so that taking one again would show.
    grow(path, tiny, 9, seed=9)
    ds = open_frames(put(path))
    assert ds.sizes["frame"] == 9
    np.testing.assert_array_equal(ds.adu[:5], tiny.panels(5))
    np.testing.assert_array_equal(ds.adu[5:], tiny.panels(9, seed=9)[5:])
    assert ds.frame_id.values[:5].tolist() == ids.tolist()
    assert ds.event.values.tolist() == [f"//{n}" for n in range(9)]
    assert len(set(ds.frame_id.values)) == 9


class Stopped(DiffdaskError):
    """Stands for a kill: it ends the run at once."""


def stop_at(monkeypatch, name, call):
    """Let a function of the writer fail the n-th time it is called, before it does anything."""
    original, calls = getattr(frames_writer, name), []

    def stopping(*args, **kwargs):
        calls.append(None)
        if len(calls) == call:
            raise Stopped(name)
        return original(*args, **kwargs)

    monkeypatch.setattr(frames_writer, name, stopping)


STOPS = [
    ("plan_frames", 1),
    ("update_good_pixels", 1),
    ("read_frames", 1),
    ("read_frames", 2),
    ("mark_block", 1),
    ("mark_block", 2),
    ("finish", 1),
    ("noted_blocks", 1),
    ("remove_marks", 1),
]


@pytest.mark.parametrize(("name", "call"), STOPS)
@pytest.mark.parametrize("kept", [0, 6])
def test_stopped_anywhere_the_store_does_not_look_whole_and_the_same_command_completes_it(
    tiny, put, monkeypatch, name, call, kept
):
    old, new = tiny.write("old.cxi", max(kept, 1), seed=1), tiny.write("new.cxi", 7, seed=2, compression="gzip")
    spoil_chunk(new, 3)
    if kept:
        put(old)
    with monkeypatch.context() as patch:
        stop_at(patch, name, call)
        with pytest.raises(Stopped):
            put(new)
    if name == "remove_marks" and not kept:
        return  # the very last thing that is done: the store is whole
    if name not in ("plan_frames", "remove_marks") or not kept:
        with pytest.raises(BadStore, match="run the same 'diffdask ingest' again"):
            open_frames(tiny.folder / "f.zarr")
    if kept:
        old.unlink()
    ds = open_frames(put(new))
    expected = tiny.panels(7, seed=2)
    expected[3] = 0
    if kept:
        expected = np.concatenate([tiny.panels(kept, seed=1), expected])
    np.testing.assert_array_equal(ds.adu, expected)
    assert [status.split(":")[0] for status in ds.frame_status.values].count("unreadable") == 1
    assert ds.frame_status.values[kept + 3].count("unreadable") == 1
    assert len(set(ds.frame_id.values)) == len(expected)
    assert not (tiny.folder / "f.zarr" / "marks").exists()


def test_a_shard_is_replaced_at_once_and_marked_only_then(tiny, put, monkeypatch):
    store = put(tiny.write("old.cxi", 6, seed=1))
    shards = {file: file.read_bytes() for file in (store / "adu" / "c").rglob("*") if file.is_file()}
    new = tiny.write("new.cxi", 7, seed=2)
    replace = Path.replace

    def failing(self, target):
        if "/adu/c/" in str(target):
            raise Stopped("the disk is full")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        with pytest.raises(Stopped):
            put(new)
    assert {file: file.read_bytes() for file in (store / "adu" / "c").rglob("*") if file.is_file()} == shards
    assert not (store / "marks").exists()
    ds = open_frames(put(new))
    np.testing.assert_array_equal(ds.adu, np.concatenate([tiny.panels(6, seed=1), tiny.panels(7, seed=2)]))


def test_stopped_twice_with_other_files_in_between_nothing_is_lost(tiny, put, monkeypatch):
    paths = [tiny.write(f"{name}.cxi", 5, seed=seed) for seed, name in enumerate("abc")]
    put(paths[0])
    for path in paths[1:]:
        with monkeypatch.context() as patch:
            stop_at(patch, "read_frames", 2)
            with pytest.raises(Stopped):
                put(path)
    ds = open_frames(put(paths[2]))
    np.testing.assert_array_equal(ds.adu, np.concatenate([tiny.panels(5, seed=seed) for seed in range(3)]))
    assert [Path(source).stem for source in ds.source.values] == list("aaaaabbbbbccccc")


def test_blocks_that_were_marked_are_not_read_again(tiny, put, monkeypatch):
    path = tiny.write("a.cxi", 12)
    with monkeypatch.context() as patch:
        stop_at(patch, "read_frames", 3)
        with pytest.raises(Stopped):
            put(path)
    done = {block for block in (tiny.folder / "f.zarr" / "marks" / "frames").iterdir()}
    read = []
    original = frames_writer.read_frames
    monkeypatch.setattr(frames_writer, "read_frames", lambda *args: read.append(args[2]) or original(*args))
    put(path)
    assert len(done) >= 1
    assert len(read) == 3 - len(done)


def test_a_file_that_a_stopped_ingest_still_needs_is_asked_for(tiny, put, monkeypatch):
    paths = [tiny.write(name, 5) for name in ("a.cxi", "b.cxi")]
    with monkeypatch.context() as patch:
        stop_at(patch, "read_frames", 1)
        with pytest.raises(Stopped):
            put(paths)
    paths[0].unlink()
    with pytest.raises(BadFrames, match=r"still needs .*a\.cxi: put them back"):
        put(paths[1])


def test_another_geometry_for_the_same_store_is_refused(tiny, put):
    path = tiny.write("a.cxi", 2)
    put(path)
    tiny.geometry.write_text(tiny.geometry.read_text().replace("res = 10000", "res = 10001"))
    with pytest.raises(BadStore, match=r"another geometry: give the same \.geom, or ingest into another store"):
        put(path)


def test_a_comment_in_the_geometry_is_no_change(tiny, put):
    path = tiny.write("a.cxi", 2)
    put(path)
    tiny.geometry.write_text("; a note\n" + tiny.geometry.read_text())
    assert open_frames(put(path)).sizes["frame"] == 2


def test_something_else_at_the_place_of_the_store_is_left_alone(tiny, put):
    path = tiny.write("a.cxi", 2)
    (tiny.folder / "full").mkdir()
    (tiny.folder / "full" / "thesis.tex").write_text("years of work")
    with pytest.raises(BadStore, match="is no frames store: choose another place"):
        put(path, to=tiny.folder / "full")
    with pytest.raises(BadStore, match="is a file, no frames store"):
        put(path, to=tiny.geometry)
    assert (tiny.folder / "full" / "thesis.tex").read_text() == "years of work"


# bad input ------------------------------------------------------------------------------------


def test_all_bad_files_are_named_at_once_before_anything_is_read(tiny, put):
    good, text, short = tiny.write("good.cxi", 2), tiny.folder / "text.cxi", tiny.write("short.cxi", 5)
    text.write_text("hello")
    short.write_bytes(short.read_bytes()[:5000])
    with pytest.raises(BadFrames, match=r"2 of 3 files cannot be used") as caught:
        put([good, text, short])
    assert "text.cxi' is no HDF5" in str(caught.value)
    assert "short.cxi' is truncated" in str(caught.value)
    assert open_frames(put(good)).sizes["frame"] == 2, "the good ones can be ingested then"


def test_one_unreadable_frame_is_flagged_and_the_run_goes_on(tiny, put, caplog):
    path = tiny.write("a.cxi", 9, compression="gzip")
    spoil_chunk(path, 5)
    with caplog.at_level(logging.WARNING):
        ds = open_frames(put(path))
    assert ds.frame_status.values[5].startswith("unreadable: ")
    assert (np.delete(ds.frame_status.values, 5) == "ok").all()
    assert not ds.adu[5].values.any()
    np.testing.assert_array_equal(np.delete(ds.adu.values, 5, 0), np.delete(tiny.panels(9), 5, 0))
    assert "1 frames could not be read" in caplog.text


def test_bad_values_and_unreadable_pixels_are_both_told(tiny, put):
    path = tiny.write("a.cxi", 3, compression="gzip")
    with h5py.File(path, "r+") as file:
        file["/LCLS/photon_energy_eV"][1] = np.nan
    spoil_chunk(path, 1)
    status = open_frames(put(path)).frame_status.values[1]
    assert status.startswith("unreadable: ")
    assert status.endswith("; no photon energy: found nan")


def test_files_with_pixels_of_different_types_are_refused(tiny, put):
    paths = [tiny.write("raw.cxi", 2), tiny.write("calibrated.cxi", 2, dtype="float32")]
    with pytest.raises(BadFrames, match=r"raw\.cxi' has pixels of type int16.*calibrated\.cxi' float32.*its own store"):
        put(paths)
    put(paths[0])
    with pytest.raises(BadFrames, match="the store has pixels of type int16"):
        put(paths[1])


def test_a_geometry_that_does_not_fit_is_refused_and_can_be_put_right(tiny, put):
    path, text = tiny.write("a.cxi", 2), tiny.geometry.read_text()
    tiny.geometry.write_text(text.replace("p1/max_ss = 7", "p1/max_ss = 17"))
    with pytest.raises(BadGeometry, match="does not fit"):
        put(path)
    tiny.geometry.write_text(text)
    assert open_frames(put(path)).sizes["frame"] == 2


@pytest.mark.parametrize(
    ("name", "said"), [("absent.cxi", "no file matches"), ("*.nxs", "no file matches"), (".", "folder")]
)
def test_sources_that_are_no_files_are_told_of(tiny, put, name, said):
    with pytest.raises(BadFrames, match=said):
        put(os.path.join(tiny.folder, name))


def test_files_without_frames_are_told_of(tiny, put, caplog):
    empty = tiny.write("empty.cxi", 1)
    with h5py.File(empty, "r+") as file:
        for where, value in ((DATA, np.zeros((0, 8, 6), np.int16)), ("/LCLS/photon_energy_eV", np.zeros(0))):
            del file[where]
            file[where] = value
        del file["/LCLS/detector_1/EncoderValue"]
        file["/LCLS/detector_1/EncoderValue"] = np.zeros(0)
    with pytest.raises(BadFrames, match="hold no frames"):
        put(empty)
    with caplog.at_level(logging.WARNING):
        assert open_frames(put([empty, tiny.write("a.cxi", 2)])).sizes["frame"] == 2
    assert "empty.cxi' holds no frames" in caplog.text


# streams -------------------------------------------------------------------------------------


def test_orientations_go_to_the_frames_the_stream_names(tiny, put, caplog):
    path = tiny.write("a.cxi", 4)
    stream = write_stream(
        tiny.folder / "a.stream",
        ("old/place/a.cxi", "//2", crystal(0.1), crystal(0.4, reflections=50, centring="F")),
        ("a.cxi", "//0"),
        ("a.cxi", "//9", crystal()),
        ("other.cxi", "//0", crystal()),
    )
    with caplog.at_level(logging.WARNING):
        ds = open_frames(put(path, stream=stream))
    assert np.allclose(ds.orientation[2], np.diag([0.04, 0.02, 0.03]))
    assert np.allclose(ds.detector_shift[2], [1e-4, -2e-4])
    assert ds.lattice.values.tolist() == ["", "", "cubic F *", ""]
    assert np.isnan(np.delete(ds.orientation.values, 2, axis=0)).all()
    assert np.isnan(np.delete(ds.detector_shift.values, 2, axis=0)).all()
    assert "2 of 4 chunks of the streams belong to no frame" in caplog.text


def test_of_two_streams_with_the_same_frame_the_last_that_is_indexed_counts(tiny, put, caplog):
    path = tiny.write("a.cxi", 1)
    streams = [
        write_stream(tiny.folder / f"{number}.stream", ("a.cxi", "//0", *crystals))
        for number, crystals in enumerate([[crystal(0.1)], [crystal(0.5)], []])
    ]
    with caplog.at_level(logging.WARNING):
        ds = open_frames(put(path, stream=streams))
    assert ds.orientation.values[0, 0, 0] == pytest.approx(0.05)
    assert "1 frames are indexed more than once" in caplog.text


def test_a_stream_may_come_later_than_the_frames(tiny, put):
    paths = [tiny.write(name, 3) for name in ("a.cxi", "b.cxi")]
    before = open_frames(put(paths)).compute()
    stream = write_stream(tiny.folder / "a.stream", ("b.cxi", "//1", crystal(0.1)))
    ds = open_frames(put(paths, stream=stream)).compute()
    assert np.flatnonzero(np.isfinite(ds.orientation).all(axis=(1, 2))).tolist() == [4]
    named = ["orientation", "detector_shift", "lattice"]
    assert ds.drop_vars(named).identical(before.drop_vars(named))


def test_orientations_outlive_an_ingest_without_stream(tiny, put):
    path = tiny.write("a.cxi", 3)
    put(path, stream=write_stream(tiny.folder / "a.stream", ("a.cxi", "//1", crystal())))
    ds = open_frames(put(tiny.write("b.cxi", 3)))
    assert np.flatnonzero(np.isfinite(ds.orientation).all(axis=(1, 2))).tolist() == [1]


def test_a_stream_that_may_mean_several_files_is_refused(tiny, put):
    paths = [tiny.write(f"{folder}/a.cxi", 1) for folder in "xy"]
    with pytest.raises(BadStream, match="may be any of"):
        put(paths, stream=write_stream(tiny.folder / "a.stream", ("a.cxi", "//0", crystal())))


# detectors, clusters, the real thing ----------------------------------------------------------


def eiger_geometry(path):
    path.write_text(
        "photon_energy = 12000\nclen = 0.15\nadu_per_photon = 1\nres = 13333.3\ndata = /entry/data/data\n"
        "dim0 = %\ndim1 = ss\ndim2 = fs\n0/min_fs = 0\n0/max_fs = 1029\n0/min_ss = 0\n0/max_ss = 1064\n"
        "0/corner_x = -515.0\n0/corner_y = -532.5\n0/fs = +1.0x\n0/ss = +1.0y\n"
    )


@pytest.mark.parametrize("detector", ["JUNGFRAU", "AGIPD_1M", "EIGER"])
def test_other_detectors_than_cspad_are_ingested(tmp_path, detector):
    geometry = tmp_path / "detector.geom"
    if detector == "EIGER":
        eiger_geometry(geometry)
    else:
        made = getattr(extra_geom, f"{detector}Geometry").example()
        made.write_crystfel_geom(geometry, adu_per_ev=0.001, photon_energy=9300, clen=0.2)
    layout = read_geometry(geometry)
    data = np.random.default_rng(0).integers(0, 60000, (3, *file_frame_shape(layout))).astype(np.uint16)
    with h5py.File(tmp_path / "r0007.h5", "w") as file:
        file[layout.data_path[0]] = data
    store = ingest(tmp_path / "r0007.h5", geometry=geometry, to=tmp_path / "f.zarr", on="threads", progress=False)
    ds = open_frames(store)
    assert ds.run.values.tolist() == [7, 7, 7]
    np.testing.assert_array_equal(ds.adu, [take_panels(frame, layout) for frame in data])
    assert np.array_equal(np.sort(ds.adu.values, axis=None), np.sort(data, axis=None)), "no pixel lost"


def test_worker_processes_and_threads_write_the_same(tiny):
    import distributed

    path = tiny.write("a.cxi", 9)
    stores = []
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0")
    with cluster, distributed.Client(cluster) as client:
        for on in (client, "threads"):
            to = tiny.folder / f"{len(stores)}.zarr"
            stores.append(ingest(path, geometry=tiny.geometry, to=to, block_frames=2, on=on, progress=False))
    assert open_frames(stores[0]).compute().identical(open_frames(stores[1]).compute())


def test_progress_goes_to_the_terminal_only_when_asked_for(tiny, capfd):
    path = tiny.write("a.cxi", 3)
    for progress in (False, True):
        ingest(path, geometry=tiny.geometry, to=tiny.folder / f"{progress}.zarr", on="threads", progress=progress)
        captured = capfd.readouterr()
        assert captured.out == ""
        assert ("ingest" in captured.err) == progress


def test_a_full_cspad_experiment_is_ingested_within_a_minute(shared, tmp_path):
    folder = shared / "cspad_sim_a"
    began = time.monotonic()
    store = ingest(
        folder / "A_dev.cxi",
        geometry=folder / "A_dev.geom",
        stream=folder / "A_dev.stream",
        to=tmp_path / "f.zarr",
        on="threads",
        progress=False,
    )
    assert time.monotonic() - began < 60
    ds = open_frames(store)
    layout = read_geometry(folder / "A_dev.geom")
    assert dict(ds.adu.sizes) == {"frame": 120, "panel": 64, "ss": 185, "fs": 194}
    assert np.isfinite(ds.orientation.values).all(axis=(1, 2)).sum() == 104
    assert sorted(set(ds.run.values)) == [0, 1, 2, 3]
    assert np.allclose(ds.camera_length, 0.128)
    with h5py.File(folder / "A_dev.cxi") as file:
        for number in (0, 17, 119):
            expected = take_panels(file["/entry_1/data_1/data"][number], layout)
            np.testing.assert_array_equal(ds.adu[number], expected)
        mask = take_panels(file["/entry_1/data_1/mask"][()], layout)
    np.testing.assert_array_equal(ds.pixel_is_good, layout.pixel_is_good & (mask == 0))
    shutil.rmtree(store)


def test_the_store_remembers_its_sources(tiny, put):
    paths = [tiny.write("a.cxi", 3), tiny.write("b.cxi", 4)]
    attributes = zarr.open_group(str(put(paths)), mode="r", use_consolidated=False).attrs
    sources = [(entry["path"], entry["first"], entry["count"], entry["size"]) for entry in attributes["sources"]]
    assert sources == [(str(paths[0]), 0, 3, paths[0].stat().st_size), (str(paths[1]), 3, 4, paths[1].stat().st_size)]
