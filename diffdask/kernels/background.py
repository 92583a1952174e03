"""The isotropic background: the mean of a ring after iterated asymmetric sigma clipping."""

import numpy as np

from diffdask.kernels.compilation import compiled
from diffdask.kernels.lanes import FIRST, GREATEST, LEAST, NUMBER, RUN, SECOND, sum_run
from diffdask.kernels.photons import NO_READING

#: Column of a table of runs: the greatest reading before anything was clipped.
BRIGHTEST = 5

#: Columns of a table of runs.
RUN_COLUMNS = 6


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
    runs = np.empty((count_runs(photons.size), RUN_COLUMNS))
    return clip_runs(photons, low, high, floor, passes, min_pixels, runs)


@compiled
def count_runs(pixels):
    """Runs into which a ring of so many pixels falls; the last may be short."""
    return (pixels + RUN - 1) // RUN


@compiled
def clip_runs(photons, low, high, floor, passes, min_pixels, runs):
    """As :func:`clip_ring`; what was found on every run of ``RUN`` pixels is kept.

    Parameters
    ----------
    photons, low, high, floor, passes, min_pixels
        As in :func:`clip_ring`.
    runs : (m, 6) float64
        Filled: what :func:`sum_run` gives within the last limits, and the greatest reading of all in the column
        ``BRIGHTEST``; not where the ring has fewer than ``min_pixels``.
    """
    if photons.size < min_pixels or photons.size == 0:
        return np.nan, np.nan, 0
    shift = _typical(photons)
    lowest, highest = -NO_READING, NO_READING
    before = _sum_all_runs(photons, lowest, highest, shift, runs)
    runs[:, BRIGHTEST] = runs[:, GREATEST]
    least, greatest = runs[:, LEAST].min(), runs[:, GREATEST].max()
    mean, deviation = _find_moments(before, shift)
    for _ in range(passes):
        if before[2] < min_pixels:
            break
        # float32 limits: pixels that all read the same must not clip each other by rounding
        rounding = 1e-6 * abs(mean)
        low_limit = np.float32(mean - low * deviation - rounding)
        high_limit = np.float32(mean + max(high * deviation, floor) + rounding)
        if max(low_limit, least) < lowest or min(high_limit, greatest) > highest:  # something may come back in
            sums = _sum_all_runs(photons, low_limit, high_limit, shift, runs)
        else:
            sums = _sum_changed_runs(photons, low_limit, high_limit, shift, runs)
        lowest, highest = low_limit, high_limit
        if sums == before:  # the limits have come to rest, and further passes would count the same pixels
            break
        before = sums
        mean, deviation = _find_moments(sums, shift)
    return (mean, deviation, before[2]) if before[2] >= min_pixels else (np.nan, np.nan, 0)


@compiled
def _sum_all_runs(photons, lowest, highest, shift, runs):
    """Sum every run between limits, and all of them."""
    for run in range(runs.shape[0]):
        _sum_run_anew(photons, lowest, highest, shift, runs, run)
    return _add_runs(runs)


@compiled
def _sum_changed_runs(photons, lowest, highest, shift, runs):
    """The same where limits are narrower than before: most runs have no pixel between the old limits and the new."""
    for run in range(runs.shape[0]):
        if runs[run, LEAST] < lowest or runs[run, GREATEST] > highest:
            _sum_run_anew(photons, lowest, highest, shift, runs, run)
    return _add_runs(runs)


@compiled
def _sum_run_anew(photons, lowest, highest, shift, runs, run):
    values = photons[run * RUN : (run + 1) * RUN]
    (
        runs[run, FIRST],
        runs[run, SECOND],
        runs[run, NUMBER],
        runs[run, LEAST],
        runs[run, GREATEST],
    ) = sum_run(values, lowest, highest, shift)


@compiled
def _add_runs(runs):
    first, second, pixels = 0.0, 0.0, 0
    for run in range(runs.shape[0]):
        first += runs[run, FIRST]
        second += runs[run, SECOND]
        pixels += int(runs[run, NUMBER])
    return first, second, pixels


@compiled
def _find_moments(sums, shift):
    """Mean and standard deviation from sums about ``shift``."""
    first, second, pixels = sums
    if pixels == 0:
        return np.nan, np.nan
    off = first / pixels
    return shift + off, np.sqrt(max(second / pixels - off * off, 0.0))


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
        count = _insert(photons[photons.size * i // 9], some, count)
    if count < 5:
        for i in range(photons.size):
            if count == 9:
                break
            count = _insert(photons[i], some, count)
    return some[count // 2] if count else np.float32(0.0)


@compiled
def _insert(value, some, count):
    """Put a reading among the first ``count`` of ``some``, which are in order; gives how many there are then."""
    if not abs(value) < NO_READING:
        return count
    place = count
    while place > 0 and some[place - 1] > value:
        some[place] = some[place - 1]
        place -= 1
    some[place] = value
    return count + 1
