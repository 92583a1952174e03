"""Bragg peaks in the manner of peakfinder8: bright against the ring, then against the neighbourhood.

Barty et al., J. Appl. Cryst. 47, 1118 (2014).
"""

import numpy as np

from diffdask.kernels.compilation import compiled

#: States of a pixel in the scratch image.
UNUSED, USABLE, CANDIDATE, TAKEN, EXCLUDED = 0, 1, 2, 3, 4


@compiled
def mark_candidates(
    photons, pixel_index, pixel_ring, pixel_correction, mean, deviation, snr, threshold, state, image, candidates
):
    """Lay usable pixels out as an image and list those bright against their ring.

    Parameters
    ----------
    photons : (n,) float32
        Intensities of the usable pixels.
    pixel_index, pixel_ring : (n,) integer
        Place in the frame, and ring.
    pixel_correction : (n,) float32
        What one photon reads in the pixel.
    mean, deviation : (r,) float64
        Of the rings, clipped; NaN rings have no candidates.
    snr, threshold : float
        A candidate exceeds the ring mean by ``threshold`` photons, and by more
        than chance does as often as ``snr`` standard deviations of a normal
        distribution: counts are skew, so that the limit is
        snr * deviation + (snr^2 - 1) / 6 * quantum (Cornish-Fisher), the
        quantum being deviation^2 / mean, what one photon reads in this ring, but
        no more than the pixel's correction: in dark rings the deviation is that
        of the readout, which is not skew.
    state : (p,) uint8
        Filled: USABLE or CANDIDATE where a pixel is usable, else UNUSED.
    image : (p,) float32
        Filled at usable pixels with the intensity less the ring mean.
    candidates : (n,) int32
        Filled with the places of candidates.

    Returns
    -------
    int
        Number of candidates.
    """
    normal = np.empty(mean.size, dtype=np.float32)
    quantum = np.empty(mean.size, dtype=np.float32)
    level = np.empty(mean.size, dtype=np.float32)
    for ring in range(mean.size):
        normal[ring] = snr * deviation[ring]
        quantum[ring] = deviation[ring] ** 2 / mean[ring] if mean[ring] > 0.0 else np.inf
        level[ring] = mean[ring]
    skew = np.float32(max((snr * snr - 1.0) / 6.0, 0.0))
    found = 0
    for i in range(photons.size):
        place = pixel_index[i]
        ring = pixel_ring[i]
        off = photons[i] - level[ring]
        image[place] = off
        if off > threshold and off > normal[ring] + skew * min(quantum[ring], pixel_correction[i]):
            state[place] = CANDIDATE
            candidates[found] = place
            found += 1
        elif off == off:
            state[place] = USABLE
        else:
            state[place] = UNUSED
    return found


@compiled
def join_candidates(candidates, shape, state, image, min_pixels, max_pixels, radius, snr, peaks):
    """Join touching candidates to peaks and keep those that stand out from their neighbourhood.

    Parameters
    ----------
    candidates : (c,) int32
        Places with state CANDIDATE.
    shape : (panels, ss, fs)
        Of the frame; peaks do not cross panels.
    state, image
        From :func:`mark_candidates`; visited candidates become TAKEN.
    min_pixels, max_pixels : int
        Size of a peak.
    radius : int
        Half side of the square, about the brightest pixel, whose usable pixels
        that are no candidates give the local background.
    snr : float
        The brightest pixel exceeds the local mean by this many local deviations.
    peaks : (m, 6) float64
        Filled: panel, ss, fs (centre of mass, indices), intensity in photons
        above the local background, signal-to-noise ratio of that sum, pixels.

    Returns
    -------
    int
        Peaks found; those past ``m`` are counted but not filled in.
    """
    _, height, width = shape
    queue = np.empty(max(candidates.size, 1), dtype=np.int32)
    found = 0
    for start in candidates:
        if state[start] != CANDIDATE:
            continue
        state[start] = TAKEN
        queue[0] = start
        size, head = 1, 0
        brightest = start
        while head < size:
            place = queue[head]
            head += 1
            if image[place] > image[brightest]:
                brightest = place
            fs = place % width
            ss = (place // width) % height
            for ds in range(-1, 2):
                for df in range(-1, 2):
                    if ss + ds < 0 or ss + ds >= height or fs + df < 0 or fs + df >= width:
                        continue
                    neighbour = place + ds * width + df
                    if state[neighbour] == CANDIDATE:
                        state[neighbour] = TAKEN
                        queue[size] = neighbour
                        size += 1
        if size < min_pixels or size > max_pixels:
            continue
        level, spread, around = _neighbourhood(brightest, shape, state, image, radius)
        if around < 2 * radius or image[brightest] - level <= snr * spread:
            continue
        if found < peaks.shape[0]:
            total, ss_sum, fs_sum = 0.0, 0.0, 0.0
            for place in queue[:size]:
                value = image[place] - level
                total += value
                ss_sum += value * ((place // width) % height)
                fs_sum += value * (place % width)
            peaks[found, 0] = brightest // (height * width)
            peaks[found, 1] = ss_sum / total
            peaks[found, 2] = fs_sum / total
            peaks[found, 3] = total
            peaks[found, 4] = total / max(spread * np.sqrt(size), 1e-12)
            peaks[found, 5] = size
        found += 1
    return found


@compiled
def exclude_peaks(candidates, shape, state, radius):
    """Mark the neighbourhood of every candidate EXCLUDED: its pixels belong to Bragg peaks, not to the rings.

    Parameters
    ----------
    candidates : (c,) int32
        Bright pixels.
    shape : (panels, ss, fs)
        Of the frame.
    state : (p,) uint8
        Changed in place within ``radius`` pixels of a candidate.
    radius : int
        How far a peak's wings reach, pixels.
    """
    _, height, width = shape
    for place in candidates:
        fs = place % width
        ss = (place // width) % height
        for ds in range(max(-radius, -ss), min(radius, height - 1 - ss) + 1):
            for df in range(max(-radius, -fs), min(radius, width - 1 - fs) + 1):
                if state[place + ds * width + df] != UNUSED:
                    state[place + ds * width + df] = EXCLUDED


@compiled
def _neighbourhood(place, shape, state, image, radius):
    """Mean and deviation of the usable pixels around a place that are no candidates, and their number."""
    _, height, width = shape
    fs = place % width
    ss = (place // width) % height
    first, second, around = 0.0, 0.0, 0
    for ds in range(max(-radius, -ss), min(radius, height - 1 - ss) + 1):
        for df in range(max(-radius, -fs), min(radius, width - 1 - fs) + 1):
            neighbour = place + ds * width + df
            if state[neighbour] == USABLE:
                first += image[neighbour]
                second += image[neighbour] * image[neighbour]
                around += 1
    if around == 0:
        return 0.0, 0.0, 0
    mean = first / around
    return mean, np.sqrt(max(second / around - mean * mean, 0.0)), around
