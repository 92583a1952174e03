import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

from diffdask.errors import BadFrames, BadParameter, BadStore
from diffdask.geometry import Geometry, pixel_positions
from diffdask.io import frames_store
from diffdask.io.crystfel_geometry import read_geometry
from diffdask.io.frames_store import (
    DETECTOR_VARIABLES,
    FRAME_COLUMNS,
    each_frame,
    frames_attributes,
    open_frames,
    read_frame_block,
    read_frame_columns,
    read_layout,
    take_frames,
)
from diffdask.io.frames_writer import create_or_check, only_writer
from diffdask.pipeline.ingest import ingest
from diffdask.variables import VARIABLES


@pytest.fixture
def store(tiny):
    """Eleven frames in shards of four."""
    path = tiny.write("a.cxi", 11)
    to = tiny.folder / "frames.zarr"
    return ingest(path, geometry=tiny.geometry, to=to, block_frames=4, on="threads", progress=False)


def test_frames_are_lazy_and_columns_are_there(store, tiny):
    ds = open_frames(store)
    assert ds.adu.chunks[0] == (4, 4, 3)
    assert ds.adu.dtype == np.int16
    np.testing.assert_array_equal(ds.adu.values, tiny.panels(11))
    assert all(isinstance(ds[name].data, np.ndarray) for name in (*FRAME_COLUMNS, *DETECTOR_VARIABLES))


def test_every_variable_that_ingest_makes_is_there_as_declared(store):
    ds = open_frames(store)
    kinds = {"float": "f", "integer": "i", "boolean": "b", "text": "O", "number": "i"}
    for name, declared in VARIABLES.items():
        if declared.made_by == "ingest":
            assert ds[name].dims == declared.dims
            assert ds[name].attrs["units"] == declared.units
            assert ds[name].dtype.kind == kinds[declared.kind], name


@pytest.mark.parametrize("chunks", [1, 3, 4, 100])
def test_chunking_does_not_matter(store, tiny, chunks):
    ds = open_frames(store, chunks=chunks)
    assert max(ds.adu.chunks[0]) == min(chunks, 11)
    assert all(len(sizes) == 1 for sizes in ds.adu.chunks[1:]), "a frame is never split"
    np.testing.assert_array_equal(ds.adu.values, tiny.panels(11))


@pytest.mark.parametrize(("start", "stop"), [(0, 11), (4, 8), (3, 9), (10, 11), (5, 5)])
def test_a_block_is_the_same_frames_and_columns(store, start, stop):
    xr.testing.assert_identical(
        read_frame_block(store, start, stop), open_frames(store).isel(frame=slice(start, stop)).compute()
    )


@pytest.mark.parametrize(("start", "stop"), [(0, 11), (3, 9), (10, 11), (5, 5)])
@pytest.mark.parametrize("cached_bytes", [1, 200, 10_000_000])
def test_frames_one_by_one_are_those_of_the_block(store, start, stop, cached_bytes, monkeypatch):
    monkeypatch.setattr(frames_store, "_CACHED_BYTES", cached_bytes)
    block = read_frame_block(store, start, stop)
    frames = list(each_frame(store, start, stop))
    assert len(frames) == stop - start
    for frame, expected in zip(frames, block.adu.values, strict=True):
        assert frame.dtype == expected.dtype
        np.testing.assert_array_equal(frame, expected)
    xr.testing.assert_identical(read_frame_columns(store, start, stop), block.drop_vars("adu"))


@pytest.mark.parametrize("frames", [[3], [10, 0, 5], [2, 2], []])
def test_single_frames_are_the_same_frames_and_columns(store, frames):
    xr.testing.assert_identical(take_frames(store, frames), open_frames(store).isel(frame=frames).compute())


