import numpy as np
import pytest
from sklearn.base import clone

from diffdask.errors import BadParameter
from diffdask.kernels.agreement import area_under_roc, precision_in_top
from diffdask.models.pairs import PairStructure, measure_noise, whiten


def symmetric(random, count):
    noise = random.normal(size=(count, count))
    return np.triu(noise, 1) + np.triu(noise, 1).T


def make_loudness(count, seed, loud):
    return np.exp(loud * np.random.default_rng([seed, 2]).normal(size=count))


def plant(count=500, share=0.05, signal=3.0, seed=0, loud=0.0):
    """Agreements in units of noise, and strengths: a third of the group strong, medium and weak."""
    random = np.random.default_rng(seed)
    members = round(share * count)
    strength = np.zeros(count)
    strength[:members] = np.array([1.0, 0.7, 0.5])[np.arange(members) % 3]
    random.shuffle(strength)
    loudness = make_loudness(count, seed, loud)
    return signal * np.outer(strength, strength) + symmetric(random, count) * np.outer(loudness, loudness), strength


def make_null(count, seed, loud=0.0, number=2):
    random = np.random.default_rng([seed, 1])
    loudness = make_loudness(count, seed, loud)
    return [random.normal(size=(count, count)) * np.outer(loudness, loudness) for _ in range(number)]


def area(score, strength):
    return area_under_roc(score[strength > 0], score[strength == 0])


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_group_is_found_without_labels(seed):
    agreement, strength = plant(seed=seed)
    score = PairStructure().fit(agreement).score_
    assert area(score, strength) > 0.97
    assert area(score, (strength > 0.6) * strength) > 0.99
    assert precision_in_top(score, strength > 0, 16) == 1.0


@pytest.mark.parametrize("share", [0.02, 0.05, 0.4])
def test_it_is_found_whatever_its_share(share):
    agreement, strength = plant(share=share, signal=4.0)
    assert area(PairStructure().fit(agreement).score_, strength) > 0.98


@pytest.mark.parametrize("seed", range(3))
def test_it_is_found_where_power_iteration_on_the_squared_positive_part_is_worse(seed):
    agreement, strength = plant(signal=1.9, seed=seed)
    squared = np.maximum(agreement, 0.0) ** 2
    vector = np.ones(len(squared))
    for _ in range(100):
        vector = squared @ vector / np.linalg.norm(vector)
    assert area(PairStructure().fit(agreement).score_, strength) > area(vector, strength) + 0.08


def test_loud_frames_do_not_make_a_group():
    agreement, strength = plant(loud=0.5)
    assert area(PairStructure().fit(agreement).score_, strength) > 0.95


def test_frames_that_agree_as_often_as_they_disagree_are_no_group():
    agreement, strength = plant()
    sided = np.random.default_rng(5).normal(size=len(strength))  # left over by the detector
    two_sided = agreement + 0.6 * np.outer(sided, sided)
    assert np.linalg.eigvalsh(two_sided)[-1] > 2 * np.linalg.eigvalsh(agreement)[-1]
    assert area(PairStructure().fit(two_sided).score_, strength) > 0.95


def test_one_pair_that_agrees_perfectly_is_no_group():
    agreement, strength = plant()
    i, j = np.flatnonzero(strength == 0)[:2]
    agreement[i, j] = agreement[j, i] = 200.0
    assert area(PairStructure().fit(agreement).score_, strength) > 0.97


def test_reordering_frames_reorders_scores():
    agreement, _ = plant()
    order = np.random.default_rng(0).permutation(len(agreement))
    moved = PairStructure().fit(agreement[np.ix_(order, order)]).score_
    np.testing.assert_allclose(moved, PairStructure().fit(agreement).score_[order], atol=1e-3)


@pytest.mark.parametrize("factor", [1e-3, 40.0])
def test_the_unit_of_agreement_does_not_matter(factor):
    agreement, _ = plant()
    null = make_null(len(agreement), 0)
    one = PairStructure().fit(agreement, null=null)
    other = PairStructure().fit(factor * agreement, null=[factor * matrix for matrix in null])
    np.testing.assert_allclose(other.score_, one.score_, atol=1e-3)
    np.testing.assert_allclose(other.significance_, one.significance_, atol=1e-3)


def test_what_all_pairs_have_in_common_does_not_matter():
    agreement, strength = plant()
    null = make_null(len(agreement), 0)
    one = PairStructure().fit(agreement, null=null)
    other = PairStructure().fit(agreement + 1.5, null=[matrix + 1.5 for matrix in null])
    np.testing.assert_allclose(other.score_, one.score_, atol=1e-2)
    np.testing.assert_allclose(other.significance_, one.significance_, atol=1e-2)
    assert area(other.score_, strength) > 0.97


