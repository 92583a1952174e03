import numpy as np
import pytest
import xarray as xr

from diffdask.errors import BadParameter, MissingVariable
from diffdask.steps.azimuthal import find_azimuthal_features, group_seen_rings, split_rings
from diffdask.variables import wrap

RINGS, BINS = 24, 48


def make_cleaned(values, coverage=None):
    rings = values.shape[1]
    return wrap(
        cleaned_residual=values,
        polar_ring_q=np.linspace(0.1, 3, rings),
        polar_coverage=np.ones(rings) if coverage is None else coverage,
    )


@pytest.fixture(scope="module")
def noise():
    values = np.random.default_rng(0).normal(size=(60, RINGS, BINS))
    values[np.random.default_rng(1).uniform(size=values.shape) < 0.1] = np.nan
    return values


@pytest.fixture(scope="module")
def structured(noise):
    """Blobs of a few bins, elsewhere in every hit."""
    random = np.random.default_rng(2)
    smooth = random.normal(size=noise.shape)
    for _ in range(2):
        smooth = smooth + np.roll(smooth, 1, axis=2) + np.roll(smooth, 1, axis=1)
    return noise + smooth / smooth.std()


def test_turning_the_crystal_about_the_beam_changes_nothing(structured):
    straight = find_azimuthal_features(make_cleaned(structured)).azimuthal_features
    for turn in (1, 7, 24):
        turned = find_azimuthal_features(make_cleaned(np.roll(structured, turn, axis=2))).azimuthal_features
        np.testing.assert_allclose(turned, straight, atol=1e-12)


def test_the_sign_of_the_residual_changes_nothing(structured):
    one, other = (find_azimuthal_features(make_cleaned(sign * structured)).azimuthal_features for sign in (1, -1))
    np.testing.assert_allclose(other, one, atol=1e-12)


def test_pure_noise_averages_to_zero_and_structure_does_not(noise, structured):
    pure = find_azimuthal_features(make_cleaned(noise)).azimuthal_features.values
    assert np.abs(pure.mean(axis=0) / (pure.std(axis=0) / np.sqrt(len(pure)))).max() < 5
    found = find_azimuthal_features(make_cleaned(structured)).azimuthal_features.values
    assert found[:, 0].min() > pure[:, 0].max(), "the first lag alone tells them apart"


def test_features_are_all_rings_then_each_group_of_them(structured):
    made = find_azimuthal_features(make_cleaned(structured), ring_groups=3).azimuthal_features.values
    assert made.shape == (60, 4 * 38)
    first = find_azimuthal_features(make_cleaned(structured[:, :]), ring_groups=1).azimuthal_features.values
    np.testing.assert_allclose(made[:, :38], first[:, :38])
    np.testing.assert_allclose(first[:, 38:], first[:, :38] / 2, err_msg="one group is all rings, halved")


def test_it_stays_lazy_and_chunking_does_not_matter(structured):
    ds = make_cleaned(structured)
    made = find_azimuthal_features(ds)

    def explode(block):
        raise AssertionError("the step computed")

    lazy = ds.cleaned_residual.chunk({"hit": 20}).data
    exploding = lazy.map_blocks(explode, dtype=float, meta=np.empty((0, 0, 0)))
    find_azimuthal_features(ds.assign(cleaned_residual=ds.cleaned_residual.copy(data=exploding)))
    for chunks in (1, 7, 60):
        found = find_azimuthal_features(ds.chunk({"hit": chunks}))
        assert found.chunks
        xr.testing.assert_allclose(found.compute(), made, atol=1e-12)
    assert set(made.variables) == {"azimuthal_features"}


def test_missing_bins_do_not_raise_and_a_hit_without_bins_has_features_of_zero(noise):
    values = noise.copy()
    values[3], values[4, 10:], values[5, :, ::2] = np.nan, np.nan, np.nan
    made = find_azimuthal_features(make_cleaned(values)).azimuthal_features.values
    assert np.isfinite(made).all()
    assert (made[3] == 0).all()


@pytest.mark.parametrize("count", [0, 1])
def test_no_hit_or_one_hit_is_no_reason_to_stop(noise, count):
    assert find_azimuthal_features(make_cleaned(noise[:count])).sizes["hit"] == count


def test_loud_features_are_tamed(noise):
    made = find_azimuthal_features(make_cleaned(1000 * noise)).azimuthal_features.values
    assert np.abs(made).max() < 25


def test_rings_near_the_beam_and_rings_seen_badly_are_left_out(noise):
    coverage = np.ones(RINGS)
    coverage[:5], coverage[-4:], coverage[12] = 0.1, 0.4, 0.2
    ds = make_cleaned(noise, coverage)
    assert group_seen_rings(ds, ring_groups=1, feature_q_min=0.0)[0] == slice(5, 20)
    assert group_seen_rings(ds, ring_groups=1, feature_q_min=1.0)[0] == slice(8, 20)
    changed = noise.copy()
    changed[:, :5] = changed[:, 20:] = 99
    one, other = (find_azimuthal_features(make_cleaned(v, coverage)).azimuthal_features for v in (noise, changed))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("rings", "groups"), [(7, 2), (12, 4), (60, 7)])
def test_groups_hold_every_ring_once(rings, groups):
    everything, *parts = split_rings(rings, groups)
    assert everything == slice(0, rings)
    assert [ring for part in parts for ring in range(part.start, part.stop)] == list(range(rings))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_what_makes_no_sense_is_refused(noise):
    ds = make_cleaned(noise)
    with pytest.raises(BadParameter, match="ring_groups = 9"):
        find_azimuthal_features(ds, ring_groups=9)
    with pytest.raises(BadParameter, match="no polar ring above feature_q_min = 9"):
        find_azimuthal_features(ds, feature_q_min=9.0)
    with pytest.raises(BadParameter, match="no polar ring"):
        find_azimuthal_features(make_cleaned(noise, np.zeros(RINGS)))
    for name in ("cleaned_residual", "polar_coverage", "polar_ring_q"):
        with pytest.raises(MissingVariable, match=rf"'{name}'.*made by '\w+'"):
            find_azimuthal_features(ds.drop_vars(name))
