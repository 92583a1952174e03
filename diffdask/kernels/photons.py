"""From the readout to photons, on the list of usable pixels."""

import numpy as np

from diffdask.kernels.compilation import compiled


@compiled
def count_photons(adu, pixel_index, pixel_panel, pixel_correction, panel_offset, panel_gain, photons):
    """Convert the usable pixels of one frame to corrected photons.

    Parameters
    ----------
    adu : (p,) integer or float
        One frame, flat; ADU.
    pixel_index : (n,) integer
        Places of the usable pixels in ``adu``, ascending.
    pixel_panel : (n,) integer
        Panel of each.
    pixel_correction : (n,) float32
        1 / (polarisation x solid angle x area).
    panel_offset : (k,) float32
        Common mode of each panel, ADU.
    panel_gain : (k,) float32
        Photons per ADU of each panel.
    photons : (n,) float32
        Filled with the corrected intensity; NaN where a reading is not finite.
    """
    for i in range(pixel_index.size):
        panel = pixel_panel[i]
        value = np.float32(adu[pixel_index[i]])
        corrected = (value - panel_offset[panel]) * panel_gain[panel] * pixel_correction[i]
        photons[i] = corrected if np.isfinite(corrected) else np.nan


@compiled
def find_zero_peak(adu, pixel_index, pixel_panel, panel_gain, min_share, offset):
    """Common mode of each panel: where the pixels that caught no photon read.

    The mean of the readings within half a photon of zero, taken three times
    about its own former value. A panel with a smaller share of such pixels than
    ``min_share`` is too brightly lit to tell and keeps 0.

    Parameters
    ----------
    adu : (p,) integer or float
        One frame, flat; ADU.
    pixel_index, pixel_panel : (n,) integer
        Usable pixels and their panels.
    panel_gain : (k,) float32
        Photons per ADU.
    min_share : float
        0 to 1.
    offset : (k,) float32
        Filled, ADU.
    """
    panels = panel_gain.size
    total = np.zeros(panels)
    inside = np.zeros(panels)
    pixels = np.zeros(panels)
    offset[:] = 0.0
    for _ in range(3):
        total[:] = 0.0
        inside[:] = 0.0
        pixels[:] = 0.0
        for i in range(pixel_index.size):
            panel = pixel_panel[i]
            value = np.float64(adu[pixel_index[i]])
            pixels[panel] += 1
            if abs(value - offset[panel]) * panel_gain[panel] < 0.5:
                total[panel] += value
                inside[panel] += 1
        for panel in range(panels):
            if inside[panel] > min_share * pixels[panel] and inside[panel] > 0:
                offset[panel] = total[panel] / inside[panel]
            else:
                offset[panel] = 0.0
