"""The label-free score on evidence made up as simulated campaigns show it."""

import numpy as np
import pytest
from sklearn.base import clone

from diffdask.errors import BadLabels, BadParameter
from diffdask.kernels.agreement import area_under_roc
from diffdask.models.evidence import CARRIERS
from diffdask.models.label_free import LabelFreeScore, choose_training_hits, expect_wrong


def make_evidence(count=800, share=0.05, *, lost=0.0, unindexed=0.05, strength=1.0, searched=1.0, ice=0.1, seed=0):
    """Evidence (n, 4) of hits, and which of them are diffuse.

    Diffuse hits have one strength, strong, medium or weak, that all evidence shows; ``lost`` of them are misindexed.
    Ice shows in structure and, as any structure, in the search. ``searched`` is how well the search tells.
    """
    random = np.random.default_rng(seed)
    is_diffuse = random.permutation(np.arange(count) < share * count)
    amount = is_diffuse * strength * random.choice([2.4, 1.3, 0.6], count) * np.exp(0.3 * random.normal(size=count))
    scatter = random.uniform(0.7, 1.3, (4, count))
    shared, pairs, consistency, single, fit = random.normal(size=(5, count))
    left = (random.random(count) < ice) * random.exponential(4.0, count)
    structure = single + left + 6.0 * amount * scatter[0]
    by_chance = 0.38 * np.minimum(np.maximum(structure, -3.0), 6.0) + fit
    indexed = np.where(random.random(count) < lost, 0.0, amount)
    X = np.column_stack(
        [
            structure,
            np.sqrt(0.6) * shared + np.sqrt(0.4) * pairs + 4.0 * indexed * scatter[1],
            np.sqrt(0.6) * shared + np.sqrt(0.4) * consistency + 5.0 * indexed * scatter[2],
            by_chance + 8.0 * searched * amount * scatter[3],
        ]
    )
    X[random.random(count) < unindexed, 1:3] = np.nan
    return X, is_diffuse


def area(score, is_diffuse):
    known = np.isfinite(score)
    return area_under_roc(score[known & is_diffuse], score[known & ~is_diffuse])


CASES = [
    ({}, 0.995),
    ({"lost": 0.1}, 0.99),
    ({"unindexed": 0.5}, 0.98),
    ({"share": 0.01}, 0.985),
    ({"share": 0.5, "count": 120}, 0.985),
    ({"count": 120, "share": 0.15, "searched": 0.2}, 0.97),
]


@pytest.mark.parametrize(("case", "least"), CASES)
def test_it_is_never_worse_than_the_best_evidence(case, least):
    made = [make_evidence(**case, seed=seed) for seed in range(6)]
    areas = []
    for X, is_diffuse in made:
        score, indexed = LabelFreeScore().fit(X).score_, np.isfinite(X[:, 1])
        of_indexed = [area(values[indexed], is_diffuse[indexed]) for values in (*X.T, score)]
        areas.append([*of_indexed, area(score, is_diffuse)])
    *single, of_indexed, of_all = np.mean(areas, axis=0)
    assert of_indexed > max(single) - 0.01
    assert of_all >= least


def make_weak(count=2000, *, agreeing=3.0, streaks=0.15, left=2.0, seed=0):
    """Evidence of hits of one low strength, and which they are: only consistency tells much, as near the limit.

    Streaks show in structure and fit the map far better than diffuse hits, as where nuisances are left in.
    """
    random = np.random.default_rng(seed)
    is_diffuse = random.permutation(np.arange(count) < 0.05 * count)
    X = random.normal(size=(count, 4)) * [1.0, 1.7, 1.0, 1.0] + is_diffuse[:, None] * [0.7, 1.0, agreeing, 1.5]
    has_streak = random.random(count) < streaks
    X[:, 0] += has_streak * random.gamma(2.0, left, count)
    X[:, 3] += 0.3 * X[:, 0] + has_streak * random.gamma(2.0, left, count)
    X[random.random(count) < 0.05, 1:3] = np.nan
    return X, is_diffuse


