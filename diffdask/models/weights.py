"""Weights between frames, as an array or a SciPy sparse matrix: the graph that a diffusion walks on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse

from diffdask.errors import BadParameter

KERNELS = ("similarity", "distances")

#: Rows of a matrix handled at once.
_BLOCK_ROWS = 1024

#: Frames whose distances choose epsilon, and widths tried an octave.
_EPSILON_FRAMES, _WIDTHS_PER_OCTAVE = 500, 4

#: Difference between a weight and its mirror image that is rounding, of the largest weight.
_ROUNDING = 1e-5


def weigh(matrix: Any, kernel: str, epsilon: float) -> Any:
    """Turn similarities or squared distances into weights.

    Parameters
    ----------
    matrix
        (m, n), array or sparse; NaN where unknown, as is what a sparse matrix does not hold.
    kernel
        One of ``KERNELS``.
    epsilon
        Of exp(-d^2 / 2 epsilon); not used for similarities.

    Returns
    -------
    ndarray or sparse array
        (m, n), a copy, in single precision if the matrix is; 0 where unknown.

    Raises
    ------
    BadParameter
        If the matrix holds negative values.
    """
    kind = np.float32 if matrix.dtype == np.float32 else np.float64
    is_sparse = sparse.issparse(matrix)
    weights: Any = sparse.csr_array(matrix, dtype=kind, copy=True) if is_sparse else np.array(matrix, dtype=kind)
    values: Any = weights.data if is_sparse else weights
    _refuse_negative(values, kernel)
    if kernel == "distances":
        np.divide(values, -2.0 * epsilon, out=values)
        np.exp(values, out=values)
    np.nan_to_num(values, copy=False, nan=0.0)
    if is_sparse:
        weights.eliminate_zeros()
    return weights


def find_epsilon(squared: Any, seed: int) -> float:
    """Find the width at which the sum of exp(-d^2 / 2 epsilon) grows fastest, log against log.

    The slope is half the dimension of what the frames lie on where kernels
    reach neighbours and not everything, and falls off on both sides.

    Parameters
    ----------
    squared
        (n, n) squared distances.
    seed
        Of the frames that are asked, where there are many.

    Raises
    ------
    BadParameter
        If a distance is negative, or none is above 0.
    """
    squared = squared.tocsr() if sparse.issparse(squared) else squared
    asked = np.sort(np.random.default_rng(seed).permutation(squared.shape[0])[:_EPSILON_FRAMES])
    known = np.concatenate([_others(squared, row) for row in asked])
    _refuse_negative(known, "distances")
    positive = known[known > 0]
    if not positive.size:
        raise BadParameter("no distance is above 0, so that none can choose epsilon: give epsilon")
    low, high = np.log2(positive.min()) - 4, np.log2(positive.max()) + 4
    widths = np.exp2(np.linspace(low, high, int((high - low) * _WIDTHS_PER_OCTAVE) + 2))
    return float(widths[np.argmax([_find_slope(known, width, len(asked)) for width in widths])])


def keep_largest(weights: Any, count: int, *, are_training: bool) -> Any:
    """Keep the largest weights of every row, (m, n) sparse.

    Parameters
    ----------
    weights
        (m, n).
    count
        Most weights of a row.
    are_training
        Rows and columns are the same frames: a row keeps its own weight as well, and a
        weight stays if either of its two frames keeps it.
    """
    kept = []
    for row in range(weights.shape[0]):
        columns, values = _entries(weights, row)
        is_own = (columns == row) & are_training
        most = min(count + int(is_own.sum()), len(values))
        chosen = np.sort(np.argsort(np.where(is_own, -np.inf, -values), kind="stable")[:most])
        kept.append((columns[chosen], values[chosen]))
    starts = np.cumsum([0, *(len(columns) for columns, _ in kept)])
    columns, values = (np.concatenate(part) for part in zip(*kept, strict=True))
    largest = sparse.csr_array((values, columns, starts), shape=weights.shape)
    return largest.maximum(largest.T).tocsr() if are_training else largest


def is_symmetric(weights: Any) -> bool:
    """Whether weights (n, n) are their own transpose, up to rounding in single precision."""
    largest = abs(weights).max()
    if sparse.issparse(weights):
        return bool(abs(weights - weights.T).max() <= _ROUNDING * largest)
    return all(np.abs(weights[r] - weights[:, r].T).max() <= _ROUNDING * largest for r in _blocks(len(weights)))


def count_neighbours(weights: Any) -> np.ndarray:
    """Number of other frames that each is connected to, (n,)."""
    if sparse.issparse(weights):
        count = np.bincount(weights.nonzero()[0], minlength=weights.shape[0])
    else:
        count = np.count_nonzero(weights, axis=1)
    return np.asarray(count - (weights.diagonal() != 0))


def multiply(weights: Any, right: np.ndarray) -> np.ndarray:
    """Product with (n,) or (n, k) in double precision, with no copy of all weights in it."""
    return np.concatenate([np.asarray(weights[rows] @ right) for rows in _blocks(weights.shape[0])])


def scale_both(weights: Any, scale: np.ndarray) -> Any:
    """Multiply rows and columns by (n,), in place where dense."""
    if sparse.issparse(weights):
        diagonal = sparse.diags_array(scale.astype(weights.dtype))
        return (diagonal @ weights @ diagonal).tocsr()
    weights *= scale.astype(weights.dtype)[:, None]
    weights *= scale.astype(weights.dtype)
    return weights


def find_parts(weights: Any) -> np.ndarray:
    """Number of the connected part that each frame is in, (n,) from 0."""
    if sparse.issparse(weights):
        return np.asarray(sparse.csgraph.connected_components(weights, directed=False)[1])
    part = np.full(len(weights), -1)
    for first in range(len(weights)):  # a sparse copy of a full matrix would be three times as large
        if part[first] >= 0:
            continue
        number, waiting = part.max() + 1, [first]
        part[first] = number
        while waiting and (part < 0).any():
            reached = np.flatnonzero((weights[waiting.pop()] > 0) & (part < 0))
            part[reached] = number
            waiting.extend(reached.tolist())
    return part


def _refuse_negative(values: np.ndarray, kernel: str) -> None:
    if (values < 0).any():
        what = "give the exponential of correlations" if kernel == "similarity" else "distances must be squared"
        raise BadParameter(f"the matrix holds negative values, down to {np.nanmin(values):.3g}: {what}")


def _find_slope(squared: np.ndarray, width: float, own: int) -> float:
    """Slope of log(sum W) over log(epsilon), with ``own`` distances of 0 added: of frames to themselves."""
    reduced = squared / (2.0 * width)
    weight = np.exp(-reduced)
    return float(np.sum(weight * reduced) / (weight.sum() + own))


def _others(matrix: Any, row: int) -> np.ndarray:
    """Finite entries of a row, its own left out, in double precision."""
    columns, values = _entries(matrix, row)
    return np.asarray(values[(columns != row) & np.isfinite(values)], dtype=float)


def _entries(matrix: Any, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values of a row, where there are any."""
    if not sparse.issparse(matrix):
        columns = np.flatnonzero(matrix[row])
        return columns, np.asarray(matrix[row])[columns]
    here = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return matrix.indices[here], matrix.data[here]


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK_ROWS, size)) for start in range(0, size, _BLOCK_ROWS))
