import re
from pathlib import Path

import extra_geom
import h5py
import numpy as np
import pytest

from diffdask.errors import BadGeometry
from diffdask.geometry import pixel_positions, positions_on_panels, reciprocal_points
from diffdask.io.crystfel_geometry import (
    file_frame_shape,
    parse_geometry,
    put_panels,
    read_geometry,
    take_panels,
)
from diffdask.io.crystfel_geometry_text import standard_lines
from diffdask.io.crystfel_stream import read_stream
from diffdask.io.masks import is_flagged, is_good_by_mask

ONE_PANEL = """
photon_energy = 9500
clen = 0.1
res = 10000
adu_per_eV = 0.001
dim0 = %
dim1 = ss
dim2 = fs
p/min_fs = 0
p/max_fs = 5
p/min_ss = 0
p/max_ss = 3
p/corner_x = -3
p/corner_y = -2
p/fs = +x
p/ss = +y
"""


def changed(text, **lines):
    """Replace or add lines; keys with '__' for '/'."""
    for key, value in lines.items():
        key = key.replace("__", "/")
        text = re.sub(rf"^{re.escape(key)} = .*\n", "", text, flags=re.MULTILINE)
        if value is not None:
            text = f"{text}{key} = {value}\n" if "/" in key else f"{key} = {value}\n{text}"
    return text


def positions_by_regex(text):
    """CrystFEL's convention, read with nothing but regular expressions: centres in pixels, per panel."""

    def top(key):
        return float(re.search(rf"^\s*{key}\s*=\s*([-+.\de]+)", text, re.MULTILINE)[1])

    found = {}
    for name in dict.fromkeys(re.findall(r"^(q\d+a\d+)/", text, re.MULTILINE)):
        value = dict(re.findall(rf"^{name}/(\w+)\s*=\s*(.*)$", text, re.MULTILINE))
        vectors = {
            key: [float((re.search(rf"([-+.\d]+){axis}", value[key].replace(" ", "")) or [0, 0])[1]) for axis in "xyz"]
            for key in ("fs", "ss")
        }
        ss_count = int(value["max_ss"]) - int(value["min_ss"]) + 1
        fs_count = int(value["max_fs"]) - int(value["min_fs"]) + 1
        x_y = np.empty((ss_count, fs_count, 2))
        for axis in range(2):
            corner = float(value[("corner_x", "corner_y")[axis]])
            ss, fs = np.mgrid[0:ss_count, 0:fs_count]
            x_y[..., axis] = corner + (fs + 0.5) * vectors["fs"][axis] + (ss + 0.5) * vectors["ss"][axis]
        found[name] = x_y
    return found, top("res")


@pytest.mark.parametrize("name", ["cspad/cspad-cxiformat.geom", "cspad_sim_a/A_dev.geom"])
def test_cspad_positions_agree_with_crystfels_convention_to_a_millionth_of_a_pixel(shared, name):
    file = read_geometry(shared / name)
    expected, res = positions_by_regex((shared / name).read_text())
    assert file.geometry.panel_name == tuple(expected)
    positions = pixel_positions(file.geometry, camera_length=0.1)
    for panel, x_y in zip(positions, expected.values(), strict=True):
        assert np.abs(panel[..., :2] * res - x_y).max() < 1e-6
    assert np.all(positions[..., 2] == 0.1)


def test_the_wide_columns_of_half_panels_meet_in_the_middle_of_the_module(shared):
    file = read_geometry(shared / "cspad" / "cspad-cxiformat.geom")
    wide = np.zeros(file_frame_shape(file), dtype=bool)
    put_panels(file.pixel_is_wide, file, wide)
    assert sorted(set(np.nonzero(wide)[1] % 388)) == [193, 194]
    assert wide.sum() == 2 * 4 * 1480


def test_the_strongest_peaks_fall_on_integer_hkl(shared):
    folder = shared / "cspad_sim_a"
    file = read_geometry(folder / "A_dev.geom")
    chunks = read_stream(folder / "A_dev.stream")
    offsets = []
    with h5py.File(folder / "A_dev.cxi") as cxi:
        peaks = cxi["/entry_1/result_1"]
        for number, chunk in enumerate(chunks):
            if chunk.best_crystal is None:
                continue
            strongest = np.argsort(peaks["peakTotalIntensity"][number, : peaks["nPeaks"][number]])[::-1][:30]
            fs, ss = peaks["peakXPosRaw"][number][strongest], peaks["peakYPosRaw"][number][strongest]
            panel = np.array([_panel_at(file, s, f) for s, f in zip(ss, fs, strict=True)])
            positions = positions_on_panels(
                file.geometry,
                panel,
                ss - file.first_ss[panel] + 0.5,  # CXI has indices: the centre is half a pixel on
                fs - file.first_fs[panel] + 0.5,
                camera_length=cxi["/LCLS/detector_1/EncoderValue"][number] * file.clen_scale + file.coffset,
                shift=chunk.best_crystal.detector_shift,
            )
            points = reciprocal_points(positions, cxi["/LCLS/photon_energy_eV"][number])
            hkl = points @ np.linalg.inv(chunk.best_crystal.orientation)
            offsets.append(np.abs(hkl - np.round(hkl)).max(axis=1))
    offsets = np.concatenate(offsets)
    assert len(offsets) > 2000
    assert (offsets < 0.2).mean() >= 0.95


