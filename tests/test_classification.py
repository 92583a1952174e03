"""Figures of Table I, against scikit-learn and against counting."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, precision_score, recall_score, roc_auc_score

from diffdask.classification import FIGURES, REFERENCE, draw_hits, find_values, measure_scores
from diffdask.errors import BadLabels, BadParameter


def draw(count=300, seed=0, distance=2.0, share=0.4):
    random = np.random.default_rng(seed)
    y = (random.random(count) < share).astype(int)
    return y, 1 / (1 + np.exp(-(random.normal(size=count) + distance * (y - 0.5))))


@pytest.mark.parametrize("seed", range(5))
def test_figures_are_those_of_scikit_learn(seed):
    y, score = draw(seed=seed)
    picked = (score >= 0.5).astype(int)
    found = find_values(y, score)
    expected = [
        *(f(y, picked, pos_label=label) for label in (1, 0) for f in (precision_score, recall_score)),
        accuracy_score(y, picked),
    ]
    assert [found[name] for name in FIGURES] == pytest.approx(expected)
    assert found["area_under_roc"] == pytest.approx(roc_auc_score(y, score))
    assert found["precision_in_top"] == pytest.approx(y[np.argsort(-score)][: y.sum()].mean())


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Of an endless supply of hits the figures are known; 95 % of the intervals should hold them."""
    truth = find_values(*draw(400_000, seed=10**6))
    names, inside = (*FIGURES, "area_under_roc"), []
    for seed in range(100):
        y, score = draw(seed=seed)
        found = measure_scores(y, score, samples=draw_hits(y.size, 200, seed=seed))
        inside.append([found[name]["low"] <= truth[name] <= found[name]["high"] for name in names])
    assert (np.mean(inside, axis=0) > 0.86).all()
    assert np.mean(inside) == pytest.approx(0.945, abs=0.03)


def test_perfect_scores_are_not_certain():
    y, _ = draw(60)
    found = measure_scores(y, y.astype(float), samples=draw_hits(60, 50, seed=0))
    for name in (*FIGURES, "area_under_roc", "precision_in_top", "precision_at_prevalence"):
        assert found[name]["value"] == 1
        assert found[name]["low"] < 1
    assert found["passes_reference"]
    assert found["confusion"] == [[int(y.sum()), 0], [0, int((1 - y).sum())]]


def test_one_figure_short_of_the_reference_does_not_pass():
    y, score = draw(distance=2.5)
    found = measure_scores(y, score, samples=draw_hits(y.size, 20, seed=0))
    assert not found["passes_reference"]
    assert not all(found[name]["value"] >= REFERENCE[name] for name in FIGURES)


def test_precision_falls_with_the_prevalence_and_recall_does_not():
    y, score = draw()
    samples = draw_hits(y.size, 50, seed=0)
    rare, common = (measure_scores(y, score, samples=samples, prevalence=p) for p in (0.01, 0.4))
    assert rare["precision_at_prevalence"]["value"] < common["precision_at_prevalence"]["value"] / 3
    assert rare["diffuse_recall"] == common["diffuse_recall"]


def test_where_nothing_is_picked_precision_is_none_and_the_rest_is_there():
    y, score = draw()
    found = measure_scores(y, score / 3, samples=draw_hits(y.size, 20, seed=0))
    assert found["diffuse_precision"]["value"] is None
    assert found["diffuse_recall"]["value"] == 0
    assert not found["passes_reference"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_runs_are_drawn_whole_and_hits_that_resemble_each_other_widen_the_interval():
    random = np.random.default_rng(0)
    run = np.repeat(np.arange(20), 30)
    y = np.arange(600) % 2
    score = 1 / (1 + np.exp(-(random.normal(size=600) + 2 * y - 1 + 2 * random.normal(size=20)[run])))
    for rows in draw_hits(600, 5, seed=0, run=run):
        assert (np.bincount(run[rows], minlength=20) % 30 == 0).all()
    by_hit, by_run = (measure_scores(y, score, samples=draw_hits(600, 200, seed=0, run=r)) for r in (None, run))
    widths = [one["diffuse_recall"]["high"] - one["diffuse_recall"]["low"] for one in (by_hit, by_run)]
    assert widths[1] > 1.5 * widths[0]


def test_the_best_few_are_asked_for_by_number():
    y, score = draw()
    found = measure_scores(y, score, samples=draw_hits(y.size, 50, seed=0), top=10)["precision_in_top"]
    assert found["value"] == y[np.argsort(-score)[:10]].mean()
    assert found["count"] == 10
    everything = measure_scores(y, score, samples=draw_hits(y.size, 50, seed=0), top=10**6)["precision_in_top"]
    assert everything["value"] == pytest.approx(y.mean())


@pytest.mark.parametrize("wrong", [{"prevalence": 0.0}, {"top": 0}])
def test_a_parameter_out_of_range_is_told(wrong):
    with pytest.raises(BadParameter, match=next(iter(wrong))):
        measure_scores(*draw(), samples=[], **wrong)


def test_labels_of_one_class_and_scores_that_are_missing_are_told():
    y, score = draw()
    with pytest.raises(BadLabels, match="both classes"):
        measure_scores(np.ones(300), score, samples=[])
    score[3] = np.nan
    with pytest.raises(BadParameter, match="finite"):
        measure_scores(y, score, samples=[])
