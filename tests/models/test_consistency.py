import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from sklearn.base import clone

from diffdask.errors import BadParameter
from diffdask.kernels.agreement import area_under_roc
from diffdask.models.chance import adjust_p_values
from diffdask.models.consistency import MapConsistency
from diffdask.symmetry import cartesian_rotations, laue_rotations

RING_Q, AZIMUTHS = np.linspace(0.6, 1.6, 16), 36
ROTATIONS = cartesian_rotations(laue_rotations("mmm"), np.diag([0.011, 0.017, 0.023]))


def intensity(q):
    waves = np.random.default_rng(9).normal(scale=4.0, size=(12, 3))
    return sum(np.cos(q @ rotation.T @ waves.T).sum(axis=-1) for rotation in ROTATIONS)


def standardise(values):
    centred = values - np.nanmean(values, axis=-1, keepdims=True)
    return (centred / np.nanstd(centred, axis=-1, keepdims=True)).astype(np.float32)


def plant(count=300, share=0.15, signal=0.8, seed=0):
    """Standardised frames of noise, of which some show an intensity of the crystal; and which."""
    random = np.random.default_rng(seed)
    rotation = Rotation.random(count, rng=random).as_matrix()
    wavelength = random.normal(1.3, 0.01, count)
    sine = RING_Q * wavelength[:, None] / (4 * np.pi)
    azimuth = (np.arange(AZIMUTHS) + 0.5) * 2 * np.pi / AZIMUTHS
    across, along = (RING_Q * np.sqrt(1 - sine**2))[..., None], (-RING_Q * sine)[..., None]
    q = np.stack(np.broadcast_arrays(across * np.cos(azimuth), across * np.sin(azimuth), along), axis=-1)
    shown = standardise(intensity(np.einsum("nij,nraj->nrai", rotation, q)))
    is_member = random.permutation(np.arange(count) < share * count)
    values = standardise(random.normal(size=shown.shape) + signal * is_member[:, None, None] * shown)
    values[random.random(values.shape) < 0.05] = np.nan
    given = {"rotation": rotation, "wavelength": wavelength, "ring_q": RING_Q, "rotations": ROTATIONS}
    return values, given, is_member


def start_of(is_member, seed=0):
    """Start weights that know a little: a third of the members, and as many others."""
    random = np.random.default_rng([seed, 1])
    weight = np.where(random.random(is_member.size) < np.where(is_member, 0.35, 0.06), 1.0, 0.0)
    return weight * random.random(is_member.size)


def fit(values, given, start=None, **options):
    return MapConsistency(**options).fit(values, **given, start_weight=start)


@pytest.fixture(scope="module")
def planted():
    values, given, is_member = plant()
    return values, given, is_member, fit(values, given, start_of(is_member))


def test_a_planted_group_is_found_and_set_apart_from_chance(planted):
    _, _, is_member, model = planted
    assert area_under_roc(model.score_[is_member], model.score_[~is_member]) > 0.99
    assert area_under_roc(model.significance_[is_member], model.significance_[~is_member]) > 0.99
    assert model.weight_[is_member].sum() > 0.95 * model.weight_.sum()
    found = model.false_discovery_ <= 0.1
    assert found[is_member].mean() > 0.9
    assert (~is_member[found]).mean() < 0.2


def test_growing_from_a_third_of_the_group_finds_more_than_that_third_does():
    values, given, is_member = plant(signal=0.25)
    grown, first = (fit(values, given, start_of(is_member), rounds=rounds) for rounds in (10, 0))
    areas = [area_under_roc(model.score_[is_member], model.score_[~is_member]) for model in (grown, first)]
    assert areas[0] > areas[1] + 0.02
    assert first.round_count_ == 0
    assert grown.round_count_ > 1


def test_a_frame_alone_scores_nothing():
    values, given, _ = plant(count=5)
    given["rotation"][1:] = np.nan
    model = fit(values, given)
    assert np.isnan(model.score_).all()
    assert np.isnan(model.significance_).all()
    assert np.isnan(model.false_discovery_).all()


@pytest.mark.parametrize("weight", [0.0, 0.02, 0.9])
def test_a_score_does_not_depend_on_the_frames_own_weight(weight):
    values, given, is_member = plant(count=60)
    start = start_of(is_member)
    start[[7, 8]] = 1.0, 1.0  # the largest weight, and with it the prior, stays
    other = start.copy()
    other[7] = weight
    one, two = (fit(values, given, some, rounds=0).score_ for some in (start, other))
    np.testing.assert_allclose(two[7], one[7], rtol=1e-9)
    assert (two[20:] != one[20:]).any()


def test_mates_of_orientations_change_nothing(planted):
    values, given, is_member, model = planted
    mates = ROTATIONS[np.random.default_rng(3).integers(len(ROTATIONS), size=len(values))]
    turned = fit(values, {**given, "rotation": mates @ given["rotation"]}, start_of(is_member))
    np.testing.assert_allclose(turned.score_, model.score_, atol=1e-9)
    np.testing.assert_allclose(turned.significance_, model.significance_, atol=1e-9)


def test_reordering_frames_reorders_scores(planted):
    values, given, is_member, model = planted
    order = np.random.default_rng(0).permutation(len(values))
    moved = {**given, "rotation": given["rotation"][order], "wavelength": given["wavelength"][order]}
    start = start_of(is_member)[order]
    first = fit(values, given, start_of(is_member), rounds=0).score_
    np.testing.assert_allclose(fit(values[order], moved, start, rounds=0).score_, first[order], atol=1e-9)
    # Other frames lend their orientations, so that thresholds move a little.
    assert np.corrcoef(fit(values[order], moved, start).score_, model.score_[order])[0, 1] > 0.98


