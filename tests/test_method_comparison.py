"""All methods on the same folds."""

import json

import numpy as np
import pytest

from diffdask.classification import FIGURES, REFERENCE, REFERENCE_PREVALENCE, refer_to
from diffdask.errors import BadLabels, BadParameter
from diffdask.method_comparison import COLUMNS, compare_methods, format_comparison
from diffdask.models.ranker import Ranker

RANKER = Ranker(engine="scikit-learn", C=1.0, calibration="none", component_count=10)


def make(count=240, seed=0):
    """A good set of features, a poor one, and one without signal but with the run's mark."""
    random = np.random.default_rng(seed)
    y, run = np.arange(count) % 2, np.arange(count) // 20
    sets = {
        "good": random.normal(size=(count, 8)) + 1.5 * y[:, None],
        "poor": random.normal(size=(count, 5)) + 0.2 * y[:, None],
        "nothing": random.normal(size=(count, 20)) + np.eye(20)[run % 20] * 5,
    }
    return sets, y, run


def compare(sets, y, run, **options):
    return compare_methods(sets, y, run, **{"ranker": RANKER, "bootstrap": 40, **options})


def test_the_better_features_win_and_the_table_says_all():
    sets, y, run = make()
    result = compare(sets, y, run, scores={"by hand": (sets["good"].sum(axis=1), 6.0)})
    area = {name: row["area_under_roc"]["value"] for name, row in result["rows"].items()}
    assert area["good"] > 0.97 > 0.75 > area["poor"] > 0.5
    assert area["by hand"] > 0.97
    assert area["nothing"] == pytest.approx(0.5, abs=0.12)
    assert result["hits"] == 240
    assert result["diffuse"] == 120
    assert result["folds_by"] == "run"
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    text = format_comparison(result)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert [row.split("|")[1].strip(" *") for row in rows[2:]] == [*sets, "by hand", "reference (2018)"]
    assert all(f"{100 * REFERENCE[name]:.1f}" in rows[-1] for name in FIGURES)
    assert len(rows[0].split("|")) == len(COLUMNS) + 3


def test_a_run_that_gives_the_label_away_helps_folds_by_hit_only():
    _, _, run = make()
    y = (run % 2).astype(int)
    mark = {"mark": 5 * np.eye(12)[run] + np.random.default_rng(0).normal(size=(240, 12))}
    by_run, by_hit = (compare(mark, y, group)["rows"]["mark"]["area_under_roc"]["value"] for group in (run, None))
    assert by_hit > 0.95
    assert by_run < 0.7


def test_a_hit_that_lacks_one_set_is_left_out_for_all(caplog):
    sets, y, run = make()
    alone = compare({"good": sets["good"][7:]}, y[7:], run[7:])
    sets["poor"][:7] = np.nan
    result = compare(sets, y, run)
    assert result["left_out"] == 7
    assert result["hits"] == 233
    assert "7 of 240" in caplog.text
    assert result["rows"]["good"] == alone["rows"]["good"], "the same hits, folds and draws whatever stands beside"
    assert "7 hits lack" in format_comparison(result)


def test_one_split_is_the_references_and_only_its_test_counts():
    sets, y, run = make()
    train = np.arange(240) < 120
    result = compare(sets, y, run, folds=[(train, ~train)])
    assert result["hits"] == 120
    assert result["fold_count"] == 1
    same = compare(sets, y, run, folds=[(np.flatnonzero(train), np.flatnonzero(~train))])
    assert result == same
    flipped = np.where(train, y, 1 - y)
    wrong = compare(sets, flipped, run, folds=[(train, ~train)])["rows"]["good"]["area_under_roc"]["value"]
    assert wrong == pytest.approx(1 - result["rows"]["good"]["area_under_roc"]["value"]), "tests teach nothing"


def test_weak_hits_can_be_left_out_of_the_measure_and_still_be_trained_on():
    sets, y, run = make()
    is_strong = (y == 0) | (np.arange(240) % 3 > 0)
    part, whole = (compare(sets, y, run, is_measured=m) for m in (is_strong, None))
    assert part["hits"] == is_strong.sum()
    assert part["rows"]["good"]["confusion"][1] == whole["rows"]["good"]["confusion"][1]


@pytest.mark.parametrize(
    ("folds", "said"),
    [([(np.arange(240), np.arange(5))], "trained"), ([(np.arange(100, 240), np.arange(9))] * 2, "twice")],
)
def test_folds_that_leak_are_refused(folds, said):
    with pytest.raises(BadParameter, match=said):
        compare(*make(), folds=folds)


def test_what_does_not_fit_together_is_told():
    sets, y, run = make()
    with pytest.raises(BadParameter, match="'short' has 3 rows"):
        compare({"short": np.zeros((3, 2))}, y, run)
    with pytest.raises(BadParameter, match="no methods"):
        compare({}, y, run)
    with pytest.raises(BadLabels, match="folds by hit"):
        compare(sets, y, np.zeros(240))


def test_every_precision_says_at_which_share_of_diffuse_and_the_reference_says_its_source():
    sets, y, run = make()
    text = format_comparison(compare(sets, y, run, prevalence=0.02))
    head = text.splitlines()[0]
    assert head.count("P at 50 %") == 2
    assert "P at 2 %" in head
    assert "2018" in text
    assert "ImageNet" in text
    assert "seed 0" in text


def test_the_references_figures_agree_with_one_another_at_its_prevalence():
    """Bayes by hand: precision and share right from recalls, to the rounding of a printed table."""
    found, wrong = REFERENCE["diffuse_recall"], 1 - REFERENCE["non_diffuse_recall"]
    share = REFERENCE_PREVALENCE
    assert found * share / (found * share + wrong * (1 - share)) == pytest.approx(
        REFERENCE["diffuse_precision"], abs=1e-3
    )
    assert found * share + (1 - wrong) * (1 - share) == pytest.approx(REFERENCE["overall"], abs=1e-3)
    told = refer_to(0.05)
    assert told["precision_at_prevalence"] == pytest.approx(0.05 * found / (0.05 * found + 0.95 * wrong))
    assert refer_to(share)["precision_at_prevalence"] == pytest.approx(REFERENCE["diffuse_precision"], abs=1e-3)


def test_of_ordered_features_the_leading_ones_count_and_are_chosen_without_the_tests():
    random = np.random.default_rng(0)
    y, run = np.arange(240) % 2, np.arange(240) // 20
    X = random.normal(size=(240, 30))
    X[:, 0] += 1.5 * y
    ranker = Ranker(engine="scikit-learn", C=1.0, calibration="none", component_count=30)
    areas = [
        compare({"map": X}, y, run, ranker=ranker, ordered=ordered)["rows"]["map"]["area_under_roc"]["value"]
        for ordered in (("map",), ())
    ]
    assert areas[0] > areas[1] + 0.01
    noise = {"map": random.normal(size=(240, 30))}
    area = compare(noise, y, run, ranker=ranker, ordered=("map",))["rows"]["map"]["area_under_roc"]["value"]
    assert area == pytest.approx(0.5, abs=0.12)
