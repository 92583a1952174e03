"""Reflections of a still crystal: which are excited, which are mates under the Laue group."""

from __future__ import annotations

import math

import numpy as np

from diffdask.kernels.compilation import kernel


@kernel
def average_over_rotations(half: np.ndarray, rotations: np.ndarray, averaged: np.ndarray) -> None:
    """Average a centrosymmetric map over the rotations of its Laue group.

    Parameters
    ----------
    half
        (2 H + 1, 2 K + 1, L + 1) map in FFT order along h and k, with the half l >= 0.
    rotations
        (g, 3, 3) integers acting on (h, k, l).
    averaged
        (2 H + 1, 2 K + 1, L + 1), centred, written. Mates outside the grid are left out.
    """
    h_max, k_max, l_max = averaged.shape[0] // 2, averaged.shape[1] // 2, averaged.shape[2] - 1
    for i in range(averaged.shape[0]):
        for j in range(averaged.shape[1]):
            for l in range(l_max + 1):  # noqa: E741
                total, count = 0.0, 0
                for g in range(rotations.shape[0]):
                    h1, k1, l1 = _turn(rotations[g], i - h_max, j - k_max, l)
                    if l1 < 0:
                        h1, k1, l1 = -h1, -k1, -l1
                    if abs(h1) <= h_max and abs(k1) <= k_max and l1 <= l_max:
                        total += half[h1, k1, l1]
                        count += 1
                averaged[i, j, l] = total / count


@kernel
def number_mates(indices: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Give reflections a number, (r,), that all their Laue mates share.

    ``indices`` (r, 3) Miller indices below 4096; ``rotations`` (g, 3, 3). The number is the largest of the mates'
    packed indices.
    """
    numbers = np.zeros(indices.shape[0], np.int64)
    for r in range(indices.shape[0]):
        for g in range(rotations.shape[0]):
            h, k, l = _turn(rotations[g], indices[r, 0], indices[r, 1], indices[r, 2])  # noqa: E741
            numbers[r] = max(numbers[r], _pack(h, k, l), _pack(-h, -k, -l))
    return numbers


@kernel
def find_excited(
    reciprocal: np.ndarray,
    limits: np.ndarray,
    wavelength: float,
    s_max: float,
    mosaicity: float,
    size_width: float,
    bandwidth: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the reflections that lie near the Ewald sphere.

    Parameters
    ----------
    reciprocal
        (3, 3) rows a*, b*, c* in the laboratory, 1/angstrom.
    limits
        (3,) largest index along each axis.
    wavelength, s_max
        angstrom, 1/angstrom.
    mosaicity, size_width, bandwidth
        rad, 1/angstrom, relative: standard deviations. They widen a reflection to
        w^2 = (mosaicity s)^2 + size_width^2 + (bandwidth s^2 wavelength / 2)^2.

    Returns
    -------
    tuple
        (r, 3) Miller indices and (r,) share of the full intensity, exp(-e^2 / 2 w^2), e being the distance from
        the Ewald sphere; shares below exp(-6) are left out.
    """
    widest2 = mosaicity**2 * s_max**2 + size_width**2 + (bandwidth * s_max**2 * wavelength * 0.5) ** 2
    near, distances = find_near_sphere(reciprocal, limits, wavelength, s_max, math.sqrt(12.0 * widest2))
    indices = np.empty_like(near)
    shares = np.empty(distances.size)
    found = 0
    for r in range(distances.size):
        s2 = 0.0
        for axis in range(3):
            along = (
                near[r, 0] * reciprocal[0, axis] + near[r, 1] * reciprocal[1, axis] + near[r, 2] * reciprocal[2, axis]
            )
            s2 += along * along
        width2 = mosaicity**2 * s2 + size_width**2 + (bandwidth * s2 * wavelength * 0.5) ** 2
        if distances[r] ** 2 <= 12.0 * width2:
            indices[found] = near[r]
            shares[found] = math.exp(-0.5 * distances[r] ** 2 / width2)
            found += 1
    return indices[:found].copy(), shares[:found].copy()


@kernel
def find_near_sphere(
    reciprocal: np.ndarray, limits: np.ndarray, wavelength: float, s_max: float, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Find the points of the reciprocal lattice within ``reach`` (1/angstrom) of the Ewald sphere, the origin left out.

    Parameters
    ----------
    reciprocal, limits, wavelength, s_max
        As in :func:`find_excited`.
    reach
        1/angstrom.

    Returns
    -------
    tuple
        (r, 3) Miller indices, and (r,) distance from the sphere, 1/angstrom, positive outside.

    Notes
    -----
    |k + g|^2 - |k|^2 = 2 k.g + g^2, over 2 |k|, is close to the sphere the distance from it. Along l that is a
    parabola: only the few l between its crossings of ``-reach`` and ``reach`` are looked at.
    """
    found = 0
    indices = np.empty((1024, 3), np.int32)
    distances = np.empty(1024)
    cx, cy, cz = reciprocal[2, 0], reciprocal[2, 1], reciprocal[2, 2]
    curve = 0.5 * wavelength * (cx * cx + cy * cy + cz * cz)
    for h in range(-limits[0], limits[0] + 1):
        for k in range(-limits[1], limits[1] + 1):
            x0 = h * reciprocal[0, 0] + k * reciprocal[1, 0]
            y0 = h * reciprocal[0, 1] + k * reciprocal[1, 1]
            z0 = h * reciprocal[0, 2] + k * reciprocal[1, 2]
            slope = cz + wavelength * (x0 * cx + y0 * cy + z0 * cz)
            start = z0 + 0.5 * wavelength * (x0 * x0 + y0 * y0 + z0 * z0)
            middle = -0.5 * slope / curve
            lowest = start - 0.25 * slope * slope / curve
            if lowest > reach:
                continue
            outer = math.sqrt((reach - lowest) / curve)
            inner = math.sqrt(max(-reach - lowest, 0.0) / curve)
            first = max(math.ceil(middle - outer), -limits[2])
            last = min(math.floor(middle + outer), limits[2])
            l = first  # noqa: E741
            while l <= last:
                if middle - inner < l < middle + inner:
                    l = max(l + 1, math.ceil(middle + inner))  # noqa: E741
                    continue
                x, y, z = x0 + l * cx, y0 + l * cy, z0 + l * cz
                s2 = x * x + y * y + z * z
                if 0.0 < s2 <= s_max * s_max:
                    if found == distances.size:
                        indices = np.concatenate((indices, np.empty_like(indices)))
                        distances = np.concatenate((distances, np.empty_like(distances)))
                    indices[found, 0], indices[found, 1], indices[found, 2] = h, k, l
                    distances[found] = z + 0.5 * s2 * wavelength
                    found += 1
                l += 1  # noqa: E741
    return indices[:found].copy(), distances[:found].copy()


@kernel
def _turn(rotation: np.ndarray, h: int, k: int, l: int) -> tuple[int, int, int]:  # noqa: E741
    return (
        rotation[0, 0] * h + rotation[0, 1] * k + rotation[0, 2] * l,
        rotation[1, 0] * h + rotation[1, 1] * k + rotation[1, 2] * l,
        rotation[2, 0] * h + rotation[2, 1] * k + rotation[2, 2] * l,
    )


@kernel
def _pack(h: int, k: int, l: int) -> int:  # noqa: E741
    return ((h + 4096) * 8192 + (k + 4096)) * 8192 + (l + 4096)
