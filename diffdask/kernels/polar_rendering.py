"""Polar bins of one hit rendered from few samples: Bragg spots and haloes that samples miss, averages, variances.

Letters: p polar rings, f fine rings of one polar ring, a azimuths. A sample is a pixel that stands for all pixels of
its fine ring and azimuth: of its cell. Directions are given as in ``kernels.rendering``.
"""

from __future__ import annotations

import math

import numpy as np

from diffdask.kernels.compilation import compiled, kernel
from diffdask.kernels.rendering import transmission

_GOLDEN_ANGLE = 2.399963229728653


@kernel
def add_spots(
    ray: np.ndarray,
    photons: np.ndarray,
    wavelength: float,
    s_range: np.ndarray,
    shadow: np.ndarray,
    added: np.ndarray,
) -> None:
    """Add Bragg spots to the cells that they meet.

    Parameters
    ----------
    ray, photons
        (r, xyz) unit vectors, and (r,) photons of every spot.
    wavelength, s_range
        angstrom at which cells were laid out; (2,) 1/angstrom (no 2 pi), first and last edge of the rings.
    shadow
        (6,), see ``kernels.rendering.transmission``.
    added
        (rings, azimuths) photons; fine rings one after the other. Added to.
    """
    for r in range(photons.size):
        ring, azimuth = _cell_of(ray[r, 0], ray[r, 1], ray[r, 2] - 1.0, wavelength, s_range, added.shape)
        if ring >= 0:
            added[ring, azimuth] += photons[r] * transmission(ray[r, 0], ray[r, 1], shadow)


@kernel
def add_haloes(
    points: np.ndarray,
    distances: np.ndarray,
    crests: np.ndarray,
    halo: float,
    wavelength: float,
    wavelength_of_cells: float,
    s_range: np.ndarray,
    stamps: int,
    shadow: np.ndarray,
    added: np.ndarray,
) -> None:
    """Add what the Ewald sphere cuts out of haloes about lattice points, as means over whole cells.

    Parameters
    ----------
    points, distances, crests
        (r, xyz) and (r,) 1/angstrom, lattice points and how far they are from the sphere; (r,) photons at the crest.
    halo
        angstrom, see ``kernels.rendering.sample_haloes``.
    wavelength, wavelength_of_cells, s_range
        angstrom, of this hit and of the layout of cells; (2,) 1/angstrom, first and last edge of the rings.
    stamps
        Points that a halo's photons are shared out to.
    shadow
        (6,), see ``kernels.rendering.transmission``.
    added
        (rings, azimuths) photons, fine rings one after the other. Added to.

    Notes
    -----
    Over a plane at the distance e, the integral of crest / (1 + halo^2 (e^2 + r^2))^2 is
    crest pi / (halo^2 (1 + halo^2 e^2)), of which r^2 / (R^2 + r^2) lies within r, with R^2 = 1 / halo^2 + e^2.
    A cell is a part of the sphere's zone between two s, whose area is pi (s_2^2 - s_1^2).
    """
    rings, azimuths = added.shape
    step = (s_range[1] - s_range[0]) / rings
    for i in range(distances.size):
        if crests[i] == 0.0:
            continue
        x, y, z = points[i, 0] * wavelength, points[i, 1] * wavelength, points[i, 2] * wavelength + 1.0
        length = math.sqrt(x * x + y * y + z * z)
        x, y, z = x / length, y / length, z / length
        across = math.hypot(x, y)
        if across == 0.0:
            continue
        # Unit vectors across the ray: along the ring, and outwards.
        tx, ty = -y / across, x / across
        ox, oy, oz = z * x / across, z * y / across, -across
        spread2 = 1.0 / halo**2 + distances[i] ** 2
        flux = crests[i] * math.pi / (halo**2 * (1.0 + (halo * distances[i]) ** 2)) / stamps
        for n in range(stamps):
            u = (n + 0.5) / stamps
            reach = wavelength * math.sqrt(spread2 * u / (1.0 - u))
            along, out = reach * math.cos(_GOLDEN_ANGLE * (n + i)), reach * math.sin(_GOLDEN_ANGLE * (n + i))
            px, py, pz = x + along * tx + out * ox, y + along * ty + out * oy, z + out * oz
            norm = math.sqrt(px * px + py * py + pz * pz)
            px, py, pz = px / norm, py / norm, pz / norm - 1.0
            ring, azimuth = _cell_of(px, py, pz, wavelength_of_cells, s_range, added.shape)
            if ring >= 0:
                low = s_range[0] + ring * step
                # The cell's area on this hit's sphere: its edges in s scale with the photon energy.
                area = math.pi * step * (2.0 * low + step) / azimuths * (wavelength_of_cells / wavelength) ** 2
                added[ring, azimuth] += flux / area * transmission(px, py, shadow)


