"""Incremental PCA and logistic regression on features of hits: the probability that a hit is diffuse."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, log_expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from diffdask.errors import BadLabels

#: Rows of a Dask block of features.
_BLOCK_ROWS = 4096

#: Fewest labelled hits of a class that a ranker can be fitted to.
_MEMBERS = 5

#: The solver penalises the intercept like any coefficient; a large constant makes the coefficient, and so the
#: penalty, small. Else a ranker of rare diffuse hits would bend its slopes to spare its intercept.
_INTERCEPT_COLUMN = 20.0

#: Iterations of the solver at which the learning curve is drawn.
CURVE_ITERATIONS = (1, 2, 3, 5, 8, 13, 21, 34, 55)


class Ranker(ClassifierMixin, BaseEstimator):
    """dask-ml's IncrementalPCA, whitening, and dask-ml's LogisticRegression as one model.

    Features are not standardised one by one: they share a unit (squared counting
    noise), and standardising would raise those that hold nothing but noise.

    Parameters
    ----------
    component_count
        Principal components that enter the regression; at most a fifth of the labelled hits.
    C
        Inverse strength of the ridge on the whitened components.
    iterations
        Most iterations of the solver.

    Attributes
    ----------
    mean_ : ndarray (f,)
    components_ : ndarray (k, f)
    scale_ : ndarray (k,)
        Standard deviation of each component.
    coefficient_ : ndarray (k,)
    intercept_ : float

    Notes
    -----
    dask-ml's lbfgs takes labels 0 and 1 only, penalises the intercept and stops
    short; so labels are checked here, the intercept's column is a large constant,
    and the intercept is solved for afterwards: at the maximum of the likelihood the mean probability equals the
    share of label 1.
    """

    def __init__(self, component_count: int = 20, C: float = 0.1, iterations: int = 100) -> None:
        self.component_count = component_count
        self.C = C
        self.iterations = iterations

    def fit(self, X: np.ndarray, y: np.ndarray) -> Ranker:
        """Fit to features (n, f), finite, and labels (n,), 1 for diffuse and 0 for non-diffuse.

        Raises
        ------
        BadLabels
            If labels are not 0 and 1, both present, at least five of each.
        """
        X, y = np.asarray(X, dtype=float), np.asarray(y)
        _check_labels(y)
        self.classes_ = np.array([0, 1])
        self._fit_components(X)
        return self._fit_regression(X, y)

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Logarithm of the odds for diffuse, (n,)."""
        check_is_fitted(self)
        return np.asarray(self._project(np.asarray(X, dtype=float)) @ self.coefficient_ + self.intercept_)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities of non-diffuse and diffuse, (n, 2)."""
        diffuse = expit(self.decision_function(X))
        return np.column_stack([1.0 - diffuse, diffuse])

    def predict(self, X: np.ndarray) -> np.ndarray:
        """1 where diffuse is the more probable, else 0."""
        return (self.decision_function(X) >= 0).astype(int)

    def _fit_components(self, X: np.ndarray) -> None:
        from dask_ml.decomposition import IncrementalPCA

        count = max(1, min(self.component_count, len(X) // 5, X.shape[1]))
        # "auto" would pick the randomised solver, which is good to 1e-4 only
        pca = IncrementalPCA(n_components=count, svd_solver="full", batch_size=max(_BLOCK_ROWS, 5 * count))
        with warnings.catch_warnings():
            # dask-ml divides 0 by 0 while it has seen no batch, and replaces the result
            warnings.filterwarnings("ignore", "invalid value encountered in divide", RuntimeWarning)
            pca.fit(_as_dask(X))
        self.mean_ = np.asarray(pca.mean_, dtype=float)
        self.components_ = np.asarray(pca.components_, dtype=float)
        spread = np.sqrt(np.asarray(pca.explained_variance_, dtype=float))
        self.scale_ = np.maximum(spread, 1e-12 * max(float(spread[0]), 1e-300))

    def _fit_regression(self, X: np.ndarray, y: np.ndarray) -> Ranker:
        """Fit the regression on components that are there."""
        from dask_ml.linear_model import LogisticRegression

        scores = np.column_stack([self._project(X), np.full(len(X), _INTERCEPT_COLUMN)])
        regression = LogisticRegression(
            solver="lbfgs",
            C=self.C,
            max_iter=self.iterations,
            fit_intercept=False,
            solver_kwargs={"normalize": False},  # whitened already; and it fails where components are constant
        )
        with warnings.catch_warnings():
            # dask-glm's use of Dask and SciPy, not ours
            warnings.filterwarnings("ignore", "Dask configuration key 'fuse_ave_width'", FutureWarning)
            warnings.filterwarnings("ignore", "scipy.optimize: The `disp` and `iprint`", DeprecationWarning)
            regression.fit(_as_dask(scores), _as_dask(y.astype(float)))
        self.coefficient_ = np.asarray(regression.coef_, dtype=float)[:-1]
        slope = self._project(X) @ self.coefficient_
        bound = float(np.abs(slope).max()) + 50.0
        self.intercept_ = float(brentq(lambda b: expit(slope + b).mean() - y.mean(), -bound, bound))
        return self

    def _project(self, X: np.ndarray) -> np.ndarray:
        return np.asarray((X - self.mean_) @ self.components_.T / self.scale_)


def cross_fit(ranker: Ranker, X: np.ndarray, y: np.ndarray, *, fold_count: int, seed: int) -> np.ndarray:
    """Score every labelled hit with a ranker that has not seen its label.

    Parameters
    ----------
    ranker
        Its parameters are used; it is not changed.
    X, y
        (n, f) features and (n,) labels 0 and 1.
    fold_count
        Stratified folds; fewer where a class has fewer members.
    seed
        Of the folds.

    Returns
    -------
    numpy.ndarray
        (n,) probability of diffuse.

    Raises
    ------
    BadLabels
        If a class has too few members for that: fewer than six.
    """
    from sklearn.base import clone

    scores = np.empty(len(y))
    for train, test in _folds(y, fold_count, seed):
        scores[test] = clone(ranker).fit(X[train], y[train]).predict_proba(X[test])[:, 1]
    return scores


def find_learning_curve(ranker: Ranker, X: np.ndarray, y: np.ndarray, *, seed: int) -> dict[str, list[float]]:
    """Mean log-likelihood of a label against the iterations of the solver, on training and on held-out hits.

    Returns
    -------
    dict
        "iteration", "training", "held_out": lists of equal length; four folds are averaged.
    """
    from sklearn.base import clone

    seen, unseen = [], []
    for train, test in _folds(y, 4, seed):
        fitted = clone(ranker).fit(X[train], y[train])
        for count in CURVE_ITERATIONS:  # the components do not depend on it
            fitted.set_params(iterations=count)._fit_regression(X[train], y[train])
            seen.append(mean_log_likelihood(fitted.decision_function(X[train]), y[train]))
            unseen.append(mean_log_likelihood(fitted.decision_function(X[test]), y[test]))
    shape = (-1, len(CURVE_ITERATIONS))
    return {
        "iteration": [float(count) for count in CURVE_ITERATIONS],
        "training": np.reshape(seen, shape).mean(axis=0).tolist(),
        "held_out": np.reshape(unseen, shape).mean(axis=0).tolist(),
    }


def mean_log_likelihood(log_odds: np.ndarray, y: np.ndarray) -> float:
    """Mean natural logarithm of the probability given to the true label."""
    return float(np.mean(log_expit(np.where(y == 1, log_odds, -log_odds))))


def _folds(y: np.ndarray, fold_count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import StratifiedKFold

    members = int(np.bincount(y.astype(int), minlength=2).min())
    enough = [count for count in range(2, members + 1) if members - -(-members // count) >= _MEMBERS]
    if not enough:
        raise BadLabels(
            f"a class has {members} labelled hits; to score them by rankers that have not seen them, "
            f"each must be left at least {_MEMBERS}: label more"
        )
    count = max(enough[0], min(fold_count, members // 2))
    return list(StratifiedKFold(count, shuffle=True, random_state=seed).split(np.zeros(len(y)), y))


def _check_labels(y: np.ndarray) -> None:
    if not np.isin(y, (0, 1)).all():
        raise BadLabels(f"labels of a ranker are 0 and 1, got {sorted(set(np.asarray(y).tolist()))[:5]}")
    members = np.bincount(y.astype(int), minlength=2)
    if members.min() < _MEMBERS:
        raise BadLabels(
            f"{members[1]} diffuse and {members[0]} non-diffuse hits are labelled; "
            f"a ranker needs at least {_MEMBERS} of each"
        )


def _as_dask(array: np.ndarray) -> Any:
    import dask.array as da

    return da.from_array(array, chunks=(_BLOCK_ROWS, *array.shape[1:]))
