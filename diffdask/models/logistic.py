"""Logistic regression with a ridge that spares the intercept: by dask-ml or scikit-learn, solved to the end."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, log_expit

from diffdask.errors import BadLabels
from diffdask.models.components import BLOCK_ROWS, check_engine

#: Largest gradient, per hit, of a solution.
_TOLERANCE = 1e-9

#: Newton's steps at the end of the solver's path; it converges quadratically from there.
_NEWTON_STEPS = 20


@dataclass(frozen=True)
class LogisticFit:
    """A regression, and how the solver got there."""

    coefficient: np.ndarray  #: (k,)
    intercept: float
    path: np.ndarray  #: (iterations, k + 1) coefficients and intercept after each iteration
    is_converged: bool


def fit_logistic(
    scores: np.ndarray, y: np.ndarray, *, C: float, iterations: int = 100, engine: str = "dask-ml"
) -> LogisticFit:
    """Maximise the log-likelihood less |coefficient|^2 / (2 C).

    Parameters
    ----------
    scores
        (n, k) in memory, finite, of similar spread: whitened components.
    y
        (n,) labels 0 and 1, both present.
    C
        Inverse strength of the ridge.
    iterations
        Most iterations.
    engine
        "dask-ml" or "scikit-learn"; both lbfgs, from zero.

    Raises
    ------
    BadLabels
        If labels are not 0 and 1, both present.

    Notes
    -----
    dask-ml as it comes penalises the intercept, overflows at large margins, and stops at a relative change of 2e-9
    whatever the tolerance. It takes another penalty and another family: ours leave the intercept alone, do not
    overflow, and keep the path. Where it stopped before ``iterations``, Newton's steps finish the path; they count as
    iterations. dask-ml reads its input some fifteen times, hence ``scores`` in memory.
    """
    check_engine(engine)
    check_labels(y)
    fit = _path_of_dask_ml if engine == "dask-ml" else _path_of_scikit_learn
    path = fit(scores, y.astype(float), C, iterations)
    last = path[-1]
    _, gradient, _ = _derivatives(last, _with_ones(scores), y, C)
    is_converged = bool(np.abs(gradient).max() <= 1e-4 * len(y))
    return LogisticFit(coefficient=last[:-1].copy(), intercept=float(last[-1]), path=path, is_converged=is_converged)


def solve_logistic(scores: np.ndarray, y: np.ndarray, *, C: float) -> np.ndarray:
    """The same maximum by Newton's steps from zero: coefficients and intercept, (k + 1,), in milliseconds for few k."""
    start = np.zeros((1, scores.shape[1] + 1))
    return np.asarray(_finish(start, _with_ones(scores), y.astype(float), C, _NEWTON_STEPS)[-1])


def mean_log_likelihood(log_odds: np.ndarray, y: np.ndarray) -> float:
    """Mean natural logarithm of the probability given to the true label."""
    return float(np.mean(log_expit(np.where(y == 1, log_odds, -log_odds))))


def check_labels(y: np.ndarray) -> None:
    """Raise :class:`BadLabels` unless labels are 0 and 1, both present.

    dask-ml's regression takes any numbers, and fits nonsense to them without a word.
    """
    if np.ndim(y) != 1:
        raise BadLabels(f"labels of a ranker are one number a hit, got an array of shape {np.shape(y)}")
    found = sorted(set(np.asarray(y).tolist()), key=str)
    if not np.isin(y, (0, 1)).all():
        raise BadLabels(f"labels of a ranker are 0 and 1, got {found[:5]}")
    if len(found) < 2:
        raise BadLabels(f"labels of a ranker are 0 and 1, both present, got {found} only")


def _path_of_dask_ml(scores: np.ndarray, y: np.ndarray, C: float, iterations: int) -> np.ndarray:
    """Path of dask-ml's lbfgs, (iterations, k + 1), finished by Newton's steps."""
    from dask_ml.linear_model import LogisticRegression

    columns, family = _with_ones(scores), _RecordedLogistic()
    regression = LogisticRegression(
        penalty=_ridge_of_coefficients(),
        solver="lbfgs",  # newton and gradient_descent ignore C
        C=C,
        tol=_TOLERANCE,
        max_iter=iterations,
        fit_intercept=False,  # it has its column of ones
        solver_kwargs={"normalize": False, "family": family},  # normalize fails where columns are constant
    )
    with warnings.catch_warnings():
        # dask-glm's use of Dask and SciPy, not ours
        warnings.filterwarnings("ignore", "Dask configuration key 'fuse_ave_width'", FutureWarning)
        warnings.filterwarnings("ignore", "scipy.optimize: The `disp` and `iprint`", DeprecationWarning)
        regression.fit(_as_dask(columns), _as_dask(y))
    path = _accepted(np.array(family.visited), columns, y, C)
    path[-1] = np.asarray(regression.coef_, dtype=float)
    return _finish(path, columns, y, C, iterations)


