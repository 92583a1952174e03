"""Where pixels lie in a picture: for each setting, how much of every pixel is in which cell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

from diffdask.errors import BadGeometry, BadParameter
from diffdask.geometry import Geometry, azimuths, momentum_transfer
from diffdask.kernels.pixel_shares import share_pixels
from diffdask.variables import require

#: Cells from one ring of a picture to the next.
_RING_CELLS = 4


class ImageMap(NamedTuple):
    """Shares of the pixels of one setting in the cells of a picture; compiled kernels take it as it is."""

    size: int  #: rows and columns
    ring: np.ndarray  #: (p,) int16 (int32 for very many rings), ring of every pixel of the frame; -1 where not used
    start: np.ndarray  #: (p + 1,) int32, where the shares of each pixel begin
    cell: np.ndarray  #: (m,) int32, row * size + column
    share: np.ndarray  #: (m,) float32, share of the pixel's area that lies in the cell
    pixel_area: np.ndarray  #: (panel,) float64, cells
    ring_correction: np.ndarray  #: (r,) float64, mean correction of a ring's pixels
    ring_share: np.ndarray  #: (cells,) float32, from the first ring's inner edge, 0, to the last one's outer edge, 1
    turn: np.ndarray  #: (cells,) float32, azimuth in turns
    order: np.ndarray  #: (cells,) int32, cells from the beam outwards
    group_start: np.ndarray  #: (g + 1,) int64, where in the order each ring of cells begins


def plan_images(
    ds: xr.Dataset,
    settings: list[tuple[float, float, float, float]],
    *,
    size: int = 224,
    field_of_view: float = 0.0,
) -> tuple[ImageMap, ...]:
    """Work out, for every setting, which share of each pixel lies in each cell of a picture.

    The beam is in the middle of the picture, +x to the right and +y up: the
    detector as seen looking towards the source. Panels are seen along the beam,
    whatever their distance.

    Parameters
    ----------
    ds
        The geometry and the maps of ``lay_out_rings``.
    settings
        The settings they were made for: camera length m, photon energy eV, shift in x and y m.
    size
        Rows and columns.
    field_of_view
        Side of the picture, m; 0 for :func:`cover_detector`.

    Returns
    -------
    tuple of ImageMap
        One a setting.

    Raises
    ------
    BadParameter, BadGeometry
        If a number makes no sense, or a panel is edge-on.
    """
    require(ds, "pixel_ring", "pixel_correction", "ring_q")
    geometry = Geometry.from_dataset(ds)
    if size < 8 or field_of_view < 0:
        raise BadParameter(f"size = {size} and field_of_view = {field_of_view:g} m: give at least 8, and 0 for all")
    if len(settings) != ds.sizes["setting"]:
        raise BadParameter(f"{len(settings)} settings are given for the maps of {ds.sizes['setting']}")
    step = (field_of_view or cover_detector(geometry)) / size
    order, group_start = _group_cells(size)
    maps = []
    for index, setting in enumerate(settings):
        ring = ds.pixel_ring.values[index]
        start, cell, share, area = _share(geometry, ring, setting, size, step)
        ring_share, turn = _locate_cells(geometry, ds.ring_q.values, setting, size, step)
        maps.append(
            ImageMap(
                size=size,
                ring=ring.astype(np.int16 if ds.sizes["ring"] < 1 << 15 else np.int32).ravel(),
                start=start,
                cell=cell,
                share=share,
                pixel_area=area,
                ring_correction=_mean_corrections(ring, ds.pixel_correction.values[index], ds.sizes["ring"]),
                ring_share=ring_share,
                turn=turn,
                order=order,
                group_start=group_start,
            )
        )
    return tuple(maps)


def cover_detector(geometry: Geometry) -> float:
    """Side in m of the smallest square about the beam that holds the detector, before any run shifted it."""
    height, width = geometry.shape
    corners = [
        geometry.corner + ss * geometry.ss_step + fs * geometry.fs_step for ss in (0, height) for fs in (0, width)
    ]
    return 2.0 * float(np.abs(np.stack(corners)[..., :2]).max())


def _share(
    geometry: Geometry, ring: np.ndarray, setting: tuple[float, float, float, float], size: int, step: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Shares as :class:`ImageMap` has them, and the area of pixels in cells."""
    flip = np.array([1.0, -1.0]) / step  # rows grow downwards
    corner = (geometry.corner[:, :2] + np.array(setting[2:])) * flip + size / 2
    ss_step, fs_step = geometry.ss_step[:, :2] * flip, geometry.fs_step[:, :2] * flip
    area = np.abs(ss_step[:, 0] * fs_step[:, 1] - ss_step[:, 1] * fs_step[:, 0])
    if (area <= 0).any():
        name = geometry.panel_name[int(np.argmin(area))]
        raise BadGeometry(
            f"panel '{name}' is edge-on to the beam and has no area in a picture; mask it by leaving it out"
        )
    start = np.empty(ring.size + 1, dtype=np.int64)
    cell, share = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32)
    share_pixels(corner, ss_step, fs_step, ring, size, start, cell, share)
    cell, share = np.empty(start[-1], dtype=np.int32), np.empty(start[-1], dtype=np.float32)
    share_pixels(corner, ss_step, fs_step, ring, size, start, cell, share)
    return start.astype(np.int32), cell, share, area


def _locate_cells(
    geometry: Geometry, ring_q: np.ndarray, setting: tuple[float, float, float, float], size: int, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ring share and azimuth in turns of the centre of every cell, (cells,) float32 each."""
    centre = (np.arange(size) + 0.5 - size / 2) * step
    positions = np.empty((size, size, 3))
    positions[..., 0], positions[..., 1] = np.meshgrid(centre, -centre)
    positions[..., 2] = setting[0] + np.mean(geometry.corner[:, 2])
    width = (ring_q[-1] - ring_q[0]) / max(ring_q.size - 1, 1)
    reach = max(ring_q.size * width, np.finfo(float).tiny)
    ring_share = (momentum_transfer(positions, setting[1]) - ring_q[0] + width / 2) / reach
    return ring_share.astype(np.float32).ravel(), (azimuths(positions) / (2 * np.pi)).astype(np.float32).ravel()


def _mean_corrections(ring: np.ndarray, correction: np.ndarray, ring_count: int) -> np.ndarray:
    used = ring >= 0
    count = np.bincount(ring[used], minlength=ring_count)
    total = np.bincount(ring[used], correction[used], ring_count)
    return np.divide(total, count, out=np.ones(ring_count), where=count > 0)


def _group_cells(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells from the beam outwards, and where each ring of them begins."""
    centre = np.arange(size) + 0.5 - size / 2
    group = (np.hypot(centre[:, None], centre) / _RING_CELLS).astype(np.int64).ravel()
    order = np.argsort(group, kind="stable").astype(np.int32)
    return order, np.searchsorted(group[order], np.arange(group.max() + 2))
