"""Coordinates of frames in which distance is how hard it is to diffuse from one to another."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from diffdask.errors import BadParameter, nearest
from diffdask.models.weights import (
    KERNELS,
    count_neighbours,
    find_epsilon,
    find_parts,
    is_symmetric,
    keep_largest,
    multiply,
    scale_both,
    weigh,
)

#: Lanczos pays where the eigenvectors wanted are fewer than one in this many.
_FEW = 5

#: Relative accuracy of eigenvalues by Lanczos, in double and in single precision.
_ACCURACY = {8: 1e-12, 4: 1e-6}


class DiffusionMap(TransformerMixin, BaseEstimator):
    """Diffusion coordinates from a matrix of similarities or distances of all pairs.

    With weights W between frames and q their sums, W~ = W / (q_i q_j)^alpha is
    normalised to the steps P of a random walk, W~ over its row sums d. Its
    eigenvectors psi and eigenvalues lambda, the constant one left out, give the
    coordinates lambda^time psi. Euclidean distance in all of them is the
    diffusion distance: frames are close if walks of ``time`` steps that start
    from them end alike.

    Parameters
    ----------
    component_count
        Coordinates; None for all that there are.
    kernel
        What the matrix holds. "similarity": the weights W, not negative; for
        correlations give their exponential. "distances": *squared* distances
        d^2; W = exp(-d^2 / 2 epsilon).
    alpha
        1 takes out how densely frames are sampled, 1/2 gives Fokker-Planck, 0
        the plain Laplacian.
    epsilon
        Width of the kernel "distances", in the unit of its values; None for
        where log(sum W) rises fastest with log(epsilon).
    time
        Steps of the walk, 1 or more.
    neighbour_count
        Keep only this many of the largest weights of every frame, beside its own; a pair that
        either of both keeps is kept. None for all.
    seed
        Of the first vector of the Lanczos iteration, and of the frames whose distances choose epsilon.

    Attributes
    ----------
    coordinates_ : ndarray (n, k)
        Of the training frames. Of each coordinate the largest value is
        positive. NaN for frames that no weight connects to another.
    eigenvalues_ : ndarray (k,)
        Without the trivial 1, the largest first. Negative ones, which no
        positive definite kernel has, come last.
    epsilon_ : float
        Width used; NaN for the kernel "similarity".
    part_ : ndarray (n,) int
        Which part of the graph a frame is in, counted from 0; -1 for frames
        not connected at all. Where there are c parts the first c - 1
        coordinates tell the parts apart and have eigenvalue 1.
    sums_ : ndarray (n,)
        q.
    n_features_in_ : int
        n.

    References
    ----------
    Coifman & Lafon, Appl. Comput. Harmon. Anal. 21, 5 (2006). Coifman, Shkolnisky, Sigworth & Singer, IEEE Trans.
    Image Process. 17, 1891 (2008), the choice of epsilon.
    """

    def __init__(
        self,
        component_count: int | None = 10,
        kernel: str = "similarity",
        alpha: float = 1.0,
        epsilon: float | None = None,
        time: int = 1,
        neighbour_count: int | None = None,
        seed: int = 0,
    ) -> None:
        self.component_count = component_count
        self.kernel = kernel
        self.alpha = alpha
        self.epsilon = epsilon
        self.time = time
        self.neighbour_count = neighbour_count
        self.seed = seed

    def fit(self, X: Any, y: None = None) -> DiffusionMap:
        """Find the coordinates of the training frames.

        Parameters
        ----------
        X
            (n, n) matrix, symmetric, an array or a SciPy sparse matrix. NaN,
            and what a sparse matrix does not hold, are unknown: weight 0. The
            diagonal enters as it is.
        y
            Not used.

        Raises
        ------
        BadParameter
            If the matrix is not square, not symmetric or has negative values,
            if a parameter makes no sense, or if the graph is in more parts
            than there are coordinates.
        """
        self._check_parameters(X)
        self.n_features_in_ = X.shape[0]
        self.epsilon_ = self._choose_epsilon(X)
        weights, is_connected = self._connect(X)
        sums = multiply(weights, np.ones(weights.shape[0]))
        density = sums**-self.alpha
        degree = density * multiply(weights, density)
        part = find_parts(weights)
        values, vectors = self._decompose(scale_both(weights, density / np.sqrt(degree)), degree, part)
        # to eigenvectors of the walk, of unit norm where each frame counts with its share of the walk's rest
        vectors *= np.sqrt(degree.sum() / degree)[:, None]
        vectors *= np.sign(np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0))
        self.eigenvalues_ = values
        self.sums_ = _spread(sums, is_connected, 0.0)
        self.part_ = _spread(part, is_connected, -1)
        self.coordinates_ = _spread(values**self.time * vectors, is_connected, np.nan)
        self._eigenvectors = _spread(vectors, is_connected, 0.0)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Coordinates of other frames, by Nystrom's extension with the training frames' epsilon.

        Parameters
        ----------
        X
            (m, n): what :meth:`fit` was given, between m frames and the n
            training frames.

        Returns
        -------
        numpy.ndarray
            (m, k). NaN for frames that no weight connects to the training
            frames. Training frames get their own coordinates back, up to the
            weights that only their neighbours kept where ``neighbour_count``
            is set.

        Raises
        ------
        BadParameter
            If there are not n columns, or values are negative.
        """
        check_is_fitted(self)
        if np.ndim(X) != 2 or X.shape[1] != self.n_features_in_:
            raise BadParameter(
                f"the matrix must have {self.n_features_in_} columns, the training frames; got {X.shape}"
            )
        is_used = self.sums_ > 0
        weights = weigh(X, self.kernel, self.epsilon_)[:, is_used]
        if self.neighbour_count is not None:
            weights = keep_largest(weights, self.neighbour_count, are_training=False)
        density = self.sums_[is_used] ** -self.alpha
        reach = multiply(weights, density)
        reach = np.where(reach > 0, reach, np.nan)
        # the walk's first step averages psi over where it leads, which takes one power of lambda
        average = multiply(weights, density[:, None] * self._eigenvectors[is_used]) / reach[:, None]
        return np.asarray(average * self.eigenvalues_ ** (self.time - 1))

    def fit_transform(self, X: Any, y: None = None) -> np.ndarray:
        """Find the coordinates of the training frames, (n, k)."""
        return self.fit(X).coordinates_

    def __sklearn_tags__(self) -> Any:
        """Say that folds take rows and columns alike, and that NaN and sparse matrices are fine."""
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = tags.input_tags.allow_nan = tags.input_tags.sparse = True
        return tags

    def _check_parameters(self, X: Any) -> None:
        if self.kernel not in KERNELS:
            raise BadParameter(f"kernel '{self.kernel}' is not known; {nearest(str(self.kernel), KERNELS)}")
        if np.ndim(X) != 2 or X.shape[0] != X.shape[1] or X.shape[0] < 2:
            raise BadParameter(f"the matrix must be square, of two frames or more; got {np.shape(X)}")
        if self.time < 1 or self.time != int(self.time):
            raise BadParameter(f"time = {self.time} must be a whole number of steps, 1 or more")
        if self.epsilon is not None and not self.epsilon > 0:
            raise BadParameter(f"epsilon = {self.epsilon} must be above 0, or None to have it chosen")
        for name, most in (("component_count", X.shape[0] - 1), ("neighbour_count", X.shape[0] - 1)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise BadParameter(f"{name} = {value} must be from 1 to {most}, one less than there are frames")

    def _choose_epsilon(self, X: Any) -> float:
        if self.kernel == "similarity":
            return np.nan
        return find_epsilon(X, self.seed) if self.epsilon is None else float(self.epsilon)

    def _connect(self, X: Any) -> tuple[Any, np.ndarray]:
        """Weights of the frames that are connected to others, and which these are, (n,)."""
        weights = weigh(X, self.kernel, self.epsilon_)
        if not is_symmetric(weights):
            raise BadParameter("the matrix must be symmetric: what frame i is to j, j is to i")
        if self.neighbour_count is not None:
            weights = keep_largest(weights, self.neighbour_count, are_training=True)
        is_connected = count_neighbours(weights) > 0
        if not is_connected.any():
            raise BadParameter("no two frames are connected: all their weights are unknown or 0")
        return weights if is_connected.all() else weights[np.ix_(is_connected, is_connected)], is_connected

    def _decompose(self, symmetric: Any, degree: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Leading eigenvalues (k,) and orthonormal eigenvectors (n, k) of D^-1/2 W~ D^-1/2, less the trivial one."""
        size, parts = len(degree), int(part.max()) + 1
        count = size - 1 if self.component_count is None else min(self.component_count, size - 1)
        if parts - 1 > count:
            raise BadParameter(
                f"the graph is in {parts} parts, the largest of {np.bincount(part).max()} frames, and {count} "
                "coordinates cannot tell them apart: give a larger neighbour_count or epsilon, or more coordinates"
            )
        # The walk's rest in each part is known: eigenvalue 1, no need to search for it. One combination is trivial.
        rest = np.sqrt(degree)[:, None] * (part[:, None] == np.arange(parts))
        norm = np.linalg.norm(rest, axis=0)
        rest /= norm
        trivial = norm / np.linalg.norm(norm)
        between = rest @ np.linalg.svd(trivial[None])[2][1:].T
        others = count - (parts - 1)
        values, vectors = _find_leading(symmetric, rest, others, self.seed)
        return np.concatenate([np.ones(parts - 1), values]), np.hstack([between, vectors])


def _find_leading(symmetric: Any, known: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Largest eigenvalues and their vectors, with those of eigenvalue 1 that are known taken out."""
    from scipy.linalg import eigh
    from scipy.sparse.linalg import LinearOperator, eigsh

    size = symmetric.shape[0]
    if count == 0:
        return np.empty(0), np.empty((size, 0))
    # To eigenvalue -2, below all others; at 0 they would come between positive and negative ones.
    if count * _FEW >= size:
        dense = symmetric.toarray() if sparse.issparse(symmetric) else symmetric
        values, vectors = eigh(dense - 3.0 * known @ known.T, subset_by_index=(size - count, size - 1))
        return values[::-1], vectors[:, ::-1]
    kind = np.dtype(symmetric.dtype)
    known = known.astype(kind)
    operator = LinearOperator(
        symmetric.shape, matvec=lambda v: symmetric @ v.ravel() - 3.0 * (known @ (known.T @ v.ravel())), dtype=kind
    )
    first = np.random.default_rng(seed).normal(size=size).astype(kind)
    values, vectors = eigsh(
        operator, k=count, which="LA", v0=first, ncv=min(size, max(4 * count, 40)), tol=_ACCURACY[kind.itemsize]
    )
    order = np.argsort(-values, kind="stable")
    return values[order].astype(float), vectors[:, order].astype(float)


def _spread(values: np.ndarray, is_connected: np.ndarray, missing: float) -> np.ndarray:
    """Put values of connected frames where they belong among all frames."""
    spread = np.full((len(is_connected), *values.shape[1:]), missing, dtype=values.dtype)
    spread[is_connected] = values
    return spread
