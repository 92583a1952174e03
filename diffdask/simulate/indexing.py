"""What indexing makes of a crystal: an orientation that is a little off, one of several, or wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from diffdask.simulate.crystal import Crystal, draw_rotation
from diffdask.simulate.experiment import Experiment
from diffdask.symmetry import ambiguity_rotations


@dataclass(frozen=True)
class Indexing:
    """One crystal as the stream gives it."""

    reciprocal: np.ndarray  #: (3, xyz) 1/angstrom, a*, b*, c* in the laboratory
    is_misindexed: bool  #: the orientation has nothing to do with the crystal's
    ambiguity: int  #: which of the labellings that fit the lattice alike; 0 is the crystal's own
    relabelling: np.ndarray  #: (3, 3) integers that take true (h, k, l) to those of this labelling


def index_crystal(experiment: Experiment, crystal: Crystal, random: np.random.Generator) -> Indexing:
    """Index a crystal; every number is drawn, used or not, so that one choice leaves the others.

    An indexing error turns the crystal about a random axis, by an angle whose components about three axes are
    normal and whose rms is ``experiment.orientation_error``.
    """
    labellings = ambiguity_rotations(experiment.symmetry, experiment.lattice_text)
    ambiguity = int(random.integers(len(labellings)))
    axis = random.normal(size=3) * math.radians(experiment.orientation_error) / math.sqrt(3)
    is_misindexed = bool(random.uniform() < experiment.misindexed_fraction)
    elsewhere = draw_rotation(random)
    reciprocal = relabel_axes(crystal.reciprocal, labellings[ambiguity])
    turn = elsewhere if is_misindexed else turn_about(axis)
    return Indexing(reciprocal @ turn.T, is_misindexed, ambiguity, labellings[ambiguity])


def relabel_axes(reciprocal: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Axes, (3, xyz), by which the point with indices hkl gets the indices ``rotation @ hkl``.

    hkl @ axes = (rotation @ hkl) @ relabelled for all hkl, so that relabelled is the inverse transpose times axes.
    """
    return np.rint(np.linalg.inv(rotation)).T @ reciprocal


def turn_about(axis: np.ndarray) -> np.ndarray:
    """Rotation matrix about ``axis`` (xyz) by its length in rad (Rodrigues)."""
    angle = float(np.linalg.norm(axis))
    if angle == 0.0:
        return np.eye(3)
    x, y, z = axis / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * cross @ cross
