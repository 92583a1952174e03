"""Structure of a single cleaned hit: how much more polar bins agree that are near each other in reciprocal space."""

import numpy as np

from diffdask.kernels.compilation import compiled, kernel

#: Pairs of bins count as near out to this many times the scale, ...
_NEAR = 2.5

#: ... and as far from here to there.
_FAR = 3.5, 6.0


def weigh_pairs(ring_q, azimuth_count, scale):
    """Weigh pairs of polar bins: positive where they are near in reciprocal space, negative where they are far.

    Diffuse features are a Brillouin zone wide or so, whatever the ring: what
    matters is how far apart two bins are in reciprocal space, so that many
    azimuthal bins are near at low q and hardly any at high q. What is left of
    shadows, ice or a common mode reaches further, and far pairs take it off: the
    weights of each ring sum to zero, and outer rings without far pairs only serve as second rings.

    Parameters
    ----------
    ring_q : (r,) float
        Centres of the rings, 1/angstrom, ascending.
    azimuth_count : int
        Azimuthal bins, all round.
    scale : float
        Standard deviation of the weight of near pairs, 1/angstrom.

    Returns
    -------
    lags : (l, 2) int
        Rings and azimuths from the first bin to the second.
    weights : (l, r) float
        By the ring of the first bin; 0 for pairs that do not count.
    """
    lags = _list_lags(ring_q, azimuth_count, _FAR[1] * scale)
    distance = np.array([_distances(ring_q, azimuth_count, *lag) for lag in lags]).reshape(len(lags), len(ring_q))
    near = np.where(distance <= _NEAR * scale, np.exp(-0.5 * (np.minimum(distance, 1e3) / scale) ** 2), 0.0)
    is_far = (distance >= _FAR[0] * scale) & (distance < _FAR[1] * scale)
    far_count = is_far.sum(axis=0)
    weights = np.where(far_count > 0, near - is_far * near.sum(axis=0) / np.maximum(far_count, 1), 0.0)
    used = (weights != 0.0).any(axis=1)
    return np.array(lags, dtype=np.int64).reshape(len(lags), 2)[used], np.ascontiguousarray(weights[used])


@kernel
def find_structure_significance(values, lags, weights):
    """Weighted sum of the products of pairs of bins, over its own expected noise.

    Counting noise of different bins is independent: the mean of a product is
    zero, two products of different pairs are uncorrelated, and the variance of
    the sum is that of the sum of squares. Rings whose products are larger than
    counting noise makes them (ice, a streak) are brought down to it: no ring
    can decide alone. Missing bins take more of the far pairs than of the near
    ones; far pairs are weighed anew in each ring, so that an offset still cancels.

    Parameters
    ----------
    values : (r, a) float
        Polar significances, unit variance under counting noise; NaN where a bin is missing or not to be used.
    lags : (l, 2) int
    weights : (l, r) float
        From :func:`weigh_pairs`.

    Returns
    -------
    float
        Of mean 0 and variance 1 under counting noise alone; NaN where there is no pair.

    Notes
    -----
    With s_r the weighted sum of the products of ring r, v_r that of their squares with the squared
    weights, e_r what v_r is on average under counting noise, and t_r = min(1, sqrt(e_r / v_r)):
    significance = sum t_r s_r / sqrt(sum t_r^2 v_r).
    """
    rings, azimuths = values.shape
    filled, present = np.zeros((rings, 2 * azimuths)), np.zeros((rings, 2 * azimuths))
    for ring in range(rings):
        for azimuth in range(azimuths):
            value = values[ring, azimuth]
            if value == value:
                for place in (azimuth, azimuth + azimuths):  # all round twice, so that no pair has to be wrapped
                    filled[ring, place] = value
                    present[ring, place] = 1.0
    total, variance = 0.0, 0.0
    for ring in range(rings):
        sums = np.zeros((2, 4))  # near, far: products, their squares, expected squares, weight
        for lag in range(lags.shape[0]):
            weight, other = weights[lag, ring], ring + lags[lag, 0]
            if weight != 0.0:
                _add_pairs(filled, present, ring, other, lags[lag, 1] % azimuths, abs(weight), sums[int(weight < 0.0)])
        if sums[0, 3] == 0.0 or sums[1, 3] == 0.0:
            continue
        balance = sums[0, 3] / sums[1, 3]
        squares = sums[0, 1] + balance**2 * sums[1, 1]
        expected = sums[0, 2] + balance**2 * sums[1, 2]
        if squares > 0.0:
            share = min(1.0, np.sqrt(expected / squares))
            total += share * (sums[0, 0] - balance * sums[1, 0])
            variance += share * share * squares
    return total / np.sqrt(variance) if variance > 0.0 else np.nan


@compiled
def _add_pairs(filled, present, ring, other, start, weight, sums):
    """Add products of the pairs of a lag, their squares, how many there are with squared weight, and with weight."""
    first, square, pairs = 0.0, 0.0, 0.0
    for azimuth in range(filled.shape[1] // 2):
        product = filled[ring, azimuth] * filled[other, azimuth + start]
        first += product
        square += product * product
        pairs += present[ring, azimuth] * present[other, azimuth + start]
    sums[0] += weight * first
    sums[1] += weight * weight * square
    sums[2] += weight * weight * pairs
    sums[3] += weight * pairs


def _list_lags(ring_q, azimuth_count, reach):
    """All lags of pairs, each once, of which some ring has pairs within reach."""
    half = azimuth_count // 2
    lags = [(0, lag) for lag in range(1, (azimuth_count - 1) // 2 + 1)]
    lags += [(rings, lag) for rings in range(1, len(ring_q)) for lag in range(half - azimuth_count + 1, half + 1)]
    return [lag for lag in lags if _distances(ring_q, azimuth_count, *lag).min() < reach]


def _distances(ring_q, azimuth_count, ring_lag, azimuth_lag):
    """Distance of the pairs of a lag in a flat reciprocal space, (r,) 1/angstrom; infinite where the ring has none."""
    inner, outer = ring_q[: len(ring_q) - ring_lag], ring_q[ring_lag:]
    half_angle = np.pi * azimuth_lag / azimuth_count
    distance = np.full(len(ring_q), np.inf)
    distance[: len(inner)] = np.sqrt((outer - inner) ** 2 + 4.0 * inner * outer * np.sin(half_angle) ** 2)
    return distance