@kernel
def average_samples(
    expected: np.ndarray,
    gain: np.ndarray,
    offset: np.ndarray,
    panel: np.ndarray,
    collected: np.ndarray,
    count: np.ndarray,
    gain_spread: float,
    readout: float,
    signal: np.ndarray,
    counts: np.ndarray,
    variance: np.ndarray,
) -> None:
    """Average samples over polar bins, each fine ring's mean taken off: what counting would give on average.

    Parameters
    ----------
    expected
        (p, f, a) photons after the corrections.
    gain, offset, panel, collected
        (p, f, a) mean gain of the sample's pixels, (panels,) photons that a panel reads too much, (p, f, a) the
        sample's panel and the share of the photons that its pixel collects.
    count
        (p, f, a) pixels; 0 where there are none.
    gain_spread, readout
        Relative, and photons: of a single pixel.
    signal, counts, variance
        (p, a) written: mean of the bin's pixels less the isotropic part; photons that the bin catches; variance of
        its pixels, counting, readout and their differences.
    """
    rings, fine, azimuths = expected.shape
    value = np.empty((fine, azimuths))
    for ring in range(rings):
        for i in range(fine):
            total, pixels = 0.0, 0
            for azimuth in range(azimuths):
                n = count[ring, i, azimuth]
                if n > 0:
                    read = expected[ring, i, azimuth] * gain[ring, i, azimuth]
                    read += offset[panel[ring, i, azimuth]] / collected[ring, i, azimuth]
                    value[i, azimuth] = read
                    total += n * read
                    pixels += n
            if pixels > 0:
                value[i] -= total / pixels
        for azimuth in range(azimuths):
            pixels, first, second, caught, spread = 0, 0.0, 0.0, 0.0, 0.0
            for i in range(fine):
                n = count[ring, i, azimuth]
                if n > 0:
                    share, photons = collected[ring, i, azimuth], expected[ring, i, azimuth]
                    pixels += n
                    first += n * value[i, azimuth]
                    second += n * value[i, azimuth] ** 2
                    caught += n * photons * share
                    spread += n * (photons / share + (gain_spread * photons) ** 2 + (readout / share) ** 2)
            pixels = max(pixels, 1)
            signal[ring, azimuth] = first / pixels
            counts[ring, azimuth] = caught
            variance[ring, azimuth] = spread / pixels + max(second / pixels - (first / pixels) ** 2, 0.0)


@compiled
def _cell_of(
    x: float, y: float, z: float, wavelength: float, s_range: np.ndarray, shape: tuple[int, int]
) -> tuple[int, int]:
    """Fine ring and azimuth of a scattering vector; ring -1 outside."""
    s = math.sqrt(x * x + y * y + z * z) / wavelength
    ring = math.floor((s - s_range[0]) / (s_range[1] - s_range[0]) * shape[0])
    if ring < 0 or ring >= shape[0]:
        return -1, 0
    turn = math.atan2(y, x) / (2.0 * math.pi)
    if turn < 0.0:
        turn += 1.0
    return ring, min(int(turn * shape[1]), shape[1] - 1)
