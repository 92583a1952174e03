"""The search for orientations in the map of given frames: merged in voxels that suit it, then cut in slices."""

from __future__ import annotations

import numpy as np

from diffdask.kernels.volume import add_frames, locate_frames
from diffdask.models.orientation_search import OrientationSearch

#: Edge of a voxel of the map that is searched, 1/angstrom: twice as fine or coarse finds about as many.
MAP_STEP = 0.04


def search_in_map_of(
    values: np.ndarray,
    *,
    rotation: np.ndarray,
    wavelength: np.ndarray,
    weight: np.ndarray,
    ring_q: np.ndarray,
    rotations: np.ndarray,
    mean_wavelength: float,
    friedel: bool = True,
    search: OrientationSearch | None = None,
) -> OrientationSearch:
    """Merge frames with their weights, and cut the slices of that map.

    Parameters
    ----------
    values
        (n, r, a) residual over noise; NaN where missing.
    rotation
        (n, 3, 3) from the laboratory to the crystal's frame.
    wavelength
        (n,) angstrom.
    weight
        (n,) of each in the map, not negative; frames of weight 0 may have no rotation.
    ring_q
        (r,) 1/angstrom.
    rotations
        (g, 3, 3) of the Laue group in the crystal's frame.
    mean_wavelength
        Angstrom, of the slices: the mean of the frames that are to be searched.
    friedel
        Whether -q has the intensity of q.
    search
        The search that is fitted; None for one with its defaults.

    Raises
    ------
    BadParameter
        If no frame has a weight, or a parameter of the search makes no sense.
    """
    merged = np.flatnonzero(weight > 0)
    size = 2 * int(np.ceil(ring_q[-1] / MAP_STEP)) + 3  # one voxel past the outermost ring
    voxels = np.empty((merged.size, *values.shape[1:]), np.int32)
    turned = np.ascontiguousarray(rotation[merged]), np.ascontiguousarray(wavelength[merged])
    locate_frames(*turned, ring_q, rotations, friedel, MAP_STEP, size, voxels)
    sums, weights = np.zeros((2, size**3))
    add_frames(np.ascontiguousarray(values[merged]), voxels, weight[merged], sums, weights)
    return (search or OrientationSearch()).fit(
        sums,
        weights,
        rotations=rotations,
        step=MAP_STEP,
        size=size,
        ring_q=ring_q,
        azimuths=values.shape[2],
        wavelength=mean_wavelength,
        friedel=friedel,
    )
