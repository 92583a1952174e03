import numpy as np
import pytest

from diffdask.kernels.pixel_shares import share_pixels

SIZE = 12


def share(corner, ss_step, fs_step, ring, size=SIZE):
    """(p, size, size) share of every pixel in every cell."""
    start = np.empty(ring.size + 1, np.int64)
    cell, part = np.empty(0, np.int32), np.empty(0, np.float32)
    given = [np.asarray(vectors, float) for vectors in (corner, ss_step, fs_step)]
    share_pixels(*given, ring, size, start, cell, part)
    cell, part = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
    share_pixels(*given, ring, size, start, cell, part)
    shares = np.zeros((ring.size, size * size))
    for pixel in range(ring.size):
        shares[pixel, cell[start[pixel] : start[pixel + 1]]] = part[start[pixel] : start[pixel + 1]]
    return shares.reshape(-1, size, size)


def oversample(corner, ss_step, fs_step, shape, times, size=SIZE):
    """The same by cutting each pixel into ``times`` x ``times`` points."""
    ss, fs = np.indices(np.array(shape) * times)
    points = corner + ((ss + 0.5) / times)[..., None] * ss_step + ((fs + 0.5) / times)[..., None] * fs_step
    column, row = np.floor(points).astype(int).reshape(-1, 2).T
    pixel = (ss // times * shape[1] + fs // times).ravel()
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    count = np.bincount((pixel * size**2 + row * size + column)[inside], minlength=shape[0] * shape[1] * size**2)
    return count.reshape(-1, size, size) / times**2


def panels(seed):
    """A panel turned and sheared at random, its pixels larger or smaller than cells, partly outside."""
    random = np.random.default_rng(seed)
    turn, scale = random.uniform(0, 2 * np.pi), random.uniform(0.2, 2.5)
    fs_step = scale * np.array([np.cos(turn), np.sin(turn)])
    ss_step = scale * np.array([-np.sin(turn + 0.1), np.cos(turn + 0.1)])
    return random.uniform(2, 10, 2), ss_step, fs_step


@pytest.mark.parametrize("seed", range(8))
def test_shares_are_what_fine_oversampling_approaches(seed):
    corner, ss_step, fs_step = panels(seed)
    exact = share([corner], [ss_step], [fs_step], np.zeros((1, 5, 4), np.int16))
    np.testing.assert_allclose(exact, oversample(corner, ss_step, fs_step, (5, 4), 100), atol=0.02)
    assert exact.any()


@pytest.mark.parametrize("seed", range(8))
def test_a_pixel_inside_the_picture_is_given_away_whole_and_one_across_its_edge_in_part(seed):
    corner, ss_step, fs_step = panels(seed)
    given = share([corner], [ss_step], [fs_step], np.zeros((1, 5, 4), np.int16)).sum(axis=(1, 2))
    ss, fs = np.divmod(np.arange(20), 4)
    corners = [
        corner + np.outer(ss + below, ss_step) + np.outer(fs + right, fs_step) for below in (0, 1) for right in (0, 1)
    ]
    low, high = np.min(corners, axis=0).min(axis=1), np.max(corners, axis=0).max(axis=1)
    inside = (low >= 0) & (high <= SIZE)
    np.testing.assert_allclose(given[inside], 1, atol=1e-6)
    assert (given <= 1 + 1e-6).all()
    assert (given[np.max(corners, axis=0).min(axis=1) < -2] == 0).all()


def test_cells_that_panels_fill_are_covered_once():
    """Two panels side by side, turned by 30 degrees: the cells well within both are filled to the brim."""
    turn = np.deg2rad(30)
    fs_step, ss_step = 0.7 * np.array([np.cos(turn), np.sin(turn)]), 0.7 * np.array([-np.sin(turn), np.cos(turn)])
    centre = np.array([6.0, 6.0])
    corners = [centre - 20 * ss_step - 40 * fs_step, centre - 20 * ss_step]
    shares = share(corners, [ss_step, ss_step], [fs_step, fs_step], np.zeros((2, 40, 40), np.int16))
    np.testing.assert_allclose(shares.sum(axis=0) * 0.49, 1, atol=1e-5)


def test_pixels_on_the_cells_borders_are_no_special_case():
    shares = share([[3.0, 3.0]], [[0.0, 1.0]], [[1.0, 0.0]], np.zeros((1, 2, 2), np.int16))
    expected = np.zeros((4, SIZE, SIZE))
    expected[[0, 1, 2, 3], [3, 3, 4, 4], [3, 4, 3, 4]] = 1
    np.testing.assert_array_equal(shares, expected)


def test_pixels_not_used_have_no_share():
    ring = np.zeros((1, 3, 3), np.int16)
    ring[0, 1, 1] = -1
    shares = share([[3.3, 3.3]], [[0.0, 0.8]], [[0.8, 0.0]], ring)
    assert not shares[4].any()
    np.testing.assert_allclose(np.delete(shares.sum(axis=(1, 2)), 4), 1, atol=1e-6)
