"""What follows from the sums over polar cells: ring anisotropy, polar residual, diffuse excess."""

import numpy as np

from diffdask.kernels.compilation import kernel


@kernel
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


@kernel
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


@kernel
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


def find_seen_rings(ring_q, coverage, q_min):
    """From the first to the last ring that is seen well, as a slice; None if there is none.

    Parameters
    ----------
    ring_q : (r,) float
        1/angstrom.
    coverage : (r,) float
        Share of azimuths that are seen.
    q_min : float
        Rings nearer the beam are left out.

    Notes
    -----
    Well: at least half as much of it is seen as of the best ring.
    """
    seen = np.flatnonzero((ring_q >= q_min) & (coverage >= 0.5 * coverage.max()) & (coverage > 0))
    return slice(int(seen[0]), int(seen[-1]) + 1) if seen.size else None
