import errno
import os

import h5py
import hdf5plugin
import numpy as np
import pytest

from diffdask.errors import BadFrames, BadGeometry
from diffdask.io import cxi
from diffdask.io.crystfel_geometry import parse_geometry, read_geometry
from diffdask.io.cxi import read_frames, split_event
from diffdask.io.survey import survey_file

DATA = "/entry_1/instrument_1/detector_1/data"

FILTERS = {
    "none": {},
    "gzip": {"compression": "gzip", "shuffle": True},
    "lzf": {"compression": "lzf"},
    "zstd": dict(hdf5plugin.Zstd()),
    "bitshuffle": dict(hdf5plugin.Bitshuffle()),
    "blosc": dict(hdf5plugin.Blosc()),
    "lz4": dict(hdf5plugin.LZ4()),
}


def survey(path, tiny):
    return survey_file(path, read_geometry(tiny.geometry))


def read_all(path, layout):
    found = survey_file(path, layout)
    out = np.ones((len(found.events), layout.geometry.panel_count, *layout.geometry.shape), dtype=found.dtype)
    reasons = read_frames(path, layout, list(found.events), out)
    return out, reasons


def spoil_chunk(path, number, where=DATA):
    """Overwrite the stored bytes of one frame."""
    with h5py.File(path) as file:
        info = file[where].id.get_chunk_info(number)
    with path.open("r+b") as file:
        file.seek(info.byte_offset)
        file.write(b"\xff" * info.size)


def change(path, **datasets):
    with h5py.File(path, "r+") as file:
        for name, value in datasets.items():
            where = name.replace("__", "/")
            del file[where]
            if value is not None:
                file[where] = value


@pytest.mark.parametrize("name", FILTERS)
def test_frames_come_back_through_every_filter(tiny, name):
    path = tiny.write("a.cxi", 5, **FILTERS[name])
    frames, reasons = read_all(path, read_geometry(tiny.geometry))
    assert reasons == {}
    np.testing.assert_array_equal(frames, tiny.panels(5))


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32", ">i2"])
def test_pixels_keep_their_type_and_value(tiny, dtype):
    path = tiny.write("a.cxi", 2, dtype=dtype)
    frames, _ = read_all(path, read_geometry(tiny.geometry))
    assert frames.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(frames, tiny.panels(2))


def test_events_may_be_asked_for_in_any_order(tiny):
    path = tiny.write("a.cxi", 9)
    out = np.empty((4, 2, 4, 6), np.int16)
    read_frames(path, read_geometry(tiny.geometry), ["//7", "//2", "//3", "//0"], out)
    np.testing.assert_array_equal(out, tiny.panels(9)[[7, 2, 3, 0]])


def test_a_survey_finds_what_lies_beside_the_frames(tiny):
    found = survey(tiny.write("a.cxi", 3, run=7), tiny)
    assert found.events.tolist() == ["//0", "//1", "//2"]
    assert found.run.tolist() == [7, 7, 7]
    assert found.photon_energy.tolist() == [9000, 9001, 9002]
    assert found.camera_length == pytest.approx(0.1)
    assert found.status.tolist() == ["ok"] * 3
    assert found.dtype == "int16"


def test_stacked_cspad_becomes_the_slab_by_cheetahs_rule(shared, tmp_path):
    layout = read_geometry(shared / "cspad" / "cspad-cxiformat.geom")
    panels = np.random.default_rng(0).integers(0, 1000, (2, 32, 185, 388)).astype(np.int16)
    slab = np.zeros((2, 1480, 1552), np.int16)
    for quad in range(4):
        for seg in range(8):
            where = (slice(None), slice(seg * 185, (seg + 1) * 185), slice(quad * 388, (quad + 1) * 388))
            slab[where] = panels[:, quad * 8 + seg]
    for name, data in (("stacked.cxi", panels), ("slab.cxi", slab)):
        with h5py.File(tmp_path / name, "w") as file:
            file["/entry_1/data_1/data"] = data
            file["/entry_1/data_1/mask"] = (data[0] % 7 == 0).astype(np.uint16)
            file["/LCLS/photon_energy_eV"] = [9500.0, 9500.0]
            file["/LCLS/detector_1/EncoderValue"] = [-400.0, -400.0]
    stacked, flat = (read_all(tmp_path / name, layout)[0] for name in ("stacked.cxi", "slab.cxi"))
    np.testing.assert_array_equal(stacked, flat)
    one, other = (survey_file(tmp_path / name, layout).good_bits for name in ("stacked.cxi", "slab.cxi"))
    np.testing.assert_array_equal(one, other)


