"""Kernels on one CSPAD frame in memory, on one thread, beside pyFAI and NumPy on the same pixels and rings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import Frame

from diffdask.geometry import Geometry
from diffdask.steps import polar, screening

RINGS, AZIMUTHS, POLAR_RINGS = 480, 72, 60

PEAKS = {"snr": 6.0, "threshold": 5.0, "min_pixels": 2, "max_pixels": 30, "radius": 4}

FRAME_GROUP = "One CSPAD frame in memory, one thread"
POLAR_GROUP = "Polar residual of a hit (60 rings x 72 azimuths), one thread"


class Slab(NamedTuple):
    """The frame as pyFAI takes it: one image, its panels below each other."""

    photons: np.ndarray  #: (panels * ss, fs) float32
    integrator: Any


@pytest.fixture(scope="module")
def slab(hit: Frame) -> Slab:
    """The hit for pyFAI, with our pixel positions, mask and rings."""
    import pyFAI.detectors
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    panels, height, width = hit.adu.shape
    detector = pyFAI.detectors.Detector(1.1e-4, 1.1e-4, max_shape=(panels * height, width))
    detector.set_pixel_corners(pixel_corners(hit.geometry, hit.adu.shape))
    detector.IS_FLAT = True
    is_used = hit.layout.pixel_ring.values[hit.setting] >= 0
    detector.mask = (~is_used).reshape(panels * height, width).astype(np.int8)
    length = 12398.42 / hit.photon_energy * 1e-10
    integrator = AzimuthalIntegrator(dist=hit.camera_length, detector=detector, wavelength=length)
    photons = hit.adu.astype(np.float32) * hit.gain[:, None, None]
    return Slab(photons.reshape(panels * height, width), integrator)


@pytest.fixture(scope="module")
def sigma_clip(slab: Slab) -> Callable[[], Any]:
    """The reference of the first group: what a colleague would call for the background alone."""
    options = {"error_model": "azimuthal", "thres": 5.0, "max_iter": 3, "method": ("no", "csr", "cython")}
    return lambda: slab.integrator.sigma_clip(slab.photons, RINGS, unit="q_A^-1", **options)


def pixel_corners(geometry: Geometry, shape: tuple[int, ...]) -> np.ndarray:
    """Corners of all pixels as pyFAI wants them: (panels * ss, fs, 4, zyx) m, z from the camera length on."""
    panels, height, width = shape
    ss, fs = np.arange(height)[:, None], np.arange(width)[None, :]
    corners = np.empty((panels * height, width, 4, 3), np.float32)
    for k, (below, right) in enumerate(((0, 0), (0, 1), (1, 1), (1, 0))):
        down = (ss + below)[None, :, :, None] * geometry.ss_step[:, None, None]
        along = (fs + right)[None, :, :, None] * geometry.fs_step[:, None, None]
        position = geometry.corner[:, None, None] + down + along
        corners[:, :, k] = position.reshape(panels * height, width, 3)[..., ::-1]
    return corners


def screen_call(
    hit: Frame, *, frames: int = 1, cells: tuple[int, int] = (RINGS, AZIMUTHS), **changes: Any
) -> Callable[[], Any]:
    """The whole screen kernel: common mode, photons, rings, peaks, anisotropy, excess."""
    how = screening.screening_parameters(
        **{"common_mode": "zero-peak", "clip_low": 5.0, "clip_high": 5.0, "clip_passes": 3, **PEAKS, **changes}
    )
    block = np.repeat(hit.adu[None], frames, axis=0)
    gain = np.repeat(hit.gain[None], frames, axis=0)
    window = np.ones(cells[0], bool)
    setting = np.zeros(frames, np.int64)
    return lambda: screening._screen_block(
        block, setting, gain, pixels=(hit.pixels,), cells=cells, how=how, window=window
    )


# one frame ---------------------------------------------------------------------------------------------


def bench_sigma_clip(beside: Any, sigma_clip: Callable[[], Any]) -> None:
    beside(sigma_clip, group=FRAME_GROUP, name="pyFAI sigma_clip, csr, 3 passes")


def bench_screen(beside: Any, sigma_clip: Callable[[], Any], hit: Frame) -> None:
    words = "at most 1/5 of sigma_clip; aim 1/10"
    call = screen_call(hit)
    summary, _, _ = beside(call, sigma_clip, group=FRAME_GROUP, name="screen, whole", asked=0.2, words=words, rounds=30)
    assert np.isfinite(summary).all()


def bench_screen_without_common_mode(beside: Any, sigma_clip: Callable[[], Any], hit: Frame) -> None:
    call = screen_call(hit, common_mode="none")
    beside(call, sigma_clip, group=FRAME_GROUP, name="screen, no common mode", rounds=30)


def bench_integrate1d(beside: Any, sigma_clip: Callable[[], Any], slab: Slab) -> None:
    def call() -> Any:
        return slab.integrator.integrate1d(slab.photons, RINGS, method=("no", "csr", "cython"), unit="q_A^-1")

    beside(call, sigma_clip, group=FRAME_GROUP, name="pyFAI integrate1d, csr")


def bench_bincount(beside: Any, sigma_clip: Callable[[], Any], slab: Slab, hit: Frame) -> None:
    ring = hit.layout.pixel_ring.values[hit.setting].ravel()
    used = np.flatnonzero(ring >= 0)
    ring, photons = ring[used], slab.photons.ravel()

    def call() -> np.ndarray:
        values = photons[used]
        return np.bincount(ring, values, minlength=RINGS) / np.maximum(np.bincount(ring, minlength=RINGS), 1)

    beside(call, sigma_clip, group=FRAME_GROUP, name="NumPy bincount, mean of rings")


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def bench_copy(beside: Any, sigma_clip: Callable[[], Any], hit: Frame, dtype: str) -> None:
    frame = hit.adu.astype(dtype)
    target = np.empty_like(frame)
    beside(lambda: np.copyto(target, frame), sigma_clip, group=FRAME_GROUP, name=f"plain copy, {dtype}")


# the polar residual of a hit -----------------------------------------------------------------------------


def bench_integrate2d(beside: Any, slab: Slab) -> None:
    beside(integrate2d(slab), group=POLAR_GROUP, name="pyFAI integrate2d, csr")


def bench_polar(beside: Any, hit: Frame, slab: Slab) -> None:
    how = screening.screening_parameters(common_mode="zero-peak", clip_low=5.0, clip_high=5.0, clip_passes=3, **PEAKS)
    options = {"pixels": (hit.pixels,), "cells": (RINGS, AZIMUTHS), "how": how, "bin_pixels": 10}
    frame, gain, setting = hit.adu[None], hit.gain[None], np.zeros(1, np.int64)

    def call() -> Any:
        return polar._polar_block(frame, setting, gain, rings_per_bin=RINGS // POLAR_RINGS, **options)

    residual, _ = beside(call, integrate2d(slab), group=POLAR_GROUP, name="polar residual, clipped, peaks left out")
    assert np.isfinite(residual).any()


def integrate2d(slab: Slab) -> Callable[[], Any]:
    method = ("no", "csr", "cython")
    return lambda: slab.integrator.integrate2d(slab.photons, POLAR_RINGS, AZIMUTHS, method=method, unit="q_A^-1")
