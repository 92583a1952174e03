import numpy as np
import pytest

from diffdask.models.sketch import compress_rows, leading_directions


def rows_of_rank(rank, count, bins, noise=0.0, seed=0):
    random = np.random.default_rng(seed)
    strong = random.normal(size=(count, rank)) @ (np.linspace(9, 3, rank)[:, None] * random.normal(size=(rank, bins)))
    return strong + noise * random.normal(size=(count, bins))


@pytest.mark.parametrize(("count", "bins"), [(30, 80), (80, 30)])
def test_directions_are_those_of_a_singular_value_decomposition(count, bins):
    rows = rows_of_rank(6, count, bins, noise=1.0)
    directions, squared = leading_directions(rows, 6)
    _, singular, expected = np.linalg.svd(rows, full_matrices=False)
    np.testing.assert_allclose(squared, singular[:6] ** 2)
    np.testing.assert_allclose(np.abs((directions * expected[:6]).sum(axis=1)), 1)
    np.testing.assert_allclose(directions @ directions.T, np.eye(6), atol=1e-10)


def test_no_more_directions_are_given_than_rows_have():
    assert leading_directions(rows_of_rank(3, 20, 50), 10)[0].shape == (3, 50)
    assert leading_directions(np.zeros((5, 50)), 10)[0].shape == (0, 50)
    assert leading_directions(np.zeros((0, 50)), 10)[0].shape == (0, 50)
    assert leading_directions(rows_of_rank(3, 20, 50), 0)[0].shape == (0, 50)


def test_a_sketch_keeps_the_second_moments_of_what_stands_out_and_says_what_it_lacks():
    rows = rows_of_rank(5, 60, 90, noise=0.5)
    kept, lost = compress_rows(rows, 20)
    assert kept.shape == (20, 90)
    assert (kept**2).sum() + lost == pytest.approx((rows**2).sum())
    off = np.linalg.norm(kept.T @ kept - rows.T @ rows, 2)
    assert off == pytest.approx(np.linalg.svd(rows)[1][20] ** 2)


def test_nothing_is_lost_while_there_is_room():
    rows = rows_of_rank(5, 12, 90, noise=0.5)
    kept, lost = compress_rows(rows, 12)
    np.testing.assert_array_equal(kept, rows)
    assert lost == 0


def test_a_sketch_of_sketches_is_a_sketch_of_all():
    rows = rows_of_rank(5, 200, 90, noise=0.3)
    sketch, lost = rows[:0], 0.0
    for start in range(0, 200, 25):
        sketch, more = compress_rows(np.concatenate([sketch, rows[start : start + 25]]), 20)
        lost += more
    assert (sketch**2).sum() + lost == pytest.approx((rows**2).sum())
    one, other = leading_directions(sketch, 5)[0], leading_directions(rows, 5)[0]
    assert np.linalg.svd(one @ other.T)[1].min() > 0.999


def test_single_precision_stays_single():
    rows = rows_of_rank(5, 40, 90, noise=0.3).astype(np.float32)
    assert compress_rows(rows, 10)[0].dtype == leading_directions(rows, 5)[0].dtype == np.float32
