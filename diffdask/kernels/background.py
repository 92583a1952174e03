"""The isotropic background: the mean of a ring after iterated asymmetric sigma clipping."""

import numpy as np

from diffdask.kernels.compilation import compiled
from diffdask.kernels.lanes import sum_between
from diffdask.kernels.photons import NO_READING


@compiled
def clip_ring(photons, low, high, floor, passes, min_pixels):
    """Mean and standard deviation of one ring, outliers left out.

    In each pass a pixel counts if it lies within ``low`` standard deviations
    below and ``high`` above the mean of the pass before. Moments are taken about
    a typical value of the ring, because E[x^2] - E[x]^2 cancels.

    Parameters
    ----------
    photons : (n,) float32
        Intensities of the ring; what is not between -``NO_READING`` and ``NO_READING`` is left out.
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
    lowest, highest = -NO_READING, NO_READING
    mean, deviation, pixels = np.nan, np.nan, 0
    before = (np.nan, np.nan, 0)
    for turn in range(passes + 1):
        sums = sum_between(photons, lowest, highest, shift)
        if sums == before:  # the limits have come to rest, and further passes would count the same pixels
            break
        before = sums
        first, second, pixels = sums
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
def count_above(photons, limit):
    """Count values (n,) above a limit."""
    count = np.int32(0)  # integers associate: this loop is fast as it stands
    for i in range(photons.size):
        count += np.int32(photons[i] > limit)
    return count


@compiled
def _typical(photons):
    """Median of nine of the values, evenly spread: close to the mean, whatever a few peaks read.

    Where most of a ring is missing, its sums must still be about what the rest reads: the first values there are.
    """
    some = np.empty(9, dtype=np.float32)
    count = 0
    for i in range(9):
        value = photons[photons.size * i // 9]
        if abs(value) < NO_READING:
            some[count] = value
            count += 1
    for i in range(photons.size if count < 5 else 0):
        if count < 9 and abs(photons[i]) < NO_READING:
            some[count] = photons[i]
            count += 1
    some[:count].sort()
    return some[count // 2] if count else np.float32(0.0)
