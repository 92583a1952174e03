"""What ``screen`` does to one frame, in one compiled pass over its usable pixels."""

from typing import NamedTuple

import numpy as np

from diffdask.kernels.background import clip_rings
from diffdask.kernels.compilation import compiled
from diffdask.kernels.peaks import exclude_peaks, join_candidates, mark_candidates
from diffdask.kernels.photons import count_photons, find_zero_peak
from diffdask.kernels.polar import (
    average_cells,
    find_diffuse_excess,
    find_ring_anisotropy,
    recentre_cells,
    sum_cells,
)

#: What :func:`summarise_frame` fills its summary with, in this order.
COLUMNS = ("background", "anisotropy", "diffuse_excess", "peak_count", "peak_intensity", "good_rings")


class Screening(NamedTuple):
    """How frames are screened: one number a field, so that it can enter compiled code."""

    common_mode_share: float  #: see :func:`find_zero_peak`; negative for no common mode
    clip_low: float  #: standard deviations below the ring mean
    clip_high: float  #: standard deviations above
    clip_passes: int
    ring_pixels: int  #: fewest pixels of a ring that has an estimate
    snr: float  #: of a peak, against its ring and against its neighbourhood
    threshold: float  #: photons above the ring mean that a pixel of a peak has at least
    min_pixels: int  #: of a peak
    max_pixels: int  #: of a peak
    radius: int  #: of the neighbourhood, pixels
    wing: int  #: pixels about a bright pixel that are left out of the residual


@compiled
def sum_residual(adu, shape, pixels, gain, how, mean, first, second, count, peaks):
    """Take one frame from readout to sums of its residual over polar cells.

    Common mode, photons and corrections, isotropic background, Bragg peaks with
    their wings left out, cell sums, ring means recentred on what is left.

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
    mean : (r,) float64
        Filled with the isotropic background, photons.
    first, second, count : (r, a)
        Filled, see :func:`sum_cells`.
    peaks : (m, 6) float64
        Filled, see :func:`join_candidates`.

    Returns
    -------
    int
        Number of peaks.
    """
    photons = np.empty(pixels.place.size, dtype=np.float32)
    offset = np.zeros(gain.size, dtype=np.float32)
    if how.common_mode_share >= 0.0:
        find_zero_peak(adu, pixels.place, pixels.panel, gain, how.common_mode_share, offset)
    count_photons(adu, pixels.place, pixels.panel, pixels.correction, offset, gain, photons)
    deviation = np.empty(mean.size)
    left = np.empty(mean.size, dtype=np.int64)
    floor = 0.0  # so that faint peaks stand out of dark rings; their means are set right when recentred
    clip_rings(
        photons, pixels.ring, how.clip_low, how.clip_high, floor, how.clip_passes, how.ring_pixels, mean, deviation,
        left,
    )  # fmt: skip
    state = np.zeros(adu.size, dtype=np.uint8)
    image = np.empty(adu.size, dtype=np.float32)
    candidates = np.empty(pixels.place.size, dtype=np.int32)
    found = mark_candidates(
        photons, pixels.place, pixels.ring, pixels.correction, mean, deviation, how.snr, how.threshold, state, image,
        candidates,
    )  # fmt: skip
    candidates = candidates[:found]
    peak_count = join_candidates(
        candidates, shape, state, image, how.min_pixels, how.max_pixels, how.radius, how.snr, peaks
    )
    exclude_peaks(candidates, shape, state, how.wing)
    sum_cells(photons, pixels.place, pixels.ring, pixels.azimuth, state, mean, first, second, count)
    recentre_cells(first, second, count, how.ring_pixels, mean)
    return peak_count


@compiled
def summarise_frame(first, second, count, mean, peaks, peak_count, rings_per_bin, window, anisotropy, summary):
    """Reduce a frame's cell sums to the numbers of its row in the catalogue.

    Parameters
    ----------
    first, second, count, mean, peaks, peak_count
        From :func:`sum_residual`.
    rings_per_bin : int
        Rings of a polar ring, for the diffuse excess.
    window : (r,) bool
        Rings whose median makes the background level and the anisotropy.
    anisotropy : (r,) float64
        Filled, see :func:`find_ring_anisotropy`.
    summary : (c,) float64
        Filled with ``COLUMNS``.
    """
    find_ring_anisotropy(first, second, count, mean, anisotropy)
    residual = np.empty((mean.size // rings_per_bin, first.shape[1]), dtype=np.float32)
    noise = np.empty_like(residual)
    average_cells(first, second, count, rings_per_bin, 10, residual, noise)
    listed = min(peak_count, peaks.shape[0])
    summary[0] = np.nanmedian(mean[window])
    summary[1] = np.nanmedian(anisotropy[window])
    summary[2] = find_diffuse_excess(residual, noise)
    summary[3] = peak_count
    summary[4] = peaks[:listed, 3].mean() if listed else np.nan
    summary[5] = np.isfinite(mean).sum()
