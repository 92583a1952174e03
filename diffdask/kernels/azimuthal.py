"""Correlations of polar bins that no rotation about the beam changes. Plain NumPy: a few large products a lag."""

import numpy as np


def correlate_neighbours(values, ring_groups, ring_lag, azimuth_lag):
    """Mean product of bins a fixed number of rings and azimuths apart.

    Counting noise of different bins is independent, so that it averages to zero
    in every product except that of a bin with itself.

    Parameters
    ----------
    values : (n, r, a) float
        Polar significances; NaN where a bin is missing.
    ring_groups : list of slice
        Groups of rings; both bins lie in the group.
    ring_lag, azimuth_lag : int
        Distance of the two bins, not both zero; ring_lag is not negative.

    Returns
    -------
    numpy.ndarray
        (n, g) mean product of each group; 0 where a group has no pair.
    """
    present = np.isfinite(values)
    filled = np.where(present, values, 0.0)
    shifted, shifted_present = np.roll(filled, -azimuth_lag, axis=2), np.roll(present, -azimuth_lag, axis=2)
    means = []
    for group in ring_groups:
        start, stop = group.start, max(group.stop - ring_lag, group.start)
        upper = slice(start + ring_lag, stop + ring_lag)
        total = np.einsum("nra,nra->n", filled[:, start:stop], shifted[:, upper])
        pairs = (present[:, start:stop] & shifted_present[:, upper]).sum(axis=(1, 2))
        means.append(total / np.maximum(pairs, 1))
    return np.stack(means, axis=1)


def find_angular_power(correlations, bins, harmonics):
    """Azimuthal power of harmonics from azimuthal correlations, counting noise left out.

    Parameters
    ----------
    correlations : (..., lags) float
        Correlation at azimuthal lags 1, 2, ... bins // 2.
    bins : int
        Azimuthal bins.
    harmonics : int
        Harmonics 1 to this.

    Returns
    -------
    numpy.ndarray
        (..., harmonics): the cosine transform of the correlation without its
        value at lag zero, which is where all counting noise is.
    """
    lag = np.arange(1, bins // 2 + 1)
    weight = np.where(2 * lag == bins, 1.0, 2.0) / bins  # the lag of half a turn is its own mirror image
    return correlations @ (weight[:, None] * np.cos(2 * np.pi * lag[:, None] * np.arange(1, harmonics + 1) / bins))
