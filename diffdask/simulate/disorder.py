"""Diffuse scattering of a disordered crystal: a map of its reciprocal space, made once an experiment.

Liquid-like motions: q^2 sigma^2 exp(-q^2 sigma^2) times the molecular transform convolved with the Fourier transform
of exp(-r / gamma). Rigid-body translations: (1 - exp(-q^2 sigma^2)) times the molecular transform. The transform is
that of a made-up molecule, a chain of beads, averaged over the Laue group. Motions correlated over many cells
(acoustic modes): q^2 times the Bragg intensities, convolved with the transform of exp(-r / length); the convolution
leaves a halo about every lattice point, finer than any grid, so that only the crests are kept.

References
----------
Clarage et al., Proteins 12, 145 (1992) (liquid-like); Moore, Structure 17, 1307 (2009) (rigid bodies).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diffdask.errors import BadParameter
from diffdask.kernels.reflections import average_over_rotations
from diffdask.simulate.crystal import cell_axes, is_present, wilson_intensities
from diffdask.simulate.experiment import STRENGTH_WINDOW, Experiment
from diffdask.simulate.scene import background_profile
from diffdask.symmetry import laue_rotations

#: Bins of profiles against s, from 0 to the largest s of the map.
PROFILE_BINS = 1024

_SHELLS = 96


@dataclass(frozen=True)
class DiffuseMap:
    """Diffuse intensity over reciprocal space, in photons for a strength of 1."""

    values: np.ndarray  #: (2 H + 1, 2 K + 1, L + 1) float32: the half l >= 0 of a centrosymmetric map, or of crests
    steps: np.ndarray  #: (3,) grid steps for a Miller index of 1; 1 where the values are crests
    metric: np.ndarray  #: (3, 3) 1/angstrom^2, products of the reciprocal axes
    halo: float  #: angstrom, 2 pi times the correlation length; 0 where the values are the map itself
    isotropic: np.ndarray  #: (PROFILE_BINS,) mean over directions
    s_max: float  #: 1/angstrom, end of ``isotropic``


@lru_cache(maxsize=2)
def make_diffuse_map(experiment: Experiment, s_max: float) -> DiffuseMap:
    """Make the map out to ``s_max`` (1/angstrom).

    It is scaled so that the rms over directions, over the background, is 1 on average between 8 and 2.5 angstrom
    (each shell weighted with its number of pixels, which grows with s).

    Raises
    ------
    BadParameter
        If ``s_max`` does not reach 8 angstrom.
    """
    reciprocal = np.linalg.inv(cell_axes(experiment.cell)).T
    if experiment.disorder == "long-correlation":
        values, s2 = _halo_crests(experiment, s_max)
        steps, halo = np.ones(3), 2.0 * math.pi * experiment.halo_length
    else:
        values, s2 = _smooth_map(experiment, s_max)
        steps, halo = _grid_steps(experiment), 0.0
    centre, mean, spread = _shell_statistics(values, np.sqrt(s2), s_max)
    if halo:
        mean, spread = _statistics_of_haloes(experiment, mean, spread)
    is_inside = (centre >= 1 / STRENGTH_WINDOW[0]) & (centre <= 1 / STRENGTH_WINDOW[1])
    if not is_inside.any():
        raise BadParameter(f"the detector ends at {1 / s_max:.1f} angstrom; strengths need it to reach 8 angstrom")
    ratio = spread[is_inside] / background_profile(experiment, centre[is_inside])
    scale = math.sqrt(np.average(ratio**2, weights=centre[is_inside]))
    values /= scale
    table = np.linspace(0.0, s_max, PROFILE_BINS)
    isotropic = np.interp(table, centre, mean / scale)
    return DiffuseMap(values, steps, reciprocal @ reciprocal.T, halo, isotropic, s_max)


def _smooth_map(experiment: Experiment, s_max: float) -> tuple[np.ndarray, np.ndarray]:
    """Map of liquid-like or rigid-body disorder and s^2, (2 H + 1, 2 K + 1, L + 1), centred."""
    transform, s2 = _molecular_transform(experiment, s_max)
    if experiment.disorder == "liquid-like":
        transform = _convolve_with_correlation(transform, experiment)
    q2_sigma2 = (2.0 * np.pi * experiment.displacement) ** 2 * s2
    if experiment.disorder == "liquid-like":
        transform *= q2_sigma2 * np.exp(-q2_sigma2)
    else:
        transform *= -np.expm1(-q2_sigma2)
    values = np.empty(transform.shape, np.float32)
    average_over_rotations(transform, laue_rotations(experiment.symmetry), values)
    return values, np.fft.fftshift(s2, axes=(0, 1))


def _halo_crests(experiment: Experiment, s_max: float) -> tuple[np.ndarray, np.ndarray]:
    """Crests of the haloes, s^2 times the Bragg intensities, and s^2: (2 H + 1, 2 K + 1, L + 1), centred."""
    axes = cell_axes(experiment.cell)
    limits = np.ceil(s_max * np.linalg.norm(axes, axis=1)).astype(int) + 2
    h, k = (np.arange(-limit, limit + 1) for limit in limits[:2])
    l = np.arange(limits[2] + 1)  # noqa: E741
    reciprocal = np.linalg.inv(axes).T
    s2 = _quadratic_form(reciprocal @ reciprocal.T, h, k, l)
    indices = np.stack(np.meshgrid(h, k, l, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.int32)
    bragg = wilson_intensities(experiment, indices) * is_present(indices, experiment.centring)
    crests = s2 * np.exp(-0.5 * experiment.wilson_b * s2) * bragg.reshape(s2.shape)
    return crests.astype(np.float32), s2


def _statistics_of_haloes(
    experiment: Experiment, mean: np.ndarray, spread: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of haloes in shells from those of their crests.

    With x = 2 pi length s, the integral of 1 / (1 + x^2)^2 over all space is 1 / (8 pi length^3), and that of its
    square 1 / (64 pi length^3); haloes of a crystal whose correlations reach further than its cell do not overlap.
    """
    points = abs(np.linalg.det(cell_axes(experiment.cell))) / (np.pi * experiment.halo_length**3)
    mean_of_haloes = mean * points / 8
    square = (mean**2 + spread**2) * points / 64
    return mean_of_haloes, np.sqrt(np.maximum(square - mean_of_haloes**2, 0.0))


