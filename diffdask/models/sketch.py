"""The leading directions of many rows, kept in little memory and brought up to date as rows come.

A sketch of rows X (n, p) is a few rows S with S'S near X'X: the leading right
singular vectors of X, each as long as its singular value. Sketches of two sets
of rows, one above the other, are a sketch of both. As long as there are no more
rows than the sketch may have, nothing is lost.

References
----------
Levy & Lindenbaum, IEEE Trans. Image Process. 9, 1371 (2000); Ross et al., Int. J. Comput. Vis. 77, 125 (2008).
"""

from __future__ import annotations

import numpy as np


def compress_rows(rows: np.ndarray, size: int) -> tuple[np.ndarray, float]:
    """Replace rows by at most ``size`` rows of nearly the same second moments.

    Parameters
    ----------
    rows
        (n, p) finite.
    size
        Rows to keep.

    Returns
    -------
    tuple
        (min(n, size), p) rows, and the sum of squares that they lack.
    """
    if len(rows) <= size:
        return rows, 0.0
    directions, squared = leading_directions(rows, size)
    total = float(np.einsum("np,np->", rows, rows, dtype=np.float64))
    return directions * np.sqrt(squared)[:, None].astype(rows.dtype), max(total - float(squared.sum()), 0.0)


def leading_directions(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Leading right singular vectors of rows, from the smaller of the two Gram matrices.

    Parameters
    ----------
    rows
        (n, p) finite.
    count
        Directions wanted; fewer are given where the rows have not as many.

    Returns
    -------
    tuple
        (k, p) orthonormal directions, strongest first, and (k,) the sum of squares along each.
    """
    if len(rows) <= rows.shape[1]:
        squared, vectors = leading_eigenvectors(rows @ rows.T, count)
        return combine_rows(rows, vectors, squared), squared
    squared, vectors = leading_eigenvectors(rows.T @ rows, count)
    return np.ascontiguousarray(vectors.T.astype(rows.dtype)), squared


def leading_eigenvectors(gram: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the largest eigenvalues of a Gram matrix (m, m), (k,), and their vectors (m, k); zeros are left out."""
    from scipy.linalg import eigh

    size = len(gram)
    count = min(count, size)
    if count == 0 or not gram.any():
        return np.empty(0), np.empty((size, 0))
    squared, vectors = eigh(gram.astype(np.float64), subset_by_index=(size - count, size - 1))
    is_kept = squared[::-1] > np.finfo(gram.dtype).eps * size * squared[-1]
    return squared[::-1][is_kept], vectors[:, ::-1][:, is_kept]


def combine_rows(rows: np.ndarray, vectors: np.ndarray, squared: np.ndarray) -> np.ndarray:
    """Make directions (k, p) of rows (m, p) from eigenvectors (m, k) and eigenvalues (k,) of their Gram matrix."""
    return (vectors / np.sqrt(squared)).T.astype(rows.dtype) @ rows
