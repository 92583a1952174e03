"""Principal components of features, by dask-ml or by scikit-learn, read block by block."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffdask.errors import BadParameter, nearest

#: What fits: both give the same model.
ENGINES = ("dask-ml", "scikit-learn")

#: Rows that are decomposed at a time: 270 MB of 8192 features.
BLOCK_ROWS = 4096

#: Lazy features up to this size, in bytes, are read into memory once; a fit looks at them several times.
MEMORY = 2 * 1024**3

#: A component whose spread is below this share of the first one's is rounding: whitened, it would drown the others.
_ROUNDING = 1e-7


@dataclass(frozen=True)
class Components:
    """What turns features into a few whitened numbers."""

    mean: np.ndarray  #: (f,)
    column_scale: np.ndarray  #: (f,) what each feature is divided by first
    directions: np.ndarray  #: (k, f) orthonormal; the largest entry of each is positive
    spread: np.ndarray  #: (k,) standard deviation along each, descending

    def project(self, X: np.ndarray) -> np.ndarray:
        """Whitened components, (n, k), of features (n, f)."""
        centred = (np.asarray(X, dtype=float) - self.mean) / self.column_scale
        return np.asarray(centred @ self.directions.T / self.spread)


def fit_components(X: Any, count: int, *, engine: str = "dask-ml", standardise: bool = False) -> Components:
    """Find the leading principal components by incremental singular value decomposition.

    Parameters
    ----------
    X
        (n, f) features, NumPy or Dask; of a Dask array each block is read once,
        twice to standardise.
    count
        Components wanted, at most n and f; fewer come back where the features have fewer.
    engine
        "dask-ml" or "scikit-learn".
    standardise
        Whether to divide each feature by its standard deviation first.

    Notes
    -----
    Batches are handed over one by one, as arrays in memory: dask-ml's own loop reads a lazy input twice a batch.
    Its default solver is randomised and good to 1e-4 only, hence "full". Signs of components are arbitrary and
    differ between engines: the entry of largest size is made positive.

    References
    ----------
    Ross et al., Int. J. Comput. Vis. 77, 125 (2008).
    """
    check_engine(engine)
    scale = _find_spread(X) if standardise else np.ones(X.shape[1])
    count = max(1, min(count, *X.shape))
    pca = _make_pca(engine, count)
    for batch in read_batches(X, least=count):
        scaled = batch / scale
        with warnings.catch_warnings():
            # dask-ml divides 0 by 0 while it has seen no batch, and replaces the result; as do both without variance
            warnings.filterwarnings("ignore", "invalid value encountered in", RuntimeWarning)
            pca.partial_fit(scaled if engine == "scikit-learn" else _as_dask(scaled))
    spread = np.sqrt(np.maximum(np.asarray(pca.explained_variance_, dtype=float), 0.0))
    kept = max(1, int((spread > _ROUNDING * spread[0]).sum()))
    return Components(
        mean=np.asarray(pca.mean_, dtype=float) * scale,
        column_scale=scale,
        directions=fix_signs(np.asarray(pca.components_, dtype=float)[:kept]),
        spread=spread[:kept] if spread[0] > 0 else np.ones(1),
    )


def fix_signs(directions: np.ndarray) -> np.ndarray:
    """Turn rows, (k, f), such that the entry of largest size is positive."""
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    return np.asarray(directions * np.where(largest < 0, -1.0, 1.0))


def rotate_rows(X: np.ndarray) -> np.ndarray:
    """Write rows, (n, f), in an orthonormal basis of their span: (n, min(n, f)), same distances and products.

    Of 500 hits with 8192 features this loses nothing, and every fit on some of
    them is sixteen times smaller.
    """
    return X if X.shape[1] <= X.shape[0] else np.asarray(np.linalg.qr(X.T, mode="r")).T


def load_small(X: Any) -> Any:
    """Read features that fit in memory, once; larger ones stay lazy. Float either way."""
    is_lazy = hasattr(X, "dask")
    return X.astype(float) if is_lazy and 8 * X.size > MEMORY else np.asarray(X, dtype=float)


def read_batches(X: Any, *, least: int = 1) -> Iterator[np.ndarray]:
    """Read rows, about ``BLOCK_ROWS`` at a time and at least ``least``, each block of a Dask array once."""
    ends = np.cumsum(X.chunks[0]) if hasattr(X, "dask") else np.arange(BLOCK_ROWS, len(X) + BLOCK_ROWS, BLOCK_ROWS)
    start, total, rows = 0, int(X.shape[0]), max(BLOCK_ROWS, 5 * least)
    for end in np.minimum(ends, total).tolist():
        is_last = end == total
        if is_last or (end - start >= rows and total - end >= least):
            yield np.asarray(X[start:end], dtype=float)
            start = end
        if is_last:
            return


def check_engine(engine: str) -> None:
    """Raise :class:`BadParameter` if there is no such engine."""
    if engine not in ENGINES:
        raise BadParameter(f"engine '{engine}' is not known; {nearest(engine, ENGINES)}")


def _make_pca(engine: str, count: int) -> Any:
    if engine == "scikit-learn":
        from sklearn.decomposition import IncrementalPCA

        return IncrementalPCA(n_components=count)
    from dask_ml.decomposition import IncrementalPCA

    return IncrementalPCA(n_components=count, svd_solver="full")


def _find_spread(X: Any) -> np.ndarray:
    """Standard deviation of each column, (f,), 1 where it does not vary; shifted sums, so that none cancel."""
    count, total, squares, origin = 0, 0.0, 0.0, None
    for batch in read_batches(X):
        origin = batch.mean(axis=0) if origin is None else origin
        count, total = count + len(batch), total + (batch - origin).sum(axis=0)
        squares = squares + ((batch - origin) ** 2).sum(axis=0)
    spread = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0.0))
    size = 0.0 if origin is None else np.abs(origin)
    return np.where(spread > 1e-12 * size, spread, 1.0)


def _as_dask(array: np.ndarray) -> Any:
    import dask.array as da

    return da.from_array(array, chunks=-1)
