"""Pictures of a hit straight from its panels: averages by area, contrast, and what VGG16 takes.

Where the cells of a picture are: :mod:`diffdask.kernels.pixel_shares`.
"""

import numpy as np

from diffdask.kernels.compilation import compiled, kernel
from diffdask.kernels.peaks import EXCLUDED, UNSEEN
from diffdask.kernels.photons import NO_READING

#: What VGG16's weights were trained with: mean blue, green and red of ImageNet.
IMAGENET_BGR = (103.939, 116.779, 123.68)

#: The byte that stands for zero and for a gap; so many steps up and down are the limits.
NEUTRAL, _STEPS = 128, 127

#: Standard deviation of a normal distribution over its median absolute deviation.
_SIGMA_OF_MAD = 1.4826


@kernel
def average_residual(adu, shape, pixels, image, gain, scratch, mean, sums, least_cover, residual, noise):
    """Average the residual of one frame over the cells of a picture, straight from its readout.

    To be called after :func:`sum_residual` of the same frame, which leaves in
    ``scratch`` the common mode, the spread of the rings and the places of Bragg
    peaks with their wings; these are left out here too. What pixels are above
    their ring's mean is added to the cells that they lie in.

    Parameters
    ----------
    adu, shape, pixels, gain, scratch
        As in :func:`sum_residual`; ``scratch.touched`` was all -1 before that, and is again after this.
    image : ImageMap
        Shares of the pixels of the frame's setting.
    mean : (r,) float64
        Ring means.
    sums : (cells, 3) float64
        Used.
    least_cover : float
        Cells of which a smaller share is covered by pixels that count are gaps.
    residual, noise : (cells,) float32
        Filled, photons: mean residual by area, and its counting noise; NaN in gaps.

    Notes
    -----
    With w the area that a pixel and a cell have in common, x the residual and v its variance:
    mean = sum w x / sum w, noise = sqrt(sum w^2 v) / sum w. The variance of a pixel is that of its
    ring, shared out as counting does it: in proportion to the pixel's correction.
    """
    left_out = 0
    while left_out < scratch.touched.size and scratch.touched[left_out] >= 0:
        scratch.state[scratch.touched[left_out]] = EXCLUDED
        left_out += 1
    sums[:] = 0.0
    _add_pixels(adu, shape, pixels, image, gain, scratch, mean, sums)
    for i in range(left_out):
        scratch.state[scratch.touched[i]] = UNSEEN
        scratch.touched[i] = -1
    for cell in range(residual.size):
        cover = sums[cell, 1]
        is_seen = cover > 0.0 and cover >= least_cover
        residual[cell] = sums[cell, 0] / cover if is_seen else np.nan
        noise[cell] = np.sqrt(sums[cell, 2]) / cover if is_seen else np.nan


@compiled
def _add_pixels(adu, shape, pixels, image, gain, scratch, mean, sums):
    """Add residual, area and variance of every pixel that counts to the cells that it lies in."""
    panels, height, width = shape
    variance = scratch.deviation * scratch.deviation / image.ring_correction
    for panel in range(panels):
        offset, photons, area = scratch.offset[panel], gain[panel], image.pixel_area[panel]
        for place in range(panel * height * width, (panel + 1) * height * width):
            ring = image.ring[place]
            if ring < 0 or scratch.state[place] == EXCLUDED:
                continue
            value = (np.float32(adu[place]) - offset) * photons * pixels.factor[place]
            off = np.float64(value) - mean[ring]
            if not abs(value) < NO_READING or np.isnan(off):
                continue
            spread = variance[ring] * pixels.factor[place]
            for k in range(image.start[place], image.start[place + 1]):
                weight = image.share[k] * area
                cell = image.cell[k]
                sums[cell, 0] += weight * off
                sums[cell, 1] += weight
                sums[cell, 2] += weight * weight * spread


@kernel
def interpolate_polar(polar, ring_share, turn, least_weight, values):
    """Interpolate a polar map between the centres of its bins; bins that are missing lend nothing.

    Parameters
    ----------
    polar : (r, a) float
        NaN where missing.
    ring_share : (n,) float
        Where each point lies between the first ring's inner edge, 0, and the last one's outer edge, 1.
    turn : (n,) float
        Its azimuth, in turns, 0 to 1.
    least_weight : float
        Points whose present neighbours have together less of the weight, or none, are missing.
    values : (n,) float32
        Filled; NaN where missing, and outside the rings.
    """
    rings, azimuths = polar.shape
    for point in range(values.size):
        values[point] = np.nan
        if not 0.0 <= ring_share[point] <= 1.0:
            continue
        place = min(max(ring_share[point] * rings - 0.5, 0.0), rings - 1.0)
        angle = turn[point] * azimuths - 0.5
        inner, before = int(place), int(np.floor(angle))
        out, on = place - inner, angle - before
        total, weights = 0.0, 0.0
        for k in range(4):
            weight = (out if k & 2 else 1.0 - out) * (on if k & 1 else 1.0 - on)
            value = polar[min(inner + (k >> 1), rings - 1), (before + (k & 1)) % azimuths]
            if value == value:
                total += weight * value
                weights += weight
        if weights > 0.0 and weights >= least_weight:
            values[point] = total / weights


