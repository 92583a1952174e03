"""Evaluation of a catalogue against labels."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_score, recall_score, roc_auc_score

from diffdask.classification import FIGURES, REFERENCE, count_cells
from diffdask.errors import BadParameter
from diffdask.evaluation import evaluate_table, predict_labels
from diffdask.evaluation_table import format_evaluation
from diffdask.variables import LABELS


def campaign(seed: int = 0, count: int = 120, spread: float = 0.25) -> tuple[pd.DataFrame, pd.Series]:
    """A catalogue with scores that are mostly right, and labels of about half of its frames."""
    random = np.random.default_rng(seed)
    truth = random.choice(LABELS, size=count, p=[0.3, 0.5, 0.2])
    is_hit = (truth != "blank") ^ (random.random(count) < 0.05)
    score = np.clip(np.where(truth == "diffuse", 0.7, 0.3) + spread * random.normal(size=count), 0, 1)
    table = pd.DataFrame(
        {
            "frame_id": [f"r0/{number}" for number in range(count)],
            "run": random.integers(0, 4, count),
            "frame_status": "ok",
            "frame_is_hit": is_hit,
            "frame_score": np.where(is_hit, score, np.nan),
        },
        index=pd.RangeIndex(count, name="frame"),
    )
    table.attrs["scores"] = {"method": "azimuthal", "cross_fitted": True, "version": "1"}
    chosen = np.sort(random.choice(count, size=count // 2, replace=False))
    return table, pd.Series(truth[chosen], index=pd.Index(chosen, name="frame"), name="label")


def test_perfect_scores_have_every_precision_recall_and_area_one() -> None:
    table, labels = campaign()
    truth = labels.reindex(table.index, fill_value="non-diffuse")
    table["frame_is_hit"] = truth != "blank"
    table["frame_score"] = np.where(truth == "blank", np.nan, np.where(truth == "diffuse", 1.0, 0.0))
    result = evaluate_table(table, labels, bootstrap=50)
    for row in result["classes"].values():
        assert row["precision"]["value"] == row["recall"]["value"] == 1.0
    for name in ("accuracy", "area_under_roc", "precision_in_top"):
        assert result[name]["value"] == 1.0
        assert result[name]["low"] < 1.0, "an interval of finitely many frames is not certain"
    assert result["log_likelihood"]["value"] == pytest.approx(0.0, abs=1e-12)
    assert {row["value"] for row in result["precision_at_prevalence"]} == {1.0}


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_numbers_are_those_of_scikit_learn(seed: int) -> None:
    table, labels = campaign(seed)
    result = evaluate_table(table, labels, bootstrap=5)
    chosen, truth = table.loc[labels.index], labels.to_numpy(dtype=object)
    predicted = predict_labels(chosen["frame_is_hit"].to_numpy(), chosen["frame_score"].to_numpy())
    assert result["accuracy"]["value"] == pytest.approx(accuracy_score(truth, predicted))
    options = {"labels": list(LABELS), "average": None, "zero_division": np.nan}
    precision, recall = precision_score(truth, predicted, **options), recall_score(truth, predicted, **options)
    for name, p, r in zip(LABELS, precision, recall, strict=True):
        for value, expected in ((result["classes"][name]["precision"], p), (result["classes"][name]["recall"], r)):
            assert value["value"] == (None if np.isnan(expected) else pytest.approx(expected))
            assert value["value"] is None or value["low"] <= value["value"] <= value["high"]
    counts = np.array(result["confusion"]["counts"])
    assert counts.sum() == len(labels)
    assert dict(zip(LABELS, counts.sum(axis=1).tolist(), strict=True)) == result["labelled"]
    ranked = (truth != "blank") & chosen["frame_is_hit"].to_numpy()
    expected = roc_auc_score(truth[ranked] == "diffuse", chosen["frame_score"].to_numpy()[ranked])
    assert result["area_under_roc"]["value"] == pytest.approx(expected)
    assert sum(sum(run[name] for name in LABELS) for run in result["runs"].values()) == len(labels)
    assert sum(run["right"] for run in result["runs"].values()) == np.trace(counts)


def test_permuting_frames_changes_nothing() -> None:
    table, labels = campaign()
    order = np.random.default_rng(5).permutation(len(table))
    permuted = table.iloc[order].reset_index(drop=True)
    number = pd.Series(np.arange(len(table)), index=order)
    moved = pd.Series(labels.to_numpy(), index=number.loc[labels.index].to_numpy()).sort_index()
    permuted.attrs = table.attrs
    assert evaluate_table(permuted, moved, bootstrap=100) == evaluate_table(table, labels, bootstrap=100)


def test_frames_without_a_label_do_not_matter() -> None:
    table, labels = campaign()
    changed = table.copy()
    changed.loc[~table.index.isin(labels.index), "frame_score"] = 0.123
    before, after = evaluate_table(table, labels, bootstrap=20), evaluate_table(changed, labels, bootstrap=20)
    assert before == after


def test_precision_at_the_labels_own_prevalence_is_that_among_the_labelled_hits() -> None:
    table, labels = campaign(spread=0.4)
    result = evaluate_table(table, labels, bootstrap=20, prevalence=0.2)
    (diffuse, *_), (wrong, *_), _ = result["confusion"]["counts"]
    rows = {row["prevalence"]: row for row in result["precision_at_prevalence"]}
    own = result["labelled"]["diffuse"] / (result["labelled"]["diffuse"] + result["labelled"]["non-diffuse"])
    assert rows[own]["value"] == pytest.approx(diffuse / (diffuse + wrong))
    assert {0.05, 0.2} < set(rows)
    assert rows[0.05]["value"] < rows[0.2]["value"] < rows[own]["value"]
    assert rows[0.05]["low"] < rows[0.05]["value"] < rows[0.05]["high"]
    assert result["prevalence"] == {"value": 0.2, "source": "as given"}


def test_a_hit_without_a_score_is_counted_as_not_picked_and_said() -> None:
    table, labels = campaign()
    frame = labels[(labels == "diffuse") & table.loc[labels.index, "frame_is_hit"]].index[0]
    table.loc[frame, "frame_score"] = np.nan
    result = evaluate_table(table, labels, bootstrap=5)
    assert result["hits_without_score"] == 1
    assert "1 labelled hits have no score" in format_evaluation(result)


def test_without_scores_hits_are_still_compared_with_blanks_and_the_next_step_is_named() -> None:
    table, labels = campaign()
    ranked = evaluate_table(table, labels, bootstrap=5)
    result = evaluate_table(table.drop(columns="frame_score"), labels)
    assert result["hits_against_blanks"] == ranked["hits_against_blanks"]
    assert result["classes"] is None
    assert "diffdask rank" in result["next"]
    assert "diffdask rank" in format_evaluation(result)


def test_it_says_whether_a_model_saw_the_labels_it_is_judged_by() -> None:
    table, labels = campaign()
    assert "out of fold" in evaluate_table(table, labels, bootstrap=5)["note"]
    table.attrs["scores"]["parameters"] = {"fold_by": "run"}
    assert "no model judged a frame of a run" in evaluate_table(table, labels, bootstrap=5)["note"]
    table.attrs["scores"]["cross_fitted"] = False
    assert "too good" in evaluate_table(table, labels, bootstrap=5)["note"]


def test_labelled_frames_that_could_not_be_used_are_counted() -> None:
    table, labels = campaign()
    table.loc[labels.index[:3], ["frame_status", "frame_is_hit", "frame_score"]] = ["truncated", False, np.nan]
    result = evaluate_table(table, labels, bootstrap=5)
    assert result["labelled_not_ok"] == 3
    assert "3 labelled frames could not be used" in format_evaluation(result)


@pytest.mark.parametrize("only", LABELS)
def test_labels_of_one_class_only_give_what_can_be_had(only: str) -> None:
    table, labels = campaign()
    result = evaluate_table(table, labels[labels == only], bootstrap=5)
    assert result["area_under_roc"]["value"] is None
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert "none (n = " in format_evaluation(result)


def test_the_result_is_json_and_the_same_seed_gives_the_same_again() -> None:
    table, labels = campaign()
    result = evaluate_table(table, labels, bootstrap=50)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert evaluate_table(table, labels, bootstrap=50) == result
    other = evaluate_table(table, labels, bootstrap=50, seed=1)
    assert other["area_under_roc"]["low"] != result["area_under_roc"]["low"]


@pytest.mark.parametrize("wrong", [{"prevalence": 0.0}, {"prevalence": 1.0}, {"top": 0}, {"bootstrap": 0}])
def test_a_parameter_out_of_range_is_an_error_that_names_it(wrong: dict[str, Any]) -> None:
    table, labels = campaign()
    with pytest.raises(BadParameter, match=next(iter(wrong))):
        evaluate_table(table, labels, **wrong)


def test_the_text_shows_every_class_and_prevalence() -> None:
    table, labels = campaign()
    text = format_evaluation(evaluate_table(table, labels, bootstrap=50))
    for word in (*LABELS, "5.0 %", "out of fold", "area under the curve"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 130


def test_table_one_is_that_of_hits_of_both_classes_by_scikit_learn() -> None:
    table, labels = campaign(spread=0.4)
    found = evaluate_table(table, labels, bootstrap=50)["hits_only"]
    chosen = table.loc[labels.index]
    is_judged = (labels != "blank").to_numpy() & chosen["frame_is_hit"].to_numpy()
    y, picked = (labels == "diffuse").to_numpy()[is_judged], (chosen["frame_score"] >= 0.5).to_numpy()[is_judged]
    expected = [f(y, picked, pos_label=label) for label in (True, False) for f in (precision_score, recall_score)]
    assert [found[name]["value"] for name in FIGURES] == pytest.approx([*expected, accuracy_score(y, picked)])
    assert found["confusion"] == count_cells(y, picked).tolist()
    assert found["hits"] == is_judged.sum()
    assert found["prevalence"] == pytest.approx(y.mean())
    for name in FIGURES:
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]


def test_table_one_stands_beside_the_references_with_its_source_and_prevalence() -> None:
    table, labels = campaign()
    result = evaluate_table(table, labels, bootstrap=50)
    text = format_evaluation(result)
    for name in FIGURES:
        assert f"{100 * REFERENCE[name]:.1f}" in text
        assert f"{100 * result['hits_only'][name]['value']:.1f} %" in text
    assert "Table I of the study of 2018" in text
    assert f"precision at {100 * result['hits_only']['prevalence']:.1f} %" in text
    assert f"top {result['precision_in_top']['count']}" in text


@pytest.mark.parametrize(("weights", "is_loud"), [("random, seed 0 (for tests only)", True), ("imagenet", False)])
def test_random_weights_are_said_loudly_and_others_are_not(weights: str, is_loud: bool) -> None:
    table, labels = campaign()
    table.attrs["scores"] |= {"weights": weights, "features": "azimuthal+vgg16"}
    result = evaluate_table(table, labels, bootstrap=5)
    assert ("RANDOM WEIGHTS" in (result["warning"] or "")) == is_loud
    assert ("WARNING: VGG16 HAS RANDOM WEIGHTS" in format_evaluation(result)) == is_loud
    assert result["features"] == "azimuthal+vgg16"
