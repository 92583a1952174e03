import h5py
import numpy as np
import pandas as pd
import pytest

from diffdask.errors import BadParameter
from diffdask.io.crystfel_geometry import parse_geometry
from diffdask.io.frames_store import open_frames
from diffdask.io.picks import write_cxi_subset, write_event_list
from diffdask.pipeline.ingest import ingest
from diffdask.variables import wrap


@pytest.fixture
def put(tiny):
    def call(sources, to="f.zarr", **options):
        options = {"geometry": tiny.geometry, "block_frames": 4, **options}
        return ingest(sources, to=tiny.folder / to, on="threads", progress=False, **options)

    return call


def picks_of(store, *frames):
    ds = open_frames(store)
    columns = {name: ds[name].values for name in ("frame_id", "source", "event", "run")}
    table = pd.DataFrame(columns).iloc[list(frames)]
    return table.assign(frame_score=np.linspace(1, 0.5, len(frames)), frame_rank=np.arange(1, len(frames) + 1))


def test_the_event_list_has_a_line_a_frame_as_crystfel_reads_it(tiny):
    table = pd.DataFrame({"source": ["/d/a.cxi", "/d/b.h5"], "event": ["//12", "//"]})
    to = write_event_list(table, tiny.folder / "new" / "picks.lst")
    assert to.read_text() == "/d/a.cxi //12\n/d/b.h5 //\n"


def test_a_subset_ingested_again_with_the_same_geometry_is_the_same_frames(tiny, put):
    paths = [tiny.write("a.cxi", 6, seed=1, run=3), tiny.write("b.cxi", 6, seed=2, run=5)]
    with h5py.File(paths[0], "r+") as file:
        file["/entry_1/data_1/mask"][3, 4] = 1
    store = put(paths)
    chosen = [9, 2, 0]
    subset = write_cxi_subset(picks_of(store, *chosen), store, tiny.folder / "picks.cxi")
    again, expected = open_frames(put(subset, to="g.zarr")), open_frames(store).isel(frame=chosen)
    for name in ("adu", "photon_energy", "camera_length", "run", "pixel_is_good", "frame_status"):
        np.testing.assert_array_equal(again[name], expected[name], err_msg=name)


def test_a_subset_says_which_frames_it_holds(tiny, put):
    store = put(tiny.write("a.cxi", 5))
    subset = write_cxi_subset(picks_of(store, 4, 1), store, tiny.folder / "picks.cxi")
    with h5py.File(subset) as file:
        assert isinstance(file.get("/entry_1/data_1/data", getlink=True), h5py.SoftLink)
        assert file["/entry_1/data_1/data"].shape == (2, 8, 6)
        assert file["/entry_1/data_1/data"].chunks == (1, 8, 6)
        assert [text.decode() for text in file["/entry_1/result_1/event"]] == ["//4", "//1"]
        assert [text.decode() for text in file["/entry_1/result_1/frame_id"]] == ["r0001-a-000004", "r0001-a-000001"]
        assert file["/entry_1/result_1/frame_rank"][()].tolist() == [1, 2]
        assert file["/entry_1/result_1/frame_score"][()].tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    "change",
    [
        [("photon_energy = /LCLS/photon_energy_eV", "photon_energy = 9100"), ("mask = ", "; mask = ")],
        [("photon_energy = /LCLS/photon_energy_eV", "wavelength = /LCLS/w A"), ("mask_good = 0x0000", "mask_good = 1")],
        [("EncoderValue", "EncoderValue m"), ("mask_bad = 0xffff", "mask_bad = 0x6")],
        [("/entry_1/data_1/data", "/entry_1/instrument_1/detector_1/data"), ("dim0 = %\n", "dim0 = ss\n")],
    ],
)
def test_whatever_the_geometry_says_the_subset_fits_it(tiny, put, change):
    text = tiny.geometry.read_text()
    for old, new in change:
        text = text.replace(old, new)
    if "dim0 = ss" in text:
        text = text.replace("dim1 = ss\n", "dim1 = %\n")  # frames along the second axis
    tiny.geometry.write_text(text)
    path = tiny.write("a.cxi", 4)
    with h5py.File(path, "r+") as file:
        file["/LCLS/w"] = [1.3, 1.31, 1.32, 1.33]
        if "EncoderValue m" in text:
            file["/LCLS/detector_1/EncoderValue"][:] = -0.4
        if "mask_good = 1" in text:
            file["/entry_1/data_1/mask"][:, 1:] = 1
            tiny.geometry.write_text(text.replace("mask_bad = 0xffff", "mask_bad = 0xfffe"))
        if "dim0 = ss" in text:
            data = np.moveaxis(tiny.slab(4), 0, 1)
            del file["/entry_1/instrument_1/detector_1/data"]
            file["/entry_1/instrument_1/detector_1/data"] = data
    store = put(path)
    subset = write_cxi_subset(picks_of(store, 3, 0), store, tiny.folder / "picks.cxi")
    again, expected = open_frames(put(subset, to="g.zarr")), open_frames(store).isel(frame=[3, 0])
    np.testing.assert_array_equal(again.adu, expected.adu)
    np.testing.assert_array_equal(again.adu, tiny.panels(4)[[3, 0]])
    np.testing.assert_allclose(again.photon_energy, expected.photon_energy, rtol=1e-12)
    np.testing.assert_allclose(again.camera_length, expected.camera_length, rtol=1e-12)
    if parse_geometry(tiny.geometry.read_text()).masks:
        np.testing.assert_array_equal(again.pixel_is_good, expected.pixel_is_good)


