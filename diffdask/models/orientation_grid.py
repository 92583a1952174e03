"""Orientations spread evenly over all that a Laue group leaves different, and the angle between two of them.

An orientation is a direction of the beam in the crystal, and a turn about the
beam. Mates under the group's rotations show the same; Friedel's law makes no
two alike: the frame from the other side is the mirror image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

#: Directions of a grid, times this over the root of their number on the whole sphere, leave nothing uncovered (rad).
_COVERING = 4.0

_GOLDEN = math.pi * (3.0 - math.sqrt(5.0))

#: Any direction on no axis of any symmetry: of its mates, the one closest to this stands for all.
_GENERIC = np.array([0.5377, 0.2984, 0.7886])


@dataclass(frozen=True)
class OrientationGrid:
    """Orientations, evenly spread over what the Laue group leaves different. Letters: m directions, g rotations."""

    directions: np.ndarray  #: (m, 3, 3) rotations from the laboratory to the crystal's frame, at turn 0
    turns: int  #: turns about the beam of each direction
    rotations: np.ndarray  #: (g, 3, 3) of the Laue group in the crystal's frame

    def __len__(self) -> int:
        return len(self.directions) * self.turns

    @property
    def covering_angle(self) -> float:
        """No orientation is farther from the nearest of the grid, modulo the Laue group; deg."""
        tilt = _COVERING / math.sqrt(len(self.directions) * len(self.rotations))
        cosine = math.cos(tilt / 2.0) * math.cos(math.pi / self.turns / 2.0)
        return math.degrees(2.0 * math.acos(cosine))

    def at(self, direction: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """Rotations (..., 3, 3) of directions and turns (...): ``v_crystal = R @ v_laboratory``."""
        angle = np.asarray(turn) * (2.0 * math.pi / self.turns)
        about_beam = np.zeros((*angle.shape, 3, 3))
        about_beam[..., 0, 0] = about_beam[..., 1, 1] = np.cos(angle)
        about_beam[..., 1, 0] = np.sin(angle)
        about_beam[..., 0, 1] = -about_beam[..., 1, 0]
        about_beam[..., 2, 2] = 1.0
        return np.asarray(self.directions[direction] @ about_beam)

    @cached_property
    def is_apart(self) -> np.ndarray:
        """Whether two directions of the beam are no neighbours, (m, m): several spacings from each other's mates."""
        beams = self.directions[:, :, 2].astype(np.float32)
        nearest = np.max([beams @ (beams @ turn.T.astype(np.float32)).T for turn in self.rotations], axis=0)
        limit = 2.5 * _COVERING / math.sqrt(len(self.directions) * len(self.rotations))
        return np.asarray(nearest < math.cos(min(limit, math.radians(30.0))))


def make_orientation_grid(count: int, rotations: np.ndarray, *, turns: int = 72) -> OrientationGrid:
    """Spread orientations evenly over all that the Laue group does not make alike.

    Directions of the beam on a Fibonacci spiral, of which one region is kept
    that the group's rotations take to all others; of each direction all turns.

    Parameters
    ----------
    count
        Orientations, about.
    rotations
        (g, 3, 3) of the Laue group in the crystal's frame.
    turns
        Turns about the beam; the azimuthal bins of the frames.
    """
    spiral = max(round(count / turns), 1) * len(rotations)
    height = 1.0 - (2.0 * np.arange(spiral) + 1.0) / spiral
    radius, angle = np.sqrt(1.0 - height**2), _GOLDEN * np.arange(spiral)
    beams = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), height])
    closeness = np.einsum("gij,nj,i->gn", rotations, beams, _GENERIC)
    kept = beams[closeness[0] >= closeness.max(axis=0) - 1e-12]
    return OrientationGrid(_tilt_beam_to(kept), turns, np.asarray(rotations, dtype=float))


def measure_misorientation(one: np.ndarray, other: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Angle between orientations (n, 3, 3), the least that the Laue group (g, 3, 3) leaves: (n,) deg."""
    trace = np.einsum("nij,gik,nkj->ng", one, rotations, other).max(axis=1)
    return np.degrees(np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0)))


def judge_orientations(
    found: np.ndarray, known: np.ndarray, rotations: np.ndarray, *, within: float = 3.0
) -> tuple[float, float]:
    """How often orientations that were found are right, and how exactly.

    Parameters
    ----------
    found, known
        (n, 3, 3) from the laboratory to the crystal's frame; NaN where there is none, and such frames are left out.
    rotations
        (g, 3, 3) of the Laue group in the crystal's frame.
    within
        Angle up to which an orientation is right, deg.

    Returns
    -------
    tuple
        Share of the frames that are right, and their median angle, deg; NaN without any.
    """
    angle = measure_misorientation(found, known, rotations)
    angle = angle[np.isfinite(angle)]
    right = angle[angle <= within]
    if right.size == 0:
        return (0.0 if angle.size else np.nan), np.nan
    return right.size / angle.size, float(np.median(right))


def _tilt_beam_to(beams: np.ndarray) -> np.ndarray:
    """Smallest rotations (m, 3, 3) that take +z to directions (m, 3); none of them may be -z."""
    x, y, z = beams.T
    share = 1.0 / (1.0 + z)
    rows = [[1 - x * x * share, -x * y * share, x], [-x * y * share, 1 - y * y * share, y], [-x, -y, z]]
    return np.ascontiguousarray(np.array(rows).transpose(2, 0, 1))
