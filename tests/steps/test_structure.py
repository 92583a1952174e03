import numpy as np
import pytest
import xarray as xr

from diffdask.errors import BadParameter, MissingVariable
from diffdask.kernels.structure import find_structure_significance, weigh_pairs
from diffdask.steps.structure import find_structure
from diffdask.variables import wrap

RINGS, BINS = 40, 72
Q = np.linspace(0.1, 2.5, RINGS)


def make_cleaned(values, coverage=None):
    return wrap(
        cleaned_residual=values,
        polar_ring_q=Q,
        polar_coverage=np.ones(RINGS) if coverage is None else coverage,
    )


@pytest.fixture(scope="module")
def hits():
    """Twelve hits of noise; every other one has blobs of a few bins."""
    random = np.random.default_rng(0)
    values = random.normal(size=(12, RINGS, BINS))
    smooth = random.normal(size=values.shape)
    for axis in (1, 2):
        smooth = smooth + np.roll(smooth, 1, axis=axis) + np.roll(smooth, -1, axis=axis)
    values[::2] += 0.8 * smooth[::2] / smooth.std()
    values[random.uniform(size=values.shape) < 0.1] = np.nan
    return values.astype(np.float32)


def test_hits_with_structure_score_above_hits_of_noise(hits):
    found = find_structure(make_cleaned(hits)).hit_structure
    assert found.dims == ("hit",)
    assert found.values[::2].min() > 6
    assert np.abs(found.values[1::2]).max() < 4


def test_the_score_is_the_kernel_on_the_rings_seen_well(hits):
    coverage = np.ones(RINGS)
    coverage[:3], coverage[-5:], coverage[20] = 0.1, 0.4, 0.2
    first = int(np.flatnonzero(Q >= 0.5)[0])
    rings = slice(first, RINGS - 5)
    pairs = weigh_pairs(Q[rings], BINS, 0.07)
    expected = [find_structure_significance(np.ascontiguousarray(hit[rings]), *pairs) for hit in hits]
    np.testing.assert_array_equal(find_structure(make_cleaned(hits, coverage)).hit_structure, expected)
    spoilt = hits.copy()
    spoilt[:, :first] = spoilt[:, -5:] = 99
    np.testing.assert_array_equal(find_structure(make_cleaned(spoilt, coverage)).hit_structure, expected)


def test_it_stays_lazy_and_chunking_does_not_matter(hits):
    ds = make_cleaned(hits)
    made = find_structure(ds)

    def explode(block):
        raise AssertionError("the step computed")

    lazy = ds.cleaned_residual.chunk({"hit": 4}).data
    exploding = lazy.map_blocks(explode, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))
    find_structure(ds.assign(cleaned_residual=ds.cleaned_residual.copy(data=exploding)))
    for chunks in (1, 5, 12):
        found = find_structure(ds.chunk({"hit": chunks}))
        assert found.chunks
        xr.testing.assert_identical(found.compute(), made)
    assert set(made.variables) == {"hit_structure"}


def test_no_hit_is_no_reason_to_stop_and_a_hit_without_bins_has_no_structure(hits):
    assert find_structure(make_cleaned(hits[:0])).sizes == {"hit": 0}
    values = hits.copy()
    values[3] = np.nan
    found = find_structure(make_cleaned(values)).hit_structure.values
    assert np.flatnonzero(np.isnan(found)).tolist() == [3]


def test_half_and_double_the_scale_find_the_structure_too(hits):
    for scale in (0.05, 0.14):
        found = find_structure(make_cleaned(hits), structure_scale=scale).hit_structure.values
        assert found[::2].min() > found[1::2].max()


def test_what_makes_no_sense_is_refused(hits):
    ds = make_cleaned(hits)
    with pytest.raises(BadParameter, match="no polar ring above feature_q_min = 9"):
        find_structure(ds, feature_q_min=9.0)
    with pytest.raises(BadParameter, match="no polar ring"):
        find_structure(make_cleaned(hits, np.zeros(RINGS)))
    for scale in (0.001, 0.0, -0.07):
        with pytest.raises(BadParameter, match=r"structure_scale = .* give a larger one"):
            find_structure(ds, structure_scale=scale)
    for name in ("cleaned_residual", "polar_coverage", "polar_ring_q"):
        with pytest.raises(MissingVariable, match=rf"'{name}'.*made by '\w+'"):
            find_structure(ds.drop_vars(name))
