"""Maps of reciprocal space: what is written comes back, here and in other programs."""

import contextlib
import shutil

import gemmi
import numpy as np
import pytest
import zarr

from diffdask.errors import BadStore
from diffdask.io import object_storage
from diffdask.io.paths import join
from diffdask.io.storage import storage_at
from diffdask.io.volume_store import (
    add_blocks,
    open_volume,
    read_ccp4,
    remove_blocks,
    save_volume,
    stamp_of_volume,
    start_blocks,
    write_block,
    write_ccp4,
    written_blocks,
)
from diffdask.variables import wrap

STEP = 0.05


def make_volume(size=11, seed=0):
    random = np.random.default_rng(seed)
    intensity = random.normal(size=(size, size, size)).astype(np.float32)
    intensity[0] = np.nan
    return wrap(
        map_intensity=intensity,
        map_weight=np.isfinite(intensity).astype(np.float32),
        map_shell_q=np.array([0.1, 0.2]),
        half_map_correlation=np.array([0.9, np.nan]),
        half_map_voxels=np.array([40, 2]),
        merged_frame=np.array([3, 5, 8]),
    )


def saved(path, **options):
    save_volume(path, make_volume(**options), {"step": STEP, "laue": "mmm", "parameters": {"top": 3}})
    return path


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    """An empty place of either kind."""
    return tmp_path / "place" if request.param == "folder" else request.getfixturevalue("bucket")


def left_in(place):
    """Names of files and folders right in a place."""
    storage = storage_at(place)
    return {*storage.list_folders(""), *(entry.name for entry in storage.list_files(""))}


def test_a_map_comes_back_as_it_was_written(place):
    found, written = open_volume(saved(join(place, "map.zarr"))), make_volume()
    for name in written.variables:
        np.testing.assert_array_equal(found[name].values, written[name].values, err_msg=str(name), strict=True)
        assert found[name].dims == written[name].dims
    assert found.attrs["step"] == STEP
    assert stamp_of_volume(join(place, "map.zarr"))["parameters"] == {"top": 3}
    assert stamp_of_volume(join(place, "other.zarr")) is None


def test_a_new_map_replaces_an_old_one_and_leaves_nothing_beside_it(place):
    saved(join(place, "map.zarr"), size=9)
    found = open_volume(saved(join(place, "map.zarr"), size=13))
    assert found.map_intensity.shape == (13, 13, 13)
    assert left_in(place) == {"map.zarr"}


@contextlib.contextmanager
def stopping(monkeypatch, deed, after):
    """Stop what uses object storage after so many of its copies or deletions."""
    real, done = getattr(object_storage.obstore, deed), []

    def stop(*given):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(given)
        return real(*given)

    with monkeypatch.context() as patched:
        patched.setattr(object_storage.obstore, deed, stop)
        yield


#: Within the copies, and within what is deleted before and after them.
STOPS = [("copy", 3), ("copy", 0), ("delete", 1), ("delete", 2), ("delete", 3)]


@pytest.mark.parametrize("stops", [*([stop] for stop in STOPS), [("copy", 3), ("delete", 1)]], ids=str)
def test_a_map_that_was_being_put_into_a_bucket_is_none_until_it_is_whole(bucket, monkeypatch, stops):
    path = saved(f"{bucket}/map.zarr", size=9)
    for stop in stops:
        with stopping(monkeypatch, *stop), pytest.raises(KeyboardInterrupt):
            saved(path, size=11)
        if storage_at(path).exists("zarr.json"):
            np.testing.assert_array_equal(open_volume(path).map_intensity, make_volume(size=11).map_intensity)
        else:
            assert stamp_of_volume(path) is None
            with pytest.raises(BadStore, match="no map at"):
                open_volume(path)
    assert open_volume(saved(path, size=13)).map_intensity.shape == (13, 13, 13)
    assert left_in(bucket) == {"map.zarr"}


def test_what_is_no_map_and_no_half_of_one_stays_in_a_bucket(bucket):
    storage_at(bucket).write_text("map.zarr/notes.txt", "mine")
    for attempt in (open_volume, saved, stamp_of_volume):
        with pytest.raises(BadStore, match="no map at"):
            attempt(f"{bucket}/map.zarr")
    assert storage_at(bucket).read_text("map.zarr/notes.txt") == "mine"


def test_something_else_is_neither_read_nor_replaced(tmp_path):
    zarr.open_group(str(tmp_path / "x.zarr"), mode="w", attributes={"kind": "diffdask results"})
    for attempt in (open_volume, saved, stamp_of_volume):
        with pytest.raises(BadStore, match="kind 'diffdask results', expected 'diffdask map'"):
            attempt(tmp_path / "x.zarr")


