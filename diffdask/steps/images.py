"""Pictures of hits for networks that were made for photographs: 224 x 224 bytes, straight from the panels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from diffdask.errors import BadParameter, nearest
from diffdask.geometry import Geometry
from diffdask.image_map import ImageMap
from diffdask.kernels.images import (
    average_residual,
    interpolate_polar,
    multiply_neighbours,
    pool_significance,
    standardise_cells,
    to_bytes,
)
from diffdask.kernels.residual import Screening, sum_residual
from diffdask.pixels import PixelList, list_pixels, make_scratch, photons_per_adu
from diffdask.variables import require, wrap

if TYPE_CHECKING:
    from diffdask.models.nuisance import NuisanceComponents

#: What a picture shows.
CONTENTS = ("residual", "significance", "three-channels")

#: What has its median taken off and is put to unit spread: each ring, the whole picture, nothing.
NORMALISATIONS = ("ring", "frame", "none")

_POLAR_DIMS = ["polar_ring", "azimuth"]

#: Fewest cells of a ring that has a spread of its own.
_LEAST_CELLS = 20

#: Cells on each side whose significance is taken together: features of diffuse scattering are about so wide.
_REACH = 2

#: A point between polar bins needs this much of its weight from bins that are there.
_LEAST_WEIGHT = 0.5

#: As the components of a run are fitted: spread of a normal distribution over its median absolute deviation.
_SIGMA_OF_MAD = 1.4826


def render_images(
    ds: xr.Dataset,
    *,
    how: Screening,
    maps: tuple[ImageMap, ...],
    content: str = "residual",
    cleaned: bool = False,
    normalise: str = "ring",
    limit: float = 4.0,
    least_cover: float = 0.25,
    pixels: tuple[PixelList, ...] | None = None,
) -> xr.Dataset:
    """Draw hits, their isotropic background and Bragg peaks left out, lazily.

    Parameters
    ----------
    ds
        Hits: ``adu`` with the geometry, columns and maps of ``lay_out_rings``, its frames being the hits. If cleaned
        also ``polar_nuisance``. For "three-channels" also ``polar_residual`` and ``polar_noise``, or
        ``cleaned_residual`` if cleaned.
    how
        As the frames were screened.
    maps
        What :func:`plan_images` gives for ``ds``.
    content
        "residual": photons, averaged by area; "significance": the same over its counting noise; "three-channels":
        red is the residual, green the significance of 5 x 5 cells, blue the agreement of neighbouring polar bins.
    cleaned
        Take out what the run shares.
    normalise
        What has its median taken off and is put to unit robust spread: each "ring", the whole "frame", or "none"
        (significances only). Green and blue stay as they are: in units of counting noise.
    limit
        Spreads from zero past which values are clipped.
    least_cover
        Share of a cell that pixels must cover; other cells are gaps.
    pixels
        What :func:`list_pixels` gives for ``ds``, if it is at hand.

    Returns
    -------
    xarray.Dataset
        ``hit_image`` (hit, image_row, image_column, image_channel) uint8: 128 for zero and for gaps, 1 and 255 for
        the limits; three channels for "three-channels", else one.

    Raises
    ------
    MissingVariable, BadParameter
        If something is missing or makes no sense.
    """
    _check_drawing(content, normalise, limit)
    if not 0 <= least_cover <= 1:
        raise BadParameter(f"least_cover = {least_cover:g} must be between 0 and 1")
    require(ds, "adu", "photon_energy", "frame_setting", "pixel_ring", "ring_q")
    inputs: dict[str, tuple[Any, list[str]]] = {
        "adu": (ds.adu, ["panel", "ss", "fs"]),
        "setting": (ds.frame_setting, []),
        "gain": (_gain(ds), ["panel"]),
    }
    if cleaned:
        require(ds, "polar_nuisance")
        inputs["nuisance"] = (ds.polar_nuisance.rename(hit="frame"), _POLAR_DIMS)
    if content == "three-channels":
        inputs["significance"] = (_polar_significance(ds, cleaned=cleaned), _POLAR_DIMS)
    return _apply(
        _draw_block, inputs, size=maps[0].size, channels=3 if content == "three-channels" else 1,
        maps=maps, pixels=pixels or list_pixels(ds), cells=(ds.sizes["ring"], ds.sizes["azimuth"]), how=how,
        least_cover=least_cover, content=content, normalise=normalise, limit=limit,
    )  # fmt: skip


def render_polar_images(
    ds: xr.Dataset, *, size: int = 224, cleaned: bool = False, normalise: str = "ring", limit: float = 4.0
) -> xr.Dataset:
    """Draw polar significances of hits as they are: azimuth to the right, q upwards, lazily.

    Parameters
    ----------
    ds
        ``polar_residual`` and ``polar_noise``, or ``cleaned_residual`` if cleaned.
    size
        Rows and columns.
    cleaned, normalise, limit
        As in :func:`render_images`.

    Returns
    -------
    xarray.Dataset
        ``hit_image`` as in :func:`render_images`, of one channel; the right edge is the left edge's neighbour.

    Raises
    ------
    MissingVariable, BadParameter
        If something is missing or makes no sense.
    """
    _check_drawing("polar", normalise, limit)
    if size < 8:
        raise BadParameter(f"size = {size} must be at least 8")
    inputs = {"significance": (_polar_significance(ds, cleaned=cleaned), _POLAR_DIMS)}
    return _apply(_draw_polar_block, inputs, size=size, channels=1, normalise=normalise, limit=limit)


def find_polar_nuisance(ds: xr.Dataset, *, model: NuisanceComponents) -> xr.Dataset:
    """Find what was taken out of hits when they were cleaned, in photons.

    Parameters
    ----------
    ds
        Hits: ``polar_residual``, ``polar_noise``, ``cleaned_residual``, and ``run``, its frames being the hits.
    model
        The fitted components that cleaned them. Only its medians are asked: its components know these hits, those
        that cleaned them did not.

    Returns
    -------
    xarray.Dataset
        ``polar_nuisance`` (hit, polar_ring, azimuth): the run's median and its components; NaN where the cleaned
        residual is missing.
    """
    require(ds, "polar_residual", "polar_noise", "cleaned_residual", "run")
    noise = ds.polar_noise.where(ds.polar_noise > 0).values
    significance = ds.polar_residual.values / noise
    runs = ds.run.values.tolist()
    centred = significance - np.stack([model.run_median_.get(run, model.overall_median_) for run in runs])
    centred[~np.isfinite(centred).any(axis=2)] = 0.0  # rings without a bin have no spread to be found
    off = centred - np.nanmedian(centred, axis=2, keepdims=True)
    spread = np.maximum(_SIGMA_OF_MAD * np.nanmedian(np.abs(off), axis=2, keepdims=True), 1.0)
    return wrap(polar_nuisance=(noise * (significance - spread * ds.cleaned_residual.values)).astype(np.float32))


def _check_drawing(content: str, normalise: str, limit: float) -> None:
    if content not in (*CONTENTS, "polar"):
        raise BadParameter(f"content '{content}' is not known; {nearest(content, CONTENTS)}")
    if normalise not in NORMALISATIONS:
        raise BadParameter(f"normalise '{normalise}' is not known; {nearest(normalise, NORMALISATIONS)}")
    if normalise == "none" and content in ("residual", "three-channels"):
        raise BadParameter(f"normalise 'none' leaves photons, which have no common limit: not for content '{content}'")
    if not limit > 0:
        raise BadParameter(f"limit = {limit:g} must be positive")


def _gain(ds: xr.Dataset) -> xr.DataArray:
    return xr.DataArray(photons_per_adu(Geometry.from_dataset(ds), ds.photon_energy.values), dims=("frame", "panel"))


def _polar_significance(ds: xr.Dataset, *, cleaned: bool) -> xr.DataArray:
    if cleaned:
        require(ds, "cleaned_residual")
        return ds.cleaned_residual.rename(hit="frame")
    require(ds, "polar_residual", "polar_noise")
    return (ds.polar_residual / ds.polar_noise.where(ds.polar_noise > 0)).rename(hit="frame")


def _apply(
    draw: Callable[..., np.ndarray],
    inputs: dict[str, tuple[Any, list[str]]],
    *,
    size: int,
    channels: int,
    **kwargs: Any,
) -> xr.Dataset:
    """Draw blocks of hits from named inputs, each with its dims beside that of the hits."""
    dims = ["image_row", "image_column", "image_channel"]
    images = xr.apply_ufunc(
        lambda *given, **options: draw(**dict(zip(inputs, given, strict=True)), **options),
        *(array for array, _ in inputs.values()),
        input_core_dims=[core for _, core in inputs.values()],
        output_core_dims=[dims],
        output_dtypes=[np.uint8],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": dict(zip(dims, (size, size, channels), strict=True))},
        kwargs={"size": size, **kwargs},
    )
    return wrap(hit_image=images.data)


def _draw_block(
    adu: np.ndarray,
    setting: np.ndarray,
    gain: np.ndarray,
    *,
    nuisance: np.ndarray | None = None,
    significance: np.ndarray | None = None,
    size: int,
    maps: tuple[ImageMap, ...],
    pixels: tuple[PixelList, ...],
    cells: tuple[int, int],
    how: Screening,
    least_cover: float,
    content: str,
    normalise: str,
    limit: float,
) -> np.ndarray:
    """Draw hits, (frame, panel, ss, fs), one after the other in the same scratch memory."""
    first, second, count = np.empty(cells), np.empty(cells), np.empty(cells, dtype=np.int64)
    mean, peaks, sums = np.empty(cells[0]), np.empty((1, 6)), np.empty((size * size, 3))
    residual, noise = np.empty(size * size, dtype=np.float32), np.empty(size * size, dtype=np.float32)
    scratch = make_scratch(pixels, adu.shape[1:], cells[0])
    scratch.touched.fill(-1)
    images = np.empty((adu.shape[0], size, size, 3 if content == "three-channels" else 1), dtype=np.uint8)
    for hit in range(adu.shape[0]):
        index = int(setting[hit])
        image = maps[index]
        frame = adu[hit].reshape(-1), adu.shape[1:], pixels[index]
        sum_residual(*frame, gain[hit], how, scratch, mean, first, second, count, peaks)
        average_residual(*frame, image, gain[hit], scratch, mean, sums, least_cover, residual, noise)
        if nuisance is not None:
            residual -= _interpolate(nuisance[hit], image.ring_share, image.turn, least_weight=0.0)
        polar = None if significance is None else significance[hit]
        channels = _draw_channels(residual, noise, polar, image, content=content, normalise=normalise)
        images[hit] = to_bytes(channels, limit).reshape(images.shape[1:])
    return images


def _draw_channels(
    residual: np.ndarray,
    noise: np.ndarray,
    polar: np.ndarray | None,
    image: ImageMap,
    *,
    content: str,
    normalise: str,
) -> np.ndarray:
    """Channels of one hit, (cells, channel), from its residual and noise, (cells,) photons, and polar significance."""
    if content == "significance":
        residual = np.divide(residual, noise, out=np.full_like(residual, np.nan), where=noise > 0)
    shown = residual.copy()
    if normalise != "none":
        whole = np.array([0, shown.size])
        standardise_cells(shown, image.order, image.group_start if normalise == "ring" else whole, _LEAST_CELLS)
    if polar is None:
        return shown[:, None]
    square, pooled = (image.size, image.size), np.empty((image.size, image.size), dtype=np.float32)
    pool_significance(residual.reshape(square), noise.reshape(square), _REACH, pooled)
    products = np.empty(polar.shape, dtype=np.float32)
    multiply_neighbours(polar, products)
    agreement = _interpolate(products, image.ring_share, image.turn, least_weight=_LEAST_WEIGHT)
    agreement[np.isnan(residual)] = np.nan
    return np.stack([shown, pooled.ravel(), agreement], axis=1)


def _draw_polar_block(significance: np.ndarray, *, size: int, normalise: str, limit: float) -> np.ndarray:
    """Draw polar maps, (hit, r, a), as rectangles."""
    hits, rings, azimuths = significance.shape
    along = ((np.arange(size) + 0.5) / size).astype(np.float32)
    turn, ring_share = (grid.ravel() for grid in np.meshgrid(along, along[::-1]))
    order, step = np.arange(rings * azimuths, dtype=np.int32), azimuths if normalise == "ring" else rings * azimuths
    start = np.arange(0, order.size + 1, step)
    images = np.empty((hits, size, size, 1), dtype=np.uint8)
    for hit in range(hits):
        shown = significance[hit].astype(np.float32).ravel()
        if normalise != "none":
            standardise_cells(shown, order, start, _LEAST_CELLS)
        picture = _interpolate(shown.reshape(rings, azimuths), ring_share, turn, least_weight=_LEAST_WEIGHT)
        images[hit] = to_bytes(picture, limit).reshape(size, size, 1)
    return images


def _interpolate(polar: np.ndarray, ring_share: np.ndarray, turn: np.ndarray, *, least_weight: float) -> np.ndarray:
    values = np.empty(ring_share.size, dtype=np.float32)
    interpolate_polar(polar, ring_share, turn, least_weight, values)
    return values
