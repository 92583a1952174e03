"""One frame from its readout to sums of its residual over polar cells, in one pass over its pixels.

Pixels are listed ring by ring, and in a ring azimuth by azimuth. A ring is
converted into a buffer that stays in the processor's nearest cache; clipping,
the search for bright pixels and the cell sums all read it there, so that the
frame itself is read once. Bragg peaks are few: their pixels are taken off the
sums afterwards, one by one.
"""

from typing import NamedTuple

import numpy as np

from diffdask.kernels.background import BRIGHTEST, clip_ring, clip_runs, count_above, count_runs
from diffdask.kernels.cells import sum_cells
from diffdask.kernels.compilation import compiled, kernel
from diffdask.kernels.lanes import RUN
from diffdask.kernels.peaks import CANDIDATE, EXCLUDED, join_candidates
from diffdask.kernels.photons import NO_READING, count_photons, find_zero_peak

#: Pixels that are asked at once whether one of them is bright.
_STRETCH = 128

#: Rows of a panel between those that the common mode is taken from.
_ROW_STEP = 8


class Screening(NamedTuple):
    """How frames are screened: one number a field, so that it can enter compiled code."""

    common_mode_share: float  #: see :func:`find_zero_peak`; negative for no common mode
    clip_low: float  #: standard deviations below the ring mean
    clip_high: float  #: standard deviations above
    clip_passes: int
    ring_pixels: int  #: fewest pixels of a ring that has an estimate
    threshold: float  #: photons above the ring mean that a pixel of a peak has at least
    snr: float = np.inf  #: of a peak, against its ring and against its neighbourhood
    min_pixels: int = 1  #: of a peak
    max_pixels: int = 1  #: of a peak
    radius: int = 1  #: of the neighbourhood, pixels
    wing: int = 2  #: pixels about a bright pixel that are left out of the residual; at least 1


class Scratch(NamedTuple):
    """Memory that a thread uses again for every frame."""

    photons: np.ndarray  #: (n,) float32, n the pixels of the longest ring
    runs: np.ndarray  #: (m, 6) float64, m the runs of the longest ring, see :func:`clip_runs`
    offset: np.ndarray  #: (panels,) float32, common mode
    deviation: np.ndarray  #: (r,) float64
    state: np.ndarray  #: (p,) uint8, all UNSEEN between frames
    bright: np.ndarray  #: (p,) int32, places of bright pixels
    touched: np.ndarray  #: (p,) int32, places left out of the residual


@kernel
def sum_residual(adu, shape, pixels, gain, how, scratch, mean, first, second, count, peaks):
    """Take one frame from readout to sums of its residual over polar cells.

    Common mode, photons and corrections, isotropic background, Bragg peaks with
    their wings left out, ring means recentred on what is left.

    Parameters
    ----------
    adu : (p,) integer or float
        One frame, flat; ADU.
    shape : (panels, ss, fs)
        Of the frame.
    pixels : PixelList
        The usable pixels of the frame's setting.
    gain : (panels,) float32
        Photons per ADU.
    how : Screening
        The parameters.
    scratch : Scratch
        Used, and left as it was found.
    mean : (r,) float64
        Filled with the isotropic background, photons; NaN where a ring has too few pixels.
    first, second : (r, a) float64
        Filled with the sums of residual and squared residual of every cell.
    count : (r, a) int64
        Filled with its pixels.
    peaks : (m, 6) float64
        Filled, see :func:`join_candidates`.

    Returns
    -------
    int
        Number of peaks.
    """
    _find_offset(adu, shape, pixels, gain, how, scratch.offset)
    found, run = 0, 0
    for ring in range(mean.size):
        found, run = _sum_ring(adu, ring, pixels, run, gain, how, scratch, found, mean, first, second, count)
    return _finish_sums(adu, shape, pixels, gain, how, scratch, found, mean, first, second, count, peaks)


