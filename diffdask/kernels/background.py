"""The isotropic background: the mean of a ring after iterated asymmetric sigma clipping."""

import numpy as np

from diffdask.kernels.compilation import compiled

#: Pixels summed at a time.
_RUN = 2048

#: No reading lies beyond; a limit that clips nothing but what is missing.
_BEYOND = np.float32(1e38)


@compiled
def clip_ring(photons, low, high, floor, passes, min_pixels):
    """Mean and standard deviation of one ring, outliers left out.

    In each pass a pixel counts if it lies within ``low`` standard deviations
    below and ``high`` above the mean of the pass before. Moments are taken about
    a typical value of the ring, because E[x^2] - E[x]^2 cancels.

    Parameters
    ----------
    photons : (n,) float32
        Intensities of the ring; ``MISSING`` is left out.
    low, high : float
        Clipping limits in standard deviations.
    floor : float
        Photons; the upper limit is never nearer to the mean. In dark rings every
        pixel that caught a photon lies many standard deviations above, and
        clipping would take the background itself for outliers.
    passes : int
        Number of clipping passes; 0 gives the plain moments.
    min_pixels : int
        With fewer pixels left there is no estimate.

    Returns
    -------
    mean, deviation : float
        NaN where there is no estimate.
    pixels : int
        How many were left.
    """
    if photons.size < min_pixels or photons.size == 0:
        return np.nan, np.nan, 0
    shift = _typical(photons)
    lowest, highest = -_BEYOND, _BEYOND
    mean, deviation, pixels = np.nan, np.nan, 0
    for turn in range(passes + 1):
        first, second, pixels = sum_between(photons, lowest, highest, shift)
        if pixels < min_pixels:
            return np.nan, np.nan, 0
        off = first / pixels
        mean = shift + off
        deviation = np.sqrt(max(second / pixels - off * off, 0.0))
        if turn < passes:
            # float32 limits: pixels that all read the same must not clip each other by rounding
            rounding = 1e-6 * abs(mean)
            lowest = np.float32(mean - low * deviation - rounding)
            highest = np.float32(mean + max(high * deviation, floor) + rounding)
    return mean, deviation, pixels


@compiled
def sum_between(photons, lowest, highest, shift):
    """Sums of (x - shift) and (x - shift)^2 over ``lowest`` <= x <= ``highest``, and how many there are.

    Parameters
    ----------
    photons : (n,) float32
    lowest, highest, shift : float32
    """
    first, second, pixels = 0.0, 0.0, 0
    for start in range(0, photons.size, _RUN):
        s, q, n = sum_run(photons[start : start + _RUN], lowest, highest, shift)
        first += s
        second += q
        pixels += int(n)
    return first, second, pixels


@compiled
def count_above(photons, limit):
    """Count values (n,) above a limit; exact up to 2^24."""
    count = np.float32(0.0)
    for i in range(photons.size):
        count += np.float32(photons[i] > limit)
    return count


@compiled
def sum_all(photons, shift):
    """The same as :func:`sum_run` of values of which none is missing, without asking."""
    first, second = 0.0, 0.0
    for i in range(photons.size):
        off = photons[i] - shift
        first += np.float64(off)
        second += np.float64(off * off)
    return first, second


@compiled
def sum_run(photons, lowest, highest, shift):
    """The same of a few thousand values; all three as floating numbers."""
    first, second, pixels = 0.0, 0.0, 0.0
    for i in range(photons.size):
        value = photons[i]
        is_inside = np.float32((value >= lowest) & (value <= highest))
        off = (value - shift) * is_inside
        first += np.float64(off)
        second += np.float64(off * off)
        pixels += np.float64(is_inside)
    return first, second, pixels


@compiled
def _typical(photons):
    """Median of nine of the values, evenly spread: close to the mean, whatever a few peaks read.

    Where most of a ring is missing, its sums must still be about what the rest reads: the first values there are.
    """
    some = np.empty(9, dtype=np.float32)
    count = 0
    for i in range(9):
        value = photons[photons.size * i // 9]
        if value > -_BEYOND:
            some[count] = value
            count += 1
    for i in range(photons.size if count < 5 else 0):
        if count < 9 and photons[i] > -_BEYOND:
            some[count] = photons[i]
            count += 1
    some[:count].sort()
    return some[count // 2] if count else np.float32(0.0)