def test_threads_change_no_bit(planted):
    values, given, is_member, model = planted
    other = fit(values, given, start_of(is_member), threads=3)
    for name in ("score_", "significance_", "p_value_", "false_discovery_", "weight_", "sums_"):
        np.testing.assert_array_equal(getattr(other, name), getattr(model, name), err_msg=name)


def test_a_misindexed_member_agrees_with_nothing(planted):
    values, given, is_member, _ = planted
    lost = np.flatnonzero(is_member)[:20]
    rotation = given["rotation"].copy()
    rotation[lost] = Rotation.random(20, rng=np.random.default_rng(8)).as_matrix()
    model = fit(values, {**given, "rotation": rotation}, start_of(is_member))
    others = np.setdiff1d(np.flatnonzero(is_member), lost)
    assert model.significance_[others].min() > np.median(model.significance_[lost])
    assert abs(model.significance_[lost].mean()) < 1.0


@pytest.mark.parametrize("seed", range(3))
def test_without_a_group_significances_are_standard_and_nothing_is_found(seed):
    values, given, _ = plant(share=0.0, seed=seed)
    model = fit(values, given, np.random.default_rng(seed).random(len(values)))
    assert abs(model.significance_.mean()) < 0.25
    assert 0.85 < model.significance_.std() < 1.2
    assert np.mean(model.p_value_ < 0.05) == pytest.approx(0.05, abs=0.04)
    assert (model.false_discovery_ < 0.05).sum() <= 1


def test_what_the_detector_leaves_in_all_frames_is_not_mistaken_for_the_crystal():
    values, given, _ = plant(share=0.0)
    fixed = standardise(np.random.default_rng(4).normal(size=values.shape[1:]))
    model = fit(standardise(values + 0.7 * fixed), given, np.ones(len(values)))
    assert (model.false_discovery_ < 0.05).mean() < 0.05


def test_no_frame_has_a_say_in_the_map_behind_its_significance():
    values, given, is_member = plant(count=60)
    start = start_of(is_member)
    one = fit(values, given, start, fold_count=60, borrowed=1)
    changed = values.copy()
    changed[5] = -values[5]
    other = fit(changed, given, start, fold_count=60, borrowed=1)
    scale = [np.nanstd(m.significance_) for m in (one, other)]
    assert other.significance_[5] / scale[1] == pytest.approx(-one.significance_[5] / scale[0], abs=0.1)


def test_frames_without_a_rotation_have_no_score_and_change_nothing():
    values, given, is_member = plant(count=120)
    start = start_of(is_member)
    lost = np.array([3, 40, 119])
    kept = np.setdiff1d(np.arange(120), lost)
    given["rotation"][lost] = np.nan
    model = fit(values, given, start, rounds=0)
    for name in ("score_", "significance_", "p_value_", "false_discovery_"):
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(getattr(model, name))), lost, err_msg=name)
    assert not model.weight_[lost].any()
    fewer = {**given, "rotation": given["rotation"][kept], "wavelength": given["wavelength"][kept]}
    largest = start.max()
    assert start[kept].max() == largest
    np.testing.assert_allclose(fit(values[kept], fewer, start[kept], rounds=0).score_, model.score_[kept], rtol=1e-9)


def test_start_weights_may_be_missing_and_their_scale_does_not_matter():
    values, given, is_member = plant(share=0.5)
    model = fit(values, given)
    assert area_under_roc(model.score_[is_member], model.score_[~is_member]) > 0.98
    start = start_of(is_member)
    unknown = np.where(start > 0, 64.0 * start, np.nan)
    np.testing.assert_array_equal(fit(values, given, unknown).score_, fit(values, given, start).score_)


def test_it_keeps_to_scikit_learn_and_leaves_its_data_alone():
    values, given, is_member = plant(count=40)
    before = values.copy()
    model = clone(MapConsistency(threshold=1.5, seed=3, step=0.1, size=41))
    assert model.get_params()["threshold"] == 1.5
    assert fit(values, given, start_of(is_member)).size_ == 21
    assert model.fit(values, **given) is model
    assert (model.size_, model.sums_.size) == (41, 41**3)
    np.testing.assert_array_equal(values, before)


def test_false_discovery_rates_are_those_of_benjamini_and_hochberg():
    from scipy.stats import false_discovery_control

    p_value = np.random.default_rng(0).random(50) ** 3
    np.testing.assert_allclose(adjust_p_values(p_value), false_discovery_control(p_value))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("rotation", np.eye(3)), ("wavelength", np.ones(3)), ("ring_q", np.ones(4)), ("start_weight", np.ones(2))],
)
def test_shapes_that_do_not_fit_are_refused(name, wrong):
    values, given, _ = plant(count=6)
    with pytest.raises(BadParameter, match=f"'{name}'"):
        MapConsistency().fit(values, **{**given, name: wrong})
    with pytest.raises(BadParameter, match="negative"):
        fit(values, given, -np.ones(6))


@pytest.mark.parametrize("borrowed", [0, -1])
def test_without_borrowed_orientations_there_is_no_chance_to_see(borrowed):
    values = np.zeros((4, 3, 8), np.float32)
    turned = {"rotation": np.tile(np.eye(3), (4, 1, 1)), "wavelength": np.ones(4), "rotations": np.eye(3)[None]}
    with pytest.raises(BadParameter, match=f"borrowed = {borrowed} must be at least 1"):
        MapConsistency(borrowed=borrowed).fit(values, ring_q=np.array([0.5, 1.0, 1.5]), **turned)
