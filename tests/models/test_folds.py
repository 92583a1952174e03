import numpy as np
import pytest

from diffdask.errors import BadLabels
from diffdask.models.folds import make_folds


@pytest.mark.parametrize("members", [6, 7, 8, 9, 15, 100])
@pytest.mark.parametrize("fold_count", [2, 5, 10])
def test_folds_leave_every_ranker_enough_of_the_rarer_class(members, fold_count):
    y = (np.arange(200) < members).astype(int)
    folds = make_folds(y, fold_count=fold_count, seed=0)
    assert np.sort(np.concatenate([test for _, test in folds])).tolist() == list(range(200))
    assert min(y[train].sum() for train, _ in folds) >= 5
    assert len(folds) == fold_count or members < max(10, 2 * fold_count)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fold_count", [2, 3, 5, 10])
def test_no_run_is_on_both_sides_of_a_fold_and_every_hit_is_tested_once(fold_count, seed):
    random = np.random.default_rng(seed)
    run, y = random.integers(0, 7, 300), (random.random(300) < 0.2).astype(int)
    folds = make_folds(y, fold_count=fold_count, seed=seed, group=run)
    assert len(folds) >= min(fold_count, 7)
    for train, test in folds:
        assert not set(run[train]) & set(run[test])
        assert set(train) | set(test) == set(range(300))
    assert np.sort(np.concatenate([test for _, test in folds])).tolist() == list(range(300))


def test_folds_by_hit_would_let_a_run_leak():
    run, y = np.repeat(np.arange(6), 20), np.arange(120) % 2
    assert any(set(run[train]) & set(run[test]) for train, test in make_folds(y, fold_count=3, seed=0))


@pytest.mark.parametrize("run", [np.zeros(40, int), np.repeat([0, 1], 20)])
def test_runs_that_hold_a_class_alone_cannot_be_folds(run):
    y = np.repeat([0, 1], 20)
    with pytest.raises(BadLabels, match="more runs, or make folds by hit"):
        make_folds(y, fold_count=5, seed=0, group=run)
