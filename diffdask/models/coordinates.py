"""How many of the leading features count, where they come in order of importance: coordinates of a diffusion map."""

from __future__ import annotations

import numpy as np

from diffdask.models.ranker import Ranker, cross_fit

#: Numbers of coordinates that are tried.
_COUNTS = (1, 2, 3, 5, 8, 13, 20, 30)

#: Strength at which they are tried, where it is to be chosen itself.
_TRIAL_C = 0.1


def choose_coordinates(
    ranker: Ranker,
    X: np.ndarray,
    y: np.ndarray,
    *,
    fold_count: int = 5,
    seed: int,
    group: np.ndarray | None = None,
) -> int:
    """Find how many of the leading columns of X, (n, f), give held-out labels the highest probability.

    Parameters
    ----------
    ranker
        Its parameters are used; it is not changed.
    X, y, fold_count, seed, group
        As in :func:`diffdask.models.ranker.cross_fit`.
    """
    from sklearn.base import clone

    quick = clone(ranker).set_params(engine="scikit-learn", calibration="none", C=ranker.C or _TRIAL_C)
    counts = [count for count in _COUNTS if count <= X.shape[1]]
    likelihood = []
    for count in counts:
        score = cross_fit(quick, X[:, :count], y, fold_count=fold_count, seed=seed, group=group)
        likelihood.append(np.log(np.where(y == 1, score, 1.0 - score)).mean())
    return counts[int(np.argmax(likelihood))]
