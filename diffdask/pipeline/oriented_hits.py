"""Hits with their orientations and the crystal's symmetry, as ``compare`` found them: what all verbs after it share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from diffdask.errors import BadParameter, nearest
from diffdask.io.results_store import open_features, open_group, open_hits
from diffdask.models.ambiguity import relate_choices
from diffdask.pipeline.crystals import open_crystals
from diffdask.steps.similarity import prepare_hits
from diffdask.symmetry import ambiguity_rotations, cartesian_rotations, laue_rotations
from diffdask.variables import wrap

#: Where the orientations of hits come from.
ORIENTATIONS = ("best", "indexing")


class Symmetry(NamedTuple):
    """Of the crystal, in its own frame."""

    rotations: np.ndarray  #: (g, 3, 3) of the Laue group
    labellings: np.ndarray  #: (m, 3, 3) ways in which indexing may have labelled the axes
    relative: np.ndarray  #: (m, m) labelling between two hits, see ``relate_choices``


def find_symmetry(laue: str, lattice: str, cell: np.ndarray) -> Symmetry:
    """Rotations of a Laue group, and relabellings of a lattice (as the frames store writes it), in the crystal's frame.

    Parameters
    ----------
    laue, lattice
        As in :func:`diffdask.symmetry.ambiguity_rotations`.
    cell
        (3, 3) from :func:`diffdask.symmetry.mean_cell`.
    """
    rotations, labellings = laue_rotations(laue), ambiguity_rotations(laue, lattice)
    relative = relate_choices(labellings, rotations)
    return Symmetry(cartesian_rotations(rotations, cell), cartesian_rotations(labellings, cell), relative)


def load_prepared_hits(results: str | Path, chosen: Any, how: dict[str, Any]) -> xr.Dataset:
    """Some hits as ``compare`` looks at them: the rings that it was told, standardised."""
    hits = open_features(results)[["cleaned_residual"]].isel(hit=chosen).load()
    hits["polar_ring_q"] = open_hits(results).polar_ring_q
    return prepare_hits(hits, q_min=how["compare_q_min"], q_max=how["compare_q_max"] or math.inf)


def load_oriented_hits(results: str | Path, rows: np.ndarray, *, orientations: str = "indexing") -> xr.Dataset:
    """Load hits with what merging needs, each in the labelling of its axes that ``compare`` found.

    Parameters
    ----------
    results
        The results store, compared.
    rows
        (n,) of the groups of hits, rising.
    orientations
        One of ``ORIENTATIONS``; see :func:`find_rotations`.

    Returns
    -------
    xarray.Dataset
        ``cleaned_residual``, ``polar_noise``, ``polar_ring_q``, ``crystal_rotation`` and ``hit_wavelength``.
    """
    hits = open_hits(results)
    return wrap(
        cleaned_residual=_take(open_features(results).cleaned_residual, rows),
        polar_noise=_take(hits.polar_noise, rows),
        polar_ring_q=hits.polar_ring_q.values,
        crystal_rotation=find_rotations(results, orientations=orientations)[rows],
        hit_wavelength=open_crystals(results).hit_wavelength.values[rows],
    )


def find_rotations(results: str | Path, *, orientations: str = "indexing") -> np.ndarray:
    """Find the rotation of every hit from the laboratory to the crystal's frame, (n, 3, 3); NaN where it is not known.

    Parameters
    ----------
    results
        The results store, compared.
    orientations
        "indexing": from the stream. "best": where ``diffdask orient`` was run, that which it found for hits that are
        not indexed or misindexed, if it is sure.

    Raises
    ------
    BadParameter
        If it is neither.
    """
    if orientations not in ORIENTATIONS:
        raise BadParameter(f"orientations '{orientations}' are not known; {nearest(orientations, ORIENTATIONS)}")
    crystals = open_crystals(results)
    rotation, told = crystals.crystal_rotation.values, crystals.attrs["parameters"]
    if "hit_labelling" in crystals:
        labellings = find_symmetry(told["laue"], told["lattice"], crystals.crystal_cell.values).labellings
        # a labelling turns the hit as the operators of ``find_ambiguity_agreement`` turn a column
        rotation = labellings[np.maximum(crystals.hit_labelling.values, 0)] @ rotation
    found = open_group(results, "orientations") if orientations == "best" else None
    if found is None or any(found.attrs["parameters"]["map"].get(name) != value for name, value in told.items()):
        return np.asarray(rotation)
    frames = crystals.hit_frame.values
    takes = np.array_equal(found.hit_frame.values, frames) and found.frame_orientation_source.values[frames] == "map"
    return np.where(np.reshape(takes, (-1, 1, 1)), found.found_rotation.values, rotation)


def _take(variable: xr.DataArray, rows: np.ndarray) -> np.ndarray:
    """Rows that lie close together: what is between them is read as well."""
    first = int(rows[0])
    return np.asarray(variable[first : int(rows[-1]) + 1].values[rows - first])