def test_other_stacked_panels_lie_below_each_other(tiny):
    path = tiny.write("a.cxi", 3)
    change(path, **{DATA: tiny.panels(3)})
    frames, _ = read_all(path, read_geometry(tiny.geometry))
    np.testing.assert_array_equal(frames, tiny.panels(3))


def test_modules_along_an_axis_of_their_own_are_read_as_european_xfel_writes_them(tiny):
    text = tiny.geometry.read_text().replace("dim1 = ss\ndim2 = fs", "dim2 = ss\ndim3 = fs")
    text = text.replace("p1/min_ss = 4", "p1/min_ss = 0").replace("p1/max_ss = 7", "p1/max_ss = 3")
    text += "p0/dim1 = 0\np1/dim1 = 1\n"
    path = tiny.write("a.cxi", 3)
    change(path, **{DATA: tiny.panels(3), "entry_1__data_1__mask": np.zeros((2, 4, 6), np.uint16)})
    frames, _ = read_all(path, parse_geometry(text))
    np.testing.assert_array_equal(frames, tiny.panels(3))


def test_a_file_of_one_frame_has_the_event_without_number(tiny):
    path = tiny.write("a_r0042.h5", 1)
    change(path, **{DATA: tiny.slab(1)[0], "entry_1__experiment_identifier": None})
    layout = parse_geometry(tiny.geometry.read_text().replace("dim0 = %\ndim1 = ss\ndim2 = fs", "dim0 = ss\ndim1 = fs"))
    found = survey_file(path, layout)
    assert found.events.tolist() == ["//"]
    assert found.run.tolist() == [42]
    np.testing.assert_array_equal(read_all(path, layout)[0], tiny.panels(1))


def test_a_group_for_each_frame_is_read_as_sacla_writes_it(tiny, tmp_path):
    text = tiny.geometry.read_text().replace("dim0 = %\ndim1 = ss\ndim2 = fs", "dim0 = ss\ndim1 = fs")
    text = text.replace("/entry_1/data_1/data", "/tag-%/detector/data").replace("mask = /", "; mask = /")
    text = text.replace("/LCLS/photon_energy_eV", "/tag-%/energy").replace("/LCLS/detector_1/EncoderValue", "0.1")
    path = tmp_path / "sacla.h5"
    with h5py.File(path, "w") as file:
        for number, tag in enumerate((105, 107, 109)):
            file[f"/tag-{tag}/detector/data"] = tiny.slab(3)[number]
            file[f"/tag-{tag}/energy"] = 7000.0 + tag
        file["/metadata/x"] = 1
    layout = parse_geometry(text.replace("mask_bad = 0xffff", "").replace("mask_good = 0x0000", ""))
    found = survey_file(path, layout)
    assert found.events.tolist() == ["105//", "107//", "109//"]
    assert found.photon_energy.tolist() == [7105, 7107, 7109]
    np.testing.assert_array_equal(read_all(path, layout)[0], tiny.panels(3))


def test_panels_may_lie_in_datasets_of_their_own(tiny):
    text = tiny.geometry.read_text().replace("p1/min_ss = 4", "p1/min_ss = 0").replace("p1/max_ss = 7", "p1/max_ss = 3")
    text = text.replace("mask = ", "; mask = ") + "p0/data = /left\np1/data = /right\n"
    path = tiny.write("a.cxi", 3)
    with h5py.File(path, "r+") as file:
        file["/left"], file["/right"] = tiny.panels(3)[:, 0], tiny.panels(3)[:, 1]
    np.testing.assert_array_equal(read_all(path, parse_geometry(text))[0], tiny.panels(3))


@pytest.mark.parametrize(
    ("event", "expected"), [("//12", ("", 12)), ("tag-7//", ("tag-7", None)), ("//", ("", None)), ("a//3", ("a", 3))]
)
def test_events_are_taken_apart(event, expected):
    assert split_event(event) == expected


@pytest.mark.parametrize(
    ("text", "run"), [("simA_run0003", 3), ("cxitut13-r0010", 10), ("mfx r12 x", 12), ("run-7", 7), ("LB36", 1)]
)
def test_run_numbers_are_found_in_what_people_write(tiny, text, run):
    path = tiny.write("a_r0001.cxi", 2)
    change(path, entry_1__experiment_identifier=text)
    assert survey(path, tiny).run.tolist() == [run, run]


