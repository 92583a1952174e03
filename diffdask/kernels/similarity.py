"""Agreement of all pairs of frames in the detector's frame: matrix products over the bins present in both."""

import numpy as np


def count_shared(rows, columns):
    """Bins present in both frames of every pair, (n, m) int64, of (n, p) and (m, p) values with NaN where missing."""
    counts = _present(rows, rows) @ _present(columns, columns).T
    return np.rint(counts).astype(np.int64)


def mean_squared_difference(rows, columns):
    """Mean squared difference over the bins present in both frames, (n, m); NaN where there are none.

    sum (x - y)^2 = sum x^2 + sum y^2 - 2 sum x y, each over the bins of both.
    """
    x, y = np.nan_to_num(rows), np.nan_to_num(columns)
    in_x, in_y = _present(rows, x), _present(columns, y)
    total = (x * x) @ in_y.T + in_x @ (y * y).T - 2.0 * (x @ y.T)
    count = in_x @ in_y.T
    return np.maximum(np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0.5), 0.0)


def correlate_bins(rows, columns):
    """Pearson's correlation over the bins present in both frames, (n, m); NaN where it is not defined.

    n sum x y - sum x sum y over the roots of n sum x^2 - (sum x)^2 and of the
    same of y, each sum over the bins of both.
    """
    x, y = np.nan_to_num(rows), np.nan_to_num(columns)
    in_x, in_y = _present(rows, x), _present(columns, y)
    count, sum_x, sum_y = (product.astype(float) for product in (in_x @ in_y.T, x @ in_y.T, in_x @ y.T))
    spread_x = count * ((x * x) @ in_y.T) - sum_x**2
    spread_y = count * (in_x @ (y * y).T) - sum_y**2
    scale = np.sqrt(np.maximum(spread_x, 0.0) * np.maximum(spread_y, 0.0))
    # A spread that is nothing but rounding of 32-bit sums is none.
    is_defined = np.minimum(spread_x, spread_y) > 1e-5 * np.maximum(count, 1.0) ** 2
    covariance = count * (x @ y.T) - sum_x * sum_y
    return np.clip(np.divide(covariance, scale, out=np.full_like(scale, np.nan), where=is_defined), -1.0, 1.0)


def _present(values, like):
    return (~np.isnan(values)).astype(like.dtype)
