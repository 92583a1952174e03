"""Incremental PCA and logistic regression on features of hits: the probability that a hit is diffuse."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from diffdask.errors import BadLabels, BadParameter
from diffdask.models.calibration import check_calibration, fit_calibration, shift_prevalence
from diffdask.models.components import Components, check_engine, fit_components, load_small, read_batches, rotate_rows
from diffdask.models.folds import MEMBERS, Fold, make_folds
from diffdask.models.logistic import LogisticFit, check_labels, fit_logistic, mean_log_likelihood, solve_logistic

_log = logging.getLogger(__name__)

#: Strengths that are tried where C is to be chosen.
STRENGTHS = tuple(10.0 ** (step / 2) for step in range(-8, 5))

#: Folds within a fit, and of the learning curve: the fewest members of a class that each must keep.
_INNER_FOLDS, _CURVE_FOLDS, _INNER_MEMBERS = 5, 4, 2


class Ranker(ClassifierMixin, BaseEstimator):
    """IncrementalPCA, whitening, logistic regression and calibration as one model.

    Parameters
    ----------
    component_count
        Principal components that enter the regression; at most a fifth of the labelled hits.
    C
        Inverse strength of the ridge on the whitened components; 0 to choose what gives held-out labels the highest
        probability, in folds.
    iterations
        Most iterations of the solver.
    engine
        "dask-ml" or "scikit-learn": the same model.
    standardise
        Whether features are first divided by their standard deviations: where they do not share a unit. Those that
        do, such as squared counting noise, are better left: it would raise those that hold nothing but noise.
    calibration
        "platt", "temperature" or "none"; from scores of hits by rankers that had not seen their labels.
    prevalence
        Share of diffuse among the hits that will be ranked; None for that among the training labels.
    seed
        Of the folds.

    Attributes
    ----------
    mean_, column_scale_ : ndarray (f,)
    components_ : ndarray (k, f)
    scale_ : ndarray (k,)
        Standard deviation of each component.
    coefficient_ : ndarray (k,)
    intercept_ : float
    calibration_ : ndarray (2,)
        Slope and offset.
    share_ : float
        Of diffuse among the training labels.
    C_ : float
        The one given or chosen.
    log_likelihood_ : ndarray (iterations,)
        Mean log-likelihood of the training labels after each iteration of the solver, before calibration.
    is_converged_ : bool
        Whether the solver came to its end within ``iterations``.

    Notes
    -----
    Classes are balanced by the prior, not by weights. The likelihood ratio of features does not depend on how many
    hits of each class were labelled; only the intercept does (Prentice & Pyke, Biometrika 66, 403 (1979); King &
    Zeng, Political Analysis 9, 137 (2001)). So the likelihood is maximised as it is, which wastes no hit, the
    intercept is free of the ridge, and ``prevalence`` moves it. Weights would do the same with more noise.

    C and calibration are found with scikit-learn's components and Newton's steps, whatever the engine: a convex
    problem has one solution.
    """

    def __init__(
        self,
        component_count: int = 20,
        C: float = 0.0,
        iterations: int = 100,
        engine: str = "dask-ml",
        standardise: bool = False,
        calibration: str = "platt",
        prevalence: float | None = None,
        seed: int = 0,
    ) -> None:
        self.component_count = component_count
        self.C = C
        self.iterations = iterations
        self.engine = engine
        self.standardise = standardise
        self.calibration = calibration
        self.prevalence = prevalence
        self.seed = seed

    def fit(self, X: Any, y: np.ndarray, *, group: np.ndarray | None = None) -> Ranker:
        """Fit to features and labels.

        Parameters
        ----------
        X
            (n, f), finite; NumPy, or Dask chunked along rows and read from
            storage: up to 2 GB are loaded once, more are read block by block,
            several times.
        y
            (n,) 1 for diffuse and 0 for non-diffuse.
        group
            (n,) run of each hit: folds for C and calibration split none, where there are runs enough.

        Raises
        ------
        BadLabels
            If labels are not 0 and 1, at least five of each.
        BadParameter
            If a parameter is out of range.
        """
        self._check_parameters()
        X, y = load_small(X), np.asarray(y)
        _check_members(X, y)
        self.classes_ = np.array([0, 1])
        self.share_ = float(y.mean())
        self.C_, out_of_fold = self._cross_validate(X, y, group)
        self.calibration_ = np.array([1.0, 0.0])
        if out_of_fold is not None:
            self.calibration_ = np.array(fit_calibration(out_of_fold, y, method=self.calibration))
        scores, found = self._fit_at(X, y)
        self.coefficient_, self.intercept_ = found.coefficient, found.intercept
        self.log_likelihood_ = np.array([mean_log_likelihood(log_odds, y) for log_odds in _follow(found, scores)])
        self.is_converged_ = found.is_converged
        return self

    def decision_function(self, X: Any) -> Any:
        """Logarithm of the odds for diffuse, (n,); a Dask array of a Dask array."""
        check_is_fitted(self)
        if hasattr(X, "dask"):
            # shapes are told: those that dask-ml's own wrappers announce are wrong
            whole = X.rechunk({1: -1})
            return whole.map_blocks(self.decision_function, drop_axis=1, dtype=float, meta=np.empty(0))
        return self._calibrate(self._project(X) @ self.coefficient_ + self.intercept_)

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of non-diffuse and diffuse, (n, 2); a Dask array of a Dask array."""
        if hasattr(X, "dask"):
            check_is_fitted(self)
            whole, meta = X.rechunk({1: -1}), np.empty((0, 0))
            return whole.map_blocks(self.predict_proba, chunks=(X.chunks[0], (2,)), dtype=float, meta=meta)
        diffuse = expit(self.decision_function(X))
        return np.column_stack([1.0 - diffuse, diffuse])

    def predict(self, X: Any) -> Any:
        """1 where diffuse is the more probable, else 0."""
        return (self.decision_function(X) >= 0).astype(int)

    def _check_parameters(self) -> None:
        check_engine(self.engine)
        check_calibration(self.calibration)
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            raise BadParameter(f"prevalence = {self.prevalence} must lie between 0 and 1")
        if not (np.isfinite(self.C) and self.C >= 0):
            raise BadParameter(f"C = {self.C} must be positive, or 0 to choose it")
        for name in ("component_count", "iterations"):
            if getattr(self, name) < 1:
                raise BadParameter(f"{name} = {getattr(self, name)} must be at least 1")

    def _cross_validate(self, X: Any, y: np.ndarray, group: np.ndarray | None) -> tuple[float, np.ndarray | None]:
        """C, and log-odds, (n,), by regressions that had not seen the label; None where nobody asks for them."""
        if self.C > 0 and self.calibration == "none":
            return self.C, None
        tried = np.array([self.C] if self.C > 0 else STRENGTHS)
        X, log_odds = _in_few_columns(self, X), np.empty((len(y), tried.size))
        for train, test in _inner_folds(y, group, self.seed):
            components = self._find_components(X[train], "scikit-learn")
            seen, unseen = _project_batches(components, X[train]), _project_batches(components, X[test])
            for column, C in enumerate(tried):
                *slope, intercept = solve_logistic(seen, y[train], C=C)
                log_odds[test, column] = unseen @ slope + intercept
        best = int(np.argmax([mean_log_likelihood(column, y) for column in log_odds.T]))
        return float(tried[best]), log_odds[:, best]

    def _fit_at(self, X: Any, y: np.ndarray) -> tuple[np.ndarray, LogisticFit]:
        """Fit components and, on them, the regression of strength ``C_``; the components of X and the regression."""
        components = self._find_components(X, self.engine)
        self.mean_, self.column_scale_ = components.mean, components.column_scale
        self.components_, self.scale_ = components.directions, components.spread
        scores = _project_batches(components, X)
        return scores, fit_logistic(scores, y, C=self.C_, iterations=self.iterations, engine=self.engine)

    def _find_components(self, X: Any, engine: str) -> Components:
        count = max(1, min(self.component_count, X.shape[0] // 5))
        return fit_components(X, count, engine=engine, standardise=self.standardise)

    def _project(self, X: np.ndarray) -> np.ndarray:
        return Components(self.mean_, self.column_scale_, self.components_, self.scale_).project(X)

    def _calibrate(self, log_odds: np.ndarray) -> np.ndarray:
        slope, offset = self.calibration_
        return np.asarray(slope * log_odds + offset + shift_prevalence(self.share_, self.prevalence))


def cross_fit(
    ranker: Ranker, X: Any, y: np.ndarray, *, fold_count: int, seed: int, group: np.ndarray | None = None
) -> np.ndarray:
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
    group
        (n,) run of each hit, to have it scored by a ranker that has not seen any
        hit of its run; None to deal hits one by one.

    Returns
    -------
    numpy.ndarray
        (n,) probability of diffuse.

    Raises
    ------
    BadLabels
        If a class has too few members for that: fewer than six.
    """
    return score_folds(ranker, X, y, make_folds(y, fold_count=fold_count, seed=seed, group=group), group=group)


def score_folds(
    ranker: Ranker, X: Any, y: np.ndarray, folds: Sequence[Fold], *, group: np.ndarray | None = None
) -> np.ndarray:
    """Score the tested hits of each fold with a ranker fitted to its training hits, (n,); NaN if tested in none."""
    from sklearn.base import clone

    X, scores = _in_few_columns(ranker, load_small(X)), np.full(len(y), np.nan)
    for train, test in folds:
        fitted = clone(ranker).fit(X[train], y[train], group=None if group is None else group[train])
        scores[test] = np.asarray(fitted.predict_proba(X[test]))[:, 1]
    return scores


def find_learning_curve(
    ranker: Ranker, X: Any, y: np.ndarray, *, seed: int, group: np.ndarray | None = None
) -> dict[str, list[float]]:
    """Mean log-likelihood of a label after each iteration of the solver, on training and on held-out hits.

    Parameters
    ----------
    ranker
        Fitted, or with its C given.
    X, y, seed, group
        As in :func:`cross_fit`.

    Returns
    -------
    dict
        "iteration", "training", "held_out": lists of equal length; folds are
        averaged, and one whose solver was done stays where it ended.
    """
    from sklearn.base import clone

    X, curves = _in_few_columns(ranker, load_small(X)), []
    for train, test in make_folds(y, fold_count=_CURVE_FOLDS, seed=seed, group=group):
        fold = clone(ranker)
        fold.C_ = ranker.C_ if hasattr(ranker, "C_") else ranker.C
        scores, found = fold._fit_at(X[train], y[train])
        unseen = np.concatenate([fold._project(batch) for batch in read_batches(X[test])])
        pairs = zip(_follow(found, scores), _follow(found, unseen), strict=True)
        curves.append([(mean_log_likelihood(a, y[train]), mean_log_likelihood(b, y[test])) for a, b in pairs])
    length = max(map(len, curves))
    mean = np.mean([curve + [curve[-1]] * (length - len(curve)) for curve in curves], axis=0)
    return {
        "iteration": [float(count) for count in range(1, length + 1)],
        "training": mean[:, 0].tolist(),
        "held_out": mean[:, 1].tolist(),
    }


def _follow(found: LogisticFit, scores: np.ndarray) -> np.ndarray:
    """Log-odds of hits after each iteration, (iterations, n)."""
    return np.asarray(found.path[:, :-1] @ scores.T + found.path[:, -1:])


def _inner_folds(y: np.ndarray, group: np.ndarray | None, seed: int) -> list[Fold]:
    """Folds within the training hits: by run where there are runs enough, else by hit. Scores do not leak by it."""
    if group is not None:
        try:
            return make_folds(y, fold_count=_INNER_FOLDS, seed=seed, group=group, least=_INNER_MEMBERS)
        except BadLabels:
            _log.info("too few runs in the training hits: C and calibration are found in folds by hit")
    return make_folds(y, fold_count=_INNER_FOLDS, seed=seed, least=_INNER_MEMBERS)


def _project_batches(components: Components, X: Any) -> np.ndarray:
    return np.concatenate([components.project(batch) for batch in read_batches(X)])


def _in_few_columns(ranker: Ranker, X: Any) -> Any:
    """Same geometry in fewer columns, where there are more features than hits and their units do not matter."""
    return X if ranker.standardise or hasattr(X, "dask") else rotate_rows(X)


def _check_members(X: Any, y: np.ndarray) -> None:
    if np.ndim(y) != 1 or X.ndim != 2 or X.shape[0] != y.size:
        raise BadLabels(f"{np.shape(y)} labels do not go with features of shape {X.shape}")
    if np.isin(y, (0, 1)).all():
        members = np.bincount(y.astype(int), minlength=2)
        if members.min() < MEMBERS:
            raise BadLabels(
                f"{members[1]} diffuse and {members[0]} non-diffuse hits are labelled; "
                f"a ranker needs at least {MEMBERS} of each"
            )
    check_labels(y)