def test_without_any_run_number_the_run_is_zero(tiny):
    path = tiny.write("corner12.cxi", 2)
    change(path, entry_1__experiment_identifier=None)
    assert survey(path, tiny).run.tolist() == [0, 0]


# masks ----------------------------------------------------------------------------------


def good_of(path, layout):
    bits = survey_file(path, layout).good_bits
    return np.unpackbits(bits, count=layout.pixel_is_good.size).astype(bool).reshape(layout.pixel_is_good.shape)


def test_a_mask_takes_pixels_out(tiny):
    path = tiny.write("a.cxi", 2)
    mask = np.zeros((8, 6), np.uint16)
    mask[5, 2] = 4
    change(path, entry_1__data_1__mask=mask)
    assert np.argwhere(~good_of(path, read_geometry(tiny.geometry))).tolist() == [[1, 1, 2]]


def test_a_mask_that_changes_counts_by_what_most_frames_say(tiny):
    path = tiny.write("a.cxi", 20)
    mask = np.zeros((20, 8, 6), np.uint16)
    mask[:, 0, 0] = 1  # always bad
    mask[0, 1, 1] = 1  # bad once
    change(path, entry_1__data_1__mask=mask)
    assert np.argwhere(~good_of(path, read_geometry(tiny.geometry))).tolist() == [[0, 0, 0]]


def test_a_mask_in_a_file_of_its_own_is_found_beside_the_geometry(tiny):
    path = tiny.write("a.cxi", 2)
    mask = np.zeros((8, 6), np.uint16)
    mask[0, 3] = 1
    with h5py.File(tiny.folder / "mask.h5", "w") as file:
        file["/m"] = mask
    text = tiny.geometry.read_text().replace("mask = /entry_1/data_1/mask", "mask = /m\nmask_file = mask.h5")
    layout = parse_geometry(text)
    bits = survey_file(path, layout, geometry_folder=tiny.folder).good_bits
    assert np.flatnonzero(np.unpackbits(bits, count=48) == 0).tolist() == [3]


def test_values_that_mean_no_intensity_take_pixels_out_where_most_frames_have_them(tiny):
    data = tiny.slab(5, dtype="uint16")
    data[:, 3, 4] = 65535
    data[2, 0, 0] = 65535
    path = tiny.write("a.cxi", 5)
    change(path, **{DATA: data})
    layout = parse_geometry("flag_morethan = 65534\n" + tiny.geometry.read_text())
    assert np.argwhere(~good_of(path, layout)).tolist() == [[0, 3, 4]]


# bad input ------------------------------------------------------------------------------


def test_an_unreadable_frame_costs_one_frame(tiny):
    path = tiny.write("a.cxi", 6, **FILTERS["gzip"])
    spoil_chunk(path, 2)
    frames, reasons = read_all(path, read_geometry(tiny.geometry))
    assert list(reasons) == [2]
    assert "inflate" in reasons[2] or "filter" in reasons[2]
    expected = tiny.panels(6)
    expected[2] = 0
    np.testing.assert_array_equal(frames, expected)


def test_a_file_with_every_frame_unreadable_is_all_reasons(tiny):
    path = tiny.write("a.cxi", 3, **FILTERS["zstd"])
    for number in range(3):
        spoil_chunk(path, number)
    frames, reasons = read_all(path, read_geometry(tiny.geometry))
    assert sorted(reasons) == [0, 1, 2]
    assert not frames.any()


def test_nan_in_float_frames_is_kept_as_recorded(tiny):
    path = tiny.write("a.cxi", 2, dtype="float32")
    with h5py.File(path, "r+") as file:
        file[DATA][1, 0, 0] = np.nan
    frames, reasons = read_all(path, read_geometry(tiny.geometry))
    assert reasons == {}
    assert np.argwhere(np.isnan(frames)).tolist() == [[1, 0, 0, 0]]


def test_a_truncated_file_says_so_and_what_to_do(tiny):
    path = tiny.write("a.cxi", 4)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(BadFrames, match=r"a\.cxi' is truncated: copy it again, or leave it out"):
        survey(path, tiny)


def test_what_is_no_hdf5_is_told_from_what_is_not_there(tiny):
    (tiny.folder / "text.cxi").write_text("hello")
    with pytest.raises(BadFrames, match="no HDF5 file"):
        survey(tiny.folder / "text.cxi", tiny)
    with pytest.raises(BadFrames, match="no file at"):
        survey(tiny.folder / "absent.cxi", tiny)