def test_a_frame_does_not_support_itself():
    agreement, _ = plant()
    praised = agreement + np.diag(np.full(len(agreement), 1e6))
    null = make_null(len(agreement), 0)
    one, other = (PairStructure().fit(matrix, null=null) for matrix in (agreement, praised))
    np.testing.assert_array_equal(other.score_, one.score_)
    np.testing.assert_array_equal(other.significance_, one.significance_)


def test_no_weight_behind_a_significance_has_seen_the_frame():
    agreement, _ = plant()
    model = PairStructure(fold_count=len(agreement))  # a fold for each frame
    noise, rest = measure_noise(agreement), (np.arange(500) != 7, np.zeros(500))
    weight = model._find_group(whiten(agreement, None, noise, clip=5.0), *rest)
    changed = agreement.copy()
    changed[7] = changed[:, 7] = 4.0
    again = model._find_group(whiten(changed, None, noise, clip=5.0), *rest)
    np.testing.assert_array_equal(weight, again)
    assert weight[7] == 0


def test_frames_without_a_pair_have_no_score_and_change_nothing():
    agreement, _ = plant()
    lost = [2, 77, 300]
    kept = np.setdiff1d(np.arange(len(agreement)), lost)
    agreement[lost] = agreement[:, lost] = np.nan
    null = make_null(len(agreement), 0)
    fitted = PairStructure().fit(agreement, null=null)
    for values in (fitted.score_, fitted.significance_, fitted.p_value_):
        assert (np.flatnonzero(np.isnan(values)) == lost).all()
    alone = PairStructure().fit(agreement[np.ix_(kept, kept)]).score_
    np.testing.assert_allclose(fitted.score_[kept], alone, atol=1e-3)


def test_pairs_may_be_unknown():
    agreement, strength = plant(signal=4.0)
    is_unknown = symmetric(np.random.default_rng(1), len(agreement)) > 0.5
    score = PairStructure().fit(np.where(is_unknown, np.nan, agreement)).score_
    assert area(score, strength) > 0.97


def test_samples_turn_correlations_into_significances():
    z, strength = plant(signal=1.6)
    random = np.random.default_rng(2)
    samples = np.exp(symmetric(random, len(z))) * 300 + 10
    correlation = np.tanh(z / np.sqrt(samples - 3))
    known = PairStructure().fit(correlation, samples=samples).score_
    np.testing.assert_allclose(known, PairStructure().fit(z).score_, atol=1e-2)
    assert area(known, strength) > area(PairStructure().fit(correlation).score_, strength) + 0.1


def test_too_few_samples_are_an_unknown_pair():
    z, _ = plant()
    samples = np.full(z.shape, 403.0)
    samples[5, 9] = samples[9, 5] = 3.0
    unknown = np.tanh(z / 20)
    few = PairStructure().fit(unknown, samples=samples).score_
    unknown[5, 9] = unknown[9, 5] = np.nan
    np.testing.assert_array_equal(few, PairStructure().fit(unknown, samples=np.full(z.shape, 403.0)).score_)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("loud", [0.0, 0.4])
def test_without_a_group_significances_are_standard(seed, loud):
    agreement, _ = plant(share=0.0, seed=seed, loud=loud)
    fitted = PairStructure().fit(agreement, null=make_null(500, seed, loud))
    assert abs(fitted.significance_.mean()) < 0.25
    assert 0.85 < fitted.significance_.std() < 1.2
    assert (fitted.significance_ > 4).sum() <= 1
    assert np.mean(fitted.p_value_ < 0.05) == pytest.approx(0.05, abs=0.035)


def test_frames_outside_the_group_have_standard_significances_and_its_members_large_ones():
    agreement, strength = plant(signal=4.0)
    fitted = PairStructure().fit(agreement, null=make_null(500, 0))
    outside = fitted.significance_[strength == 0]
    assert outside.std() == pytest.approx(1.0, abs=0.15)
    assert (outside > 4).sum() == 0
    assert (fitted.significance_[strength > 0.6] > 4).all()
    assert area(fitted.significance_, strength) > 0.98


def test_p_values_are_those_of_all_shuffled_frames():
    agreement, _ = plant(signal=4.0)
    fitted = PairStructure().fit(agreement, null=make_null(500, 0, number=3))
    order = np.argsort(fitted.significance_)
    assert (np.diff(fitted.p_value_[order]) <= 0).all()
    assert fitted.p_value_.min() == pytest.approx(1 / 1501)


def test_null_matrices_change_no_score():
    agreement, _ = plant()
    np.testing.assert_array_equal(
        PairStructure().fit(agreement, null=make_null(500, 0)).score_, PairStructure().fit(agreement).score_
    )
    assert np.isnan(PairStructure().fit(agreement).significance_).all()


