"""Logistic regression by both engines, and the guards around dask-ml's."""

import numpy as np
import pytest
from dask_ml.linear_model import LogisticRegression as DaskRegression
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from diffdask.errors import BadLabels
from diffdask.models import logistic
from diffdask.models.logistic import fit_logistic


def make(count=400, share=0.5, width=12, seed=0):
    random = np.random.default_rng(seed)
    y = (random.random(count) < share).astype(int)
    scores = random.normal(size=(count, width))
    scores[:, :3] += y[:, None]
    return scores - scores.mean(axis=0), y


def exact(scores, y, C):
    fit = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(scores, y)
    return fit.coef_[0], fit.intercept_[0]


@pytest.mark.parametrize("engine", ["dask-ml", "scikit-learn"])
@pytest.mark.parametrize("C", [1e-3, 0.1, 1.0, 100.0])
@pytest.mark.parametrize("share", [0.5, 0.05])
def test_both_engines_reach_the_maximum(engine, C, share):
    """The intercept is free of the ridge, C counts, and the solver goes on to the end."""
    scores, y = make(share=share)
    found = fit_logistic(scores, y, C=C, engine=engine)
    coefficient, intercept = exact(scores, y, C)
    np.testing.assert_allclose(found.coefficient, coefficient, atol=1e-5)
    assert found.intercept == pytest.approx(intercept, abs=1e-5)
    assert found.is_converged
    assert expit(scores @ found.coefficient + found.intercept).mean() == pytest.approx(y.mean(), abs=1e-6)


@pytest.mark.parametrize("C", [1e-4, 1.0, 100.0])
def test_newton_alone_finds_the_same_maximum_also_of_classes_far_apart(C):
    scores, y = make(share=0.1)
    coefficient, intercept = exact(scores, y, C)
    np.testing.assert_allclose(logistic.solve_logistic(scores, y, C=C), [*coefficient, intercept], atol=1e-7)
    scores[:, 0] = np.where(y == 1, 5.0, -5.0)
    found = logistic.solve_logistic(scores, y, C=C)
    _, gradient, _ = logistic._derivatives(found, logistic._with_ones(scores), y, C)
    assert np.abs(gradient).max() < 1e-6


def test_dask_ml_left_to_itself_would_fail_that():
    """What the guard is for: a penalised intercept, and a path that ends early."""
    scores, y = make(share=0.05)
    plain = DaskRegression(solver="lbfgs", C=1e-3, solver_kwargs={"normalize": False})
    with pytest.warns((FutureWarning, DeprecationWarning)):
        plain.fit(logistic._as_dask(scores), logistic._as_dask(y.astype(float)))
    assert abs(plain.intercept_ - exact(scores, y, 1e-3)[1]) > 0.5


def test_the_penalty_given_to_dask_ml_spares_the_intercept(monkeypatch):
    """Without Newton's steps, which would mend a wrong penalty."""
    monkeypatch.setattr(logistic, "_NEWTON_STEPS", 0)
    for C in (1e-3, 0.1):
        scores, y = make(share=0.05)
        found, (coefficient, intercept) = fit_logistic(scores, y, C=C), exact(scores, y, C)
        assert found.intercept == pytest.approx(intercept, abs=1e-3)
        np.testing.assert_allclose(found.coefficient, coefficient, atol=1e-3)


def test_where_dask_ml_stops_short_newton_goes_on(monkeypatch):
    scores, y = make(share=0.1, width=40)
    coefficient, _ = exact(scores, y, 10.0)
    done = np.abs(fit_logistic(scores, y, C=10.0).coefficient - coefficient).max()
    monkeypatch.setattr(logistic, "_NEWTON_STEPS", 0)
    short = np.abs(fit_logistic(scores, y, C=10.0).coefficient - coefficient).max()
    assert done < 1e-8 < 1e-6 < short


@pytest.mark.parametrize("engine", ["dask-ml", "scikit-learn"])
def test_the_path_is_that_of_the_solver_stopped_after_each_iteration(engine, monkeypatch):
    monkeypatch.setattr(logistic, "_NEWTON_STEPS", 0)
    scores, y = make()
    path = fit_logistic(scores, y, C=1.0, engine=engine).path
    assert len(path) > 5
    for count in (1, 2, 3, 5):
        stopped = fit_logistic(scores, y, C=1.0, engine=engine, iterations=count)
        np.testing.assert_allclose(stopped.path, path[:count], atol=1e-9)
        assert not stopped.is_converged or count > 3


@pytest.mark.parametrize("engine", ["dask-ml", "scikit-learn"])
def test_the_penalised_likelihood_rises_along_the_path(engine):
    scores, y = make()
    path = fit_logistic(scores, y, C=1.0, engine=engine).path
    losses = [logistic._loss(beta, logistic._with_ones(scores), y, 1.0) for beta in path]
    assert (np.diff(losses) <= 1e-9).all()


@pytest.mark.parametrize("engine", ["dask-ml", "scikit-learn"])
def test_classes_far_apart_do_not_overflow(engine):
    scores, y = make()
    scores[:, 0] = np.where(y == 1, 2000.0, -2000.0) + scores[:, 1]
    found = fit_logistic(scores, y, C=1e4, engine=engine)
    assert np.isfinite(found.path).all()
    assert ((scores @ found.coefficient + found.intercept > 0) == (y == 1)).all()


@pytest.mark.parametrize("engine", ["dask-ml", "scikit-learn"])
@pytest.mark.parametrize(
    "wrong", [np.arange(20) % 2 + 1, np.arange(20) % 3, np.where(np.arange(20) % 2, 1.0, np.nan), np.ones(20)]
)
def test_labels_other_than_0_and_1_are_refused(engine, wrong):
    with pytest.raises(BadLabels, match="0 and 1"):
        fit_logistic(np.random.default_rng(0).normal(size=(20, 5)), wrong, C=1.0, engine=engine)


def test_labels_of_several_columns_are_refused():
    with pytest.raises(BadLabels, match="one number a hit"):
        fit_logistic(np.zeros((4, 2)), np.eye(2)[[0, 1, 0, 1]], C=1.0)


def test_several_blocks_give_what_one_gives(monkeypatch):
    scores, y = make()
    one = fit_logistic(scores, y, C=1.0).coefficient
    monkeypatch.setattr(logistic, "BLOCK_ROWS", 90)
    np.testing.assert_allclose(fit_logistic(scores, y, C=1.0).coefficient, one, atol=1e-8)
