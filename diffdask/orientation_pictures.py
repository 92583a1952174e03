"""Orientations found in the map, to look at: how far from those of indexing, how significant, and which are used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdask import plots
from diffdask.io.results_store import open_group
from diffdask.models.chance import standardise_scores

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

#: Width of a bar, deg: what is right to within this is in the first one.
_ANGLE_BIN = 3.0

#: Where orientations come from, as the catalogue has it, and how it is put.
SOURCES = {"indexing": "indexing", "map": "found in the map", "none": "none: not indexed, and nothing was found"}


@dataclass(frozen=True)
class OrientationSummary:
    """What the search found for n hits, and how it was judged."""

    hit_frame: np.ndarray  #: (n,) frame numbers
    angle: np.ndarray  #: (n,) deg, of the orientation found against the given one; NaN where not indexed
    search: np.ndarray  #: (n,) fit at the orientation found, in units of chance
    source: np.ndarray  #: (n,) of ``SOURCES``
    is_misindexed: np.ndarray  #: (n,) bool
    significance: float  #: fit from which on an orientation that was found is taken
    judged_count: int  #: hits that agree with the map at the orientation of indexing
    right_share: float | None  #: of those: share for which the search finds that orientation
    right_angle: float | None  #: median angle of these, deg


def read_orientations(results: str | Path) -> OrientationSummary | None:
    """What ``orient`` found; None where it was not run, or for another map than there is now."""
    found, grown = open_group(results, "orientations"), open_group(results, "consistency")
    if found is None or grown is None or found.attrs["parameters"]["map"] != grown.attrs["parameters"]:
        return None
    return summarise_orientations(found)


def summarise_orientations(found: xr.Dataset) -> OrientationSummary:
    """Take the hits out of what was found, dim ``frame``, with the attributes that ``orient`` gave it."""
    source = found.frame_orientation_source.values.astype(object)
    hits = np.flatnonzero(np.isin(source, list(SOURCES)))
    return OrientationSummary(
        hit_frame=hits,
        angle=found.frame_search_angle.values[hits],
        search=found.frame_search.values[hits],
        source=source[hits],
        is_misindexed=found.frame_is_misindexed.values[hits],
        significance=float(found.attrs["parameters"]["significance"]),
        **{name: found.attrs[name] for name in ("judged_count", "right_share", "right_angle")},
    )


def read_structure(results: str | Path) -> pd.Series | None:
    """Structure of all hits by frame number, in robust standard deviations as ``rank`` has it; None if not there."""
    import pandas as pd

    features = open_group(results, "features")
    if features is None or "hit_structure" not in features:
        return None
    structure = standardise_scores(features["hit_structure"].values)
    return pd.Series(structure, index=features["hit_frame"].values)


def draw_orientations(found: OrientationSummary, is_picked: np.ndarray | None) -> dict[str, Any]:
    """Draw a summary.

    Parameters
    ----------
    found
        From :func:`read_orientations`.
    is_picked
        (n,) bool: predicted diffuse; None where nothing is ranked.

    Returns
    -------
    dict
        ``angle`` and ``search`` (plots; None where no hit has a value), ``sources`` (how each is put, to the number of
        hits), ``misindexed`` (their number), and the ``summary`` itself.
    """
    group = np.full(found.hit_frame.size, "not ranked", dtype=object)
    if is_picked is not None:
        group = np.where(is_picked, "predicted diffuse", "predicted non-diffuse").astype(object)
    group[found.is_misindexed] = "misindexed"
    drawn: dict[str, Any] = {"angle": None, "search": None, "summary": found}
    if np.isfinite(found.angle).any():
        edges = np.arange(0.0, np.nanmax(found.angle) + _ANGLE_BIN, _ANGLE_BIN)
        name = "angle between orientation found and given / deg"
        drawn["angle"] = plots.plot_groups(found.angle, group, edges, name)
    if np.isfinite(found.search).any():
        edges = plots.bin_scores(found.search, found.significance)
        name = "fit where the hit fits best / units of chance"
        drawn["search"] = plots.plot_groups(found.search, group, edges, name, marked=found.significance)
    drawn["sources"] = {told: int((found.source == name).sum()) for name, told in SOURCES.items()}
    drawn["misindexed"] = int(found.is_misindexed.sum())
    return drawn
