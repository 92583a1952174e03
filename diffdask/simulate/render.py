"""What pixels would catch of one frame: solvent, diffuse scattering, jet streak, ice, all behind the shadow.

Pixels are given by where they look and what they collect, so that a whole detector and a few samples of it are
rendered alike.
"""

from __future__ import annotations

import numpy as np

from diffdask.geometry import wavelength
from diffdask.kernels.rendering import add_ice, add_streak, render_scattering
from diffdask.simulate.campaign import FramePlan
from diffdask.simulate.crystal import Crystal
from diffdask.simulate.disorder import PROFILE_BINS, DiffuseMap, make_diffuse_map
from diffdask.simulate.experiment import Experiment
from diffdask.simulate.scene import ICE_RINGS, ICE_WIDTH, FrameScene, background_profile


def render_isotropic_and_diffuse(
    experiment: Experiment,
    plan: FramePlan,
    scene: FrameScene,
    crystal: Crystal | None,
    scattering: np.ndarray,
    collected: np.ndarray,
    s_max: float,
    *,
    with_haloes: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Render the isotropic background and the diffuse scattering.

    Parameters
    ----------
    experiment, plan, scene, crystal
        What is simulated; no crystal in a blank.
    scattering, collected
        (n, xyz) and (n,) float32, as in :class:`~diffdask.simulate.detector.PixelMaps`.
    s_max
        1/angstrom, end of the diffuse map.
    with_haloes
        Without, haloes are left out; a few samples would miss them.

    Returns
    -------
    numpy.ndarray, numpy.ndarray
        (n,) float32 photons each; the second is what stands in for diffuse scattering in a non-diffuse hit.
    """
    diffuse_map = make_diffuse_map(experiment, s_max)
    strength = plan.strength * scene.pulse if plan.kind == "diffuse" else 0.0
    profiles = _profiles(experiment, plan, scene, diffuse_map)
    if not with_haloes and diffuse_map.halo and strength:
        strength, profiles[1] = 0.0, 0.0
    sampling = np.zeros((3, 3)) if crystal is None else crystal.direct * diffuse_map.steps[:, None]
    background, diffuse = np.empty((2, collected.size), np.float32)
    render_scattering(
        scattering,
        collected,
        wavelength(scene.photon_energy),
        profiles,
        (PROFILE_BINS - 1) / diffuse_map.s_max,
        sampling,
        diffuse_map.values,
        diffuse_map.metric,
        diffuse_map.halo,
        strength,
        scene.shadow,
        background,
        diffuse,
    )
    return background, diffuse


def add_streak_and_ice(
    scene: FrameScene, scattering: np.ndarray, collected: np.ndarray, background: np.ndarray
) -> None:
    """Add the frame's jet streak and ice rings, if it has them, to ``background``, (n,) photons."""
    if scene.streak is not None:
        direction, photons, width, reach = scene.streak
        photons *= scene.pulse
        add_streak(scattering, collected, direction, photons, width, reach, scene.shadow, background)
    if scene.ice is not None:
        photons_of_rings, waves = scene.ice
        add_ice(
            scattering,
            collected,
            wavelength(scene.photon_energy),
            np.array(ICE_RINGS),
            photons_of_rings * scene.pulse,
            ICE_WIDTH,
            waves,
            scene.shadow,
            background,
        )


def _profiles(experiment: Experiment, plan: FramePlan, scene: FrameScene, diffuse_map: DiffuseMap) -> np.ndarray:
    """Background, and isotropic mean of the diffuse scattering at the plan's strength: (2, bins) photons.

    A non-diffuse hit gets the second in place of diffuse scattering: brightness must not tell the classes apart.
    """
    table = np.linspace(0.0, diffuse_map.s_max, PROFILE_BINS)
    background = background_profile(experiment, table, jet=scene.jet)
    return scene.pulse * np.stack([background, plan.strength * diffuse_map.isotropic])
