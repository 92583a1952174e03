"""Pixel lists of small frames, laid out by hand."""

import numpy as np
import pytest

from diffdask.pixels import list_pixels, make_scratch
from diffdask.variables import wrap


def list_by_hand(ring, azimuth=None, correction=None, *, rings=None, azimuths=1):
    """Pixel list of maps (panel, ss, fs); ring -1 where a pixel is not used."""
    ring = np.asarray(ring, np.int32)
    azimuth = np.zeros(ring.shape) if azimuth is None else np.asarray(azimuth)
    correction = np.ones(ring.shape) if correction is None else np.asarray(correction)
    (pixels,) = list_pixels(
        wrap(
            pixel_ring=ring[None],
            pixel_azimuth=azimuth[None].astype(np.int32),
            pixel_correction=correction[None].astype(np.float32),
            ring_q=np.arange(1.0, 1.0 + (rings or ring.max() + 1)),
            azimuth=(np.arange(azimuths) + 0.5) * 360 / azimuths,
        )
    )
    return pixels


@pytest.fixture(scope="session")
def by_hand():
    """What makes pixel lists, and scratch memory for one of them."""
    list_by_hand.scratch = lambda pixels, shape, rings: make_scratch((pixels,), shape, rings)
    return list_by_hand
