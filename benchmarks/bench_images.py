"""The picture of a hit (224 x 224) beside the polar residual of the same hit, and beside an assembled picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from bench_kernels import AZIMUTHS, PEAKS, POLAR_RINGS, RINGS
from conftest import Campaign, Frame

from diffdask.image_map import ImageMap, plan_images
from diffdask.io.results_store import open_group, open_hits
from diffdask.kernels.images import to_vgg_input
from diffdask.steps import images, polar, screening

GROUP = "Picture of a hit (224 x 224), one thread"

HOW = screening.screening_parameters(common_mode="zero-peak", clip_low=5.0, clip_high=5.0, clip_passes=3, **PEAKS)


@pytest.fixture(scope="module")
def planned(campaign: Campaign, hit: Frame) -> tuple[xr.Dataset, list[Any]]:
    """Maps of the hit's setting, with the geometry, and the setting."""
    settings = open_group(campaign.results, "layout").attrs["settings"]
    maps = hit.layout.isel(setting=[hit.setting]).drop_vars("frame_setting")
    good = xr.Dataset({"pixel_is_good": (("panel", "ss", "fs"), maps.pixel_ring.values[0] >= 0)})
    return maps.merge(hit.geometry.to_dataset()).merge(good), [tuple(settings[hit.setting])]


@pytest.fixture(scope="module")
def image(planned: tuple[xr.Dataset, list[Any]]) -> ImageMap:
    return plan_images(*planned)[0]


@pytest.fixture(scope="module")
def significance(campaign: Campaign) -> np.ndarray:
    """Polar significance of a hit, (1, r, a)."""
    hits = open_hits(campaign.results).isel(hit=[0]).load()
    return (hits.polar_residual / hits.polar_noise.where(hits.polar_noise > 0)).values


@pytest.fixture(scope="module")
def polar_residual(hit: Frame) -> Callable[[], Any]:
    """The reference: what every hit costs anyhow."""
    options = {"pixels": (hit.pixels,), "cells": (RINGS, AZIMUTHS), "how": HOW, "bin_pixels": 10}
    given = hit.adu[None], np.zeros(1, np.int64), hit.gain[None]
    return lambda: polar._polar_block(*given, rings_per_bin=RINGS // POLAR_RINGS, **options)


def bench_polar_residual(beside: Any, polar_residual: Callable[[], Any]) -> None:
    beside(polar_residual, group=GROUP, name="polar residual of the same hit")


@pytest.mark.parametrize("cleaned", [False, True])
@pytest.mark.parametrize("content", images.CONTENTS)
def bench_picture(
    beside: Any,
    polar_residual: Callable[[], Any],
    hit: Frame,
    image: ImageMap,
    significance: np.ndarray,
    content: str,
    cleaned: bool,
) -> None:
    given = {"adu": hit.adu[None], "setting": np.zeros(1, np.int64), "gain": hit.gain[None]}
    if cleaned:
        given["nuisance"] = significance
    if content == "three-channels":
        given["significance"] = significance

    def call() -> np.ndarray:
        return images._draw_block(
            **given, size=image.size, maps=(image,), pixels=(hit.pixels,), cells=(RINGS, AZIMUTHS), how=HOW,
            least_cover=0.25, content=content, normalise="ring", limit=4.0,
        )  # fmt: skip

    name = f"picture, {content}{', nuisances taken out' if cleaned else ''}"
    drawn = beside(call, polar_residual, group=GROUP, name=name)
    assert 5 < (drawn - 128.0).std() < 127


def bench_assembled_picture(
    beside: Any, polar_residual: Callable[[], Any], hit: Frame, image: ImageMap, planned: tuple[xr.Dataset, list[Any]]
) -> None:
    """A residual frame made first, put on a picture of one cell a pixel, averaged over blocks of cells."""
    from diffdask.kernels.residual import subtract_rings
    from diffdask.pixels import make_scratch

    (fine,) = plan_images(*planned, size=224 * 8)
    index = np.zeros(hit.adu.size, np.int64)
    used = np.flatnonzero(np.diff(fine.start))
    index[used] = fine.cell[fine.start[used]]
    residual, photons, mean = (
        np.full(size, np.nan, kind) for size, kind in ((hit.adu.size, "f4"),) * 2 + ((RINGS, "f8"),)
    )
    scratch = make_scratch((hit.pixels,), hit.adu.shape, RINGS)

    def call() -> np.ndarray:
        frame = hit.adu.reshape(-1), hit.adu.shape, hit.pixels, AZIMUTHS, hit.gain, HOW, scratch, mean
        subtract_rings(*frame, photons, residual)
        picture = np.full(fine.size**2, np.nan, np.float32)
        picture[index[used]] = residual[used]
        blocks = picture.reshape(224, 8, 224, 8)
        count = np.isfinite(blocks).sum(axis=(1, 3))
        return np.nansum(blocks, axis=(1, 3)) / np.maximum(count, 1)

    beside(
        call, polar_residual, group=GROUP, name="assembled at one cell a pixel, block means, peaks left in", rounds=5
    )


def bench_polar_picture(beside: Any, polar_residual: Callable[[], Any], significance: np.ndarray) -> None:
    def call() -> np.ndarray:
        return images._draw_polar_block(significance, size=224, normalise="ring", limit=4.0)

    beside(call, polar_residual, group=GROUP, name="picture of the polar residual")


def bench_vgg_input(beside: Any, polar_residual: Callable[[], Any]) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 1), dtype=np.uint8)
    beside(lambda: to_vgg_input(grey), polar_residual, group=GROUP, name="bytes to the input of VGG16")


def bench_map(beside: Any, polar_residual: Callable[[], Any], planned: tuple[xr.Dataset, list[Any]]) -> None:
    (made,) = beside(
        lambda: plan_images(*planned), polar_residual, group=GROUP, name="map of shares, once a setting", rounds=3
    )
    size = sum(field.nbytes for field in made if isinstance(field, np.ndarray))
    assert size < 50e6, f"{size / 1e6:.0f} MB"
