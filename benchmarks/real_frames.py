"""Real frames: merge four stills of staphylococcal nuclease, and hold map, agreement and orientations against others'.

Usage: python benchmarks/real_frames.py ../shared/data/snase

The folder holds the stills (SMV), DIALS's experiment lists of them, and the lattice that lunus merged from such stills
(Wall, Methods Mol. Biol. 544, 269 (2009)); :mod:`snase`, beside this file, reads them. Needs fabio.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation
from snase import (
    AZIMUTHS,
    GROUP,
    Q_RANGE,
    REACH,
    SHELL,
    Lattice,
    find_bragg_share,
    find_residual,
    flatten_index,
    leave_out_smooth,
    merge_on_lattice,
    read_frames,
    read_lattice,
    reduce_lattice,
    represent_index,
)

from diffdask.geometry import EV_ANGSTROM
from diffdask.kernels.volume import add_frames, compare_frames, locate_frames
from diffdask.models.orientation_grid import measure_misorientation
from diffdask.models.orientation_search import OrientationSearch, twist_rings
from diffdask.steps.similarity import find_arc_agreement, orient_hits, prepare_hits
from diffdask.symmetry import cartesian_rotations, laue_rotations, mean_cell
from diffdask.variables import wrap

#: Rotation of the lattice that the crystal does not have.
_TWIN = np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1]])

#: 1/angstrom: shells of the tables.
SHELLS = np.linspace(*Q_RANGE, 11)

#: Voxel edge of the maps that stills are held against, and their smoothing for the search, 1/angstrom: neighbouring
#: stills lie 0.07 apart at q = 3.9, and between them the map is empty.
_STEP, _SMOOTHING = 0.07, 0.1

#: Turns of the axes of all stills alike, which cost a map each.
_COMMON_TURNS = 200


def correlate_lattices(one: Lattice, other: Lattice, cell: np.ndarray, *, degree: int = 0) -> list[float]:
    """Correlation in all shells and in each, over the voxels both fill, each map about what is smooth in thin shells.

    Smooth is the mean, or all that the group allows up to a degree (2 or 4) in the direction.
    """
    index = np.stack(np.unravel_index(np.arange(one.sums.size), (2 * REACH + 1,) * 3), axis=1) - REACH
    shared = np.flatnonzero((one.weights > 0) & (other.weights > 0))
    q = 2.0 * math.pi * index[shared] @ cell
    radius = np.linalg.norm(q, axis=1)
    shared, q, radius = (part[(radius >= SHELLS[0]) & (radius < SHELLS[-1])] for part in (shared, q, radius))
    found = [leave_out_smooth(m.sums[shared] / m.weights[shared], q, radius, degree) for m in (one, other)]
    shell = np.searchsorted(SHELLS, radius, side="right") - 1
    parts = [np.ones(shell.size, bool), *(shell == number for number in range(len(SHELLS) - 1))]
    return [float(np.corrcoef(found[0][part], found[1][part])[0, 1]) for part in parts]


class HeldOut:
    """Each still against the map of the other three, on a cube of the crystal's Cartesian frame."""

    def __init__(self, residual: xr.Dataset, orientation: np.ndarray, wavelength: np.ndarray) -> None:
        laue = laue_rotations(GROUP)
        self.cell = mean_cell(orientation, laue)
        self.rotations = cartesian_rotations(laue, self.cell)
        photon_energy = EV_ANGSTROM / wavelength
        self.hits = prepare_hits(residual, q_min=Q_RANGE[0], spread_floor=0.0).merge(
            orient_hits(wrap(orientation=orientation, photon_energy=photon_energy), cell=self.cell)
        )
        self.values = np.ascontiguousarray(self.hits.standardised_residual.values)
        self.known, self.wavelength = self.hits.crystal_rotation.values, self.hits.hit_wavelength.values
        self.ring_q = self.hits.similarity_ring_q.values
        self.size = 2 * math.ceil(self.ring_q[-1] / _STEP) + 1

    def locate(self, rotation: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Voxels (n, r, a) of stills at orientations (n, 3, 3)."""
        voxels = np.empty((len(rotation), *self.values.shape[1:]), np.int32)
        wavelength = np.ascontiguousarray(self.wavelength[rows])
        rotation = np.ascontiguousarray(rotation)
        locate_frames(rotation, wavelength, self.ring_q, self.rotations, True, _STEP, self.size, voxels)
        return voxels

    def merge_others(self, left_out: int, common_turn: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Sums and weights of the map without one still."""
        weight = np.ones(len(self.values))
        weight[left_out] = 0.0
        rows = np.arange(len(weight))
        voxels = self.locate(self.known if common_turn is None else common_turn @ self.known, rows)
        sums, weights = np.zeros((2, self.size**3))
        add_frames(self.values, voxels, weight, sums, weights)
        return sums, weights

    def score(self, row: int, rotation: np.ndarray, sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Correlation with a map, (n,), of a still at orientations (n, 3, 3), times the root of the bins compared."""
        rows = np.full(len(rotation), row)
        values = np.ascontiguousarray(self.values[rows])
        found, own = np.empty((len(rows), 4)), np.zeros((2, sums.size))
        nothing, chosen = np.zeros(len(rows)), np.arange(len(rows))
        compare_frames(values, self.locate(rotation, rows), nothing, chosen, sums, weights, 0.0, own, found)
        return np.asarray(found[:, 0] / np.sqrt(found[:, 1] * found[:, 2]) * np.sqrt(found[:, 3]))


def measure_consistency(held: HeldOut, *, shuffles: int = 1000, seed: int = 0) -> list[dict[str, float]]:
    """Score of each still in the map of the others, among its scores at random orientations.

    Neighbouring stills show the same on the same pixels, whatever the crystal's axes. So a second null turns the axes
    of all stills alike: what they share on the detector stays, and only what symmetry mates share is lost.
    """
    rows = []
    for row in range(len(held.values)):
        others = held.merge_others(row)
        own = held.score(row, held.known[row : row + 1], *others)[0]
        random = np.random.default_rng([seed, row])
        strange = held.score(row, Rotation.random(shuffles, rng=random).as_matrix(), *others)
        turns = Rotation.random(_COMMON_TURNS, rng=random).as_matrix()
        turned = [held.score(row, (t @ held.known[row])[None], *held.merge_others(row, t))[0] for t in turns]
        rows.append({"score": own, **_set_against(own, strange, ""), **_set_against(own, np.array(turned), "turned_")})
    return rows


def measure_mates(held: HeldOut, *, shuffles: int = 400, seed: int = 1) -> list[dict[str, float]]:
    """Agreement of each still with itself along the arcs of its symmetry mates, among those with axes turned at random.

    No bin is compared with itself or a near one: what the detector or the beam leaves has no part in it.
    """
    turns = Rotation.random(shuffles, rng=np.random.default_rng(seed)).as_matrix()
    rows = []
    for row in range(len(held.values)):
        one = held.hits.isel(hit=[row])
        agreements = []
        for turn in (np.eye(3), *turns):
            turned = one.assign(crystal_rotation=(one.crystal_rotation.dims, (turn @ held.known[row])[None]))
            found = find_arc_agreement(turned, turned, rotations=held.rotations)
            agreements.append(float(found.pair_agreement.values[0, 0]))
        strange = np.array(agreements[1:])
        rows.append({"agreement": agreements[0], **_set_against(agreements[0], strange[np.isfinite(strange)], "")})
    return rows


def measure_search(held: HeldOut, *, count: int = 60_000, twists: int = 60) -> list[dict[str, float]]:
    """Angle of each still's orientation, found in the map of the others, to the known one; against twisted stills."""
    searches = (_fit_search(held, *held.merge_others(row), count) for row in range(len(held.values)))
    return [_search_one(held, search, row, twists) for row, search in enumerate(searches)]


def measure_in_lattice(
    held: HeldOut, index: np.ndarray, value: np.ndarray, *, shuffles: int = 1000, count: int = 60_000, twists: int = 60
) -> list[dict[str, float]]:
    """Score and search each still in lunus's lattice, without the voxels that any of these stills fills or touches.

    What is left was recorded by other stills of the crystal: what they have in common with ours are symmetry mates.
    """
    is_kept = find_untouched(held, index)
    sums, weights = _lay_on_cube(held, reduce_lattice(index[is_kept], value[is_kept]))
    search = _fit_search(held, sums, weights, count)
    rows = []
    for row in range(len(held.values)):
        random = np.random.default_rng([2, row])
        own = held.score(row, held.known[row : row + 1], sums, weights)[0]
        strange = held.score(row, Rotation.random(shuffles, rng=random).as_matrix(), sums, weights)
        found = {f"search_{name}": number for name, number in _search_one(held, search, row, twists).items()}
        rows.append({"score": own, **_set_against(own, strange, ""), **found})
    return rows


def find_untouched(held: HeldOut, index: np.ndarray) -> np.ndarray:
    """Whether voxels at indices (n, 3) are apart from all that any still fills, and not next to one of these."""
    points = [_find_bin_points(held, row) @ rotation.T for row, rotation in enumerate(held.known)]
    nearest = np.unique(_find_index(held, np.concatenate(points)), axis=0)
    about = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), axis=-1).reshape(-1, 3)
    touched = np.unique(flatten_index((nearest[:, None] + about).reshape(-1, 3)))
    return ~np.isin(flatten_index(index), touched)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="stills, experiment lists and lattice")
    folder = parser.parse_args(arguments).folder
    write = sys.stdout.write
    frames, listed = read_frames(folder), read_frames(folder, is_as_listed=True)
    for name, ds in (("as used", frames), ("as listed", listed)):
        write(f"Bragg spots on whole indices, {name}: {_tell(find_bragg_share(ds))}\n")
    wavelength = EV_ANGSTROM / frames.photon_energy.values
    orientation = frames.orientation.values
    write("\ncorrelation with lunus's lattice: all, then shells from q = " + _tell(SHELLS[:-1]) + "\n")
    for name, found in compare_with_lattice(folder, frames, listed.orientation.values):
        write(f"{name:42s} {_tell(found)}\n")
    held = HeldOut(find_residual(frames), orientation, wavelength)
    for title, rows in (
        ("map consistency", measure_consistency(held)),
        ("each still with its own symmetry mates", measure_mates(held)),
        ("orientation search", measure_search(held)),
        (
            "in lunus's lattice, without the voxels that these stills touch",
            measure_in_lattice(held, *read_lattice(folder / "snc_diffuse_reference.lat")),
        ),
    ):
        write(f"\n{title}\n")
        for number, row in enumerate(rows, 1):
            write(f"{number}  " + "  ".join(f"{name} {value:.3g}" for name, value in row.items()) + "\n")


