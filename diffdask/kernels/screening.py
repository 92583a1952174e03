"""A frame's row in the catalogue, from the sums over its polar cells."""

import numpy as np

from diffdask.kernels.compilation import kernel
from diffdask.kernels.polar import average_cells, find_diffuse_excess, find_ring_anisotropy

#: What :func:`summarise_frame` fills its summary with, in this order.
COLUMNS = ("background", "anisotropy", "diffuse_excess", "peak_count", "peak_intensity", "good_rings")


@kernel
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