@kernel
def pool_significance(residual, noise, reach, pooled):
    """Significance of the cells about each cell, together.

    Parameters
    ----------
    residual, noise : (size, size) float32
        From :func:`average_residual`; NaN in gaps.
    reach : int
        Cells on each side.
    pooled : (size, size) float32
        Filled: sum of residuals over the noise of that sum; NaN in gaps.
    """
    size = residual.shape[0]
    for row in range(size):
        for column in range(size):
            total, variance = 0.0, 0.0
            for other in range(max(row - reach, 0), min(row + reach + 1, size)):
                for beside in range(max(column - reach, 0), min(column + reach + 1, size)):
                    if noise[other, beside] > 0.0 and residual[other, beside] == residual[other, beside]:
                        total += residual[other, beside]
                        variance += noise[other, beside] ** 2
            is_seen = variance > 0.0 and residual[row, column] == residual[row, column]
            pooled[row, column] = total / np.sqrt(variance) if is_seen else np.nan


@kernel
def multiply_neighbours(significance, products):
    """Agreement of every polar bin with its eight neighbours: of unit variance under counting noise.

    Parameters
    ----------
    significance : (r, a) float
        Residual over noise; NaN where a bin is missing.
    products : (r, a) float32
        Filled: sum of the products with the n neighbours present over sqrt(n); NaN where missing or alone.
    """
    rings, azimuths = significance.shape
    for ring in range(rings):
        for azimuth in range(azimuths):
            total, pairs = 0.0, 0
            for other in range(max(ring - 1, 0), min(ring + 2, rings)):
                for lag in range(-1, 2):
                    value = significance[other, (azimuth + lag) % azimuths]
                    if value == value and (other != ring or lag != 0):
                        total += significance[ring, azimuth] * value
                        pairs += 1
            products[ring, azimuth] = total / np.sqrt(pairs) if pairs else np.nan


@kernel
def standardise_cells(values, order, start, least_cells):
    """Take the median off each group of cells and put it to unit spread.

    Parameters
    ----------
    values : (cells,) float32
        NaN in gaps; changed in place.
    order : (m,) int32
        Cells, group by group.
    start : (g + 1,) int
        Where in the order each group begins.
    least_cells : int
        Groups with fewer cells take median and spread of all groups together.

    Notes
    -----
    The spread is 1.4826 times the median absolute deviation, and 1 where nothing varies.
    """
    kept = np.empty(order.size)
    whole_middle, whole_spread, _ = _middle_and_spread(values, order, kept)
    for group in range(start.size - 1):
        cells = order[start[group] : start[group + 1]]
        middle, spread, count = _middle_and_spread(values, cells, kept)
        if count < least_cells:
            middle, spread = whole_middle, whole_spread
        for cell in cells:
            values[cell] = (values[cell] - middle) / spread


@compiled
def _middle_and_spread(values, cells, kept):
    """Median and robust standard deviation of cells that are no gaps, and how many these are."""
    count = 0
    for cell in cells:
        if values[cell] == values[cell]:
            kept[count] = values[cell]
            count += 1
    if count == 0:
        return 0.0, 1.0, 0
    middle = np.median(kept[:count])
    spread = _SIGMA_OF_MAD * np.median(np.abs(kept[:count] - middle))
    return middle, spread if spread > 0.0 else 1.0, count


def to_bytes(values, limit):
    """Values of -limit to limit as bytes 1 to 255, clipped; zero and gaps (NaN) as ``NEUTRAL``."""
    steps = np.rint(np.clip(values, -limit, limit) * np.float32(_STEPS / limit))
    return (NEUTRAL + np.where(np.isfinite(values), steps, 0)).astype(np.uint8)


def to_vgg_input(images):
    """Pictures as VGG16 takes them: blue, green, red, ImageNet's mean taken off ("caffe" preprocessing).

    Parameters
    ----------
    images : (n, size, size, 1) or (n, size, size, 3) uint8
        Grey, or red, green and blue.

    Returns
    -------
    numpy.ndarray
        (n, size, size, 3) float32.
    """
    colours = np.broadcast_to(images, (*images.shape[:-1], 3))[..., ::-1].astype(np.float32)
    colours -= np.array(IMAGENET_BGR, dtype=np.float32)
    return colours
