"""One whole experiment in numbers: crystal, beam, detector, surroundings."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from diffdask.errors import BadParameter, nearest

#: Spacings, angstrom, between which strengths are defined: the diffuse scattering of interest.
STRENGTH_WINDOW = (8.0, 2.5)

DISORDERS = ("liquid-like", "rigid-body")


@dataclass(frozen=True)
class Experiment:
    """What stays the same throughout a campaign."""

    # crystal ------------------------------------------------------------------------------------------------
    seed: int = 0  #: of the molecule, the structure factors and the detector's flaws
    cell: tuple[float, float, float, float, float, float] = (74.6, 98.3, 118.5, 90.0, 90.0, 90.0)  #: angstrom, deg
    lattice: str = "orthorhombic"  #: crystal system: a key of ``crystal.ROTATIONS``
    centring: str = "P"  #: P, C or I
    molecule_radius: float = 20.0  #: angstrom, of the made-up molecule
    wilson_b: float = 20.0  #: angstrom^2: Bragg intensities fall as exp(-B s^2 / 2)
    mosaicity: float = 0.05  #: deg, standard deviation, median over crystals
    domain_size: float = 2500.0  #: angstrom, median over crystals
    bragg: float = 800.0  #: photons in a fully excited mean reflection at s = 0, median over crystals
    # disorder -----------------------------------------------------------------------------------------------
    disorder: str = "liquid-like"  #: "liquid-like" or "rigid-body"
    correlation_length: float = 18.0  #: angstrom, gamma of exp(-r / gamma); liquid-like only
    displacement: float = 0.4  #: angstrom, sigma: rms displacement along one direction
    strengths: tuple[float, ...] = (0.05, 0.027, 0.011)  #: rms of the diffuse anisotropy over the background
    # beam ---------------------------------------------------------------------------------------------------
    photon_energy: float = 9500.0  #: eV
    photon_energy_jitter: float = 12.0  #: eV, rms from frame to frame
    bandwidth: float = 0.001  #: relative, rms
    pulse_jitter: float = 0.3  #: rms of the logarithm of the intensity from frame to frame
    polarisation_fraction: float = 0.98  #: P of ``geometry.polarisation_factor``
    polarisation_angle: float = 0.0  #: deg from +x: 0 horizontal, 90 vertical
    # surroundings -------------------------------------------------------------------------------------------
    background: float = 5.0  #: photons a pixel on average between 8 and 2.5 angstrom, before polarisation
    water_ring: float = 0.31  #: 1/angstrom (no 2 pi), crest of the solvent's first ring
    air: float = 0.35  #: share of the background that does not come from the jet
    jet_jitter: float = 0.2  #: rms of the logarithm of the jet's thickness
    no_jet_fraction: float = 0.1  #: share of the blanks in which the jet misses the beam
    streak_fraction: float = 0.3  #: share of frames with a jet streak
    ice_fraction: float = 0.06  #: share of frames with ice rings
    shadow_depth: float = 0.3  #: share of the light that the shadow takes
    # detector -----------------------------------------------------------------------------------------------
    camera_length: float = 0.128  #: m
    beam_shift: float = 2e-4  #: m, rms of the detector's shift from run to run, along x and y
    adu_per_ev: float = 0.00338  #: ADU/eV, where the geometry does not say
    readout_noise: float = 0.15  #: photons, rms
    common_mode: float = 0.05  #: photons, rms, a panel and frame
    panel_gain_spread: float = 0.02  #: rms, relative
    pixel_gain_spread: float = 0.01  #: rms, relative
    bad_fraction: float = 0.002  #: share of pixels that are dead or hot
    saturation: float = 500.0  #: photons
    spot_radius: float = 0.65  #: pixels, standard deviation of a spot without mosaicity
    # indexing -----------------------------------------------------------------------------------------------
    indexed_fraction: float = 0.95  #: share of the hits that the stream holds a crystal for

    def __post_init__(self) -> None:
        if self.disorder not in DISORDERS:
            raise BadParameter(f"disorder '{self.disorder}' is not known; {nearest(self.disorder, DISORDERS)}")
        if not (self.background > 0 and self.camera_length > 0 and self.photon_energy > 0):
            raise BadParameter("background, camera_length and photon_energy must be above 0")


def make_experiment(seed: int, **overrides: Any) -> Experiment:
    """Draw a whole experiment, different in everything that differs between beam times.

    Parameters
    ----------
    seed
        Any whole number; the same number gives the same experiment.
    **overrides
        Fields of :class:`Experiment` to set instead of drawing them.

    Raises
    ------
    BadParameter
        If an override is no field.
    """
    known = [field.name for field in fields(Experiment)]
    for name in overrides:
        if name not in known:
            raise BadParameter(f"an experiment has no '{name}'; {nearest(name, known)}")
    random = np.random.default_rng([seed, 1])
    lattice = str(random.choice(["orthorhombic", "tetragonal", "hexagonal", "monoclinic"]))
    drawn = Experiment(
        seed=seed,
        lattice=lattice,
        cell=_draw_cell(lattice, random),
        centring=str(random.choice(_CENTRINGS[lattice])),
        molecule_radius=_between(random, 15, 24),
        wilson_b=_between(random, 12, 30),
        mosaicity=_between(random, 0.03, 0.08),
        domain_size=_between(random, 1500, 4000),
        bragg=_between(random, 400, 1500),
        disorder=str(random.choice(DISORDERS, p=[0.75, 0.25])),
        correlation_length=_between(random, 10, 25),
        displacement=_between(random, 0.3, 0.55),
        photon_energy=_between(random, 8000, 11000),
        pulse_jitter=_between(random, 0.2, 0.4),
        polarisation_angle=float(random.choice([0.0, 90.0])),
        background=_between(random, 3, 9),
        water_ring=_between(random, 0.295, 0.325),
        air=_between(random, 0.2, 0.5),
        streak_fraction=_between(random, 0.1, 0.4),
        ice_fraction=_between(random, 0.02, 0.12),
        shadow_depth=_between(random, 0.1, 0.4),
        camera_length=_between(random, 0.105, 0.145),
    )
    return replace(drawn, **overrides)


_CENTRINGS = {
    "orthorhombic": ["P", "C", "I"],
    "tetragonal": ["P", "I"],
    "hexagonal": ["P"],
    "monoclinic": ["P", "C"],
}


def _draw_cell(lattice: str, random: np.random.Generator) -> tuple[float, float, float, float, float, float]:
    a, b, c = (_between(random, 55, 115) for _ in range(3))
    if lattice in ("tetragonal", "hexagonal"):
        b = a
    return (
        a,
        b,
        c,
        90.0,
        _between(random, 94, 112) if lattice == "monoclinic" else 90.0,
        120.0 if lattice == "hexagonal" else 90.0,
    )


def _between(random: np.random.Generator, low: float, high: float) -> float:
    return round(float(random.uniform(low, high)), 4)
