"""Pictures: where pixels go, and what may not change on the way."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from diffdask.errors import BadParameter
from diffdask.geometry import Geometry
from diffdask.pictures import assemble, leave_out_peaks, picture_map, robust_limit, smooth, to_png

STEP = 1e-4


def detector(angle: float = 0.0, shape: tuple[int, int] = (40, 60)) -> Geometry:
    """Two panels side by side, turned about the beam by an angle in rad; fs along +x, ss along +y at 0."""
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    corner = np.array([[-62, -20, 0], [2, -20, 0]]) * STEP
    ss, fs = np.array([[0, STEP, 0]] * 2), np.array([[STEP, 0, 0]] * 2)
    nan = np.full(2, np.nan)
    return Geometry(("left", "right"), shape, corner @ turn.T, ss @ turn.T, fs @ turn.T, nan, nan)


def panels(geometry: Geometry, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(geometry.panel_count, *geometry.shape))


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 2 * np.pi), st.integers(1, 200))
def test_whatever_way_the_detector_is_turned_a_panel_shows_no_gap(angle: float, size: int) -> None:
    geometry = detector(angle)
    pictured = picture_map(geometry, size)
    assert 0 <= pictured.index.min() <= pictured.index.max() < pictured.size**2
    assert pictured.size <= size
    covered = np.zeros(pictured.size**2, dtype=bool)
    covered[pictured.index] = True
    covered = covered.reshape(pictured.size, pictured.size)
    centre = (np.arange(pictured.size) + 0.5) * pictured.pixel_size
    x = centre[None, :] - pictured.beam[1] * pictured.pixel_size
    y = pictured.beam[0] * pictured.pixel_size - centre[:, None]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    margin = 1.5 * pictured.pixel_size
    inside = (abs(across) < 20 * STEP - margin) & (abs(along) > 2 * STEP + margin) & (abs(along) < 62 * STEP - margin)
    assert covered[inside].all()


def test_up_is_plus_y_and_right_is_plus_x() -> None:
    geometry = detector()
    image = assemble(np.stack([np.full(geometry.shape, -1.0), np.full(geometry.shape, 1.0)]), picture_map(geometry))
    assert np.nanmean(image[:, : image.shape[1] // 2]) < 0 < np.nanmean(image[:, image.shape[1] // 2 :])
    bottom_to_top = np.broadcast_to(np.arange(40.0)[:, None], (2, *geometry.shape))
    image = assemble(bottom_to_top, picture_map(geometry))
    rows = np.flatnonzero(np.isfinite(image).any(axis=1))
    assert np.nanmean(image[rows[0]]) > np.nanmean(image[rows[-1]])


def test_the_beam_is_where_the_laboratory_says() -> None:
    pictured = picture_map(detector())
    assert pictured.beam == pytest.approx((pictured.size / 2, pictured.size / 2), abs=0.5)


def test_a_constant_stays_the_constant_and_sums_are_kept() -> None:
    geometry = detector(0.3)
    pictured = picture_map(geometry, 30)
    constant = assemble(np.full((2, *geometry.shape), 3.0), pictured)
    assert np.nanmin(constant) == np.nanmax(constant) == 3.0
    values = panels(geometry)
    count = np.bincount(pictured.index.ravel(), minlength=pictured.size**2).reshape(constant.shape)
    assert np.nansum(assemble(values, pictured) * count) == pytest.approx(values.sum())


def test_pixels_that_are_not_to_be_used_lend_nothing() -> None:
    geometry = detector()
    pictured = picture_map(geometry, 30)
    values = np.full((2, *geometry.shape), 2.0)
    values[1] = np.nan
    values[0, ::2] = np.nan
    image = assemble(values, pictured)
    assert np.nanmin(image) == np.nanmax(image) == 2.0
    assert np.isnan(image[:, -10:]).all()


def test_peaks_go_and_faint_features_stay() -> None:
    geometry = detector(shape=(200, 200))
    pictured = picture_map(geometry)
    random = np.random.default_rng(0)
    faint = np.zeros((2, *geometry.shape))
    faint[0, 50:90, 50:90] = 0.5
    noisy = faint + random.normal(size=faint.shape)
    peaks = random.random(faint.shape) < 1e-3
    kept = leave_out_peaks(np.where(peaks, noisy + 50.0, noisy), pictured)
    assert np.isnan(kept[peaks]).all()
    assert np.isnan(kept[~peaks]).mean() < 1e-3
    assert np.nanmean(kept[0, 50:90, 50:90]) == pytest.approx(0.5, abs=4 / 40)


def test_smoothing_keeps_constants_gaps_and_lets_nothing_out_of_gaps() -> None:
    image = np.full((20, 20), 4.0)
    image[5:9] = np.nan
    smoothed = smooth(image)
    np.testing.assert_allclose(smoothed[~np.isnan(image)], 4.0)
    assert np.isnan(smoothed[5:9]).all()


def test_the_colour_scale_heeds_no_few_bright_pixels() -> None:
    image = np.random.default_rng(0).normal(size=(50, 50))
    before = robust_limit(image)
    image[:3, :3] = 1e6
    assert before == pytest.approx(3.0, rel=0.1)
    assert robust_limit(image) == pytest.approx(before, rel=0.05)
    assert robust_limit(np.full((3, 3), np.nan)) == robust_limit(np.zeros((3, 3))) == 1.0


def test_colours_of_a_png_tell_sign_and_gap_apart() -> None:
    uri = to_png(np.array([[-5.0, 0.0, 5.0, np.nan]]), limit=1.0, gap="#00ff00")
    kind, content = uri.split(",")
    assert kind == "data:image/png;base64"
    low, zero, high, gap = imread(io.BytesIO(base64.b64decode(content)))[0, :, :3]
    assert low[2] > low[0]
    assert high[0] > high[2]
    assert zero.min() > 0.9
    np.testing.assert_array_equal(gap, [0, 1, 0])


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(BadParameter, match="size = 0"):
        picture_map(detector(), 0)