def _grid_steps(experiment: Experiment) -> np.ndarray:
    # The transform of a molecule of diameter D varies over 1 / D, its square over half of that; the box that holds
    # the molecule in the Fourier transform must be twice its size, and more to interpolate between grid points.
    box = 6.0 * experiment.molecule_radius + 20.0
    return box / np.array(experiment.cell[:3])


def _molecular_transform(experiment: Experiment, s_max: float) -> tuple[np.ndarray, np.ndarray]:
    """Squared transform of the molecule and s^2, (2 H + 1, 2 K + 1, L + 1) in FFT order."""
    from scipy.fft import rfftn

    box = cell_axes(experiment.cell) * _grid_steps(experiment)[:, None]
    counts = [_odd_length(2 * math.ceil(s_max * length) + 3) for length in np.linalg.norm(box, axis=1)]
    places = draw_molecule(experiment) @ np.linalg.inv(box)
    voxels = np.floor(places * counts).astype(int) % counts
    density = np.zeros(counts, np.float32)
    np.add.at(density, tuple(voxels.T), 1.0)
    transform = np.abs(rfftn(density, overwrite_x=True)) ** 2
    h, k, l = (  # noqa: E741
        np.rint(np.fft.fftfreq(counts[0], 1 / counts[0])),
        np.rint(np.fft.fftfreq(counts[1], 1 / counts[1])),
        np.arange(transform.shape[2]),
    )
    reciprocal = np.linalg.inv(box).T
    metric = reciprocal @ reciprocal.T
    s2 = _quadratic_form(metric, h, k, l)
    transform *= np.exp(-0.5 * experiment.wilson_b * s2)
    return transform, s2