@pytest.mark.parametrize("case", [{}, {"streaks": 0.6, "left": 3.0}, {"agreeing": 2.5, "streaks": 0.4}])
def test_where_all_are_weak_it_keeps_to_the_evidence_that_tells(case):
    ahead, expected, wrong, picked = [], 0.0, 0, 0
    for seed in range(3):
        X, is_diffuse = make_weak(**case, seed=seed)
        model, indexed = LabelFreeScore().fit(X), np.isfinite(X[:, 2])
        ahead.append(area(model.score_[indexed], is_diffuse[indexed]) - area(X[:, 2], is_diffuse))
        is_picked = model.score_ > 0
        expected += (1 - model.probability_[is_picked]).sum()
        wrong, picked = wrong + (is_picked & ~is_diffuse).sum(), picked + is_picked.sum()
    assert np.mean(ahead) > -0.01
    assert picked > 60
    assert wrong < 2 * expected + 0.05 * picked


def test_agreement_with_the_whole_counts_where_folds_prove_that_there_is_some():
    X, is_diffuse = make_weak(agreeing=2.0)
    whole = X[:, 1:3] + is_diffuse[:, None] * [0.0, 1.5]
    apart, together = LabelFreeScore().fit(X), LabelFreeScore().fit(X, whole=whole)
    assert together.existence_ == apart.existence_ > 10
    assert area(together.score_, is_diffuse) > area(apart.score_, is_diffuse) + 0.02
    assert area(together.score_, is_diffuse) > area(whole[:, 1], is_diffuse) - 0.01


@pytest.mark.parametrize("seed", range(4))
def test_hits_that_agree_with_a_map_of_themselves_prove_nothing(seed):
    X, _ = make_evidence(share=0.0, ice=0.0, seed=seed)
    whole = X[:, 1:3].copy()
    whole[100:120] += 6.0
    model = LabelFreeScore().fit(X, whole=whole)
    assert model.existence_ < 5
    assert not (model.score_ > 0).any()


