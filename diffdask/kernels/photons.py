"""From the readout to corrected photons."""

import numpy as np

from diffdask.kernels.compilation import compiled
from diffdask.kernels.gathering import convert_runs
from diffdask.kernels.lanes import sum_between

#: Photons that no pixel ever caught, either way: what lies beyond, or is not a number, is no reading.
NO_READING = np.float32(1e15)

#: Fewest ADU a photon is worth where the common mode can be seen: between coarser steps there is no peak to find.
_PHOTON_ADU = 6.0


@compiled
def count_photons(adu, pixels, run, begin, end, offset, gain, photons):
    """Convert a stretch of listed pixels of one frame to corrected photons.

    Parameters
    ----------
    adu : (p,) integer or float
        One frame, flat; ADU.
    pixels : PixelList
        The usable pixels.
    run : int
        The run of pixels of one panel that begins at ``begin``.
    begin, end : int
        The stretch; whole runs.
    offset : (k,) float32
        Common mode of each panel, ADU.
    gain : (k,) float32
        Photons per ADU of each panel.
    photons : (end - begin,) float32
        Filled with the corrected intensity. Readings that are not finite stay so: whoever takes sums leaves out
        what is not between -``NO_READING`` and ``NO_READING``.

    Returns
    -------
    int
        The run that begins at ``end``.
    """
    return convert_runs(
        adu, adu.size // gain.size, pixels.run_start, pixels.run_panel, pixels.place_in_panel, pixels.correction, run,
        begin, end, offset, gain, photons,
    )  # fmt: skip


@compiled
def find_zero_peak(adu, shape, cell, gain, min_share, row_step, offset):
    """Common mode of each panel: where the pixels that caught no photon read.

    The mean of the readings within half a photon of zero, taken three times
    about its own former value. A panel with a smaller share of such pixels than
    ``min_share`` is too brightly lit to tell and keeps 0, as does one whose
    photons are worth less than six ADU.

    Parameters
    ----------
    adu : (p,) integer or float
        One frame, flat; ADU.
    shape : (panels, ss, fs)
        Of the frame.
    cell : (p,) int32
        Polar cell of every pixel, negative where it must not be used.
    gain : (k,) float32
        Photons per ADU.
    min_share : float
        0 to 1.
    row_step : int
        Every row_step-th row is looked at: thousands of pixels a panel are plenty.
    offset : (k,) float32
        Filled, ADU.
    """
    panels, height, width = shape
    sample = np.empty((-(-height // row_step), width), dtype=np.float32)
    for panel in range(panels):
        offset[panel] = 0.0
        if gain[panel] * _PHOTON_ADU > 1.0 or np.isnan(gain[panel]):
            continue
        pixels = 0
        for line in range(sample.shape[0]):
            start = (panel * height + line * row_step) * width
            pixels += _take_line(adu[start : start + width], cell[start : start + width], sample[line])
        offset[panel] = _find_centre(sample.ravel(), np.float32(0.5 / gain[panel]), min_share * pixels)


@compiled
def _take_line(adu, cell, line):
    """Copy the usable readings of a line and put ``NO_READING`` at the others; gives the number of usable ones."""
    pixels = np.int32(0)
    for i in range(line.size):
        is_used = cell[i] >= 0
        line[i] = np.float32(adu[i]) if is_used else NO_READING
        pixels += np.int32(is_used)
    return pixels


@compiled
def _find_centre(sample, width, fewest):
    """Mean of the values within ``width`` of it, from 0 on; 0 in a turn that finds no more than ``fewest``."""
    middle = np.float32(0.0)
    for _ in range(3):
        first, _, inside = sum_between(sample, middle - width, middle + width, middle)
        middle = np.float32(middle + first / inside) if inside > fewest and inside > 0 else np.float32(0.0)
    return middle