def compare_with_lattice(folder: Path, frames: xr.Dataset, listed: np.ndarray) -> list[tuple[str, list[float]]]:
    """Correlations with lunus's lattice: what is taken out, and what wrong orientations would give."""
    index, value = read_lattice(folder / "snc_diffuse_reference.lat")
    whole = reduce_lattice(index, value)
    right, wavelength = frames.orientation.values, EV_ANGSTROM / frames.photon_energy.values
    cell = mean_cell(right, laue_rotations(GROUP))
    plain, clean = find_residual(frames, harmonics=0), find_residual(frames)
    is_foreign = find_untouched(HeldOut(clean, right, wavelength), index)
    foreign = reduce_lattice(index[is_foreign], value[is_foreign])
    mirrored = clean.isel(azimuth=slice(None, None, -1))
    twin = np.linalg.inv(_TWIN) @ right
    turned = right @ Rotation.random(rng=np.random.default_rng(0)).as_matrix()
    cases: list[tuple[str, xr.Dataset, np.ndarray, Lattice, int]] = [
        ("rings about their means", plain, right, whole, 0),
        ("... and harmonics 1, 2 of rings out", clean, right, whole, 0),
        ("... and degrees 2, 4 of both maps out", clean, right, whole, 4),
        ("... without voxels that these stills touch", clean, right, foreign, 4),
        ("orientations as listed", clean, listed, whole, 0),
        ("axes of the lattice's other labelling", clean, twin, whole, 0),
        ("y upside down", mirrored, right, whole, 0),
        ("random axes", clean, turned, whole, 0),
    ]
    return [
        (name, correlate_lattices(merge_on_lattice(residual, axes, wavelength), reference, cell, degree=degree))
        for name, residual, axes, reference, degree in cases
    ]