def test_the_same_matrix_always_gives_the_same_bits_and_is_left_alone():
    agreement, _ = plant()
    before, null = agreement.copy(), make_null(500, 0)
    first, second = (PairStructure().fit(agreement, null=null) for _ in range(2))
    np.testing.assert_array_equal(first.score_, second.score_)
    np.testing.assert_array_equal(first.significance_, second.significance_)
    np.testing.assert_array_equal(agreement, before)


def test_blocks_of_rows_and_maps_of_files_do_not_matter(tmp_path, monkeypatch):
    agreement, _ = plant()
    whole = PairStructure().fit(agreement.astype(np.float32)).score_
    np.save(tmp_path / "agreement.npy", agreement.astype(np.float32))
    monkeypatch.setattr("diffdask.models.pairs._BLOCK_ROWS", 77)
    mapped = PairStructure().fit(np.load(tmp_path / "agreement.npy", mmap_mode="r")).score_
    np.testing.assert_allclose(mapped, whole, atol=1e-4)


def test_where_nothing_agrees_all_frames_weigh_the_same():
    fitted = PairStructure().fit(-np.ones((20, 20)) + 0.01 * symmetric(np.random.default_rng(0), 20))
    assert fitted.weight_.max() <= 1.0
    assert np.isfinite(fitted.score_).all()
    empty = PairStructure().fit(np.full((5, 5), np.nan))
    assert np.isnan(empty.score_).all()


@pytest.mark.parametrize("count", [2, 3, 8])
def test_few_frames_have_scores_too(count):
    agreement, _ = plant(count=count)
    assert np.isfinite(PairStructure().fit(agreement, null=make_null(count, 0)).score_).all()


def test_noise_is_that_of_the_bulk_of_loud_and_quiet_frames():
    random = np.random.default_rng(0)
    loudness = np.exp(0.5 * random.normal(size=400))
    agreement = 0.3 + 0.05 * symmetric(random, 400) * np.outer(loudness, loudness)
    agreement[:30, :30] += 1.0
    level, variance = measure_noise(agreement)
    assert level == pytest.approx(0.3, abs=0.01)
    np.testing.assert_allclose(np.sqrt(variance[30:]), np.sqrt(0.05) * loudness[30:], rtol=0.25)


def test_it_keeps_to_scikit_learn():
    model = clone(PairStructure(threshold=1.5, seed=3))
    assert model.get_params()["threshold"] == 1.5
    assert model.fit(plant()[0]) is model


def test_shapes_that_do_not_fit_are_refused():
    agreement = np.zeros((5, 5))
    with pytest.raises(BadParameter, match=r"\(5, 5\), got \(4, 4\)"):
        PairStructure().fit(agreement, null=[np.zeros((4, 4))])
    with pytest.raises(BadParameter, match=r"got \(5, 4\)"):
        PairStructure().fit(np.zeros((5, 4)))
    with pytest.raises(BadParameter, match="both or neither"):
        PairStructure().fit(agreement, samples=agreement, null=[agreement])
    with pytest.raises(BadParameter, match="2 null matrices"):
        PairStructure().fit(agreement, samples=agreement, null=[agreement] * 2, null_samples=[agreement])


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_scores_over_chance_have_their_zero_at_frames_outside_the_group_whatever_its_share(share):
    agreement, strength = plant(share=share)
    model = PairStructure().fit(agreement, null=make_null(len(strength), 0))
    middle, spread = model.chance_
    outside = ((model.score_ - middle) / spread)[strength == 0]
    assert abs(outside.mean()) < 0.5
    assert outside.std() == pytest.approx(1.0, rel=0.3)


def test_a_hint_adds_the_seed_that_the_search_lacks():
    found, hinted = [], []
    for seed in range(6):
        agreement, strength = plant(count=1500, share=0.02, signal=1.8, seed=seed)
        hint = np.random.default_rng(seed).normal(size=1500) + 4.0 * strength
        model = PairStructure(start_count=1)
        found.append(area(model.fit(agreement).score_, strength))
        hinted.append(area(model.fit(agreement, hint=hint).score_, strength))
    assert np.mean(hinted) > max(0.97, np.mean(found) + 0.02)


def test_a_hint_that_knows_nothing_changes_nothing_where_there_is_a_group():
    agreement, strength = plant()
    hint = np.random.default_rng(3).normal(size=len(strength))
    hint[:5] = np.nan
    hinted, plain = PairStructure().fit(agreement, hint=hint), PairStructure().fit(agreement)
    np.testing.assert_allclose(hinted.score_, plain.score_, atol=1e-5)
