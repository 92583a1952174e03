"""How the screen scales with panels, rings, frames and workers: a table, nothing is asked."""

from __future__ import annotations

from typing import Any

import bench_stores
import numpy as np
import pytest
import xarray as xr
from bench_kernels import AZIMUTHS, screen_call
from conftest import Campaign, Frame

from diffdask.io.frames_store import take_frames
from diffdask.pixels import list_pixels
from diffdask.steps.layout import lay_out_rings


@pytest.fixture(scope="module")
def detector(campaign: Campaign, hit: Frame) -> xr.Dataset:
    return take_frames(campaign.frames, [0])


@pytest.mark.parametrize("panels", [64, 32, 16, 8])
def bench_panels(beside: Any, hit: Frame, detector: xr.Dataset, panels: int) -> None:
    part = laid_out(hit, detector.isel(panel=slice(panels)))
    beside(screen_call(part), screen_call(hit), group="Scaling with half-panels", name=f"{panels} half-panels")


@pytest.mark.parametrize("rings", [480, 120, 240, 960])
def bench_rings(beside: Any, hit: Frame, detector: xr.Dataset, rings: int) -> None:
    call = screen_call(laid_out(hit, detector, ring_count=rings), cells=(rings, AZIMUTHS))
    beside(call, screen_call(hit), group="Scaling with rings", name=f"{rings} rings")


@pytest.mark.parametrize("frames", [1, 4, 16, 64])
def bench_frames(beside: Any, hit: Frame, frames: int) -> None:
    options = {"group": "Scaling with frames in a block", "name": f"{frames} frames", "rounds": 7}
    beside(screen_call(hit, frames=frames), screen_call(hit), frames_per_call=frames, **options)


@pytest.mark.parametrize("what", ["decode", "screen"])
def bench_workers(beside: Any, campaign: Campaign, clients: dict[int, Any], what: str) -> None:
    """Two workers beside one: what decoding, which shares nothing, gains by the second is what the machine has."""
    call, reference = (getattr(bench_stores, what)(campaign, clients[workers]) for workers in (2, 1))
    options = {**bench_stores.described(f"{what}, two workers (ratio to one)"), "group": "Scaling with workers"}
    beside(call, reference, **options)


def laid_out(hit: Frame, detector: xr.Dataset, **parameters: int) -> Frame:
    """The hit on some of its panels and other rings."""
    pixels = list_pixels(lay_out_rings(detector, azimuth_count=AZIMUTHS, **parameters).merge(detector))
    panels = slice(detector.sizes["panel"])
    return hit._replace(adu=np.ascontiguousarray(hit.adu[panels]), gain=hit.gain[panels], pixels=pixels[0])
