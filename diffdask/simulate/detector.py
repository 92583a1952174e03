"""The detector as the simulation sees it: where each pixel looks, what it collects, how it amplifies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diffdask.geometry import (
    Geometry,
    pixel_positions,
    polarisation_factor,
    positions_on_panels,
    reciprocal_points,
    solid_angle_factor,
)
from diffdask.io.crystfel_geometry import GeometryFile, parse_geometry
from diffdask.simulate.experiment import Experiment

#: A wide column of a CSPAD over a normal one: 274.80 / 109.92 micrometre.
WIDE_AREA = 2.5

#: The diffuse map ends here at the latest, 1/angstrom: beyond, the diffuse scattering is isotropic and weak.
S_LIMIT = 0.6


@dataclass(frozen=True)
class PixelMaps:
    """What is the same for all frames of a run; n pixels are panels, flattened."""

    scattering: np.ndarray  #: (n, xyz) float32: unit vector to the pixel less the beam's
    collected: np.ndarray  #: (n,) float32: polarisation x solid angle x area; 0 where there is no pixel
    gain: np.ndarray  #: (panel, pixels) float32, ADU per photon at the experiment's energy; 0 for dead pixels
    is_bad: np.ndarray  #: (panel, ss, fs) bool, dead or hot
    hot: np.ndarray  #: (k,) flat indices of hot pixels
    corner: np.ndarray  #: (panel, xyz) m, in the laboratory
    adu_per_photon: np.ndarray  #: (panel,) ADU per photon as the geometry says, without the flaws
    s_max: float  #: 1/angstrom, end of the diffuse map


@lru_cache(maxsize=4)
def layout_of(geometry_text: str) -> GeometryFile:
    """Read a CrystFEL geometry from its text, once a process."""
    return parse_geometry(geometry_text)


@lru_cache(maxsize=2)
def map_pixels(experiment: Experiment, geometry_text: str, shift: tuple[float, float]) -> PixelMaps:
    """Compute the maps of a run from its detector shift (m); kept, since all its frames need them."""
    file = layout_of(geometry_text)
    geometry = file.geometry
    positions = pixel_positions(geometry, camera_length=experiment.camera_length, shift=shift)
    collected = polarisation_factor(
        positions, fraction=experiment.polarisation_fraction, angle=experiment.polarisation_angle
    )
    collected *= solid_angle_factor(geometry, positions, camera_length=experiment.camera_length)
    collected[file.pixel_is_wide] *= WIDE_AREA
    collected[~_is_pixel(file)] = 0.0
    positions /= np.linalg.norm(positions, axis=-1, keepdims=True)
    positions[..., 2] -= 1.0
    adu_per_photon = _adu_per_photon(file, experiment)
    gain, is_bad, hot = _draw_flaws(experiment, adu_per_photon, collected.shape)
    return PixelMaps(
        scattering=positions.reshape(-1, 3).astype(np.float32),
        collected=collected.ravel().astype(np.float32),
        gain=gain.reshape(geometry.panel_count, -1),
        is_bad=is_bad,
        hot=hot,
        corner=geometry.corner + np.array([*shift, experiment.camera_length]),
        adu_per_photon=adu_per_photon,
        s_max=_furthest(experiment, geometry),
    )


def _furthest(experiment: Experiment, geometry: Geometry) -> float:
    """Largest s (1/angstrom) that the diffuse map needs, with room for jitter: the same for all runs."""
    panel, ss, fs = np.meshgrid(np.arange(geometry.panel_count), *([0, size] for size in geometry.shape), indexing="ij")
    corners = positions_on_panels(geometry, panel, ss, fs, camera_length=experiment.camera_length)
    points = reciprocal_points(corners.reshape(-1, 3), experiment.photon_energy)
    return min(1.02 * float(np.linalg.norm(points, axis=1).max()), S_LIMIT)


def _is_pixel(file: GeometryFile) -> np.ndarray:
    ss = np.arange(file.geometry.shape[0])[None, :, None] < file.panel_shapes[:, 0, None, None]
    fs = np.arange(file.geometry.shape[1])[None, None, :] < file.panel_shapes[:, 1, None, None]
    return ss & fs


def _adu_per_photon(file: GeometryFile, experiment: Experiment) -> np.ndarray:
    per_energy = file.geometry.adu_per_ev * experiment.photon_energy
    return np.where(np.isnan(per_energy), file.geometry.adu_per_photon, per_energy)


def _draw_flaws(
    experiment: Experiment, adu_per_photon: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gain with its steps between panels and its spread over pixels; dead pixels; hot pixels."""
    random = np.random.default_rng([experiment.seed, 4])
    steps = 1.0 + experiment.panel_gain_spread * random.normal(size=shape[0])
    gain = random.standard_normal(size=shape, dtype=np.float32)
    gain *= np.float32(experiment.pixel_gain_spread)
    gain += 1.0
    gain *= (adu_per_photon * steps)[:, None, None].astype(np.float32)
    bad = random.choice(gain.size, size=round(experiment.bad_fraction * gain.size), replace=False)
    is_bad = np.zeros(shape, dtype=bool)
    is_bad.ravel()[bad] = True
    dead, hot = np.split(bad, [2 * len(bad) // 3])
    gain.ravel()[dead] = 0.0
    return gain, is_bad, hot
