"""Calibration of log-odds on scores that did not see their labels, and their shift to another prevalence."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from diffdask.errors import BadParameter, nearest

CALIBRATIONS = ("platt", "temperature", "none")

#: Least slope: calibration may make a ranker unsure, but never turn its order over.
_LEAST_SLOPE = 0.01


def fit_calibration(log_odds: np.ndarray, y: np.ndarray, *, method: str = "platt") -> tuple[float, float]:
    """Find slope and offset such that slope * log_odds + offset are log-odds that hold.

    Parameters
    ----------
    log_odds
        (n,) of a model that has not seen the labels.
    y
        (n,) labels 0 and 1.
    method
        "platt": slope and offset; "temperature": slope only; "none": 1 and 0.

    Notes
    -----
    The targets are Platt's, (n1 + 1)/(n1 + 2) and 1/(n0 + 2): a few scores that
    separate the classes are no proof of certainty.

    References
    ----------
    Platt, Advances in Large Margin Classifiers 61 (1999); Guo et al., ICML (2017).
    """
    check_calibration(method)
    if method == "none":
        return 1.0, 0.0
    positives, negatives = int((y == 1).sum()), int((y == 0).sum())
    target = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    unit = float(log_odds.std()) or 1.0
    scaled, is_free = log_odds / unit, float(method == "platt")

    def loss(ab: np.ndarray) -> tuple[float, np.ndarray]:
        z = ab[0] * scaled + is_free * ab[1]
        excess = expit(z) - target
        return float((np.logaddexp(0.0, z) - target * z).mean()), np.array(
            [(excess * scaled).mean(), is_free * excess.mean()]
        )

    found = minimize(
        loss,
        [unit, 0.0],
        jac=True,
        method="L-BFGS-B",
        bounds=[(_LEAST_SLOPE * unit, None), (None, None)],
        options={"ftol": 1e-14, "gtol": 1e-9},
    )
    return float(found.x[0] / unit), float(is_free * found.x[1])


def shift_prevalence(share: float, prevalence: float | None) -> float:
    """What to add to log-odds learnt where ``share`` is diffuse, for use where ``prevalence`` is.

    Bayes: the likelihood ratio of a hit's features stays, the prior odds change.
    None for no shift.

    Examples
    --------
    >>> round(shift_prevalence(0.5, 0.05), 3)
    -2.944
    """
    return 0.0 if prevalence is None else float(logit(prevalence) - logit(share))


def check_calibration(method: str) -> None:
    """Raise :class:`BadParameter` if there is no such method."""
    if method not in CALIBRATIONS:
        raise BadParameter(f"calibration '{method}' is not known; {nearest(method, CALIBRATIONS)}")