def test_frames_that_are_not_there_are_refused(store):
    with pytest.raises(BadParameter, match="which has 11"):
        read_frame_block(store, 8, 12)
    with pytest.raises(BadParameter, match="which has 11"):
        read_frame_columns(store, 8, 12)
    with pytest.raises(BadParameter, match="which has 11"):
        next(each_frame(store, 8, 12))
    with pytest.raises(BadParameter, match="which has 11"):
        take_frames(store, [11])
    with pytest.raises(BadParameter, match="at least 1 frame"):
        open_frames(store, chunks=0)


def test_the_geometry_comes_back_from_the_store(store, tiny):
    geometry = Geometry.from_dataset(open_frames(store))
    expected = pixel_positions(read_geometry(tiny.geometry).geometry, camera_length=0.1)
    np.testing.assert_array_equal(pixel_positions(geometry, camera_length=0.1), expected)
    assert read_layout(store).text == tiny.geometry.read_text()


def test_the_store_is_zarr_v3_a_frame_a_chunk_and_a_block_a_shard(store):
    adu = zarr.open_group(str(store), mode="r", use_consolidated=False)["adu"]
    assert adu.metadata.zarr_format == 3
    assert adu.chunks == (1, 2, 4, 6)
    assert adu.shards == (4, 2, 4, 6)
    codec = json.loads((store / "adu" / "zarr.json").read_text())["codecs"][0]["configuration"]["codecs"][-1]
    assert codec["name"] == "blosc"
    assert codec["configuration"]["shuffle"] == "bitshuffle"
    assert codec["configuration"]["cname"] == "lz4"


def test_any_reader_of_zarr_sees_the_same(store):
    other = xr.open_zarr(str(store), consolidated=False)
    ours = open_frames(store)
    assert set(other.variables) == set(ours.variables)
    np.testing.assert_array_equal(other.adu.values, ours.adu.values)
    assert other.event.values.tolist() == ours.event.values.tolist()


def test_a_store_in_the_making_says_how_to_go_on(store):
    zarr.open_group(str(store), mode="r+", use_consolidated=False).update_attributes({"complete": False})
    for read in (open_frames, lambda path: read_frame_block(path, 0, 1), lambda path: take_frames(path, [0])):
        with pytest.raises(BadStore, match=r"unfinished.*run the same 'diffdask ingest' again"):
            read(store)
    assert frames_attributes(store)["complete"] is False


def test_nothing_and_something_else_are_told_apart(tmp_path):
    with pytest.raises(BadStore, match=r"no frames store at.*diffdask ingest"):
        open_frames(tmp_path / "absent.zarr")
    zarr.create_group(str(tmp_path / "other.zarr"), attributes={"kind": "diffdask results"})
    with pytest.raises(BadStore, match="of kind 'diffdask results', expected 'diffdask frames'"):
        open_frames(tmp_path / "other.zarr")