def test_a_geometry_of_one_frame_a_file_is_answered_with_the_event_list(tiny, put):
    tiny.geometry.write_text(
        tiny.geometry.read_text().replace("dim0 = %\ndim1 = ss\ndim2 = fs", "dim0 = ss\ndim1 = fs")
    )
    path = tiny.write("a.cxi", 1)
    with h5py.File(path, "r+") as file:
        where = "/entry_1/instrument_1/detector_1/data"
        del file[where]
        file[where] = tiny.slab(1)[0]
    store = put(path)
    with pytest.raises(BadParameter, match=r"ends in \.lst"):
        write_cxi_subset(picks_of(store, 0), store, tiny.folder / "picks.cxi")
    assert not list(tiny.folder.glob("*picks*")), "nothing half-written stays"


def test_pixels_between_panels_are_zero(tiny, put):
    text = tiny.geometry.read_text().replace("p1/max_fs = 5", "p1/max_fs = 3")
    tiny.geometry.write_text(text)
    store = put(tiny.write("a.cxi", 2))
    with h5py.File(write_cxi_subset(picks_of(store, 1), store, tiny.folder / "p.cxi")) as file:
        expected = tiny.slab(2)[1]
        expected[4:, 4:] = 0
        np.testing.assert_array_equal(file["/entry_1/data_1/data"][0], expected)
        assert (file["/entry_1/data_1/mask"][4:, 4:] != 0).all()


def peaks_of(*places):
    """Peaks (panel, ss, fs) in pixel indices of each pick, as ``find_peaks`` gives them."""
    listed = np.full((3, len(places), 7), np.nan)
    for number, rows in enumerate(places):
        listed[:, number, : len(rows)] = np.reshape(rows, (-1, 3)).T
    panel = np.where(np.isnan(listed[0]), -1, listed[0]).astype(int)
    return wrap(
        hit_peak_count=np.array([len(rows) for rows in places]),
        peak_panel=panel,
        peak_ss=(listed[1] + 0.5).astype(np.float32),
        peak_fs=(listed[2] + 0.5).astype(np.float32),
        peak_intensity=np.where(panel < 0, np.nan, 100.0 + np.arange(7)).astype(np.float32),
        peak_snr=np.where(panel < 0, np.nan, 10.0 + np.arange(7)).astype(np.float32),
    )