def test_a_missing_dataset_is_answered_with_those_that_are_there(tiny):
    path = tiny.write("a.cxi", 4)
    with h5py.File(path, "r+") as file:
        del file["/entry_1/data_1/data"]
    with pytest.raises(BadFrames, match=rf"no dataset '/entry_1/data_1/data'.*'{DATA}' \(4, 8, 6\).*change 'data'"):
        survey(path, tiny)


def test_a_soft_link_that_leads_nowhere_is_a_missing_dataset(tiny):
    path = tiny.write("a.cxi", 4)
    change(path, **{DATA: None})
    with pytest.raises(BadFrames, match="no dataset '/entry_1/data_1/data'"):
        survey(path, tiny)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("LCLS__photon_energy_eV", "'/LCLS/photon_energy_eV', where the geometry looks for 'photon_energy'"),
        ("LCLS__detector_1__EncoderValue", "'/LCLS/detector_1/EncoderValue', where the geometry looks for 'clen'"),
        ("entry_1__data_1__mask", "'/entry_1/data_1/mask', where the geometry looks for the mask"),
    ],
)
def test_a_missing_value_says_which_line_of_the_geometry_wants_it(tiny, where, said):
    path = tiny.write("a.cxi", 4)
    change(path, **{where: None})
    with pytest.raises(BadFrames, match=said):
        survey(path, tiny)


def test_one_bad_photon_energy_costs_one_frame(tiny):
    path = tiny.write("a.cxi", 4)
    change(path, LCLS__photon_energy_eV=[9000.0, np.nan, 0.0, 9003.0])
    found = survey(path, tiny)
    assert found.status.tolist() == ["ok", "no photon energy: found nan", "no photon energy: found 0", "ok"]
    np.testing.assert_array_equal(found.photon_energy, [9000, np.nan, np.nan, 9003])


def test_one_bad_camera_length_costs_one_frame(tiny):
    path = tiny.write("a.cxi", 2)
    change(path, LCLS__detector_1__EncoderValue=[-400.0, -600.0])
    assert survey(path, tiny).status.tolist() == ["ok", "no camera length: clen + coffset is -0.1 m"]


def test_one_value_serves_all_frames(tiny):
    path = tiny.write("a.cxi", 3)
    change(path, LCLS__photon_energy_eV=8000.0)
    assert survey(path, tiny).photon_energy.tolist() == [8000.0] * 3


def test_values_that_are_not_one_a_frame_are_refused(tiny):
    path = tiny.write("a.cxi", 4)
    change(path, LCLS__photon_energy_eV=[9000.0, 9000.0])
    with pytest.raises(BadFrames, match="has 2 values for 4 frames"):
        survey(path, tiny)


def test_a_wavelength_becomes_an_energy(tiny):
    path = tiny.write("a.cxi", 2)
    change(path, LCLS__photon_energy_eV=[1.3, 1.0])
    text = tiny.geometry.read_text().replace(
        "photon_energy = /LCLS/photon_energy_eV", "wavelength = /LCLS/photon_energy_eV A"
    )
    assert survey_file(path, parse_geometry(text)).photon_energy == pytest.approx([12398.42 / 1.3, 12398.42], rel=1e-6)


def test_a_geometry_without_photon_energy_is_told_so(tiny):
    text = tiny.geometry.read_text().replace("photon_energy = /LCLS/photon_energy_eV", "")
    with pytest.raises(BadGeometry, match="add 'photon_energy"):
        survey_file(tiny.write("a.cxi", 1), parse_geometry(text))


def test_a_geometry_that_does_not_fit_says_what_the_frames_are(tiny):
    text = tiny.geometry.read_text().replace("p1/max_ss = 7", "p1/max_ss = 9")
    with pytest.raises(BadGeometry, match=r"a\.cxi'.*panel 'p1' needs \(6, 6\).*shape \(8, 6\).*does not fit"):
        survey_file(tiny.write("a.cxi", 1), parse_geometry(text))


def test_frames_of_another_rank_say_which_dims_are_missing(tiny):
    text = tiny.geometry.read_text().replace(
        "dim0 = %\ndim1 = ss\ndim2 = fs", "dim0 = %\ndim1 = 0\ndim2 = ss\ndim3 = fs"
    )
    with pytest.raises(BadGeometry, match=r"shape \(1, 8, 6\), but the geometry says dim0 = %, dim1 = 0"):
        survey_file(tiny.write("a.cxi", 1), parse_geometry(text))


def test_pixels_that_are_no_numbers_are_refused(tiny):
    path = tiny.write("a.cxi", 1)
    change(path, **{DATA: np.zeros((1, 8, 6), complex)})
    with pytest.raises(BadFrames, match="complex"):
        survey(path, tiny)


