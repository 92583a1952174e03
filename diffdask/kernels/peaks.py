"""Bragg peaks in the manner of peakfinder8: bright against the ring, then against the neighbourhood.

Barty et al., J. Appl. Cryst. 47, 1118 (2014).
"""

import numpy as np

from diffdask.kernels.compilation import compiled, inlined
from diffdask.kernels.photons import NO_READING

#: States of a pixel in the scratch image.
UNSEEN, CANDIDATE, TAKEN, EXCLUDED = 0, 1, 2, 3

#: A pixel next to a candidate joins its peak above this part of the signal-to-noise ratio asked for.
GROWTH = 0.7


@compiled
def join_candidates(adu, shape, pixels, offset, gain, mean, deviation, candidates, state, how, peaks):
    """Join touching candidates to peaks and keep those that stand out from their neighbourhood.

    A peak is a group of touching candidates and the pixels next to them that are
    nearly as far above their ring (0.7 of the limit).

    Parameters
    ----------
    adu : (p,) integer or float
        One frame, flat; ADU.
    shape : (panels, ss, fs)
        Of the frame; peaks do not cross panels.
    pixels : PixelList
        The usable pixels.
    offset, gain : (panels,) float32
        Common mode, ADU, and photons per ADU.
    mean, deviation : (r,) float64
        Isotropic background and its spread, photons.
    candidates : (c,) int32
        Places with state CANDIDATE.
    state : (p,) uint8
        Candidates, and what joins them, become TAKEN.
    how : Screening
        ``min_pixels`` and ``max_pixels`` of a peak; ``radius``: half side of the
        square, about the brightest pixel, whose usable pixels that are no
        candidates give the local background; ``snr``: the brightest pixel
        exceeds the local mean by this many local deviations.
    peaks : (m, 6) float64
        Filled: panel, ss, fs (centre of mass, indices), intensity in photons
        above the local background, signal-to-noise ratio of that sum, pixels.

    Returns
    -------
    int
        Peaks found; those past ``m`` are counted but not filled in.
    """
    queue, values = np.empty(how.max_pixels + 1, dtype=np.int32), np.empty(how.max_pixels + 1)
    panel_size = shape[1] * shape[2]
    found = 0
    for start in candidates:
        if state[start] != CANDIDATE:
            continue
        panel = start // panel_size  # found once: dividing is slower than all else that is done to a pixel
        zero, slope = offset[panel], gain[panel]
        size = _flood(start, adu, shape, pixels, zero, slope, mean, deviation, state, how.snr, queue, values)
        if size < how.min_pixels or size > how.max_pixels:
            continue
        brightest = np.argmax(values[:size])
        level, spread, around = _neighbourhood(
            queue[brightest], adu, shape, pixels, zero, slope, mean, state, how.radius
        )
        height_of_peak = values[brightest] - level
        if around < 2 * how.radius or height_of_peak <= how.snr * spread:
            continue
        if found < peaks.shape[0]:
            peaks[found, 0] = panel
            _describe(queue[:size], values[:size], shape, level, spread, peaks[found])
        found += 1
    return found


@compiled
def _flood(start, adu, shape, pixels, offset, gain, mean, deviation, state, snr, queue, values):
    """Take the pixels of the peak at ``start``, its panel's only; gives their number, counted on past the queue.

    ``values`` become their photons above the ring mean.
    """
    _, height, width = shape
    azimuths = (pixels.start.size - 1) // mean.size
    pending = np.empty(64, dtype=np.int32)
    pending[0] = start
    waiting, size = 1, 1
    queue[0] = start
    values[0] = _residual_at(start, adu, pixels, azimuths, offset, gain, mean)
    state[start] = TAKEN
    while waiting:
        waiting -= 1
        place = pending[waiting]
        fs = place % width
        ss = (place // width) % height
        for ds in range(max(-1, -ss), min(1, height - 1 - ss) + 1):
            for df in range(max(-1, -fs), min(1, width - 1 - fs) + 1):
                other = place + ds * width + df
                if state[other] == TAKEN or pixels.cell[other] < 0:
                    continue
                off = _residual_at(other, adu, pixels, azimuths, offset, gain, mean)
                if state[other] == CANDIDATE:
                    if waiting == pending.size:
                        longer = np.empty(2 * pending.size, dtype=np.int32)
                        longer[:waiting] = pending
                        pending = longer
                    pending[waiting] = other
                    waiting += 1
                elif not off > GROWTH * snr * deviation[pixels.cell[other] // azimuths]:
                    continue
                state[other] = TAKEN
                if size < queue.size:
                    queue[size] = other
                    values[size] = off
                size += 1
    return size


@compiled
def _describe(members, values, shape, level, spread, peak):
    """Fill a row of ``peaks``, all but the panel, from the pixels of a peak and their photons."""
    _, height, width = shape
    total, weight, ss_sum, fs_sum = 0.0, 0.0, 0.0, 0.0
    for i in range(members.size):
        value = values[i] - level
        total += value
        value = max(value, 1e-6)  # what lies below the local level must not push the centre out of the peak
        weight += value
        ss_sum += value * ((members[i] // width) % height)
        fs_sum += value * (members[i] % width)
    peak[1] = ss_sum / weight
    peak[2] = fs_sum / weight
    peak[3] = total
    peak[4] = total / max(spread * np.sqrt(members.size), 1e-12)
    peak[5] = members.size


@inlined
def _residual_at(place, adu, pixels, azimuths, offset, gain, mean):
    """Photons above the ring mean at a usable place; NaN where the reading or the mean is missing."""
    value = (np.float32(adu[place]) - offset) * gain * pixels.factor[place]
    return value - mean[pixels.cell[place] // azimuths] if abs(value) < NO_READING else np.nan


@compiled
def _neighbourhood(place, adu, shape, pixels, offset, gain, mean, state, radius):
    """Mean and deviation of the usable pixels around a place that are no candidates, and their number."""
    _, height, width = shape
    azimuths = (pixels.start.size - 1) // mean.size
    fs = place % width
    ss = (place // width) % height
    first, second, around = 0.0, 0.0, 0
    for ds in range(max(-radius, -ss), min(radius, height - 1 - ss) + 1):
        for df in range(max(-radius, -fs), min(radius, width - 1 - fs) + 1):
            other = place + ds * width + df
            if state[other] == UNSEEN and pixels.cell[other] >= 0:
                value = _residual_at(other, adu, pixels, azimuths, offset, gain, mean)
                if not np.isnan(value):
                    first += value
                    second += value * value
                    around += 1
    if around == 0:
        return 0.0, 0.0, 0
    middle = first / around
    return middle, np.sqrt(max(second / around - middle * middle, 0.0)), around