@compiled
def _find_offset(adu, shape, pixels, gain, how, offset):
    """Fill in the common mode of every panel, 0 where it is not asked for."""
    offset[:] = 0.0
    if how.common_mode_share >= 0.0:
        find_zero_peak(adu, shape, pixels.cell, gain, how.common_mode_share, _ROW_STEP, offset)


@compiled
def _sum_ring(adu, ring, pixels, run, gain, how, scratch, found, mean, first, second, count):
    """Clip a ring, sum its cells about the clipped mean, and list its bright pixels.

    Gives how many bright pixels are listed by now, and the run of pixels with which the next ring begins.
    """
    azimuths = first.shape[1]
    start = pixels.start[ring * azimuths : (ring + 1) * azimuths + 1]
    begin, end = start[0], start[azimuths]
    photons = scratch.photons[: end - begin]
    run = count_photons(adu, pixels, run, begin, end, scratch.offset, gain, photons)
    floor = 0.0  # so that faint peaks stand out of dark rings; their means are set right when recentred
    runs = scratch.runs[: count_runs(photons.size)]
    mean[ring], scratch.deviation[ring], _ = clip_runs(
        photons, how.clip_low, how.clip_high, floor, how.clip_passes, how.ring_pixels, runs
    )
    if np.isnan(mean[ring]):
        first[ring] = 0.0
        second[ring] = 0.0
        count[ring] = 0
        return found, run
    place, correction = pixels.place[begin:end], pixels.correction[begin:end]
    found = _list_bright(photons, runs, place, correction, mean[ring], scratch.deviation[ring], how, scratch, found)
    level = np.float32(mean[ring])
    mean[ring] = level  # the sums are about this very number
    sum_cells(photons, start, -NO_READING, NO_READING, level, first[ring], second[ring], count[ring])
    return found, run


@compiled
def _finish_sums(adu, shape, pixels, gain, how, scratch, found, mean, first, second, count, peaks):
    """Join the bright pixels to peaks, take them off the sums, and recentre these; gives the number of peaks."""
    bright = scratch.bright[:found]
    peak_count = join_candidates(
        adu, shape, pixels, scratch.offset, gain, mean, scratch.deviation, bright, scratch.state, how, peaks
    )
    _leave_out(adu, shape, pixels, gain, how.wing, bright, scratch, mean, first, second, count)
    recentre_cells(first, second, count, how.ring_pixels, mean)
    return peak_count


