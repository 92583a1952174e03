"""Intensity of one hit against the distance from the nearest point of its reciprocal lattice.

Motions that are correlated over many unit cells leave haloes about the lattice points, no wider than one or two
pixels. A halo is seen where Bragg scattering is over: about points that lie too far from the Ewald sphere to be
excited, and just outside the spots of those that are. All such pixels of a hit are looked at together.
"""

from typing import NamedTuple

import numpy as np

from diffdask.kernels.compilation import compiled, kernel
from diffdask.kernels.photons import NO_READING

#: Pixels of a cell that are needed to know its level and its noise.
_CELL_PIXELS = 12


class Lattice(NamedTuple):
    """The lattice of one hit, and what Bragg spots take of it."""

    direct: np.ndarray  #: (3, 3) rows: primitive axes, angstrom; times a reciprocal point they give its indices
    reciprocal: np.ndarray  #: (3, 3) rows: primitive reciprocal axes, laboratory, 1/angstrom
    wavelength: float  #: angstrom
    size_width: float  #: 1/angstrom, see :func:`~diffdask.kernels.lattice_fit.measure_widths`
    mosaicity: float  #: rad
    spot_width: float  #: 1/angstrom, standard deviation of a sharp spot on the detector
    guard: float  #: standard deviations of a spot, in depth and on the detector, that are left out
    shift: float  #: 0; or 0.5, for points half-way between lattice points, whose spots stay left out: chance


@kernel
def sum_lattice_profile(adu, shape, pixels, direction, gain, how, scratch, mean, rings, lattice, halo, edges, sums):
    """Sum the intensity of one frame over shells about the lattice points, and fit the crest of the haloes.

    What is smooth (shadows, streaks, other diffuse scattering, and whatever else changes slowly over the detector)
    drops out: pixels are compared with the others of their cell only, a few rings of pixels wide and an azimuthal
    bin long, which lie at all distances from lattice points.

    Parameters
    ----------
    adu : (p,) integer or float
        One frame, flat; ADU.
    shape : (panels, ss, fs)
        Of the frame.
    pixels : PixelList
        The usable pixels.
    direction : (n, 3) float32
        Unit vector to each listed pixel less the beam's: over the wavelength, a point of reciprocal space.
    gain : (panels,) float32
        Photons per ADU.
    how : Screening
        ``threshold`` and ``snr``: pixels as bright as those of peaks are left out.
    scratch : Scratch
        As :func:`~diffdask.kernels.residual.sum_residual` left it for this frame: common mode, deviation of rings.
    mean : (r,) float64
        Isotropic background, photons; NaN for rings without.
    rings : (2,) int
        First ring that is used, and the one after the last.
    lattice : Lattice
        The hit's.
    halo : float
        Angstrom, 2 pi times the correlation length of the haloes that are looked for: they are 1 / (1 + (halo
        distance)^2)^2 of their crest.
    edges : (b + 1,) float64
        Edges of the shells, 1/angstrom, ascending. What lies further counts for the level of its cell.
    sums : (b + 1, 4) float64
        Filled. The first b rows are shells: intensity above the level of its cell, weighted with the inverse
        variance; weight; variance of the first; pixels. The last row is the fit: sum, its weight, variance of the
        sum, pixels; sum over weight is the crest, photons.

    Notes
    -----
    Within a cell of n pixels, with values v of variance s^2 and templates t = 1 / (1 + (halo d)^2)^2, the crest is
    fitted by sum (t - mean t) v / s^2 over sum (t - mean t)^2 / s^2: a level of the cell drops out.
    """
    azimuths = (pixels.start.size - 1) // mean.size
    sums[:] = 0.0
    longest = 0
    for cell in range(rings[0] * azimuths, rings[1] * azimuths):
        longest = max(longest, pixels.start[cell + 1] - pixels.start[cell])
    value, distance = np.empty(longest), np.empty(longest)
    for ring in range(rings[0], rings[1]):
        if np.isnan(mean[ring]):
            continue
        for cell in range(ring * azimuths, (ring + 1) * azimuths):
            taken = _take_cell(
                adu, shape, pixels, direction, gain, how, scratch, mean[ring], ring, cell, lattice, value, distance
            )
            if taken >= _CELL_PIXELS:
                _add_cell(value[:taken], distance[:taken], halo, edges, sums)


