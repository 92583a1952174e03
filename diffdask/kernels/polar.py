"""Sums over polar cells, and what follows from them: ring anisotropy and polar residual."""

import numpy as np

from diffdask.kernels.compilation import compiled
from diffdask.kernels.peaks import EXCLUDED


@compiled
def sum_cells(photons, pixel_index, pixel_ring, pixel_azimuth, state, mean, first, second, count):
    """Sum the residual and its square over (ring, azimuth) cells, Bragg peaks left out.

    Parameters
    ----------
    photons : (n,) float32
        Intensities of the usable pixels; NaN is left out.
    pixel_index, pixel_ring, pixel_azimuth : (n,) integer
        Place in the frame, ring, azimuthal bin.
    state : (p,) uint8
        EXCLUDED where a pixel belongs to a Bragg peak.
    mean : (r,) float64
        Isotropic background; a ring with NaN gives empty cells.
    first, second : (r, a) float64
        Filled with sums of residual and squared residual, photons.
    count : (r, a) int64
        Filled with the number of pixels.
    """
    first[:] = 0.0
    second[:] = 0.0
    count[:] = 0
    for i in range(photons.size):
        ring = pixel_ring[i]
        off = photons[i] - mean[ring]
        if state[pixel_index[i]] != EXCLUDED and off == off:
            azimuth = pixel_azimuth[i]
            first[ring, azimuth] += off
            second[ring, azimuth] += off * off
            count[ring, azimuth] += 1


@compiled
def recentre_cells(first, second, count, min_pixels, mean):
    """Move ring means so that every ring's residuals average to zero, and the cell sums with them.

    Parameters
    ----------
    first, second, count : (r, a)
        From :func:`sum_cells`; changed in place.
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


@compiled
def find_ring_anisotropy(first, second, count, mean, anisotropy):
    """Azimuthal variance of each ring, counting noise taken off, over its squared mean.

    One-way analysis of variance with the azimuthal cells as groups: what cells
    scatter beyond what the scatter *within* them explains. Counting and readout
    noise cancel whatever the gain is. Negative values are noise and are kept,
    so that averages stay unbiased.

    Parameters
    ----------
    first, second, count : (r, a)
        From :func:`recentre_cells`.
    mean : (r,) float64
        Ring means.
    anisotropy : (r,) float64
        Filled; NaN for rings without an estimate or of no intensity.

    Notes
    -----
    With n_c pixels in cell c, N in all, C cells: between = sum n_c m_c^2,
    within = s^2 = (sum x^2 - sum n_c m_c^2) / (N - C), and
    variance = (between - (C - 1) s^2) / (N - sum n_c^2 / N)
    (Searle, Casella & McCulloch, Variance Components, 1992, ch. 3).
    """
    for ring in range(mean.size):
        anisotropy[ring] = np.nan
        between, squares, pixels_squared, pixels, cells = 0.0, 0.0, 0.0, 0.0, 0
        for azimuth in range(first.shape[1]):
            n = count[ring, azimuth]
            if n:
                between += first[ring, azimuth] ** 2 / n
                squares += second[ring, azimuth]
                pixels_squared += n * n
                pixels += n
                cells += 1
        if cells < 3 or pixels - cells < 3 or not mean[ring] > 0.0:
            continue
        within = (squares - between) / (pixels - cells)
        variance = (between - (cells - 1) * within) / (pixels - pixels_squared / pixels)
        anisotropy[ring] = variance / mean[ring] ** 2


@compiled
def average_cells(first, second, count, rings_per_bin, min_pixels, residual, noise):
    """Average cells over groups of neighbouring rings: the polar residual and its counting noise.

    Parameters
    ----------
    first, second, count : (r, a)
        From :func:`recentre_cells`.
    rings_per_bin : int
        Rings that make one polar ring.
    min_pixels : int
        Fewest pixels of a bin.
    residual, noise : (r // rings_per_bin, a) float32
        Filled: mean residual of the bin, photons, and its standard error from
        the scatter of its pixels; NaN where too few.
    """
    for polar_ring in range(residual.shape[0]):
        rings = slice(polar_ring * rings_per_bin, (polar_ring + 1) * rings_per_bin)
        for azimuth in range(residual.shape[1]):
            n = count[rings, azimuth].sum()
            if n < max(min_pixels, 2):
                residual[polar_ring, azimuth] = np.nan
                noise[polar_ring, azimuth] = np.nan
                continue
            level = first[rings, azimuth].sum() / n
            variance = (second[rings, azimuth].sum() - n * level * level) / (n - 1)
            residual[polar_ring, azimuth] = level
            noise[polar_ring, azimuth] = np.sqrt(max(variance, 0.0) / n)


@compiled
def find_diffuse_excess(residual, noise):
    """Robust spread of local polar features beyond counting noise.

    Each bin's significance less its running mean over nine azimuths, and then
    less the running mean of that over nine rings: what is smooth along a ring
    (shadows, beam shift) or along a radius (jet streaks) drops out, and so does
    most of what is fixed to the detector. Taking the mean of n off pure noise
    leaves 1 - 1/n of its variance.

    Parameters
    ----------
    residual, noise : (r, a) float32
        From :func:`average_cells`.

    Returns
    -------
    float
        Median square over that of a normal distribution, less 1: zero for pure
        noise; NaN where no bin has neighbours.
    """
    rings, bins = residual.shape
    along = np.full((rings, bins), np.nan)
    for ring in range(rings):
        for azimuth in range(bins):
            total, n = 0.0, 0
            for lag in range(-4, 5):
                other = (azimuth + lag) % bins
                if noise[ring, other] > 0.0:
                    total += residual[ring, other] / noise[ring, other]
                    n += 1
            if noise[ring, azimuth] > 0.0 and n > 4:
                off = residual[ring, azimuth] / noise[ring, azimuth] - total / n
                along[ring, azimuth] = off / np.sqrt(1.0 - 1.0 / n)
    squares = np.empty(residual.size)
    filled = 0
    for ring in range(rings):
        for azimuth in range(bins):
            total, n = 0.0, 0
            for other in range(max(ring - 4, 0), min(ring + 5, rings)):
                if along[other, azimuth] == along[other, azimuth]:
                    total += along[other, azimuth]
                    n += 1
            if along[ring, azimuth] == along[ring, azimuth] and n > 4:
                squares[filled] = (along[ring, azimuth] - total / n) ** 2 / (1.0 - 1.0 / n)
                filled += 1
    if filled == 0:
        return np.nan
    return np.median(squares[:filled]) / 0.45493642311957283 - 1.0  # median of chi-squared, one degree of freedom
