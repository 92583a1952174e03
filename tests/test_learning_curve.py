"""The learning curve against the number of labels."""

import json

import numpy as np
import pytest

from diffdask.errors import BadLabels, BadParameter
from diffdask.learning_curve import CURVES, draw_labels, find_label_curve, format_label_curve
from diffdask.models.ranker import Ranker

RANKER = Ranker(engine="scikit-learn", C=0.1, calibration="none", component_count=10)
OPTIONS = {"ranker": RANKER, "repeats": 3, "fold_count": 3, "bootstrap": 30}


def make(count=400, share=0.3, width=40, seed=0):
    random = np.random.default_rng(seed)
    y = (random.random(count) < share).astype(int)
    return random.normal(size=(count, width)) + 0.35 * y[:, None], y, random.integers(0, 8, count)


def test_more_labels_make_a_better_ranker_and_counts_beyond_the_hits_are_left_out():
    curve = find_label_curve(*make(), counts=(10, 50, 200, 500), **OPTIONS)
    assert curve["labels"] == [10, 50, 200]
    assert curve["left_out"] == [500]
    area = curve["area_under_roc"]
    assert area["value"][0] + 0.05 < area["value"][2]
    assert area["value"][0] < area["value"][1] + 0.02
    for name in CURVES:
        for low, value, high in zip(*(curve[name][part] for part in ("low", "value", "high")), strict=True):
            assert value is None or low <= value <= high
    assert area["high"][0] - area["low"][0] > area["high"][2] - area["low"][2], "few labels are a matter of luck"
    assert json.loads(json.dumps(curve, allow_nan=False)) == curve
    assert format_label_curve(curve).count("\n") == 4


def test_no_run_teaches_about_itself():
    X, y, run = make(share=0.5, width=8)
    y = run % 2
    X = 5 * np.eye(8)[run] + np.random.default_rng(1).normal(size=X.shape)
    by_run, by_hit = (
        find_label_curve(X, y, group, counts=(100,), **OPTIONS)["area_under_roc"]["value"][0] for group in (run, None)
    )
    assert by_hit > 0.95
    assert by_run < 0.7


def test_more_features_than_hits_are_no_obstacle_and_the_same_seed_gives_the_same():
    X, y, run = make(120, share=0.5, width=300)
    one, other = (find_label_curve(X, y, run, counts=(20,), **OPTIONS) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("count", [10, 11, 30, 200])
@pytest.mark.parametrize("share", [0.03, 0.5, 0.97])
def test_labels_are_drawn_at_their_share_with_five_of_a_class_at_least(count, share):
    y = (np.arange(400) < round(400 * share)).astype(int)
    rows = draw_labels(y, count, np.random.default_rng(0))
    assert np.unique(rows).size == count
    assert min(y[rows].sum(), count - y[rows].sum()) >= 5
    assert y[rows].sum() == np.clip(round(count * y.mean()), 5, count - 5)


def test_too_few_labels_are_told():
    with pytest.raises(BadParameter, match="at least 10"):
        find_label_curve(*make(), counts=(5,), **OPTIONS)
    with pytest.raises(BadLabels, match="needs more"):
        find_label_curve(*make(), counts=(1000,), **OPTIONS)
