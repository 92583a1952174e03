"""Pictures of polar maps: what is where, and what stays grey."""

import base64
import io

import numpy as np
import pytest
from matplotlib.image import imread

from diffdask.errors import BadParameter
from diffdask.polar_pictures import draw_components, unroll_polar

RINGS, AZIMUTHS = 20, 72
Q = 0.2 + 0.1 * np.arange(RINGS)


def wedge(degrees: float, width: float = 20.0) -> np.ndarray:
    """1 in a wedge about an azimuth, else 0."""
    azimuth = (np.arange(AZIMUTHS) + 0.5) * 360 / AZIMUTHS
    apart = np.abs((azimuth - degrees + 180) % 360 - 180)
    return np.broadcast_to((apart < width / 2).astype(float), (RINGS, AZIMUTHS))


def decode(uri: str) -> np.ndarray:
    kind, content = uri.split(",")
    assert kind == "data:image/png;base64"
    return imread(io.BytesIO(base64.b64decode(content)))[..., :3]


@pytest.mark.parametrize("degrees", [0.0, 45.0, 90.0, 135.0, 180.0, 270.0, 300.0])
def test_a_wedge_is_at_its_azimuth_with_x_to_the_right_and_y_up(degrees: float) -> None:
    shown = unroll_polar(wedge(degrees), Q, size=201)
    row, column = np.nonzero(shown == 1)
    x, y = column.mean() - 100, 100 - row.mean()
    assert np.degrees(np.arctan2(y, x)) % 360 == pytest.approx(degrees % 360, abs=1.0) or degrees == 0
    assert np.hypot(x, y) > 40
    if degrees == 0:
        assert x > 40
        assert abs(y) < 1


def test_rings_are_where_their_q_says() -> None:
    shown = unroll_polar(np.repeat(np.arange(RINGS, dtype=float)[:, None], AZIMUTHS, axis=1), Q, size=220)
    reach = Q[-1] + 0.05
    centre = (np.arange(220) + 0.5) / 110 - 1
    q = np.hypot(*np.meshgrid(centre, centre)) * reach
    inside = np.isfinite(shown)
    assert (np.abs(Q[shown[inside].astype(int)] - q[inside]) <= 0.05 + 1e-9).all()
    np.testing.assert_array_equal(inside, (q >= Q[0] - 0.05) & (q < reach))


def test_every_bin_is_shown_if_there_are_pixels_enough() -> None:
    numbered = np.arange(RINGS * AZIMUTHS, dtype=float).reshape(RINGS, AZIMUTHS)
    shown = unroll_polar(numbered, Q, size=400)
    assert len(np.unique(shown[np.isfinite(shown)])) == numbered.size


def test_several_maps_are_laid_out_like_one() -> None:
    maps = np.random.default_rng(0).normal(size=(3, RINGS, AZIMUTHS))
    together = unroll_polar(maps, Q, size=40)
    for one, shown in zip(maps, together, strict=True):
        np.testing.assert_array_equal(unroll_polar(one, Q, size=40), shown)


def test_components_stand_in_a_grid_row_by_row_and_signs_have_colours() -> None:
    random = np.random.default_rng(1)
    noise = 0.05 * random.normal(size=(5, RINGS, AZIMUTHS))
    components = noise + np.stack([wedge(0), -wedge(90), wedge(180), wedge(270), wedge(45)])
    image = decode(draw_components(components, Q, np.ones((RINGS, AZIMUTHS), bool), columns=3, size=60))
    assert image.shape == (2 * 60 + 4, 3 * 60 + 8, 3)
    red = image[..., 0] - image[..., 2]
    assert red[30, 45] > 0.2, "the first: its wedge to the right"
    assert red[15, 64 + 30] < -0.2, "the second: upwards, negative"
    assert red[30, 128 + 15] > 0.2, "the third: to the left"
    assert red[64 + 45, 30] > 0.2, "the fourth begins the second row: downwards"
    assert red[64 + 20, 64 + 40] > 0.2, "the fifth: up and to the right"


def test_bins_that_no_hit_has_are_grey_and_so_is_what_is_outside() -> None:
    is_seen = wedge(180, 40) == 0
    components = np.random.default_rng(2).normal(size=(1, RINGS, AZIMUTHS))
    image = decode(draw_components(components, Q, is_seen, size=80))
    grey = image[0, 0]
    assert np.ptp(grey) < 0.03
    np.testing.assert_array_equal(image[40, 10:30], np.broadcast_to(grey, (20, 3)))
    np.testing.assert_array_equal(image[40, 40], grey, "inside the first ring")
    assert (image[40, 50:70] != grey).any(axis=1).mean() > 0.8


def test_a_component_scales_its_own_colours() -> None:
    component = np.random.default_rng(3).normal(size=(1, RINGS, AZIMUTHS))
    is_seen = np.ones((RINGS, AZIMUTHS), bool)
    one, other = draw_components(component, Q, is_seen), draw_components(1e-3 * component, Q, is_seen)
    assert one == other


def test_what_cannot_be_drawn_is_refused() -> None:
    is_seen = np.ones((RINGS, AZIMUTHS), bool)
    component = np.zeros((1, RINGS, AZIMUTHS))
    with pytest.raises(BadParameter, match="0 components"):
        draw_components(component[:0], Q, is_seen)
    with pytest.raises(BadParameter, match="in 0 columns"):
        draw_components(component, Q, is_seen, columns=0)
    with pytest.raises(BadParameter, match="size = 3"):
        draw_components(component, Q, is_seen, size=3)
    with pytest.raises(BadParameter, match="20 polar rings"):
        draw_components(component, Q[:-1], is_seen)