def _panel_at(file, ss, fs):
    ss, fs = int(np.round(ss)), int(np.round(fs))
    inside = (file.first_ss <= ss) & (ss < file.first_ss + file.panel_shapes[:, 0])
    inside &= (file.first_fs <= fs) & (fs < file.first_fs + file.panel_shapes[:, 1])
    return int(np.flatnonzero(inside)[0])


@pytest.mark.parametrize("detector", ["JUNGFRAUGeometry", "AGIPD_1MGeometry"])
def test_positions_agree_with_extra_geom_to_a_millionth_of_a_pixel(tmp_path: Path, detector):
    geometry = getattr(extra_geom, detector).example()
    path = tmp_path / "detector.geom"
    geometry.write_crystfel_geom(path, adu_per_ev=0.001, photon_energy=9300, clen=0.2)
    file = read_geometry(path)
    positions = pixel_positions(file.geometry, camera_length=0.0)
    whole = np.zeros((*file_frame_shape(file), 3))
    for axis in range(3):
        put_panels(positions[..., axis], file, whole[..., axis])
    expected = geometry.get_pixel_positions(centre=True)
    assert whole.shape == expected.shape
    assert np.abs(whole - expected).max() / geometry.pixel_size < 1e-6


def test_an_eiger_of_one_big_panel_is_read(tmp_path: Path):
    text = changed(
        ONE_PANEL,
        res=13333.3,
        p__max_fs=2069,
        p__max_ss=2166,
        p__corner_x=-1032.5,
        p__corner_y=-1080.25,
        flag_morethan=65534,
    )
    file = parse_geometry(text)
    positions = pixel_positions(file.geometry, camera_length=0.1)
    ss, fs = np.mgrid[0:2167, 0:2070]
    assert np.abs(positions[0, ..., 0] * 13333.3 - (fs + 0.5 - 1032.5)).max() < 1e-6
    assert np.abs(positions[0, ..., 1] * 13333.3 - (ss + 0.5 - 1080.25)).max() < 1e-6


def test_taking_panels_out_of_a_frame_and_putting_them_back_changes_nothing(shared):
    file = read_geometry(shared / "cspad" / "cspad-cxiformat.geom")
    frame = np.random.default_rng(0).integers(0, 1000, file_frame_shape(file)).astype(np.int16)
    back = np.zeros_like(frame)
    put_panels(take_panels(frame, file), file, back)
    np.testing.assert_array_equal(frame, back)


def test_panels_of_different_sizes_are_padded_and_the_padding_is_not_good(tiny):
    text = changed(tiny.geometry.read_text(), p1__max_fs=3, p1__max_ss=6)
    file = parse_geometry(text)
    panels = take_panels(np.arange(48).reshape(8, 6) + 1, file)
    assert panels.shape == (2, 4, 6)
    np.testing.assert_array_equal(panels[1] > 0, file.pixel_is_good[1])
    assert file.pixel_is_good[1].sum() == 3 * 4
    assert file.pixel_is_good[0].all()


def test_a_geometry_with_fast_scan_first_reads_the_transposed_frame(tiny):
    text = changed(tiny.geometry.read_text(), dim1="fs", dim2="ss")
    frame = np.arange(48).reshape(8, 6)
    np.testing.assert_array_equal(
        take_panels(frame.T, parse_geometry(text)), take_panels(frame, read_geometry(tiny.geometry))
    )


def test_a_frame_that_is_too_small_says_what_was_needed(tiny):
    with pytest.raises(BadGeometry, match=r"panel 'p1' needs \(4, 6\) pixels at \[4:8, 0:6\].*shape \(6, 6\)"):
        take_panels(np.zeros((6, 6)), read_geometry(tiny.geometry))