def test_peaks_lie_on_the_bright_pixels_of_the_slab(tiny, put):
    """As pixel indices, X along fast-scan: CrystFEL adds the half pixel itself."""
    path = tiny.write("a.cxi", 5)
    places = [[(0, 1, 2), (1, 3, 5), (1, 0, 0)], [], [(1, 2, 4)]]
    with h5py.File(path, "r+") as file:
        data = file["/entry_1/data_1/data"]
        for frame, rows in zip((4, 2, 1), places, strict=True):
            for panel, ss, fs in rows:
                data[frame, 4 * panel + ss, fs] = 20000
    store = put(path)
    subset = write_cxi_subset(picks_of(store, 4, 2, 1), store, tiny.folder / "p.cxi", peaks=peaks_of(*places))
    with h5py.File(subset) as file:
        result, data = file["/entry_1/result_1"], file["/entry_1/data_1/data"][()]
        count = result["nPeaks"][()]
        assert count.tolist() == [3, 0, 1]
        assert (data > 10000).sum(axis=(1, 2)).tolist() == [3, 0, 1]
        for frame in range(3):
            x, y = (result[name][frame, : count[frame]] for name in ("peakXPosRaw", "peakYPosRaw"))
            assert (data[frame, y.astype(int), x.astype(int)] == 20000).all()
            assert (x == np.round(x)).all()
            assert result["peakTotalIntensity"][frame, : count[frame]].tolist() == [100, 101, 102][: count[frame]]
            assert result["peakSNR"][frame, : count[frame]].tolist() == [10, 11, 12][: count[frame]]
            for name in ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity", "peakSNR"):
                assert not result[name][frame, count[frame] :].any()


def test_of_more_peaks_than_are_listed_the_listed_are_told(tiny, put):
    store = put(tiny.write("a.cxi", 2))
    peaks = peaks_of([(0, 1, 1)] * 7, [(1, 1, 1)])
    peaks.hit_peak_count[0] = 3000
    with h5py.File(write_cxi_subset(picks_of(store, 0, 1), store, tiny.folder / "p.cxi", peaks=peaks)) as file:
        assert file["/entry_1/result_1/nPeaks"][()].tolist() == [7, 1]
        assert file["/entry_1/result_1/peakXPosRaw"].shape == (2, 7)


def test_picks_without_a_peak_or_without_a_list_are_written_all_the_same(tiny, put):
    store = put(tiny.write("a.cxi", 2))
    with h5py.File(write_cxi_subset(picks_of(store, 0), store, tiny.folder / "p.cxi", peaks=peaks_of([]))) as file:
        assert file["/entry_1/result_1/nPeaks"][()].tolist() == [0]
    with h5py.File(write_cxi_subset(picks_of(store, 0), store, tiny.folder / "p.cxi")) as file:
        assert "nPeaks" not in file["/entry_1/result_1"]


def test_where_panels_are_no_slab_there_is_no_place_for_peaks(tiny, put):
    text = tiny.geometry.read_text().replace("dim1 = ss\ndim2 = fs", "dim1 = 0\ndim2 = ss\ndim3 = fs")
    text = text.replace("p1/min_ss = 4", "p1/dim1 = 1\np1/min_ss = 0").replace("p1/max_ss = 7", "p1/max_ss = 3")
    tiny.geometry.write_text(text.replace("mask = ", "; mask = "))
    path = tiny.write("a.cxi", 2)
    with h5py.File(path, "r+") as file:
        del file["/entry_1/instrument_1/detector_1/data"]
        file["/entry_1/instrument_1/detector_1/data"] = tiny.panels(2)
    store = put(path)
    subset = write_cxi_subset(picks_of(store, 1), store, tiny.folder / "p.cxi", peaks=peaks_of([(1, 1, 1)]))
    with h5py.File(subset) as file:
        assert "peakXPosRaw" not in file["/entry_1/result_1"]
