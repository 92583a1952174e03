"""One whole experiment in numbers: crystal, beam, detector, surroundings."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from diffdask.errors import BadParameter, nearest
from diffdask.symmetry import ambiguity_rotations, laue_group_of, laue_rotations

#: Spacings, angstrom, between which strengths are defined: the diffuse scattering of interest.
STRENGTH_WINDOW = (8.0, 2.5)

DISORDERS = ("liquid-like", "rigid-body", "long-correlation")

#: Lattice types and the axis that CrystFEL calls unique.
UNIQUE_AXIS = {"triclinic": "*", "monoclinic": "b", "orthorhombic": "*", "tetragonal": "c", "hexagonal": "c"}


@dataclass(frozen=True)
class Experiment:
    """What stays the same throughout a campaign."""

    # crystal ------------------------------------------------------------------------------------------------
    seed: int = 0  #: of the molecule, the structure factors and the detector's flaws
    cell: tuple[float, float, float, float, float, float] = (74.6, 98.3, 118.5, 90.0, 90.0, 90.0)  #: angstrom, deg
    lattice: str = "orthorhombic"  #: lattice type, a key of ``UNIQUE_AXIS``
    centring: str = "P"  #: P, C or I
    laue_group: str = ""  #: Laue, point or space group; empty for the highest of the lattice
    molecule_radius: float = 20.0  #: angstrom, of the made-up molecule
    wilson_b: float = 20.0  #: angstrom^2: Bragg intensities fall as exp(-B s^2 / 2)
    mosaicity: float = 0.05  #: deg, standard deviation, median over crystals
    domain_size: float = 2500.0  #: angstrom, median over crystals
    bragg: float = 800.0  #: photons in a fully excited mean reflection at s = 0, median over crystals
    # disorder -----------------------------------------------------------------------------------------------
    disorder: str = "liquid-like"  #: one of ``DISORDERS``
    correlation_length: float = 18.0  #: angstrom, gamma of exp(-r / gamma); liquid-like only
    displacement: float = 0.4  #: angstrom, sigma: rms displacement along one direction
    halo_length: float = 180.0  #: angstrom, of exp(-r / length); long-correlation only, longer than the cell
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
    misindexed_fraction: float = 0.0  #: share of those whose orientation in the stream is any
    orientation_error: float = 0.0  #: deg, rms angle by which the stream's orientations are off

    def __post_init__(self) -> None:
        if self.disorder not in DISORDERS:
            raise BadParameter(f"disorder '{self.disorder}' is not known; {nearest(self.disorder, DISORDERS)}")
        if not (self.background > 0 and self.camera_length > 0 and self.photon_energy > 0):
            raise BadParameter("background, camera_length and photon_energy must be above 0")
        if self.lattice not in UNIQUE_AXIS:
            raise BadParameter(f"lattice '{self.lattice}' is not known; {nearest(self.lattice, UNIQUE_AXIS)}")
        if self.laue_group:
            ambiguity_rotations(self.laue_group, self.lattice_text)
        for name in ("streak_fraction", "ice_fraction", "no_jet_fraction", "indexed_fraction", "misindexed_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise BadParameter(f"{name}={getattr(self, name)} is a share: give a number from 0 to 1")
        if self.orientation_error < 0.0:
            raise BadParameter(f"orientation_error={self.orientation_error} is an angle of 0 or more degrees")
        if self.disorder == "long-correlation" and self.halo_length < max(self.cell[:3]):
            raise BadParameter(
                f"halo_length={self.halo_length}: give more than the cell, {max(self.cell[:3])} angstrom; for shorter "
                "correlations there is 'liquid-like'"
            )

    @property
    def lattice_text(self) -> str:
        """Lattice type, centring and unique axis, as the frames store writes them."""
        return f"{self.lattice} {self.centring} {UNIQUE_AXIS[self.lattice]}"

    @property
    def symmetry(self) -> str:
        """The crystal's group: a name that :func:`~diffdask.symmetry.laue_rotations` takes."""
        return self.laue_group or laue_group_of(self.lattice_text)


def make_experiment(seed: int, **overrides: Any) -> Experiment:
    """Draw a whole experiment, different in everything that differs between beam times.

    Parameters
    ----------
    seed
        Any whole number; the same number gives the same experiment.
    **overrides
        Fields of :class:`Experiment` to set instead of drawing them. A ``laue_group`` without a ``lattice`` chooses
        the lowest lattice that has it, and the cell is drawn for the lattice.

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
    lattice = overrides.get("lattice") or _lattice_of(overrides.get("laue_group", "")) or lattice
    if lattice not in UNIQUE_AXIS:
        raise BadParameter(f"lattice '{lattice}' is not known; {nearest(lattice, UNIQUE_AXIS)}")
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
        disorder=str(random.choice(DISORDERS[:2], p=[0.75, 0.25])),
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
        halo_length=_between(random, 130, 300),
    )
    return replace(drawn, **overrides)


def _lattice_of(group: str) -> str:
    """Lowest lattice with all rotations of a group; empty for no group."""
    lattices = [lattice for lattice in UNIQUE_AXIS if group and _has_group(lattice, group)]
    if group and not lattices:
        raise BadParameter(f"no lattice among {', '.join(UNIQUE_AXIS)} has the group '{group}'")
    return lattices[0] if lattices else ""


def _has_group(lattice: str, group: str) -> bool:
    whole = laue_rotations(laue_group_of(f"{lattice} P {UNIQUE_AXIS[lattice]}"))
    part = laue_rotations(group)
    return all((whole == rotation).all(axis=(1, 2)).any() for rotation in part)


_CENTRINGS = {
    "triclinic": ["P"],
    "orthorhombic": ["P", "C", "I"],
    "tetragonal": ["P", "I"],
    "hexagonal": ["P"],
    "monoclinic": ["P", "C"],
}


def _draw_cell(lattice: str, random: np.random.Generator) -> tuple[float, float, float, float, float, float]:
    a, b, c = (_between(random, 55, 115) for _ in range(3))
    if lattice in ("tetragonal", "hexagonal"):
        b = a
    if lattice == "triclinic":
        return a, b, c, _between(random, 75, 88), _between(random, 92, 108), _between(random, 75, 88)
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
