"""From the readout to corrected photons."""

import numpy as np

from diffdask.kernels.compilation import compiled

#: What a reading that is not finite becomes: far below every limit, and harmless when multiplied by zero.
MISSING = np.float32(-3e38)

#: Photons that no pixel ever caught, either way: what lies beyond is no reading. Sums of squares stay finite.
NO_READING = np.float32(1e15)

#: Fewest ADU a photon is worth where the common mode can be seen: between coarser steps there is no peak to find.
_PHOTON_ADU = 6.0


@compiled
def count_photons(adu, place, panel, correction, offset, gain, photons):
    """Convert listed pixels of one frame to corrected photons.

    Parameters
    ----------
    adu : (p,) integer or float
        One frame, flat; ADU.
    place, panel : (n,) integer
        Where the pixels are in the frame, and their panels.
    correction : (n,) float32
        1 / (polarisation x solid angle x area): what one photon becomes.
    offset : (k,) float32
        Common mode of each panel, ADU.
    gain : (k,) float32
        Photons per ADU of each panel.
    photons : (n,) float32
        Filled with the corrected intensity; ``MISSING`` where a reading is not finite, or beyond reason.
    """
    _convert(adu, place, panel, correction, offset, gain, photons)
    if _count_no_readings(photons) > 0.0:
        for i in range(photons.size):
            if not abs(photons[i]) < NO_READING:
                photons[i] = MISSING


@compiled
def _convert(adu, place, panel, correction, offset, gain, photons):
    for i in range(place.size):
        k = panel[i]
        photons[i] = (np.float32(adu[place[i]]) - offset[k]) * gain[k] * correction[i]


@compiled
def _count_no_readings(values):
    """How many are not finite, or beyond reason."""
    count = np.float32(0.0)
    for i in range(values.size):
        count += np.float32(not abs(values[i]) < NO_READING)
    return count


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
    for panel in range(panels):
        half_photon = np.float32(0.5 / gain[panel])
        middle = np.float32(0.0)
        for _ in range(3 if gain[panel] * _PHOTON_ADU <= 1.0 else 0):
            total, inside, pixels = 0.0, 0.0, 0.0
            for row in range(panel * height, (panel + 1) * height, row_step):
                start = row * width
                s, n, used = _near_zero(adu[start : start + width], cell[start : start + width], middle, half_photon)
                total += s
                inside += n
                pixels += used
            middle = np.float32(total / inside) if inside > min_share * pixels and inside > 0.0 else np.float32(0.0)
        offset[panel] = middle


@compiled
def _near_zero(adu, cell, middle, half_photon):
    """Sum and number of usable readings closer to ``middle`` than half a photon, and number of usable pixels."""
    total, inside, pixels = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for i in range(adu.size):
        value = np.float32(adu[i])
        is_used = np.float32(cell[i] >= 0)
        is_inside = np.float32(abs(value - middle) < half_photon) * is_used
        total += value if is_inside > 0 else np.float32(0.0)
        inside += is_inside
        pixels += is_used
    return total, inside, pixels
