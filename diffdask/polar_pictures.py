"""Pictures of polar maps as the detector would show them: right is +x, up is +y, the beam in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diffdask.errors import BadParameter
from diffdask.io.results_store import open_group
from diffdask.pair_pictures import choose_evenly
from diffdask.pictures import robust_limit, to_png

#: Picture pixels between the maps of a grid.
_MARGIN = 4

#: Rows and columns of one map at least: fewer show nothing.
_LEAST_SIZE = 8

#: Nuisance components pictured: later ones look like noise to the eye.
_DRAWN_COMPONENTS = 16

#: Hits that tell which bins are in use: little to read.
_SOME_HITS = 500


def draw_shared(results: str | Path) -> dict[str, Any] | None:
    """Draw what hits share on the detector: ``uri``, components ``drawn`` and their ``count``; None without any."""
    features, hits = open_group(results, "features"), open_group(results, "hits")
    if features is None or hits is None or not features.sizes.get("component"):
        return None
    some = choose_evenly(features.sizes["hit"], all_up_to=_SOME_HITS, else_=_SOME_HITS)
    is_seen = np.isfinite(features["cleaned_residual"].isel(hit=some).values).any(axis=0)
    components = features["nuisance_component"][:_DRAWN_COMPONENTS].values
    uri = draw_components(components, hits["polar_ring_q"].values, is_seen)
    return {"uri": uri, "drawn": len(components), "count": features.sizes["component"]}


def unroll_polar(polar: np.ndarray, ring_q: np.ndarray, *, size: int = 160) -> np.ndarray:
    """Lay polar maps out in the plane.

    Parameters
    ----------
    polar
        (..., r, a) values; azimuth a covers [a, a + 1) of a turn, from +x towards +y. NaN where missing.
    ring_q
        (r,) centres of the rings, evenly spaced.
    size
        Rows and columns of a picture.

    Returns
    -------
    numpy.ndarray
        (..., size, size) value of the bin that holds the middle of each picture
        pixel; NaN outside the rings and where a bin is missing. The outermost
        ring touches the edge.

    Raises
    ------
    BadParameter
        If a picture would have too few pixels, or rings and centres do not fit together.
    """
    rings, azimuths = polar.shape[-2:]
    if size < _LEAST_SIZE:
        raise BadParameter(f"size = {size} must be at least {_LEAST_SIZE} picture pixels")
    if ring_q.shape != (rings,) or rings < 2:
        raise BadParameter(f"{rings} polar rings need as many centres, and two at least; there are {ring_q.shape}")
    step = (ring_q[-1] - ring_q[0]) / (rings - 1)
    reach = ring_q[-1] + step / 2
    centre = (2 * (np.arange(size) + 0.5) / size - 1) * reach
    x, y = np.meshgrid(centre, -centre)
    ring = np.floor((np.hypot(x, y) - ring_q[0]) / step + 0.5).astype(int)
    azimuth = np.floor(np.arctan2(y, x) / (2 * np.pi) * azimuths).astype(int) % azimuths
    shown = polar[..., np.clip(ring, 0, rings - 1), azimuth]
    return np.where((ring >= 0) & (ring < rings), shown, np.nan)


def draw_components(
    components: np.ndarray, ring_q: np.ndarray, is_seen: np.ndarray, *, columns: int = 4, size: int = 160
) -> str:
    """Draw nuisance components as detector pictures, several as a grid, the first one top left.

    Parameters
    ----------
    components
        (k, r, a); signs mean nothing, and each picture has a colour scale of its own.
    ring_q
        (r,) centres of the rings, 1/angstrom.
    is_seen
        (r, a) bool: bins that some hit has. The others are drawn grey.
    columns
        Pictures side by side.
    size
        Rows and columns of a picture, pixels.

    Returns
    -------
    str
        PNG as a ``data:`` URI.

    Raises
    ------
    BadParameter
        If there is no component, or a number makes no sense.
    """
    if not len(components) or columns < 1:
        raise BadParameter(f"{len(components)} components in {columns} columns: both must be at least 1")
    maps = unroll_polar(np.where(is_seen, components, np.nan), ring_q, size=size)
    columns = min(columns, len(maps))
    rows = -(-len(maps) // columns)
    grid = np.full((rows * (size + _MARGIN) - _MARGIN, columns * (size + _MARGIN) - _MARGIN), np.nan)
    for number, one in enumerate(maps):
        top, left = (place * (size + _MARGIN) for place in divmod(number, columns))
        grid[top : top + size, left : left + size] = one / robust_limit(one)
    return to_png(grid, limit=1.0)
