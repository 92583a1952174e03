"""The isotropic background: ring means after iterated asymmetric sigma clipping."""

import numpy as np

from diffdask.kernels.compilation import compiled


@compiled
def clip_rings(photons, pixel_ring, low, high, floor, passes, min_pixels, mean, deviation, count):
    """Mean and standard deviation of every ring, outliers left out.

    In each pass a pixel counts if it lies within ``low`` standard deviations
    below and ``high`` above its ring's mean of the pass before. Moments are
    taken about the ring's former mean and kept in float64, because
    E[x^2] - E[x]^2 cancels.

    Parameters
    ----------
    photons : (n,) float32
        Intensities; NaN is left out.
    pixel_ring : (n,) integer
        Ring of each, 0 to r - 1.
    low, high : float
        Clipping limits in standard deviations.
    floor : float
        Photons; the upper limit is never nearer to the mean. In dark rings every
        pixel that caught a photon lies many standard deviations above, and
        clipping would take the background itself for outliers.
    passes : int
        Number of clipping passes; 0 gives the plain moments.
    min_pixels : int
        A ring with fewer pixels has no estimate: NaN.
    mean, deviation : (r,) float64
        Filled.
    count : (r,) int64
        Filled with the number of pixels left.
    """
    rings = mean.size
    shift = np.zeros(rings)
    lowest = np.full(rings, -np.inf, dtype=np.float32)
    highest = np.full(rings, np.inf, dtype=np.float32)
    first = np.zeros(rings)
    second = np.zeros(rings)
    for turn in range(passes + 1):
        first[:] = 0.0
        second[:] = 0.0
        count[:] = 0
        for i in range(photons.size):
            ring = pixel_ring[i]
            value = photons[i]
            if value >= lowest[ring] and value <= highest[ring]:
                off = value - shift[ring]
                first[ring] += off
                second[ring] += off * off
                count[ring] += 1
        for ring in range(rings):
            if count[ring] < min_pixels:
                mean[ring] = np.nan
                deviation[ring] = np.nan
                lowest[ring] = np.inf  # no later pass can count it
                count[ring] = 0
                continue
            off = first[ring] / count[ring]
            mean[ring] = shift[ring] + off
            deviation[ring] = np.sqrt(max(second[ring] / count[ring] - off * off, 0.0))
            if turn < passes:
                # where all pixels left read the same, the mean may be off by it and must not clip them all
                rounding = 1e-12 * (abs(mean[ring]) + abs(shift[ring]))
                shift[ring] = mean[ring]
                lowest[ring] = mean[ring] - low * deviation[ring] - rounding
                highest[ring] = mean[ring] + max(high * deviation[ring], floor) + rounding
