import numpy as np
import pytest

from diffdask.errors import BadParameter
from diffdask.models.ambiguity import relate_choices, resolve_ambiguity, select_agreement, select_rows
from diffdask.models.pairs import PairStructure
from diffdask.symmetry import ambiguity_rotations, laue_rotations

#: Operator between choices a and b, where operators are the rotations of a group of three, and of Klein's group.
THREE = (np.arange(3)[None, :] - np.arange(3)[:, None]) % 3
KLEIN = np.arange(4)[None, :] ^ np.arange(4)[:, None]


def plant(table, count=300, share=0.05, signal=6.0, seed=0, leader=None):
    """Agreements (m, n, n) of frames of which few show a signal, the choices that put them right, and who they are."""
    random = np.random.default_rng(seed)
    m = len(table)
    strength = np.where(np.arange(count) < round(share * count), random.uniform(0.5, 1.0, count), 0.0)
    random.shuffle(strength)
    if leader is not None:
        strength[leader] = 2.0
    choice = random.integers(0, m, count)
    noise = random.normal(size=(m, count, count))
    agreement = np.empty_like(noise)
    inverse = table[:, 0]  # the operator from choice a back to choice 0 is its inverse
    for operator in range(m):  # turning j by r relative to i is turning i by the inverse of r relative to j
        upper = np.triu(noise[operator])
        agreement[operator] = upper + np.triu(noise[inverse[operator]], 1).T
        right = table[choice[:, None], choice[None, :]] == operator
        agreement[operator] += signal * np.outer(strength, strength) * right
    return agreement, choice, strength > 0


def same_up_to_an_operator(found, true, table):
    return any((found == table[operator, true]).all() for operator in range(len(table)))


def share_right(found, true, table):
    return max(np.mean(found == table[operator, true]) for operator in range(len(table)))


@pytest.mark.parametrize("table", [THREE[:1, :1], KLEIN[:2, :2], THREE, KLEIN], ids=["1", "2", "3", "4"])
@pytest.mark.parametrize("seed", range(3))
def test_choices_are_found_up_to_an_operator_where_one_frame_in_twenty_tells(table, seed):
    agreement, choice, tells = plant(table, seed=seed, signal=10.0)
    found = resolve_ambiguity(agreement, relative=table)
    assert same_up_to_an_operator(found[tells], choice[tells], table)


def test_weaker_frames_are_mostly_right():
    agreement, choice, tells = plant(KLEIN[:2, :2], count=600, signal=5.0)
    found = resolve_ambiguity(agreement)
    assert share_right(found[tells], choice[tells], KLEIN[:2, :2]) > 0.9


def test_two_labellings_need_no_table():
    agreement, *_ = plant(KLEIN[:2, :2])
    np.testing.assert_array_equal(resolve_ambiguity(agreement), resolve_ambiguity(agreement, relative=KLEIN[:2, :2]))


def test_the_same_agreements_always_give_the_same_choices():
    agreement, *_ = plant(THREE)
    np.testing.assert_array_equal(
        resolve_ambiguity(agreement, relative=THREE), resolve_ambiguity(agreement.copy(), relative=THREE)
    )


def test_choices_follow_the_frames():
    agreement, _, tells = plant(THREE, signal=10.0)
    order = np.random.default_rng(1).permutation(len(tells))
    found = resolve_ambiguity(agreement, relative=THREE)
    moved = resolve_ambiguity(agreement[:, order][:, :, order], relative=THREE)
    np.testing.assert_array_equal(moved[tells[order]], found[order][tells[order]])


@pytest.mark.parametrize("seed", range(6))
def test_the_frame_with_most_evidence_is_not_turned(seed):
    agreement, choice, tells = plant(THREE, signal=3.0, seed=seed, leader=11)
    found = resolve_ambiguity(agreement, relative=THREE)
    assert found[11] == 0
    assert share_right(found[tells], choice[tells], THREE) > 0.7


