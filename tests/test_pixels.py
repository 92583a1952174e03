import numpy as np
import pytest

from diffdask.errors import BadGeometry, MissingVariable
from diffdask.geometry import Geometry
from diffdask.pixels import list_pixels, make_scratch, photons_per_adu
from diffdask.variables import wrap


@pytest.fixture
def maps():
    random = np.random.default_rng(0)
    shape = (2, 3, 5, 7)
    return wrap(
        pixel_ring=random.integers(-1, 4, size=shape).astype(np.int32),
        pixel_azimuth=random.integers(0, 24, size=shape).astype(np.int32),
        pixel_correction=random.uniform(1, 3, size=shape).astype(np.float32),
        ring_q=np.arange(1.0, 5.0),
        azimuth=(np.arange(24) + 0.5) * 15,
    )


def test_a_list_holds_the_usable_pixels_of_its_setting_cell_by_cell(maps):
    for setting, pixels in enumerate(list_pixels(maps)):
        ring, azimuth = maps.pixel_ring.values[setting], maps.pixel_azimuth.values[setting]
        panel, ss, fs = np.unravel_index(pixels.place, ring.shape)
        np.testing.assert_array_equal(np.sort(pixels.place), np.flatnonzero(ring >= 0))
        np.testing.assert_array_equal(np.repeat(pixels.run_panel, np.diff(pixels.run_start)), panel)
        np.testing.assert_array_equal(pixels.place_in_panel, pixels.place - panel * 35)
        assert set(pixels.start[::24]) <= set(pixels.run_start), "a run does not go on in the next ring"
        assert (np.diff(pixels.run_start) > 0).all()
        np.testing.assert_array_equal(pixels.correction, maps.pixel_correction.values[setting][panel, ss, fs])
        np.testing.assert_array_equal(pixels.factor, maps.pixel_correction.values[setting].ravel())
        assert pixels.start.size == 4 * 24 + 1
        for cell, (start, end) in enumerate(zip(pixels.start[:-1], pixels.start[1:], strict=True)):
            inside = (ring == cell // 24) & (azimuth == cell % 24)
            np.testing.assert_array_equal(pixels.place[start:end], np.flatnonzero(inside), "in the order of memory")
            assert (pixels.cell[inside.ravel()] == cell).all()
        assert (pixels.cell[ring.ravel() < 0] == -1).all()


@pytest.mark.parametrize(("side", "dtype"), [(256, np.uint16), (257, np.int32)])
def test_places_in_a_panel_are_as_short_as_the_panel_allows(side, dtype):
    shape = (1, 2, side, side)
    maps = wrap(
        pixel_ring=np.zeros(shape, np.int32), pixel_azimuth=np.zeros(shape, np.int32),
        pixel_correction=np.ones(shape, np.float32), ring_q=np.ones(1), azimuth=np.zeros(1),
    )  # fmt: skip
    (pixels,) = list_pixels(maps)
    assert pixels.place_in_panel.dtype == dtype
    np.testing.assert_array_equal(pixels.place_in_panel, np.tile(np.arange(side * side), 2))


def test_scratch_memory_holds_the_longest_ring_of_all_settings(maps):
    lists = list_pixels(maps)
    scratch = make_scratch(lists, (3, 5, 7), 4)
    longest = max((maps.pixel_ring.values[setting] == ring).sum() for setting in range(2) for ring in range(4))
    assert scratch.photons.size == longest
    assert scratch.state.shape == scratch.bright.shape == scratch.touched.shape == (105,)
    assert not scratch.state.any()


def test_a_setting_without_usable_pixels_has_an_empty_list(maps):
    maps.pixel_ring[1] = -1
    first, second = list_pixels(maps)
    assert first.place.size > 0
    assert second.place.size == 0
    assert not second.start.any()
    assert (second.cell == -1).all()


def test_a_missing_map_is_named(maps):
    with pytest.raises(MissingVariable, match=r"'pixel_azimuth'.*made by 'lay_out_rings'"):
        list_pixels(maps.drop_vars("pixel_azimuth"))


def make_geometry(per_ev, per_photon):
    count = len(per_ev)
    return Geometry(
        panel_name=tuple(f"p{n}" for n in range(count)), shape=(2, 2), corner=np.zeros((count, 3)),
        ss_step=np.tile([0, 1e-4, 0], (count, 1)), fs_step=np.tile([1e-4, 0, 0], (count, 1)),
        adu_per_ev=np.array(per_ev, float), adu_per_photon=np.array(per_photon, float),
    )  # fmt: skip


def test_gain_per_ev_follows_the_photon_energy_and_gain_per_photon_does_not():
    found = photons_per_adu(make_geometry([0.004, np.nan], [np.nan, 25.0]), np.array([9000.0, 10000.0]))
    np.testing.assert_allclose(found, [[1 / 36, 1 / 25], [1 / 40, 1 / 25]], rtol=1e-6)
    assert found.dtype == np.float32


def test_a_frame_without_a_photon_energy_has_no_gain_and_raises_no_warning():
    found = photons_per_adu(make_geometry([0.004, np.nan], [np.nan, 25.0]), np.array([np.nan, 0.0, -9000.0]))
    assert np.isnan(found[:, 0]).all()
    np.testing.assert_allclose(found[:, 1], 1 / 25)


def test_a_panel_without_gain_is_named():
    with pytest.raises(BadGeometry, match="'p1' has neither adu_per_eV nor adu_per_photon"):
        photons_per_adu(make_geometry([0.004, np.nan], [np.nan, np.nan]), np.array([9000.0]))