def test_a_store_can_be_read_where_nothing_can_be_written(store):
    for path in sorted(Path(store).rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    Path(store).chmod(0o555)
    try:
        assert open_frames(store).sizes["frame"] == 11
    finally:
        Path(store).chmod(0o755)
        for path in Path(store).rglob("*"):
            path.chmod(0o755)


def test_two_writers_at_once_are_refused(tmp_path):
    pytest.importorskip("fcntl", reason="locks need fcntl, which this system has not")
    store = tmp_path / "f.zarr"
    with only_writer(store), pytest.raises(BadStore, match="another ingest is writing"), only_writer(store):
        pass
    with only_writer(store):
        pass  # the lock is gone with its holder


@pytest.mark.parametrize(("options", "said"), [({"codec": "gzip"}, "lz4, zstd"), ({"block_frames": 0}, "at least 1")])
def test_what_a_store_cannot_be_made_with_is_refused(tiny, options, said):
    with pytest.raises(BadParameter, match=said):
        create_or_check(
            tiny.folder / "f.zarr", read_geometry(tiny.geometry), **{"codec": "lz4", "block_frames": 4, **options}
        )


# damaged chunks -------------------------------------------------------------------------------------


def spoil(store, shard, *, start=0, stop=24):
    """Overwrite bytes of a shard: those of its first frames, or all."""
    path = store / "adu" / "c" / str(shard) / "0" / "0" / "0"
    with path.open("r+b") as raw:
        raw.seek(start)
        raw.write(b"\xff" * ((stop or path.stat().st_size) - start))


def test_a_damaged_frame_comes_as_zeros_and_its_status_says_so_the_others_as_they_are(store, tiny):
    spoil(store, 1)
    status = np.array(["ok"] * 11, dtype=object)
    read = np.stack(list(each_frame(store, 0, 11, status=status)))
    expected = tiny.panels(11)
    expected[4] = 0
    np.testing.assert_array_equal(read, expected)
    assert status[4].startswith("unreadable: damaged in the frames store (")
    assert (np.delete(status, 4) == "ok").all()


def test_what_was_wrong_with_a_frame_before_is_not_forgotten(store):
    spoil(store, 1, stop=None)
    status = np.array(["ok", "no photon energy: found nan", "ok", "ok"], dtype=object)
    list(each_frame(store, 4, 8, status=status))
    assert all(text.startswith("unreadable: damaged") for text in status)
    assert status[1].endswith("; no photon energy: found nan")


def test_a_damaged_frame_is_named_where_there_is_no_status_to_say_so(store):
    spoil(store, 1)
    with pytest.raises(BadFrames, match=r"frame 4 of .* is damaged"):
        list(each_frame(store, 0, 11))


def test_a_store_that_vanishes_is_no_blank_frames(store):
    frames = each_frame(store, 0, 4)
    store.rename(store.with_name("elsewhere"))
    with pytest.raises((FileNotFoundError, BadStore)):
        list(frames)


def test_frames_of_a_shard_that_is_missing_say_so_and_are_no_blank_frames(store, tiny):
    (store / "adu" / "c" / "1" / "0" / "0" / "0").unlink()
    status = np.array(["ok"] * 11, dtype=object)
    status[5] = "no photon energy: found nan"
    read = np.stack(list(each_frame(store, 2, 11, status=status[2:])))
    expected = tiny.panels(11)
    expected[4:8] = 0
    np.testing.assert_array_equal(read, expected[2:])
    missing = "unreadable: missing in the frames store"
    assert (
        status.tolist()
        == ["ok"] * 4 + [missing, f"{missing}; no photon energy: found nan", missing, missing] + ["ok"] * 3
    )
    with pytest.raises(BadFrames, match=r"frame 4 of .* is missing: put 'adu/c/1/0/0/0' back there"):
        list(each_frame(store, 0, 11))
    with pytest.raises(BadFrames, match=r"frame 6 of .* is missing"):
        take_frames(store, [3, 6])
    assert take_frames(store, [3, 8]).sizes["frame"] == 2


def test_frames_that_are_really_blank_are_not_missing(tiny):
    path = tiny.write("a.cxi", 4)
    with h5py.File(path, "r+") as file:
        file["/entry_1/data_1/data"][...] = 0
    to = ingest(path, geometry=tiny.geometry, to=tiny.folder / "b.zarr", block_frames=4, on="threads", progress=False)
    status = np.array(["ok"] * 4, dtype=object)
    assert not np.any(list(each_frame(to, 0, 4, status=status)))
    assert set(status) == {"ok"}
    assert not take_frames(to, [0, 3]).adu.values.any()


def test_only_the_columns_asked_for_are_read(store):
    opened = open_frames(store, columns=("run",))
    assert {"run", "adu"} <= set(opened.variables)
    assert "event" not in opened


def test_a_column_that_is_kept_is_not_changed_by_who_got_it(store):
    first = read_frame_columns(store, 0, 4, columns=("frame_status",)).frame_status.values
    first[:] = "spoilt"
    assert set(read_frame_columns(store, 0, 4, columns=("frame_status",)).frame_status.values) == {"ok"}
