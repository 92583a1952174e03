"""Sums over the cells of a ring, against each cell summed by itself."""

import itertools

import numpy as np
import pytest

from diffdask.kernels.cells import sum_cells
from diffdask.kernels.lanes import RUN, sum_between

LIMIT, LEVEL = np.float32(1e15), np.float32(3.25)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def sum_ring(photons, sizes, lowest=-LIMIT, highest=LIMIT, level=LEVEL):
    """Sums of all cells at once, and of each by itself."""
    start = (7 + np.concatenate([[0], np.cumsum(sizes)])).astype(np.int32)  # a ring in the middle of a list
    found = np.full(len(sizes), -1.0), np.full(len(sizes), -1.0), np.full(len(sizes), -1)
    sum_cells(photons, start, lowest, highest, level, *found)
    parts = np.split(photons, (start - 7)[1:-1])
    return found, [
        np.array(sums) for sums in zip(*(sum_between(part, lowest, highest, level) for part in parts), strict=True)
    ]


def ring(rng, sizes):
    return rng.poisson(3.0, int(np.sum(sizes))).astype(np.float32) * np.float32(1.1)


@pytest.mark.parametrize("cells", [1, 2, 15, 16, 17, 31, 32, 33, 72])
@pytest.mark.parametrize("most", [1, 15, 16, 17, 90, 700])
def test_sums_of_all_cells_have_the_bits_of_each_cells_own(rng, cells, most):
    sizes = rng.integers(0, most + 1, cells)
    for found, alone in zip(*sum_ring(ring(rng, sizes), sizes), strict=True):
        np.testing.assert_array_equal(found, alone)


@pytest.mark.parametrize("longest", [RUN - 1, RUN, RUN + 1, 3 * RUN + 5])
def test_a_cell_longer_than_a_run_changes_no_bit_of_any(rng, longest):
    sizes = [20, longest, 0, 333]
    for found, alone in zip(*sum_ring(ring(rng, sizes), sizes), strict=True):
        np.testing.assert_array_equal(found, alone)


def test_what_is_no_reading_is_in_no_sum(rng):
    sizes = rng.integers(30, 60, 20)
    photons = ring(rng, sizes)
    photons[rng.random(photons.size) < 0.3] = np.nan
    photons[rng.random(photons.size) < 0.2] = np.inf
    photons[rng.random(photons.size) < 0.2] = -1e20
    found, alone = sum_ring(photons, sizes)
    for sums, own in zip(found, alone, strict=True):
        np.testing.assert_array_equal(sums, own)
    cuts = np.concatenate([[0], np.cumsum(sizes)])
    for cell, (a, b) in enumerate(itertools.pairwise(cuts)):
        kept = photons[a:b][np.abs(photons[a:b]) <= LIMIT].astype(float)
        assert found[2][cell] == kept.size
        assert found[0][cell] == pytest.approx((kept - LEVEL).sum(), abs=1e-3)
        assert found[1][cell] == pytest.approx(((kept - LEVEL) ** 2).sum(), rel=1e-5)


def test_limits_belong_to_what_counts():
    photons = np.array([1, 2, 3, 4, 5], np.float32)
    found, _ = sum_ring(photons, [5], np.float32(2), np.float32(4), np.float32(0))
    assert [float(sums[0]) for sums in found] == [9.0, 29.0, 3.0]


def test_nothing_is_written_past_the_last_cell(rng):
    photons, start = ring(rng, [40, 9]), np.array([0, 40, 49], np.int32)
    room = np.full((3, 40), -7.0)
    count = np.full(40, -7)
    sum_cells(photons, start, -LIMIT, LIMIT, LEVEL, room[0, :2], room[1, :2], count[:2])
    assert (room[:2, 2:] == -7.0).all()
    assert (count[2:] == -7).all()