@compiled
def _list_bright(photons, runs, place, correction, mean, deviation, how, scratch, found):
    """List the pixels of a ring that are too bright for chance, and put them at the mean.

    There they add nothing to the sums, whose precision they would take away.

    Counts are skew: as often as a normal distribution exceeds snr deviations,
    they exceed snr * deviation + (snr^2 - 1) / 6 * quantum (Cornish-Fisher). The
    quantum is what one photon reads, deviation^2 / mean, but no more than the
    pixel's correction: in dark rings the deviation is the readout's, which is
    not skew.
    """
    skew = max((how.snr * how.snr - 1.0) / 6.0, 0.0)
    quantum = deviation * deviation / mean if mean > 0.0 else np.inf
    # one float below, so that rounding hides no pixel from the exact limit
    lowest = np.nextafter(np.float32(mean + max(how.threshold, how.snr * deviation)), np.float32(-np.inf))
    for begin in range(0, photons.size, _STRETCH):
        if runs[begin // RUN, BRIGHTEST] <= lowest or count_above(photons[begin : begin + _STRETCH], lowest) == 0:
            continue
        for i in range(begin, min(begin + _STRETCH, photons.size)):
            if photons[i] <= lowest:
                continue
            off = photons[i] - mean
            limit = max(how.threshold, how.snr * deviation + skew * min(quantum, correction[i]))
            if off > limit and photons[i] < NO_READING:
                scratch.bright[found] = place[i]
                scratch.state[place[i]] = CANDIDATE
                photons[i] = np.float32(mean)
                found += 1
    return found


@compiled
def _leave_out(adu, shape, pixels, gain, wing, bright, scratch, mean, first, second, count):
    """Take bright pixels and their wings off the cell sums, and leave no trace in the scratch image."""
    _, height, width = shape
    azimuths = first.shape[1]
    state, offset, touched = scratch.state, scratch.offset, scratch.touched
    left_out = bright.size
    for i in range(bright.size):  # at the mean, so that they are in no sum
        cell = pixels.cell[bright[i]]
        count[cell // azimuths, cell % azimuths] -= 1
        state[bright[i]] = EXCLUDED
        touched[i] = bright[i]
    for place in bright:
        fs = place % width
        ss = (place // width) % height
        panel = place // (width * height)
        for ds in range(max(-wing, -ss), min(wing, height - 1 - ss) + 1):
            for df in range(max(-wing, -fs), min(wing, width - 1 - fs) + 1):
                other = place + ds * width + df
                cell = pixels.cell[other]
                if cell < 0 or state[other] == EXCLUDED:
                    continue
                state[other] = EXCLUDED
                touched[left_out] = other
                left_out += 1
                ring = cell // azimuths
                value = (np.float32(adu[other]) - offset[panel]) * gain[panel] * pixels.factor[other]
                if abs(value) < NO_READING and not np.isnan(mean[ring]):
                    off = np.float64(value - np.float32(mean[ring]))
                    first[ring, cell % azimuths] -= off
                    second[ring, cell % azimuths] -= off * off
                    count[ring, cell % azimuths] -= 1
    for i in range(left_out):
        state[touched[i]] = 0


@compiled
def recentre_cells(first, second, count, min_pixels, mean):
    """Move ring means so that every ring's residuals average to zero, and the cell sums with them.

    Parameters
    ----------
    first, second, count : (r, a)
        Sums of residual and squared residual, and pixels; changed in place.
    min_pixels : int
        Rings with fewer pixels left get NaN and empty cells.
    mean : (r,) float64
        Ring means; changed in place.
    """
    for ring in range(mean.size):
        total, pixels = first[ring].sum(), count[ring].sum()
        if pixels < min_pixels:
            mean[ring] = np.nan
            first[ring] = 0.0
            second[ring] = 0.0
            count[ring] = 0
            continue
        off = total / pixels
        mean[ring] += off
        for azimuth in range(first.shape[1]):
            n = count[ring, azimuth]
            second[ring, azimuth] += n * off * off - 2.0 * off * first[ring, azimuth]
            first[ring, azimuth] -= n * off


@kernel
def subtract_rings(adu, shape, pixels, azimuths, gain, how, scratch, mean, photons, residual):
    """Corrected photons of one frame, and the same less the clipped means of their rings.

    Parameters
    ----------
    adu, shape, pixels, gain, how, scratch, mean
        As in :func:`sum_residual`.
    azimuths : int
        Azimuthal bins of the list.
    photons, residual : (p,) float32
        Filled where pixels are usable; NaN where a reading or its ring's mean is missing.
    """
    offset = scratch.offset
    _find_offset(adu, shape, pixels, gain, how, offset)
    run = 0
    for ring in range(mean.size):
        begin, end = pixels.start[ring * azimuths], pixels.start[(ring + 1) * azimuths]
        place = pixels.place[begin:end]
        values = scratch.photons[: end - begin]
        run = count_photons(adu, pixels, run, begin, end, offset, gain, values)
        mean[ring], _, _ = clip_ring(
            values, how.clip_low, how.clip_high, how.threshold, how.clip_passes, how.ring_pixels
        )
        for i in range(values.size):
            value = values[i] if abs(values[i]) < NO_READING else np.float32(np.nan)
            photons[place[i]] = value
            residual[place[i]] = value - mean[ring]