def _accepted(visited: np.ndarray, columns: np.ndarray, y: np.ndarray, C: float) -> np.ndarray:
    """The points visited that lowered the loss: a trial of the line search that was turned down is no iteration."""
    losses = np.array([_loss(beta, columns, y, C) for beta in visited])
    is_lower = losses[1:] < np.minimum.accumulate(losses)[:-1]
    return visited[1:][is_lower] if is_lower.any() else visited[:1].copy()


def _finish(path: np.ndarray, columns: np.ndarray, y: np.ndarray, C: float, iterations: int) -> np.ndarray:
    """Append Newton's steps while iterations are left and the gradient is not small."""
    points = list(path)
    for _ in range(min(_NEWTON_STEPS, iterations - len(path))):
        loss, gradient, hessian = _derivatives(points[-1], columns, y, C)
        if np.abs(gradient).max() <= _TOLERANCE * len(y):
            break
        step = np.linalg.lstsq(hessian, gradient)[0]
        while _loss(points[-1] - step, columns, y, C) > loss and np.abs(step).max() > 1e-12:
            step = step / 2  # far from the solution a whole step may overshoot
        points.append(points[-1] - step)
    return np.array(points)


def _path_of_scikit_learn(scores: np.ndarray, y: np.ndarray, C: float, iterations: int) -> np.ndarray:
    """Path of scikit-learn's lbfgs, (iterations, k + 1): it keeps none, so it is stopped after 1, 2, ... iterations."""
    last = _solve(scores, y, C, iterations)
    stopped = [_solve(scores, y, C, count) for count in range(1, int(last.n_iter_[0]))]
    return np.array([np.append(fit.coef_[0], fit.intercept_[0]) for fit in (*stopped, last)])


def _solve(scores: np.ndarray, y: np.ndarray, C: float, iterations: int) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # is_converged says it
        return LogisticRegression(C=C, solver="lbfgs", tol=_TOLERANCE, max_iter=iterations).fit(scores, y)


def _loss(beta: np.ndarray, columns: np.ndarray, y: np.ndarray, C: float) -> float:
    z = columns @ beta
    return float((np.logaddexp(0.0, z) - y * z).sum() + (beta[:-1] ** 2).sum() / (2.0 * C))


def _derivatives(
    beta: np.ndarray, columns: np.ndarray, y: np.ndarray, C: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, gradient (k + 1,) and Hessian (k + 1, k + 1)."""
    p = expit(columns @ beta)
    ridge = np.append(np.full(beta.size - 1, 1.0 / C), 0.0)
    hessian = columns.T * (p * (1.0 - p)) @ columns + np.diag(ridge)
    return _loss(beta, columns, y, C), columns.T @ (p - y) + ridge * beta, hessian


class _RecordedLogistic:
    """dask-glm's family of logistic regression, without overflow, that keeps the points it was asked for."""

    def __init__(self) -> None:
        self.visited: list[np.ndarray] = []

    def pointwise_loss(self, beta: Any, X: Any, y: Any) -> Any:
        self.visited.append(np.array(beta, dtype=float))  # a Dask array while a cluster is connected
        z = X.dot(beta)
        return (_softplus(z) - y * z).sum()

    def pointwise_gradient(self, beta: Any, X: Any, y: Any) -> Any:
        return X.T.dot(X.dot(beta).map_blocks(expit, dtype=float) - y)


def _softplus(z: Any) -> Any:
    return -(-z).map_blocks(log_expit, dtype=float)


@functools.cache
def _ridge_of_coefficients() -> Any:
    """A penalty of dask-glm: half the sum of squares of all but the last coefficient, which is the intercept."""
    from dask_glm.regularizers import Regularizer  # type: ignore[import-untyped]

    class RidgeOfCoefficients(Regularizer):
        name = "ridge_of_coefficients"

        def f(self, beta: Any) -> Any:
            return (beta[:-1] ** 2).sum() / 2

        def gradient(self, beta: Any) -> Any:
            return beta * np.append(np.ones(beta.shape[0] - 1), 0.0)

    return RidgeOfCoefficients()


def _with_ones(scores: np.ndarray) -> np.ndarray:
    return np.column_stack([scores, np.ones(len(scores))])


def _as_dask(array: np.ndarray) -> Any:
    import dask.array as da

    return da.from_array(array, chunks=(BLOCK_ROWS, *array.shape[1:]))
