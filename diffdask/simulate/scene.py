"""What is in the way of the crystal's scattering: solvent, air, jet, ice, shadow, and the beam's jitter.

Directions about the beam are given as components of the unit vector to a pixel: nearly the scattering angle in rad.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from diffdask.simulate.experiment import STRENGTH_WINDOW, Experiment

#: Crests of the powder rings of hexagonal ice, 1/angstrom (no 2 pi), and how strong they are.
ICE_RINGS = (1 / 3.90, 1 / 3.67, 1 / 3.44, 1 / 2.67, 1 / 2.25, 1 / 2.07, 1 / 1.92)
ICE_SHARES = (1.0, 0.8, 0.9, 0.3, 0.45, 0.25, 0.3)

ICE_WIDTH = 0.0018  #: 1/angstrom


@dataclass(frozen=True)
class RunScene:
    """What stays the same through a run."""

    shift: tuple[float, float]  #: m, of the detector in x and y
    shadow: np.ndarray  #: (6,) see ``kernels.rendering.transmission``
    jet_direction: float  #: rad from +x


@dataclass(frozen=True)
class FrameScene:
    """What changes from frame to frame."""

    photon_energy: float  #: eV
    pulse: float  #: intensity over its median
    jet: float  #: thickness of the jet over its median; 0 where it misses the beam
    shadow: np.ndarray  #: (6,)
    streak: tuple[float, float, float, float] | None  #: direction rad, photons, width, reach
    ice: tuple[np.ndarray, np.ndarray] | None  #: (rings,) photons and (orders, 2) waves


def background_profile(experiment: Experiment, s: np.ndarray, *, jet: float = 1.0) -> np.ndarray:
    """Isotropic background in photons against s (1/angstrom, no 2 pi), polarisation left out.

    ``jet`` is the thickness of the jet over its median. At 1 the mean between 8 and 2.5 angstrom, weighted as
    pixels are, is ``experiment.background``.
    """
    window = np.linspace(1 / STRENGTH_WINDOW[0], 1 / STRENGTH_WINDOW[1], 200)
    water = _water(experiment, s) / np.average(_water(experiment, window), weights=window)
    air = _air(s) / np.average(_air(window), weights=window)
    return experiment.background * ((1 - experiment.air) * jet * water + experiment.air * air)


def draw_run_scene(experiment: Experiment, random: np.random.Generator) -> RunScene:
    """Draw a run's beam shift, shadow and jet."""
    x, y = random.normal(scale=experiment.beam_shift, size=2)
    direction = random.uniform(0, 2 * math.pi)
    depth = experiment.shadow_depth * random.uniform(0.7, 1.3)
    shadow = [
        math.cos(direction),
        math.sin(direction),
        random.uniform(0.15, 0.35),
        random.uniform(0.04, 0.12),
        0.01,
        depth,
    ]
    return RunScene(shift=(x, y), shadow=np.array(shadow), jet_direction=random.uniform(0, math.pi))


def draw_frame_scene(
    experiment: Experiment, run: RunScene, random: np.random.Generator, *, has_jet: bool
) -> FrameScene:
    """Draw a frame's beam and nuisances; every number is drawn, used or not, so that one choice leaves the others."""
    energy, pulse, jet, turn, start, depth = random.normal(size=6)
    is_streak, is_ice = random.uniform(size=2) < (experiment.streak_fraction, experiment.ice_fraction)
    streak = _draw_streak(experiment, run, turn, random)
    ice = _draw_ice(experiment, random)
    shadow = run.shadow.copy()
    shadow[2] += 0.004 * start
    shadow[5] = np.clip(shadow[5] * (1 + 0.1 * depth), 0.0, 0.95)
    return FrameScene(
        photon_energy=experiment.photon_energy + experiment.photon_energy_jitter * energy,
        pulse=math.exp(experiment.pulse_jitter * pulse),
        jet=math.exp(experiment.jet_jitter * jet) if has_jet else 0.0,
        shadow=shadow,
        streak=streak if is_streak and has_jet else None,
        ice=ice if is_ice else None,
    )


def _draw_streak(
    experiment: Experiment, run: RunScene, turn: float, random: np.random.Generator
) -> tuple[float, float, float, float]:
    photons = 4.0 * experiment.background * random.lognormal(0, 0.7)
    direction = run.jet_direction + 0.03 * turn
    return direction, photons, random.uniform(0.003, 0.008), random.uniform(0.05, 0.12)


def _draw_ice(experiment: Experiment, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    photons = experiment.background * random.lognormal(0, 0.6) * np.array(ICE_SHARES)
    orders = np.arange(1, 7)
    waves = np.stack([random.normal(size=6) / np.sqrt(orders), random.uniform(0, 2 * math.pi, size=6)], axis=1)
    return photons, waves


def _water(experiment: Experiment, s: np.ndarray) -> np.ndarray:
    """Liquid water: two rings on a plateau, and a rise towards the beam."""
    first = np.exp(-0.5 * ((s - experiment.water_ring) / 0.045) ** 2)
    second = 0.4 * np.exp(-0.5 * ((s - 1.5 * experiment.water_ring) / 0.06) ** 2)
    return 0.15 + first + second + 0.4 * np.exp(-((s / 0.05) ** 2))


def _air(s: np.ndarray) -> np.ndarray:
    """Gas and slits: strong near the beam, falling off slowly; a little Compton scattering stays."""
    return 0.2 + 1.5 * np.exp(-s / 0.07) + 0.5 * np.exp(-0.5 * (s / 0.25) ** 2)