@compiled
def _take_cell(
    adu, shape, pixels, direction, gain, how, scratch, mean, ring, cell, lattice, value, distance
):  # fmt: skip
    """Fill in photons above the ring's mean and distances of a cell's pixels outside Bragg spots; gives how many."""
    panel_size = shape[1] * shape[2]
    skew = max((how.snr * how.snr - 1.0) / 6.0, 0.0)
    noise = how.snr * scratch.deviation[ring]
    taken = 0
    for i in range(pixels.start[cell], pixels.start[cell + 1]):
        place = pixels.place[i]
        panel = place // panel_size
        photons = (np.float32(adu[place]) - scratch.offset[panel]) * gain[panel] * pixels.correction[i]
        off = photons - mean
        if not abs(photons) < NO_READING or off > max(how.threshold, noise + skew * pixels.correction[i]):
            continue
        far = _find_distance(direction[i, 0], direction[i, 1], direction[i, 2], lattice)
        if far >= 0.0:
            value[taken] = off
            distance[taken] = far
            taken += 1
    return taken


@compiled
def _find_distance(dx, dy, dz, lattice):
    """Distance from the nearest, shifted point, 1/angstrom; -1 within reach of Bragg spots and their stand-ins."""
    far = _find_distance_from(dx, dy, dz, lattice, lattice.shift)
    if lattice.shift != 0.0 and far >= 0.0 and _find_distance_from(dx, dy, dz, lattice, 0.0) < 0.0:
        return -1.0
    return far


@compiled
def _find_distance_from(dx, dy, dz, lattice, shift):
    x, y, z = dx / lattice.wavelength, dy / lattice.wavelength, dz / lattice.wavelength
    direct, reciprocal = lattice.direct, lattice.reciprocal
    h = np.rint(direct[0, 0] * x + direct[0, 1] * y + direct[0, 2] * z - shift) + shift
    k = np.rint(direct[1, 0] * x + direct[1, 1] * y + direct[1, 2] * z - shift) + shift
    l = np.rint(direct[2, 0] * x + direct[2, 1] * y + direct[2, 2] * z - shift) + shift  # noqa: E741
    gx = h * reciprocal[0, 0] + k * reciprocal[1, 0] + l * reciprocal[2, 0]
    gy = h * reciprocal[0, 1] + k * reciprocal[1, 1] + l * reciprocal[2, 1]
    gz = h * reciprocal[0, 2] + k * reciprocal[1, 2] + l * reciprocal[2, 2]
    s2 = gx * gx + gy * gy + gz * gz
    # (|k + g|^2 - |k|^2) / 2 |k|: close to the sphere the distance from it.
    depth = gz + 0.5 * lattice.wavelength * s2
    distance2 = (gx - x) ** 2 + (gy - y) ** 2 + (gz - z) ** 2
    width2 = lattice.size_width**2 + lattice.mosaicity**2 * s2
    across2 = max(distance2 - depth * depth, 0.0) / (lattice.spot_width**2 + 0.25 * width2)
    if depth * depth / width2 + across2 < lattice.guard**2:
        return -1.0
    return np.sqrt(distance2)


@compiled
def _add_cell(value, distance, halo, edges, sums):
    """Add a cell's pixels to the shells and to the fit."""
    level, template = 0.0, 0.0
    for i in range(value.size):
        level += value[i]
        template += 1.0 / (1.0 + (halo * distance[i]) ** 2) ** 2
    level /= value.size
    template /= value.size
    square = 0.0
    for i in range(value.size):
        square += (value[i] - level) ** 2
    if square <= 0.0:
        return
    weight = (value.size - 1) / square
    last = sums.shape[0] - 1
    for i in range(value.size):
        off = value[i] - level
        lean = weight * (1.0 / (1.0 + (halo * distance[i]) ** 2) ** 2 - template)
        sums[last, 0] += lean * off
        sums[last, 1] += lean * lean / weight
        sums[last, 2] += (lean * off) ** 2
        sums[last, 3] += 1.0
        shell = np.searchsorted(edges, distance[i], side="right") - 1
        if 0 <= shell < last:
            sums[shell, 0] += weight * off
            sums[shell, 1] += weight
            sums[shell, 2] += (weight * off) ** 2
            sums[shell, 3] += 1.0