@pytest.mark.parametrize(
    ("fs", "ss", "expected_fs", "expected_ss"),
    [
        ("+y", "-x", (0, 1, 0), (-1, 0, 0)),
        ("-1.0y", "+1.0x", (0, -1, 0), (1, 0, 0)),
        ("x", "0.6y -0.8z", (1, 0, 0), (0, 0.6, -0.8)),
        ("-0.004806x+0.999989y", ".5x - 0.25 y", (-0.004806, 0.999989, 0), (0.5, -0.25, 0)),
    ],
)
def test_what_a_direction_leaves_out_is_zero(fs, ss, expected_fs, expected_ss):
    geometry = parse_geometry(changed(ONE_PANEL, p__fs=fs, p__ss=ss)).geometry
    assert np.allclose(geometry.fs_step[0] * 10000, expected_fs, rtol=0, atol=1e-12)
    assert np.allclose(geometry.ss_step[0] * 10000, expected_ss, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("clen", "metres", "path", "scale"),
    [
        ("0.08", 0.08, None, None),
        ("80 mm", 0.08, None, None),
        ("0.08 m", 0.08, None, None),
        ("/a/distance", None, "/a/distance", 1e-3),
        ("/a/distance m", None, "/a/distance", 1.0),
        ("/a/distance mm", None, "/a/distance", 1e-3),
    ],
)
def test_camera_lengths_are_metres_as_numbers_and_millimetres_in_files_unless_they_say(clen, metres, path, scale):
    file = parse_geometry(changed(ONE_PANEL, clen=clen))
    assert file.clen == pytest.approx(metres) if metres else file.clen is None
    assert file.clen_path == path
    assert scale is None or file.clen_scale == scale


@pytest.mark.parametrize(
    ("line", "energy", "path", "scale"),
    [
        ("photon_energy = 9500", 9500, None, None),
        ("photon_energy = 9500 eV", 9500, None, None),
        ("photon_energy = 9.5 keV", 9500, None, None),
        ("wavelength = 1.0 A", 12398.42, None, None),
        ("wavelength = 1.0e-10 m", 12398.42, None, None),
        ("photon_energy = /beam/energy", None, "/beam/energy", 1.0),
        ("photon_energy = /beam/energy keV", None, "/beam/energy", 1000.0),
        ("wavelength = /beam/wavelength m", None, "/beam/wavelength", 1e10),
    ],
)
def test_photon_energies_are_read_in_every_way_crystfel_writes_them(line, energy, path, scale):
    file = parse_geometry(changed(ONE_PANEL, photon_energy=None) + line)
    assert file.photon_energy == pytest.approx(energy, rel=1e-6) if energy else file.photon_energy is None
    assert file.photon_energy_path == path
    assert scale is None or file.photon_energy_scale == scale
    assert file.is_wavelength == line.startswith("wavelength")


def test_spaces_comments_and_the_order_of_top_level_lines_change_nothing():
    plain = parse_geometry(ONE_PANEL)
    squeezed = parse_geometry("".join(f"  {line.replace(' = ', '=')} ; note = 3\n" for line in ONE_PANEL.splitlines()))
    late = parse_geometry(changed(ONE_PANEL, clen=None, photon_energy=None) + "clen = 0.1\nphoton_energy = 9500\n")
    for other in (squeezed, late):
        np.testing.assert_array_equal(other.geometry.corner, plain.geometry.corner)
        assert (other.clen, other.photon_energy, other.dims) == (plain.clen, plain.photon_energy, plain.dims)
    assert standard_lines(ONE_PANEL) == standard_lines(ONE_PANEL.replace("\n", " ; comment\r\n"))


def test_different_offsets_of_panels_become_z_of_their_corners(tiny):
    file = parse_geometry(changed(tiny.geometry.read_text(), p1__coffset=0.502))
    assert np.allclose(file.geometry.corner[:, 2], [0.0, 0.002])
    assert file.coffset == 0.5


def test_a_detector_shift_moves_all_panels():
    plain, moved = parse_geometry(ONE_PANEL), parse_geometry(ONE_PANEL + "detector_shift_x = 2 mm\n")
    assert np.allclose(moved.geometry.corner - plain.geometry.corner, [[0.002, 0, 0]])


def test_bad_regions_in_panel_coordinates_are_inclusive_and_in_the_files_numbers(tiny):
    lines = {"badone__min_fs": 1, "badone__max_fs": 2, "badone__min_ss": 5, "badone__max_ss": 5, "badone__panel": "p1"}
    good = parse_geometry(changed(tiny.geometry.read_text(), **lines)).pixel_is_good
    assert good[0].all()
    assert np.argwhere(~good[1]).tolist() == [[1, 1], [1, 2]]


