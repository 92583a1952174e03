"""The crystal: its axes and how they lie, its symmetry, and the Bragg spots it gives.

Reciprocal vectors carry no 2 pi. Matrices of axes hold a vector a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diffdask.errors import BadParameter
from diffdask.geometry import wavelength
from diffdask.kernels.reflections import find_excited, number_mates
from diffdask.simulate.experiment import Experiment
from diffdask.symmetry import laue_rotations

_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Crystal:
    """One crystal in the beam."""

    reciprocal: np.ndarray  #: (3, xyz) 1/angstrom, a*, b*, c* in the laboratory
    mosaicity: float  #: rad, standard deviation
    domain_size: float  #: angstrom
    bragg: float  #: photons in a fully excited mean reflection at s = 0

    @property
    def direct(self) -> np.ndarray:
        """Axes a, b, c, (3, xyz) in angstrom: times a reciprocal point they give h, k, l."""
        return np.linalg.inv(self.reciprocal).T


@dataclass(frozen=True)
class Reflections:
    """Reflections that are excited in one frame."""

    indices: np.ndarray  #: (r, 3) Miller indices
    ray: np.ndarray  #: (r, xyz) unit vectors of the diffracted beams
    s: np.ndarray  #: (r,) 1/angstrom
    photons: np.ndarray  #: (r,) expected, before polarisation and absorption


def cell_axes(cell: tuple[float, ...]) -> np.ndarray:
    """Axes a, b, c, (3, xyz) in angstrom, of a cell in angstrom and degrees; a along x, b in the plane of x and y."""
    a, b, c = cell[:3]
    cos_al, cos_be, cos_ga = (math.cos(math.radians(angle)) for angle in cell[3:])
    sin_ga = math.sqrt(1.0 - cos_ga**2)
    y = (cos_al - cos_be * cos_ga) / sin_ga
    return np.array(
        [
            [a, 0.0, 0.0],
            [b * cos_ga, b * sin_ga, 0.0],
            [c * cos_be, c * y, c * math.sqrt(1.0 - cos_be**2 - y**2)],
        ]
    )


def draw_rotation(random: np.random.Generator) -> np.ndarray:
    """Rotation matrix, uniform over all orientations (a normalised normal quaternion)."""
    w, x, y, z = (quaternion := random.normal(size=4)) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def draw_crystal(experiment: Experiment, random: np.random.Generator) -> Crystal:
    """Draw the crystal of one hit: its orientation, mosaicity, size and brightness."""
    reciprocal = np.linalg.inv(cell_axes(experiment.cell)).T
    # Bigger crystals have bigger domains and brighter spots; the two exponents are a guess of a typical spread.
    size, spread, brightness = random.normal(size=3)
    return Crystal(
        reciprocal=reciprocal @ draw_rotation(random).T,
        mosaicity=math.radians(experiment.mosaicity) * math.exp(0.35 * spread),
        domain_size=experiment.domain_size * math.exp(0.3 * size),
        bragg=experiment.bragg * math.exp(0.4 * size + 0.5 * brightness),
    )


def excite_reflections(experiment: Experiment, crystal: Crystal, photon_energy: float, s_max: float) -> Reflections:
    """Find the reflections that a frame at ``photon_energy`` (eV) excites, out to ``s_max`` (1/angstrom)."""
    lengths = np.linalg.norm(crystal.direct, axis=1)
    # A perfect domain of N cells gives peaks of about 0.4 / (N a) standard deviation.
    indices, shares = find_excited(
        crystal.reciprocal,
        np.floor(lengths * s_max).astype(np.int64),
        wavelength(photon_energy),
        s_max,
        crystal.mosaicity,
        0.4 / crystal.domain_size,
        experiment.bandwidth,
    )
    present = is_present(indices, experiment.centring)
    indices, shares = indices[present], shares[present]
    points = indices @ crystal.reciprocal
    s = np.linalg.norm(points, axis=1)
    ray = points * wavelength(photon_energy) + np.array([0.0, 0.0, 1.0])
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    falloff = np.exp(-0.5 * experiment.wilson_b * s**2)
    photons = crystal.bragg * falloff * shares * wilson_intensities(experiment, indices)
    return Reflections(indices=indices, ray=ray, s=s, photons=photons)


def wilson_intensities(experiment: Experiment, indices: np.ndarray) -> np.ndarray:
    """Intensities, (r,) of mean 1 with acentric Wilson statistics, that Laue mates share."""
    numbers = number_mates(indices, laue_rotations(experiment.symmetry)).astype(np.uint64)
    return _wilson_table(experiment.seed)[(numbers * _ODD) >> np.uint64(48)]


def is_present(indices: np.ndarray, centring: str) -> np.ndarray:
    """Say which reflections, (r, 3), the lattice's centring leaves: (r,) bool."""
    if centring == "C":
        return (indices[:, 0] + indices[:, 1]) % 2 == 0
    if centring == "I":
        return indices.sum(axis=1) % 2 == 0
    if centring == "P":
        return np.ones(len(indices), dtype=bool)
    raise BadParameter(f"centring '{centring}' is not known; known: C, I, P")


@lru_cache(maxsize=2)
def _wilson_table(seed: int) -> np.ndarray:
    return np.random.default_rng([seed, 2]).exponential(size=65536)