def test_chosen_agreements_are_those_of_frames_labelled_alike():
    agreement, _, tells = plant(THREE, signal=10.0)
    chosen = select_agreement(agreement, resolve_ambiguity(agreement, relative=THREE), THREE)
    np.testing.assert_allclose(chosen, chosen.T)
    assert chosen[np.ix_(tells, tells)].mean() > 5 * agreement[0][np.ix_(tells, tells)].mean() / 3
    assert PairStructure().fit(chosen).score_[tells].min() > PairStructure().fit(chosen).score_[~tells].max()


def test_frames_without_a_pair_have_no_choice_and_change_nothing():
    agreement, _, tells = plant(KLEIN[:2, :2], signal=10.0)
    lost = np.flatnonzero(~tells)[:7]
    kept = np.setdiff1d(np.arange(len(tells)), lost)
    agreement[:, lost] = np.nan
    agreement[:, :, lost] = np.nan
    found = resolve_ambiguity(agreement)
    assert (found[lost] == -1).all()
    alone = resolve_ambiguity(agreement[:, kept][:, :, kept])
    np.testing.assert_array_equal(found[kept][tells[kept]], alone[tells[kept]])
    assert np.isnan(select_agreement(agreement, found)[lost]).all()


def test_correlations_with_their_samples_are_resolved_alike():
    agreement, choice, tells = plant(KLEIN[:2, :2], signal=10.0)
    samples = np.full(agreement.shape, 403.0)
    found = resolve_ambiguity(np.tanh(agreement / 20.0), samples=samples)
    assert same_up_to_an_operator(found[tells], choice[tells], KLEIN[:2, :2])


def test_frames_that_choose_their_agreement_are_compared_with_others_that_choose():
    random = np.random.default_rng(3)
    agreement, _, tells = plant(KLEIN[:2, :2], count=400, signal=8.0)
    shuffled = random.normal(size=(2, *agreement.shape))  # two null matrices at each operator
    choice = resolve_ambiguity(agreement)
    chosen = select_agreement(agreement, choice)
    weight = PairStructure().fit(chosen).weight_
    chosen_anew = [select_rows(null, choice, weight) for null in shuffled]
    honest = PairStructure().fit(chosen, null=chosen_anew)
    flattered = PairStructure().fit(chosen, null=[null[0] for null in shuffled])
    assert (honest.significance_[tells] > 3).mean() > 0.8
    assert abs(honest.significance_[~tells].mean()) < 0.25
    assert flattered.significance_[~tells].mean() > 0.4


@pytest.mark.parametrize(("group", "lattice"), [("6/m", "6/mmm"), ("-3", "6/mmm"), ("4/m", "4/mmm"), ("-1", "-3m1")])
def test_choices_relate_as_the_rotations_of_real_groups_do(group, lattice):
    operators, rotations = ambiguity_rotations(group, lattice), laue_rotations(group)
    table = relate_choices(operators, rotations)
    for a, first in enumerate(operators):
        for b, second in enumerate(operators):
            coset = [(member @ operators[table[a, b]]).tolist() for member in rotations]
            assert np.rint(np.linalg.inv(first) @ second).astype(int).tolist() in coset


def test_operators_that_are_no_group_are_refused():
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    with pytest.raises(BadParameter, match="no coset"):
        relate_choices(np.stack([np.eye(3, dtype=int), quarter]), np.eye(3, dtype=int)[None])


@pytest.mark.parametrize("table", [None, np.zeros((3, 3), int), np.eye(3, dtype=int), THREE[:2, :2]])
def test_three_labellings_need_the_table_of_a_group(table):
    with pytest.raises(BadParameter, match="relative"):
        resolve_ambiguity(np.zeros((3, 5, 5)), relative=table)


def test_samples_must_fit():
    with pytest.raises(BadParameter, match="2 matrices"):
        resolve_ambiguity(np.zeros((2, 5, 5)), samples=np.ones((2, 4, 4)))
