"""How the crystal of every hit lies, and which hits are compared: what ``compare`` settles before its tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from diffdask.errors import BadStore
from diffdask.io.frames_store import take_columns
from diffdask.io.results_store import frames_path, open_features, open_group
from diffdask.models.chance import borrow_frames
from diffdask.steps.similarity import orient_hits
from diffdask.symmetry import laue_group_of, laue_rotations, mean_cell
from diffdask.variables import wrap

#: Group of the results store: a row for every hit, compared in pairs or not.
GROUP = "crystals"


def find_lattice(results: str | Path) -> str:
    """Lattice that most hits were indexed with, as the frames store writes it.

    Raises
    ------
    BadStore
        If no hit is indexed.
    """
    numbers = open_features(results).hit_frame.values
    lattice = take_columns(frames_path(results), numbers, columns=("lattice",)).lattice.values.astype(str)
    known, times = np.unique(lattice[lattice != ""], return_counts=True)
    if not known.size:
        raise BadStore(
            f"no hit of '{results}' is indexed, and common arcs need orientations: give streams to 'diffdask ingest', "
            "or rank with --method structure"
        )
    return str(known[np.argmax(times)])


def find_crystals(results: str | Path, lattice: str) -> xr.Dataset:
    """Rotation and wavelength of every hit, and the mean cell; hits of another lattice count as not indexed.

    Returns
    -------
    xarray.Dataset
        ``hit_frame``, ``crystal_rotation``, ``hit_wavelength`` and ``crystal_cell``.
    """
    numbers = open_features(results).hit_frame.values
    columns = ["orientation", "photon_energy", "lattice"]
    frames = take_columns(frames_path(results), numbers, columns=columns)[columns]
    frames["orientation"] = frames.orientation.where(frames.lattice == lattice)
    cell = mean_cell(frames.orientation.values, laue_rotations(laue_group_of(lattice)))
    return orient_hits(frames, cell=cell).merge(wrap(hit_frame=numbers, crystal_cell=cell))


def open_crystals(results: str | Path) -> xr.Dataset:
    """How the crystals of the hits that there are now lie; the attribute "parameters" is what ``compare`` was told.

    Raises
    ------
    BadStore
        If it is not there, or of other hits.
    """
    found, compared = open_group(results, GROUP), open_group(results, "common-arc")
    numbers = open_features(results).hit_frame.values
    if found is None or compared is None or not np.array_equal(found.hit_frame.values, numbers):
        raise BadStore(f"the hits of '{results}' are not compared yet; run: diffdask compare {results}")
    return found


def is_oriented(rotation: np.ndarray) -> np.ndarray:
    """Whether each rotation, (n, 3, 3), is known."""
    return np.asarray(np.isfinite(rotation).all(axis=(1, 2)))


def choose_compared(structure: np.ndarray, is_indexed: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Choose hits to be compared in pairs: of many, those of the most structure and as many at random.

    Parameters
    ----------
    structure
        (n,) of every hit; NaN counts as none.
    is_indexed
        (n,) others agree with nobody, and are left out of a choice.
    most
        How many; 0 for all.
    seed
        Of those at random.

    Returns
    -------
    numpy.ndarray
        Rows of the hits, rising.

    Examples
    --------
    >>> choose_compared(np.array([1.0, 9.0, 5.0, 2.0, 7.0]), np.array([True] * 4 + [False]), most=2, seed=0).tolist()
    [1, 3]
    """
    if not most or structure.size <= most:
        return np.arange(structure.size)
    indexed = np.flatnonzero(is_indexed)
    order = indexed[np.argsort(-np.nan_to_num(structure[indexed], nan=-np.inf), kind="stable")]
    structured, others = np.split(order, [most // 2])
    random = np.random.default_rng(seed).permutation(np.sort(others))[: most - structured.size]
    return np.sort(np.concatenate([structured, random]))


def borrow_orientations(is_indexed: np.ndarray, seed: int) -> np.ndarray:
    """Choose for every hit, (n,), another one whose orientation it borrows; those that are not indexed keep none.

    Examples
    --------
    >>> borrow_orientations(np.array([True, False, True]), seed=0).tolist()
    [2, 1, 0]
    """
    return borrow_frames(np.flatnonzero(is_indexed), is_indexed.size, np.random.default_rng(seed))