def test_no_map_says_how_to_make_one(tmp_path):
    with pytest.raises(BadStore, match=r"diffdask merge RESULTS --to .*map\.zarr"):
        open_volume(tmp_path / "map.zarr")


def test_a_map_without_its_weights_is_damaged(tmp_path):
    shutil.rmtree(saved(tmp_path / "map.zarr") / "map_weight")
    with pytest.raises(BadStore, match="lacks map_weight"):
        open_volume(tmp_path / "map.zarr")


@pytest.mark.parametrize("size", [10, 11])
def test_a_ccp4_file_opens_in_gemmi_with_the_right_cell_and_its_coordinates_are_q(tmp_path, size):
    intensity = make_volume(size).map_intensity.values
    write_ccp4(tmp_path / "map.ccp4", intensity, step=STEP)
    found = gemmi.read_ccp4_map(str(tmp_path / "map.ccp4"))
    assert found.header_i32(4) == 2  # float32
    assert found.grid.spacegroup.hm == "P 1"
    np.testing.assert_allclose(found.grid.unit_cell.parameters, (size * STEP,) * 3 + (90,) * 3, rtol=1e-6)
    np.testing.assert_array_equal(np.array(found.grid), np.nan_to_num(intensity))
    found.setup(0.0)  # puts the origin first, as any program does that honours the start
    for voxel in ((0, 0, 0), (1, -2, 3), (-4, 4, 0)):
        expected = intensity[tuple(np.array(voxel) + size // 2)]
        q = gemmi.Position(*(STEP * np.array(voxel)))
        assert found.grid.interpolate_value(q) == pytest.approx(expected, abs=1e-4)


def test_a_ccp4_file_in_a_bucket_is_that_of_a_folder(bucket, tmp_path):
    intensity = make_volume().map_intensity.values
    for path in (tmp_path / "map.ccp4", f"{bucket}/map.ccp4"):
        write_ccp4(path, intensity, step=STEP)
    with storage_at(bucket).open_file("map.ccp4") as file:
        assert file.read() == (tmp_path / "map.ccp4").read_bytes()


def test_a_ccp4_file_comes_back(tmp_path):
    intensity = make_volume().map_intensity.values
    write_ccp4(tmp_path / "map.ccp4", intensity, step=STEP)
    found, step = read_ccp4(tmp_path / "map.ccp4")
    np.testing.assert_array_equal(found, np.nan_to_num(intensity))
    assert step == pytest.approx(STEP)
    assert [path.name for path in tmp_path.iterdir()] == ["map.ccp4"]


def test_other_files_are_no_cube_about_the_origin(tmp_path):
    (tmp_path / "text.ccp4").write_text("no map")
    with pytest.raises(BadStore, match="cannot be read"):
        read_ccp4(tmp_path / "text.ccp4")
    made = gemmi.Ccp4Map()
    made.grid = gemmi.FloatGrid(np.zeros((4, 4, 4), np.float32))
    made.grid.unit_cell.set(4, 4, 4, 90, 90, 90)
    made.update_ccp4_header()
    made.write_ccp4_map(str(tmp_path / "density.ccp4"))
    with pytest.raises(BadStore, match="no cube about the origin"):
        read_ccp4(tmp_path / "density.ccp4")


def test_blocks_are_summed_in_the_order_given_whoever_was_first(place):
    random, parts = np.random.default_rng(1), {}
    folder = start_blocks(join(place, "map.zarr"), {"top": 3})
    for block in ((4, 8), (0, 4), (8, 9)):
        weights = random.integers(0, 2, (2, 27)).astype(float)
        parts[block] = random.normal(size=(2, 27)) * weights, weights
        write_block(folder, block, zip(*parts[block], strict=True))
    assert written_blocks(folder) == set(parts)
    sums, weights = add_blocks(folder, sorted(parts), 3)
    expected = [parts[block] for block in sorted(parts)]
    np.testing.assert_array_equal(sums, expected[0][0] + expected[1][0] + expected[2][0])
    np.testing.assert_array_equal(weights, sum(weight for _, weight in expected))


def test_blocks_of_other_parameters_are_forgotten(place):
    path = join(place, "map.zarr")
    folder = start_blocks(path, {"top": 3})
    write_block(folder, (0, 4), [(np.ones(8), np.ones(8))] * 2)
    assert written_blocks(start_blocks(path, {"top": 3})) == {(0, 4)}
    assert written_blocks(start_blocks(path, {"top": 4})) == set()
    remove_blocks(path)
    assert left_in(place) == set()
