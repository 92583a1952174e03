"""Components by both engines, and the guards around dask-ml's incremental PCA."""

import dask.array as da
import numpy as np
import pytest
from sklearn.decomposition import PCA

from diffdask.errors import BadParameter
from diffdask.models import components
from diffdask.models.components import fit_components, fix_signs, load_small, read_batches, rotate_rows


def make(count, width, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width)) * np.geomspace(5, 0.05, width) + 3


@pytest.mark.parametrize("shape", [(300, 40), (60, 500)])
@pytest.mark.parametrize("block", [4096, 25])
@pytest.mark.parametrize("standardise", [False, True])
def test_both_engines_find_the_same_components(shape, block, standardise, monkeypatch):
    monkeypatch.setattr(components, "BLOCK_ROWS", block)
    X = make(*shape)
    one, other = (fit_components(X, 5, engine=e, standardise=standardise) for e in ("dask-ml", "scikit-learn"))
    np.testing.assert_allclose(one.directions, other.directions, atol=1e-6)
    np.testing.assert_allclose(one.spread, other.spread, rtol=1e-6)
    np.testing.assert_allclose(one.mean, X.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(one.column_scale, X.std(axis=0) if standardise else 1, rtol=1e-9)
    np.testing.assert_allclose(one.project(X), other.project(X), atol=1e-5)


def test_they_are_those_of_a_full_decomposition_and_not_of_a_randomised_one():
    """Decaying slowly, so that a randomised solver, which dask-ml picks by itself, is off by more than 1e-4."""
    X = np.random.default_rng(1).normal(size=(900, 600))
    found, exact = fit_components(X, 10), PCA(10, svd_solver="full").fit(X)
    np.testing.assert_allclose(found.directions, fix_signs(exact.components_), atol=1e-6)


def test_signs_are_fixed_whatever_the_engine_gave():
    rows = np.random.default_rng(0).normal(size=(7, 20))
    flipped = rows * np.array([1, -1, 1, -1, -1, 1, -1])[:, None]
    np.testing.assert_array_equal(fix_signs(rows), fix_signs(flipped))
    assert (fix_signs(rows).max(axis=1) == np.abs(rows).max(axis=1)).all()


@pytest.mark.parametrize("standardise", [False, True])
def test_each_block_of_a_lazy_input_is_read_once_and_once_more_to_standardise(standardise, monkeypatch):
    monkeypatch.setattr(components, "BLOCK_ROWS", 50)
    X, reads = make(240, 30), []

    def read(block, block_info=None):
        reads.append(block_info[0]["chunk-location"][0])
        return block

    lazy = da.from_array(X, chunks=(30, 30)).map_blocks(read, dtype=float, meta=np.empty((0, 0)))
    found = fit_components(lazy, 4, standardise=standardise)
    assert sorted(reads) == sorted([*range(8)] * (2 if standardise else 1))
    np.testing.assert_allclose(found.mean, X.mean(axis=0), atol=1e-9)


def test_batches_hold_every_row_once_and_never_fewer_than_components(monkeypatch):
    monkeypatch.setattr(components, "BLOCK_ROWS", 50)
    X = make(203, 3)
    for one in (X, da.from_array(X, chunks=((20, 60, 3, 100, 20), 3))):
        batches = list(read_batches(one, least=10))
        np.testing.assert_array_equal(np.concatenate(batches), X)
        assert min(map(len, batches)) >= 10


def test_a_component_that_is_rounding_is_left_out():
    """Whitened, rounding would count as much as the signal."""
    X = make(100, 3) @ np.random.default_rng(0).normal(size=(3, 30))
    found = fit_components(X, 20)
    assert len(found.spread) == 3
    assert np.abs(found.project(X + 1e-6 * make(100, 30, 1))).max() < 10
    assert fit_components(np.ones((50, 4)), 3).project(np.ones((2, 4))).tolist() == [[0], [0]]


def test_many_columns_are_rotated_into_few_without_loss():
    X = make(40, 300)
    few = rotate_rows(X)
    assert few.shape == (40, 40)
    np.testing.assert_allclose(few @ few.T, X @ X.T, rtol=1e-9)
    assert rotate_rows(X.T) is not few
    assert rotate_rows(X.T).shape == (300, 40)


def test_small_lazy_features_are_read_into_memory_once(monkeypatch):
    X = da.from_array(make(40, 30), chunks=10)
    assert isinstance(load_small(X), np.ndarray)
    monkeypatch.setattr(components, "MEMORY", 1000)
    assert hasattr(load_small(X), "dask")


def test_an_unknown_engine_is_told():
    with pytest.raises(BadParameter, match="scikit-learn"):
        fit_components(make(20, 3), 2, engine="sklearn")