def test_a_file_that_shrank_since_it_was_looked_at_is_refused(tiny):
    path = tiny.write("a.cxi", 2)
    with pytest.raises(BadFrames, match="fewer frames"):
        read_frames(path, read_geometry(tiny.geometry), ["//0", "//1", "//2"], np.empty((3, 2, 4, 6), np.int16))


# storage that fails ---------------------------------------------------------------------


def read_three(path, tiny):
    return read_frames(path, read_geometry(tiny.geometry), ["//0", "//1", "//2"], np.empty((3, 2, 4, 6), np.int16))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOENT, errno.ETIMEDOUT])
def test_storage_that_fails_is_told_and_no_frame_is_called_damaged(tiny, monkeypatch, number):
    path = tiny.write("r.cxi", 3)

    def refuse(dataset, index):
        raise OSError(number, "file read failed")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", refuse)
    with pytest.raises(OSError, match=rf"{os.strerror(number)}.*r\.cxi") as caught:
        read_three(path, tiny)
    assert caught.value.errno == number


def take_away(file):
    """Let every further read of an open file fail, as of a folder."""
    folder = os.open("/", os.O_RDONLY)
    os.dup2(folder, file.id.get_vfd_handle())
    os.close(folder)


@pytest.mark.parametrize("when", ["before its datasets are found", "before its frames are read"])
def test_a_failed_read_is_told_from_damage_and_from_a_missing_dataset(tiny, monkeypatch, when):
    path, find = tiny.write("r.cxi", 3), cxi.data_of

    def find_and_take_away(file, *where):
        if when == "before its datasets are found":
            take_away(file)
        found = find(file, *where)
        take_away(file)
        return found

    monkeypatch.setattr(cxi, "data_of", find_and_take_away)
    with pytest.raises(IsADirectoryError, match=r"r\.cxi"):
        read_three(path, tiny)


def test_a_dataset_that_could_not_be_looked_for_is_not_called_missing(tiny):
    with h5py.File(tiny.write("r.cxi", 3)) as file:
        take_away(file)
        with pytest.raises(KeyError, match="Is a directory"):
            cxi.dataset_at(file, DATA)


def test_a_file_that_is_gone_is_told_from_one_that_is_no_hdf5(tiny):
    with pytest.raises(FileNotFoundError, match=r"gone\.cxi"):
        read_three(tiny.folder / "gone.cxi", tiny)
    (tiny.folder / "text.cxi").write_text("hello")
    with pytest.raises(BadFrames, match="no HDF5 file"):
        read_three(tiny.folder / "text.cxi", tiny)


def test_a_virtual_dataset_of_which_a_file_is_gone_is_not_read_as_zeros(tiny):
    part, path, layout = tiny.write("part.cxi", 3), tiny.write("whole.cxi", 3), read_geometry(tiny.geometry)
    expected, _ = read_all(part, layout)
    with h5py.File(path, "r+") as file:
        shape, dtype = file[DATA].shape, file[DATA].dtype
        del file[DATA]
        virtual = h5py.VirtualLayout(shape, dtype)
        virtual[...] = h5py.VirtualSource("part.cxi", DATA, shape=shape)
        file.create_virtual_dataset(DATA, virtual)
    found, reasons = read_all(path, layout)
    np.testing.assert_array_equal(found, expected)
    assert found.any()
    assert not reasons
    part.rename(tiny.folder / "away")
    with pytest.raises(FileNotFoundError) as told:
        read_frames(path, layout, ["//0"], np.ones((1, *found.shape[1:]), found.dtype))
    assert told.value.filename == str(part)
    with pytest.raises(BadFrames, match=r"no file at '.*part\.cxi'"):
        survey(path, tiny)


def test_a_survey_names_the_file_that_storage_does_not_give(tiny, monkeypatch):
    path, find = tiny.write("r.cxi", 3), cxi.data_of
    monkeypatch.setattr(cxi, "data_of", lambda file, *where: take_away(file) or find(file, *where))
    with pytest.raises(BadFrames, match=r"r\.cxi' cannot be read \(Is a directory\)"):
        survey(path, tiny)
    monkeypatch.undo()
    layout = parse_geometry(tiny.geometry.read_text().replace("mask = ", "mask_file = gone.h5\nmask = "))
    with pytest.raises(BadFrames, match=r"no file at '.*gone\.h5'"):
        survey_file(path, layout, geometry_folder=tiny.folder)