def _set_against(own: float, strange: np.ndarray, prefix: str) -> dict[str, float]:
    as_large = int((strange >= own).sum())
    return {
        f"{prefix}significance": float((own - strange.mean()) / strange.std()),
        f"{prefix}largest": float(strange.max()),
        f"{prefix}p": (1 + as_large) / (1 + strange.size),
    }


def _find_bin_points(held: HeldOut, row: int) -> np.ndarray:
    """Points (n, 3) in the laboratory of a still's bins that have a value, 1/angstrom with 2 pi."""
    angle = (np.arange(AZIMUTHS) + 0.5) * 2.0 * math.pi / AZIMUTHS
    twice = 2.0 * np.arcsin(held.ring_q * held.wavelength[row] / (4.0 * math.pi))[:, None]
    ray = np.sin(twice) * np.cos(angle), np.sin(twice) * np.sin(angle), np.cos(twice) - 1.0 + 0.0 * angle
    points = 2.0 * math.pi / held.wavelength[row] * np.stack(ray, axis=-1)
    return np.asarray(points[np.isfinite(held.values[row])])


def _find_index(held: HeldOut, q: np.ndarray) -> np.ndarray:
    """Nearest Miller indices (n, 3) of points in the crystal's frame, 1/angstrom with 2 pi."""
    return np.rint(q @ np.linalg.inv(held.cell) / (2.0 * math.pi)).astype(int)


