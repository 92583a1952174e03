"""What is sharp about lattice points, on polar bins: haloes cut by the Ewald sphere, and what Bragg spots leave."""

from __future__ import annotations

import numpy as np

from diffdask.geometry import wavelength
from diffdask.kernels.polar_rendering import add_haloes, add_spots
from diffdask.kernels.reflections import find_near_sphere
from diffdask.simulate.campaign import Campaign, FramePlan
from diffdask.simulate.crystal import Crystal, excite_reflections
from diffdask.simulate.disorder import DiffuseMap, make_diffuse_map
from diffdask.simulate.experiment import Experiment
from diffdask.simulate.frame import spot_radii
from diffdask.simulate.polar_layout import PolarSamples
from diffdask.simulate.scene import FrameScene

#: A halo counts as far as this from the sphere, in units of 1 / (2 pi length); beyond lies a twentieth of it.
_REACH = 12.0

_STAMPS = 16

#: What screening leaves out by default: pixels above these, and this many pixels about them.
_SNR, _THRESHOLD, _WING = 6.0, 5.0, 2.0


def cut_haloes(
    experiment: Experiment, plan: FramePlan, scene: FrameScene, crystal: Crystal, samples: PolarSamples
) -> np.ndarray:
    """Photons of the haloes of a diffuse hit, (p, f, a) means over whole cells; zeros where disorder has none."""
    diffuse_map = make_diffuse_map(experiment, samples.s_max)
    added = np.zeros((samples.count.shape[0] * samples.count.shape[1], samples.count.shape[2]))
    if not diffuse_map.halo:
        return added.reshape(samples.count.shape)
    length = wavelength(scene.photon_energy)
    limits = np.array(diffuse_map.values.shape) // (2, 2, 1) - (0, 0, 1)
    indices, distances = find_near_sphere(crystal.reciprocal, limits, length, samples.s_max, _REACH / diffuse_map.halo)
    strength = plan.strength * scene.pulse
    add_haloes(
        indices @ crystal.reciprocal,
        distances,
        strength * _crests_of(diffuse_map, indices),
        diffuse_map.halo,
        length,
        wavelength(experiment.photon_energy),
        samples.s_range,
        _STAMPS,
        scene.shadow,
        added,
    )
    return added.reshape(samples.count.shape)


def leave_spots(
    campaign: Campaign, scene: FrameScene, crystal: Crystal, samples: PolarSamples, expected: np.ndarray
) -> np.ndarray:
    """Photons, (p, f, a), that Bragg spots leave in cells when screening has taken out the bright pixels.

    A spot of the crest c and the radius r is bright within r sqrt(2 ln(c / limit)); of a two-dimensional Gaussian
    exp(-x^2 / 2 r^2) lies further than x from the centre. ``expected`` (p, f, a) photons is what lies beneath.
    """
    experiment = campaign.experiment
    excited = excite_reflections(experiment, crystal, scene.photon_energy, samples.s_max)
    photons = excited.photons * scene.pulse
    radius = spot_radii(campaign, crystal, excited.s)
    beneath = np.interp(excited.s, samples.ring_s, expected.max(axis=(1, 2)))
    limit = np.maximum(_THRESHOLD, _SNR * np.sqrt(beneath)) + (_SNR**2 - 1.0) / 6.0
    brightness = photons / (2.0 * np.pi * radius**2) / limit
    bright = radius * np.sqrt(2.0 * np.log(np.maximum(brightness, 1.0)))
    left = np.where(brightness < 1.0, 1.0, np.exp(-0.5 * ((bright + _WING) / radius) ** 2))
    shape = samples.count.shape
    added = np.zeros((shape[0] * shape[1], shape[2]))
    length = wavelength(experiment.photon_energy)
    add_spots(excited.ray, photons * left, length, samples.s_range, scene.shadow, added)
    return added.reshape(shape) / samples.cell_pixels


def _crests_of(diffuse_map: DiffuseMap, indices: np.ndarray) -> np.ndarray:
    """Crests, (r,) photons for a strength of 1, of lattice points (r, 3)."""
    half = np.where(indices[:, 2:] < 0, -indices, indices)
    middle = np.array(diffuse_map.values.shape[:2]) // 2
    return diffuse_map.values[half[:, 0] + middle[0], half[:, 1] + middle[1], half[:, 2]].astype(float)