@pytest.mark.parametrize(("share", "mean"), [(0.02, 1.0), (0.05, 1.5)])
@pytest.mark.parametrize("seed", range(3))
def test_a_tail_of_agreement_proves_nothing_and_nobody_is_called_diffuse(share, mean, seed):
    """Nuisances left in, at their worst: some hits agree a little more than chance, and none is diffuse."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(2000, 4))
    X[:, 2] = 0.6 * X[:, 1] + 0.8 * X[:, 2]
    X[:, 1:3] += (random.exponential(mean, 2000) * (random.random(2000) < share))[:, None]
    model = LabelFreeScore().fit(X)
    assert model.existence_ < 4
    assert not (model.score_ > 0).any()


@pytest.mark.parametrize("structure", [20.0, 60.0])
@pytest.mark.parametrize("indexed", [True, False])
def test_structure_alone_ranks_and_calls_nobody_diffuse_however_much_there_is(structure, indexed):
    X = np.random.default_rng(0).normal(size=(1000, 4))
    X[:5, 0] = structure + np.arange(5)
    X[:, 1:] = X[:, 1:] if indexed else np.nan
    model = LabelFreeScore().fit(X)
    assert not (model.score_ > 0).any()
    assert sorted(np.argsort(model.score_)[-5:]) == list(range(5))
    assert model.share_ < 0.05


def test_agreement_with_the_whole_counts_where_the_folds_have_none():
    X, _ = make_evidence(2000)
    whole = X[:, 1:3].copy()
    X[:3, 1:3], whole[:3] = np.nan, 12.0
    model = LabelFreeScore().fit(X, whole=whole)
    assert (model.contribution_[:3, CARRIERS.index("agreement")] > 3).all()


@pytest.mark.parametrize("seed", range(4))
def test_pairs_of_folds_that_find_a_group_each_do_not_hide_the_map(seed):
    X, is_diffuse = make_weak(agreeing=2.5, seed=seed)
    X[:, 1] *= 2.5
    model, indexed = LabelFreeScore().fit(X), np.isfinite(X[:, 2])
    assert model.existence_ > 10
    assert model.noise_.weight[1] > 0.8
    assert area(model.score_[indexed], is_diffuse[indexed]) > area(X[:, 2], is_diffuse) - 0.01


@pytest.mark.parametrize("case", [{"lost": 0.1}, {"unindexed": 0.5}])
def test_it_is_better_than_each_where_hits_are_misindexed_or_not_indexed(case):
    made = [make_evidence(strength=0.7, searched=0.5, **case, seed=seed) for seed in range(14)]
    single = [[area(np.nan_to_num(column), is_diffuse) for column in X.T] for X, is_diffuse in made]
    own = [area(LabelFreeScore().fit(X).score_, is_diffuse) for X, is_diffuse in made]
    assert np.mean(own) > np.mean(single, axis=0).max() + 0.001


def test_as_many_picks_are_wrong_as_it_expects():
    expected, wrong, picked, found = 0.0, 0, 0, 0
    for seed in range(8):
        X, is_diffuse = make_evidence(strength=0.6, lost=0.1, seed=seed)
        model = LabelFreeScore().fit(X)
        is_picked = model.score_ > 0
        expected += (1 - model.probability_[is_picked]).sum()
        wrong += (is_picked & ~is_diffuse).sum()
        picked, found = picked + is_picked.sum(), found + (is_picked & is_diffuse).sum()
        assert model.expected_wrong_[is_picked].max() == pytest.approx((1 - model.probability_[is_picked]).mean())
    assert found > 0.7 * 8 * 40
    assert wrong < 0.1 * picked
    assert abs(wrong - expected) < 3 * np.sqrt(expected + 1) + 0.02 * picked


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("case", [{}, {"count": 120}, {"ice": 0.4}, {"unindexed": 0.6}, {"count": 3000}])
def test_where_no_hit_is_diffuse_none_is_invented(case, seed):
    X, _ = make_evidence(**{"share": 0.0, **case}, seed=seed)
    model = LabelFreeScore().fit(X)
    assert not (model.score_ > 0).any()
    assert model.existence_ < 5


@pytest.mark.parametrize("seed", range(4))
def test_ice_that_makes_a_map_of_its_own_is_not_called_diffuse(seed):
    X, _ = make_evidence(share=0.0, ice=0.0, seed=seed)
    has_ice = np.random.default_rng(seed).random(len(X)) < 0.12
    X[has_ice, 0] += 3.0
    X[has_ice, 3] += 5.0
    assert not (LabelFreeScore().fit(X).score_ > 0).any()


@pytest.mark.parametrize("seed", range(4))
def test_a_few_hits_that_agree_are_no_proof(seed):
    X, _ = make_evidence(share=0.0, ice=0.0, unindexed=0.0, seed=seed)
    X[:60] += [3.0, 0.0, 0.0, 5.0]
    X[:4, 1:3] = 4.0
    model = LabelFreeScore().fit(X)
    assert model.existence_ < 10
    assert not (model.score_ > 0).any()


def test_diffuse_hits_are_found_beside_ice_that_fits_their_map():
    X, is_diffuse = make_evidence(ice=0.0, lost=0.1)
    has_ice = ~is_diffuse & (np.random.default_rng(1).random(len(X)) < 0.12)
    X[has_ice, 0] += 3.0
    X[has_ice, 3] += 5.0
    model = LabelFreeScore().fit(X)
    assert area(model.score_, is_diffuse) > 0.98
    assert (model.score_ > 0)[has_ice].mean() < 0.03


def test_where_all_orientations_are_wrong_structure_ranks_and_nothing_is_called_diffuse():
    X, is_diffuse = make_evidence(lost=1.0, searched=0.0)
    model = LabelFreeScore().fit(X)
    assert area(model.score_, is_diffuse) > area(X[:, 0], is_diffuse) - 0.01
    assert not (model.score_ > 0).any()


def test_faint_hits_do_not_make_the_search_less_to_be_trusted():
    X, is_diffuse = make_evidence(2000, unindexed=0.0)
    plain, _ = make_evidence(2000, share=0.0, unindexed=0.0)
    faint = np.flatnonzero(is_diffuse)[::3]
    X[faint] = plain[faint] + [0.0, 6.0, 6.0, 0.0]
    model = LabelFreeScore().fit(X)
    assert model.amounts_["search"].shown > 0.9
    assert (model.score_[faint] > 0).mean() > 0.8


@pytest.mark.parametrize("case", [{}, {"share": 0.0}])
def test_what_ice_leaves_never_makes_ratios_fall(case):
    X, _ = make_evidence(**case)
    X[::5, 0] += 40.0
    for amounts in LabelFreeScore().fit(X).amounts_.values():
        assert amounts.left <= amounts.diffuse / 2


def test_pairs_that_found_the_wrong_group_do_no_harm():
    X, is_diffuse = make_evidence(share=0.02)
    before = area(LabelFreeScore().fit(X).score_, is_diffuse)
    X[:, 1] = 5.0 * np.random.default_rng(2).normal(size=len(X))
    X[np.isnan(X[:, 2]), 1] = np.nan
    model = LabelFreeScore().fit(X)
    assert area(model.score_, is_diffuse) > before - 0.01
    assert model.noise_.weight[1] > 0.8


@pytest.mark.parametrize("offset", [-1.0, 2.0])
def test_a_search_whose_chance_is_off_is_put_right(offset):
    X, is_diffuse = make_evidence()
    one = LabelFreeScore().fit(X)
    two = LabelFreeScore().fit(X + np.array([0.0, 0.0, 0.0, offset]))
    assert np.mean((one.score_ > 0) != (two.score_ > 0)) < 0.01
    assert area(two.score_, is_diffuse) > area(one.score_, is_diffuse) - 0.005


def test_more_agreement_never_lowers_the_score():
    X, _ = make_evidence()
    model = LabelFreeScore().fit(X)
    hits = np.repeat(X[:40], 50, axis=0)
    for column in (1, 2):
        swept = hits.copy()
        swept[:, column] = np.tile(np.linspace(-6, 30, 50), 40)
        score = model.decision_function(swept).reshape(40, 50)
        assert np.all(np.diff(score, axis=1) > -1e-9)


def test_structure_explains_some_of_the_search():
    X, _ = make_evidence()
    model = LabelFreeScore().fit(X)
    plain, structured = model.decision_function(np.array([[0.0, 0.0, 0.0, 4.0], [6.0, 0.0, 0.0, 4.0]]))
    added = model.fit(X)._weigh(np.array([[0.0, np.nan, np.nan, 4.0], [6.0, np.nan, np.nan, 4.0]]))
    assert added[0, 2] > added[1, 2]
    assert np.isfinite([plain, structured]).all()


def test_what_is_missing_adds_nothing_and_hits_without_evidence_have_no_score():
    X, _ = make_evidence()
    X[3], X[4, 3], X[5, [0, 3]] = np.nan, np.nan, np.inf
    model = LabelFreeScore().fit(X)
    missing = np.isnan(X[:, 1])
    assert np.allclose(model.contribution_[missing, CARRIERS.index("agreement")], 0.0, atol=1e-9)
    assert np.allclose(model.contribution_[[3, 4, 5], 2], 0.0, atol=1e-9)
    for values in (model.score_, model.probability_, model.expected_wrong_):
        assert np.flatnonzero(np.isnan(values)).tolist() == [3]


def test_contributions_say_which_evidence_carried_a_hit():
    X, is_diffuse = make_evidence(lost=0.1)
    X[0], X[1] = [0.0, 9.0, 12.0, 0.0], [9.0, np.nan, np.nan, 25.0]
    model = LabelFreeScore().fit(X)
    base = model.score_ - model.contribution_.sum(axis=1)
    np.testing.assert_allclose(base, base[0])
    assert model.carried_by_[:2].tolist() == ["agreement", "search"]
    assert (model.carried_by_[~is_diffuse] == "nothing").mean() > 0.3
    assert set(model.carried_by_) <= {*CARRIERS, "nothing"}


def test_a_share_is_learnt():
    for share in (0.02, 0.3):
        X, _ = make_evidence(2000, share)
        assert LabelFreeScore().fit(X).share_ == pytest.approx(share, rel=0.25)


def test_reordering_hits_reorders_scores_and_nothing_is_drawn():
    X, _ = make_evidence(300)
    order = np.random.default_rng(0).permutation(300)
    one, two, again = LabelFreeScore().fit(X), LabelFreeScore().fit(X[order]), LabelFreeScore().fit(X)
    np.testing.assert_allclose(two.score_, one.score_[order], atol=1e-6)
    np.testing.assert_array_equal(one.score_, again.score_)


def test_hits_to_come_are_scored_by_what_was_learnt():
    X, is_diffuse = make_evidence(1600)
    model = LabelFreeScore().fit(X[:800])
    np.testing.assert_array_equal(model.decision_function(X[:800]), model.score_)
    assert area(model.decision_function(X[800:]), is_diffuse[800:]) > 0.99


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_hits_are_none_that_are_called_diffuse(count):
    model = LabelFreeScore().fit(np.zeros((count, 4)))
    assert model.score_.shape == (count,)
    assert np.all(model.score_ < 0)


def test_evidence_of_any_size_gives_finite_scores():
    X, _ = make_evidence(200)
    X[0], X[1] = 1e5, -1e5
    assert np.isfinite(LabelFreeScore().fit(X).score_).all()


def test_it_keeps_to_scikit_learn_and_leaves_its_data_alone():
    X, _ = make_evidence(100)
    before = X.copy()
    model = clone(LabelFreeScore(least_shown=0.3, rounds=3))
    assert model.fit(X) is model
    assert model.round_count_ <= 3
    np.testing.assert_array_equal(X, before)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(BadParameter, match="structure, pairs, consistency, search"):
        LabelFreeScore().fit(np.zeros((5, 3)))
    with pytest.raises(BadParameter, match="least_shown=1"):
        LabelFreeScore(least_shown=1).fit(np.zeros((5, 4)))
    X, _ = make_evidence(100, share=0.3)
    with pytest.raises(BadParameter, match=r"with the whole must be \(100, 2\)"):
        LabelFreeScore().fit(X, whole=X)
    with pytest.raises(BadParameter, match=r"got \(7,\)"):
        LabelFreeScore().fit(np.full((100, 4), np.nan), whole=np.zeros(7))
    with pytest.raises(BadParameter, match="rounds=0"):
        LabelFreeScore(rounds=0).fit(np.zeros((5, 4)))


def test_hits_alike_in_probability_are_expected_to_be_wrong_alike():
    assert expect_wrong(np.array([0.8, 1.0, 0.8])).round(3).tolist() == [0.133, 0.0, 0.133]


def test_expected_wrong_shares_rise_as_scores_fall():
    X, _ = make_evidence()
    model = LabelFreeScore().fit(X)
    order = np.argsort(-model.score_)
    assert np.all(np.diff(model.expected_wrong_[order]) >= -1e-12)


def test_training_hits_are_sure_and_balanced():
    X, is_diffuse = make_evidence()
    model = LabelFreeScore().fit(X)
    chosen = choose_training_hits(model.score_, ratio=3.0)
    assert np.all(np.diff(chosen.rows) > 0)
    assert np.array_equal(chosen.label == 1, model.score_[chosen.rows] > 0)
    assert np.all(np.abs(model.score_[chosen.rows]) >= np.log(19.0))
    assert chosen.label.sum() == chosen.sure_diffuse
    assert (chosen.label == 0).sum() == 3 * chosen.sure_diffuse < chosen.sure_other
    assert np.mean(is_diffuse[chosen.rows] == chosen.label) > 0.98


def test_sure_hits_that_are_not_diffuse_are_drawn_whatever_their_score():
    score = np.concatenate([np.full(20, 8.0), np.linspace(-20, -5, 2000)])
    one, other = (choose_training_hits(score, seed=seed) for seed in (0, 1))
    assert not np.array_equal(one.rows, other.rows)
    assert np.mean(score[one.rows[one.label == 0]]) == pytest.approx(-12.5, abs=1.5)
    assert np.array_equal(choose_training_hits(score).rows, one.rows)


def test_the_surer_the_fewer():
    score = np.random.default_rng(0).normal(scale=5.0, size=3000)
    loose, tight = (choose_training_hits(score, sure=sure) for sure in (0.6, 0.999))
    assert tight.sure_diffuse < loose.sure_diffuse
    assert tight.sure_other < loose.sure_other


def test_hits_that_are_not_sure_enough_say_so():
    with pytest.raises(BadLabels, match=r"4 of 31 hits are diffuse and 20 are not.*label hits by hand"):
        choose_training_hits(np.array([9.0] * 4 + [0.0] * 6 + [-9.0] * 20 + [np.nan]))
    for wrong in ({"sure": 0.4}, {"sure": 1.0}, {"ratio": 0.0}):
        with pytest.raises(BadParameter, match="sure = "):
            choose_training_hits(np.zeros(3), **wrong)