def _lay_on_cube(held: HeldOut, lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Lattice on the cube that stills are held against: without what is smooth in its shells, of unit variance."""
    axis = (np.arange(held.size) - held.size // 2) * _STEP
    q = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    radius = np.linalg.norm(q, axis=1)
    # of all mates of a voxel, one has the lattice's value
    flat = represent_index(_find_index(held, q))
    weights = np.where(flat >= 0, lattice.weights[flat], 0.0)
    weights[(radius < SHELLS[0]) | (radius >= SHELLS[-1])] = 0.0
    seen = weights > 0
    values = leave_out_smooth((lattice.sums[flat[seen]] / weights[seen]), q[seen], radius[seen], 4)
    shell = (radius[seen] / SHELL).astype(int)
    spread = np.sqrt(np.bincount(shell, weights=values**2) / np.maximum(np.bincount(shell), 1))
    sums = np.zeros(len(q))
    sums[seen] = values / spread[shell]
    return sums, seen.astype(float)


def _fit_search(held: HeldOut, sums: np.ndarray, weights: np.ndarray, count: int) -> OrientationSearch:
    sampling: dict[str, Any] = {"ring_q": held.ring_q, "azimuths": AZIMUTHS, "wavelength": float(held.wavelength[0])}
    search = OrientationSearch(count=count, smoothing=_SMOOTHING)
    return search.fit(sums, weights, rotations=held.rotations, step=_STEP, size=held.size, **sampling)


def _search_one(held: HeldOut, search: OrientationSearch, row: int, twists: int) -> dict[str, float]:
    one = held.values[row : row + 1]
    bins = [sign * amount for amount in range(2, 2 + twists // 2) for sign in (1, -1)]
    frames = np.concatenate([one, *(twist_rings(one, amount) for amount in bins)])
    found = search.search(frames, np.full(len(frames), held.wavelength[row]))
    angle = measure_misorientation(found.rotation[:1], held.known[row : row + 1], held.rotations)[0]
    own, strange = float(found.score[0]), found.score[1:]
    return {"angle": float(angle), "score": own, **_set_against(own, strange[np.isfinite(strange)], "")}


def _tell(numbers: Any) -> str:
    return " ".join(f"{number:6.3f}" for number in numbers)


if __name__ == "__main__":
    main()
