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
    found = 0
    indices = np.empty((0, 3), np.int32)
    shares = np.empty(0)
    for is_counted in (False, True):
        if is_counted:
            indices = np.empty((found, 3), np.int32)
            shares = np.empty(found)
            found = 0
        for h in range(-limits[0], limits[0] + 1):
            for k in range(-limits[1], limits[1] + 1):
                x0 = h * reciprocal[0, 0] + k * reciprocal[1, 0]
                y0 = h * reciprocal[0, 1] + k * reciprocal[1, 1]
                z0 = h * reciprocal[0, 2] + k * reciprocal[1, 2]
                for l in range(-limits[2], limits[2] + 1):  # noqa: E741
                    x = x0 + l * reciprocal[2, 0]
                    y = y0 + l * reciprocal[2, 1]
                    z = z0 + l * reciprocal[2, 2]
                    s2 = x * x + y * y + z * z
                    # |k + g|^2 - |k|^2 = 2 k.g + g^2, over 2 |k|: close to the sphere that is the distance from it.
                    distance = z + 0.5 * s2 * wavelength
                    width2 = mosaicity**2 * s2 + size_width**2 + (bandwidth * s2 * wavelength * 0.5) ** 2
                    if distance * distance > 12.0 * width2 or s2 > s_max * s_max or s2 == 0.0:
                        continue
                    if is_counted:
                        indices[found, 0], indices[found, 1], indices[found, 2] = h, k, l
                        shares[found] = math.exp(-0.5 * distance * distance / width2)
                    found += 1
    return indices, shares


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