def _convolve_with_correlation(transform: np.ndarray, experiment: Experiment) -> np.ndarray:
    """Convolve with the transform of exp(-r / gamma): multiply the Patterson function with exp(-r / gamma)."""
    from scipy.fft import irfftn, rfftn

    counts = (*transform.shape[:2], 2 * transform.shape[2] - 1)
    patterson = irfftn(transform, s=counts, overwrite_x=True)
    box = cell_axes(experiment.cell) * _grid_steps(experiment)[:, None]
    x, y, z = (np.fft.fftfreq(count) for count in counts)
    distance = np.sqrt(_quadratic_form(box @ box.T, x, y, z))
    patterson *= np.exp(-distance / experiment.correlation_length)
    convolved = rfftn(patterson, overwrite_x=True).real
    return np.clip(convolved, 0.0, None).astype(np.float32)


def draw_molecule(experiment: Experiment) -> np.ndarray:
    """Beads, (n, xyz) in angstrom, of a chain folded into an ellipsoid: steps of 3.8 A, side beads 2.4 A off."""
    random = np.random.default_rng([experiment.seed, 3])
    axes = experiment.molecule_radius * random.uniform(0.75, 1.25, size=3)
    length = round(0.45 * experiment.molecule_radius**2)
    chain = np.zeros((length, 3))
    direction = np.array([1.0, 0.0, 0.0])
    for bead in range(1, length):
        while True:
            direction = direction + random.normal(scale=0.45, size=3)
            direction /= np.linalg.norm(direction)
            place = chain[bead - 1] + 3.8 * direction
            if np.sum((place / axes) ** 2) < 1.0:
                break
            # At the wall the chain turns back towards the middle, as a protein's does.
            direction = -place / np.linalg.norm(place) + random.normal(scale=0.8, size=3)
        chain[bead] = place
    side = random.normal(size=(length, 3))
    return np.concatenate([chain, chain + 2.4 * side / np.linalg.norm(side, axis=1, keepdims=True)])


def _quadratic_form(metric: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """v.metric.v of the grid of v = (x, y, z), float32."""
    x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]
    form = metric[0, 0] * x**2 + metric[1, 1] * y**2 + metric[2, 2] * z**2
    form = form + 2 * (metric[0, 1] * x * y + metric[0, 2] * x * z + metric[1, 2] * y * z)
    return form.astype(np.float32)


def _shell_statistics(values: np.ndarray, s: np.ndarray, s_max: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre (1/angstrom), mean and standard deviation of shells out to ``s_max``, empty ones left out."""
    shell = (s * (_SHELLS / s_max)).astype(np.int32).ravel()
    shell[shell >= _SHELLS] = _SHELLS
    flat = values.ravel().astype(float)
    count = np.bincount(shell, minlength=_SHELLS + 1)[:_SHELLS]
    mean = np.bincount(shell, flat, _SHELLS + 1)[:_SHELLS] / np.maximum(count, 1)
    square = np.bincount(shell, (flat - np.append(mean, 0.0)[shell]) ** 2, _SHELLS + 1)[:_SHELLS] / np.maximum(count, 1)
    centre = (np.arange(_SHELLS) + 0.5) * s_max / _SHELLS
    return centre[count > 0], mean[count > 0], np.sqrt(square)[count > 0]


def _odd_length(count: int) -> int:
    """Smallest odd number, at least ``count``, that fast Fourier transforms like: only 3, 5, 7 and 11 divide it."""
    while True:
        rest = count
        for factor in (3, 5, 7, 11):
            while rest % factor == 0:
                rest //= factor
        if rest == 1 and count % 2 == 1:
            return count
        count += 1