def test_bad_regions_in_x_and_y_take_pixels_whose_corner_is_strictly_inside():
    lines = {"bad_beam__min_x": -2.0, "bad_beam__max_x": 0.5, "bad_beam__min_y": -1.5, "bad_beam__max_y": 0.0}
    good = parse_geometry(changed(ONE_PANEL, **lines)).pixel_is_good[0]
    corners = {(s, f) for s in range(4) for f in range(6) if -2.0 < f - 3 < 0.5 and -1.5 < s - 2 < 0.0}
    assert set(map(tuple, np.argwhere(~good).tolist())) == corners == {(1, 2), (1, 3)}


def test_a_bad_region_of_an_unknown_panel_is_refused(tiny):
    lines = {"bad__min_fs": 0, "bad__max_fs": 1, "bad__min_ss": 0, "bad__max_ss": 1, "bad__panel": "p9"}
    with pytest.raises(BadGeometry, match="'p9'"):
        parse_geometry(changed(tiny.geometry.read_text(), **lines))


@pytest.mark.parametrize(("value", "is_good"), [("1", False), ("0", True), ("true", False), ("false", True)])
def test_panels_not_to_be_indexed_are_not_good(tiny, value, is_good):
    good = parse_geometry(changed(tiny.geometry.read_text(), p1__no_index=value)).pixel_is_good
    assert good[0].all()
    assert good[1].all() == is_good == good[1].any()


def test_masked_edges_are_not_good():
    good = parse_geometry(changed(ONE_PANEL, mask_edge_pixels=1)).pixel_is_good[0]
    assert good[1:-1, 1:-1].all()
    assert good.sum() == 2 * 4


def test_mask_bits_good_must_be_set_and_bad_must_not(tiny):
    file = parse_geometry(changed(tiny.geometry.read_text(), mask_good="0x1", mask_bad="0xe"))
    bits = np.array([0, 1, 2, 3, 9, 17])
    assert is_good_by_mask(bits, file.masks[0]).tolist() == [False, True, False, False, False, True]


def test_numbered_masks_are_read_with_their_own_bits():
    text = changed(ONE_PANEL, mask0_data="/m0", mask0_badbits="0x2", mask1_data="/m1", mask1_goodbits="1")
    masks = parse_geometry(text).masks
    assert [(mask.path, mask.good_bits, mask.bad_bits, mask.panels) for mask in masks] == [
        ("/m0", 0, 2, (0,)),
        ("/m1", 1, 0, (0,)),
    ]


def test_flag_values_say_which_pixels_have_no_intensity():
    text = changed(ONE_PANEL, flag_morethan=1000, flag_lessthan=-5) + "p/flag_equal = 7\n"
    file = parse_geometry(text)
    frame = np.array([[[1000, 1001, -5, -6, 7, 8]] * 4])
    assert is_flagged(frame, file.flags)[0, 0].tolist() == [False, True, False, True, True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not a geometry", "No panel"),
        (changed(ONE_PANEL, clen=None), "no camera length"),
        (changed(ONE_PANEL, clen="0.1 ft"), "unit 'ft' is not known; known: m, mm"),
        (changed(ONE_PANEL, clen="far"), "'clen = far' is no number"),
        (changed(ONE_PANEL, photon_energy="9 MeV"), "unit 'MeV' is not known; known: eV, keV"),
        (changed(ONE_PANEL, photon_energy="-1"), "must be positive"),
        (changed(ONE_PANEL, p__fs="+1.0q"), "is no direction"),
        (changed(ONE_PANEL, p__corner_x=None), "corner must be finite"),
        (changed(ONE_PANEL, p__max_ss=None), "maximum ss"),
        (changed(ONE_PANEL, p__ss="+x"), "singular"),
        (ONE_PANEL + "electron_voltage = 300 kV\n", "electron diffraction is not supported"),
        (ONE_PANEL + "detector_shift_x = /a/b\n", "the same for all frames"),
        (ONE_PANEL.replace("dim2 = fs", "dim2 = ss"), "Exactly one slow scan"),
    ],
)
def test_a_geometry_that_cannot_be_used_says_why(text, said):
    with pytest.raises(BadGeometry, match=said):
        parse_geometry(text)


def test_panels_at_different_camera_lengths_are_told_to_use_offsets(tiny):
    with pytest.raises(BadGeometry, match="coffset"):
        parse_geometry(changed(tiny.geometry.read_text(), p1__clen=0.2))


def test_errors_name_the_file(tmp_path: Path):
    (tmp_path / "empty.geom").write_text("")
    with pytest.raises(BadGeometry, match=r"empty\.geom"):
        read_geometry(tmp_path / "empty.geom")
    with pytest.raises(BadGeometry, match="no geometry file at"):
        read_geometry(tmp_path / "absent.geom")
