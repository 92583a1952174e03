"""Pictures of a merged map: sections through the origin of reciprocal space.

Right is along the section's first reciprocal axis, up is towards its second,
perpendicular to the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from diffdask import plots
from diffdask.errors import BadParameter
from diffdask.io.volume_store import open_volume
from diffdask.pictures import robust_limit, smooth, to_png
from diffdask.variables import require

#: Section to the numbers of its two reciprocal axes.
SECTIONS = {"hk0": (0, 1), "h0l": (0, 2), "0kl": (1, 2)}


@dataclass(frozen=True)
class SectionPicture:
    """A section of a map, drawn."""

    name: str  #: of ``SECTIONS``
    right: str  #: axis to the right: "a*" or "b*"
    up: str  #: axis whose part perpendicular to it is up
    q_max: float  #: 1/angstrom, from the centre to an edge
    limit: float  #: photons at the ends of the colours
    uri: str  #: ``data:`` URI of a PNG


@dataclass(frozen=True)
class MapSummary:
    """A map to look at."""

    sections: Sequence[SectionPicture]
    thickness: float  #: 1/angstrom averaged across a section
    half_maps: str | None  #: ``data:`` URI of their correlation against resolution; None where no shell has one
    best: tuple[float, float] | None  #: the highest of these correlations, and q of its shell, 1/angstrom
    hit_count: int
    laue: str
    step: float  #: edge of a voxel, 1/angstrom
    size: int  #: voxels along a side


def read_map(path: str | Path, *, thickness: int = 3) -> MapSummary:
    """Draw a map that ``merge`` made.

    Parameters
    ----------
    path
        The Zarr store.
    thickness
        Voxels averaged across a section.

    Raises
    ------
    BadStore
        If there is no map at ``path``, or it is damaged.
    """
    volume = open_volume(path)
    shells = volume[["map_shell_q", "half_map_correlation"]].load()
    q, correlation = shells.map_shell_q.values, shells.half_map_correlation.values
    is_known = bool(np.isfinite(correlation).any())
    highest = int(np.nanargmax(correlation)) if is_known else 0
    return MapSummary(
        sections=draw_sections(volume, thickness=thickness),
        thickness=thickness * float(volume.attrs["step"]),
        half_maps=plots.plot_half_maps(q, correlation) if is_known else None,
        best=(float(correlation[highest]), float(q[highest])) if is_known else None,
        hit_count=int(volume.attrs["hit_count"]),
        laue=str(volume.attrs["laue"]),
        step=float(volume.attrs["step"]),
        size=volume.sizes["map_x"],
    )


def draw_sections(volume: xr.Dataset, *, q_max: float = 0.0, thickness: int = 3) -> list[SectionPicture]:
    """Draw the three sections through the origin that hold two reciprocal axes each.

    Parameters
    ----------
    volume
        ``map_intensity``, ``map_weight`` and ``crystal_cell``, and the attribute "step":
        :func:`diffdask.io.volume_store.open_volume`.
    q_max
        From the centre to an edge, 1/angstrom; 0 for the whole map.
    thickness
        Voxels averaged across the section.

    Returns
    -------
    list
        Of :class:`SectionPicture`, white for 0, grey where no hit reached.

    Raises
    ------
    BadParameter
        If the thickness is no positive number.
    """
    require(volume, "map_intensity", "map_weight", "crystal_cell")
    step, cell = float(volume.attrs["step"]), volume.crystal_cell.values
    intensity, weight = volume.map_intensity.values, volume.map_weight.values
    names, drawn = ("a*", "b*", "c*"), []
    for name, (first, second) in SECTIONS.items():
        axes = span_section(cell[first], cell[second])
        image = cut_section(intensity, weight, axes, step=step, q_max=q_max, thickness=thickness)
        image = smooth(image, sigma=0.7)
        limit = robust_limit(image, sigmas=4.0)
        reach = q_max or step * (len(intensity) // 2)
        drawn.append(SectionPicture(name, names[first], names[second], reach, limit, to_png(image, limit=limit)))
    return drawn


def span_section(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Unit vectors, (3, 3) rows: along the first axis, towards the second and perpendicular to it, and across both.

    Examples
    --------
    >>> span_section(np.array([2.0, 0.0, 0.0]), np.array([1.0, 3.0, 0.0])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    right = first / np.linalg.norm(first)
    up = second - (second @ right) * right
    up /= np.linalg.norm(up)
    return np.array([right, up, np.cross(right, up)])


def cut_section(
    intensity: np.ndarray, weight: np.ndarray, axes: np.ndarray, *, step: float, q_max: float = 0.0, thickness: int = 1
) -> np.ndarray:
    """Cut a section out of a map.

    Parameters
    ----------
    intensity, weight
        (size, size, size) of the map; NaN and 0 where no hit reached.
    axes
        (3, 3) rows from :func:`span_section`.
    step
        Edge of a voxel, 1/angstrom.
    q_max
        From the centre to an edge, 1/angstrom; 0 for the whole map.
    thickness
        Voxels across, whose weighted mean is taken.

    Returns
    -------
    numpy.ndarray
        (row, column), odd and square, the origin in the middle; a pixel for a voxel's edge, row 0 on top; NaN where
        there is nothing.

    Raises
    ------
    BadParameter
        If the thickness is no positive number.
    """
    if thickness < 1:
        raise BadParameter(f"thickness = {thickness} must be at least 1 voxel")
    size = len(intensity)
    reach = min(math.floor(q_max / step), size // 2) if q_max else size // 2
    places = np.arange(-reach, reach + 1)
    total, count = np.zeros((2, places.size, places.size))
    for across in np.arange(thickness) - (thickness - 1) / 2:
        points = axes[0] * places[None, :, None] + axes[1] * -places[:, None, None] + axes[2] * across
        voxels = np.rint(points).astype(int) + size // 2
        is_inside = ((voxels >= 0) & (voxels < size)).all(axis=-1)
        x, y, z = np.where(is_inside[..., None], voxels, 0).transpose(2, 0, 1)
        share = np.where(is_inside, weight[x, y, z], 0.0)
        total += share * np.nan_to_num(intensity[x, y, z])
        count += share
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0.0)
