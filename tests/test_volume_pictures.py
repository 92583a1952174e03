"""Sections of a map: the right plane, the right way up, nothing made up where nothing is known."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from diffdask.errors import BadParameter, BadStore, MissingVariable
from diffdask.io.volume_store import save_volume
from diffdask.variables import wrap
from diffdask.volume_pictures import SECTIONS, cut_section, draw_sections, read_map, span_section

STEP = 0.1
MONOCLINIC = np.array([[0.03, 0.0, 0.0], [0.0, 0.02, 0.0], [0.005, 0.0, 0.04]])


def points(size):
    place = (np.arange(size) - size // 2) * STEP
    return np.stack(np.meshgrid(place, place, place, indexing="ij"), axis=-1)


def make_volume(size=21, cell=MONOCLINIC):
    q = points(size)
    intensity = np.cos(3 * q[..., 0]) * (1 + q[..., 1]) + q[..., 2]
    volume = wrap(
        map_intensity=intensity.astype(np.float32), map_weight=np.ones(intensity.shape, np.float32), crystal_cell=cell
    )
    return volume.assign_attrs(step=STEP)


@pytest.mark.parametrize("size", [20, 21])
def test_right_and_up_are_the_first_axis_and_towards_the_second(size):
    q, weight = points(size), np.ones((size,) * 3)
    for first, second in SECTIONS.values():
        axes = span_section(MONOCLINIC[first], MONOCLINIC[second])
        reach = np.arange(-(size // 2), size // 2 + 1) * STEP
        for number, expected in ((0, reach[None, :]), (1, -reach[:, None])):
            cut = cut_section(q @ axes[number], weight, axes, step=STEP)
            assert cut.shape == (2 * (size // 2) + 1,) * 2
            known = np.isfinite(cut)
            assert known.mean() > 0.8
            assert np.abs(cut - expected)[known].max() <= STEP * np.sqrt(3) / 2 + 1e-9  # nearest voxel


def test_a_section_along_the_axes_is_the_plane_itself():
    values = np.random.default_rng(0).normal(size=(9, 9, 9))
    axes = span_section(np.array([1.0, 0, 0]), np.array([0.3, 1.0, 0]))
    cut = cut_section(values, np.ones(values.shape), axes, step=STEP)
    np.testing.assert_array_equal(cut, values[:, ::-1, 4].T)


def test_a_thick_section_is_the_weighted_mean_across():
    random = np.random.default_rng(0)
    values, weight = random.normal(size=(9, 9, 9)), random.uniform(1, 2, (9, 9, 9))
    cut = cut_section(values, weight, np.eye(3), step=STEP, thickness=3)
    expected = np.average(values[:, ::-1, 3:6], weights=weight[:, ::-1, 3:6], axis=2).T
    np.testing.assert_allclose(cut, expected)


def test_what_no_hit_reached_stays_a_gap():
    values, weight = np.ones((9, 9, 9)), np.ones((9, 9, 9))
    values[2, :, :], weight[2, :, :] = np.nan, 0.0
    cut = cut_section(values, weight, np.eye(3), step=STEP)
    assert np.isnan(cut[:, 2]).all()
    assert np.isfinite(np.delete(cut, 2, axis=1)).all()


def test_q_max_cuts_the_edges_off():
    values = np.random.default_rng(0).normal(size=(21, 21, 21))
    whole = cut_section(values, np.ones(values.shape), np.eye(3), step=STEP)
    small = cut_section(values, np.ones(values.shape), np.eye(3), step=STEP, q_max=0.45)
    np.testing.assert_array_equal(small, whole[6:15, 6:15])


def test_pictures_are_of_the_three_sections():
    drawn = draw_sections(make_volume(), thickness=1)
    assert [one.name for one in drawn] == list(SECTIONS)
    assert [(one.right, one.up) for one in drawn] == [("a*", "b*"), ("a*", "c*"), ("b*", "c*")]
    for one in drawn:
        kind, content = one.uri.split(",")
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(content))).size == (21, 21)
        assert one.q_max == pytest.approx(1.0)
        assert one.limit > 0


def test_a_map_without_any_value_is_drawn_as_a_gap():
    volume = make_volume()
    volume["map_intensity"] = volume.map_intensity * np.nan
    volume["map_weight"] = volume.map_weight * 0
    assert len(draw_sections(volume)) == 3


def save_map(path, correlation):
    shells = wrap(map_shell_q=np.linspace(0.1, 0.9, len(correlation)), half_map_correlation=np.array(correlation))
    attributes = {"step": STEP, "laue": "2/m", "hit_count": 48, "parameters": {}}
    save_volume(path, make_volume().merge(shells), attributes)


def test_a_map_is_summarised_as_it_was_stored(tmp_path):
    save_map(tmp_path / "map.zarr", [0.2, np.nan, 0.7, 0.1, -0.3])
    summary = read_map(tmp_path / "map.zarr", thickness=2)
    assert [one.name for one in summary.sections] == list(SECTIONS)
    assert (summary.hit_count, summary.laue, summary.step, summary.size) == (48, "2/m", STEP, 21)
    assert summary.thickness == pytest.approx(2 * STEP)
    assert summary.best == pytest.approx((0.7, 0.5))
    assert summary.half_maps.startswith("data:image/svg+xml")
    assert summary == read_map(tmp_path / "map.zarr", thickness=2)


def test_a_map_whose_halves_share_nothing_has_no_curve(tmp_path):
    save_map(tmp_path / "map.zarr", [np.nan, np.nan])
    summary = read_map(tmp_path / "map.zarr")
    assert summary.half_maps is summary.best is None


def test_no_map_says_how_to_make_one(tmp_path):
    with pytest.raises(BadStore, match="diffdask merge"):
        read_map(tmp_path / "map.zarr")


def test_what_cannot_be_drawn_is_told():
    with pytest.raises(BadParameter, match="thickness = 0"):
        draw_sections(make_volume(), thickness=0)
    with pytest.raises(MissingVariable, match="crystal_cell"):
        draw_sections(make_volume().drop_vars("crystal_cell"))
