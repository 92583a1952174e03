"""The detector as data, and pure functions of it.

Conventions, said here once:

- Laboratory frame of CrystFEL: z along the beam, y up, x completes a
  right-handed set; metres. The sample is the origin.
- A panel is the *corner* of its first pixel and two steps: one pixel along
  slow-scan and one along fast-scan. Pixel n covers [n, n + 1), so that its
  centre lies at n + 0.5.
- ``corner[:, 2]`` is relative: the camera length (of the first panel) is added
  when positions are asked for, because it changes from frame to frame.
- Reciprocal vectors used with orientations carry no 2 pi; ``q`` does:
  q = 4 pi sin(theta) / wavelength, in 1/angstrom.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from diffdask.errors import BadGeometry
from diffdask.variables import require, wrap

#: Planck's constant times the speed of light, in eV angstrom (CODATA 2018).
EV_ANGSTROM = 12398.419843320026

#: Shape (ss, fs) of a CSPAD half-panel and of a whole 2x1 panel.
_CSPAD_HALF, _CSPAD_WHOLE = (185, 194), (185, 388)


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of a detector are."""

    panel_name: tuple[str, ...]
    shape: tuple[int, int]  #: pixels of a panel along slow-scan and fast-scan
    corner: np.ndarray  #: (panel, xyz) m, corner of the first pixel, z relative
    ss_step: np.ndarray  #: (panel, xyz) m, one pixel along slow-scan
    fs_step: np.ndarray  #: (panel, xyz) m, one pixel along fast-scan
    adu_per_ev: np.ndarray  #: (panel,) ADU/eV, NaN where given per photon
    adu_per_photon: np.ndarray  #: (panel,) ADU, NaN where given per eV

    @property
    def panel_count(self) -> int:
        """Number of panels."""
        return len(self.panel_name)

    def to_dataset(self) -> xr.Dataset:
        """Give the geometry as variables with dims ``panel`` and ``xyz``."""
        return wrap(
            panel_name=np.array(self.panel_name, dtype=object),
            panel_corner=self.corner,
            panel_ss_step=self.ss_step,
            panel_fs_step=self.fs_step,
            panel_adu_per_ev=self.adu_per_ev,
            panel_adu_per_photon=self.adu_per_photon,
        )

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> Geometry:
        """Take the geometry out of a Dataset that has its variables."""
        require(dataset, "panel_name", "panel_corner", "panel_ss_step", "panel_fs_step", "pixel_is_good")
        return cls(
            panel_name=tuple(str(name) for name in dataset.panel_name.values),
            shape=(dataset.sizes["ss"], dataset.sizes["fs"]),
            corner=np.asarray(dataset.panel_corner.values, dtype=float),
            ss_step=np.asarray(dataset.panel_ss_step.values, dtype=float),
            fs_step=np.asarray(dataset.panel_fs_step.values, dtype=float),
            adu_per_ev=np.asarray(dataset.panel_adu_per_ev.values, dtype=float),
            adu_per_photon=np.asarray(dataset.panel_adu_per_photon.values, dtype=float),
        )


def wavelength(photon_energy: float) -> float:
    """Wavelength in angstrom of a photon energy in eV."""
    return EV_ANGSTROM / photon_energy


def pixel_positions(geometry: Geometry, *, camera_length: float, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Centres of all pixels in the laboratory.

    Parameters
    ----------
    geometry
        The detector.
    camera_length
        Sample to first panel along the beam, m.
    shift
        Shift of the whole detector in x and y, m.

    Returns
    -------
    numpy.ndarray
        (panel, ss, fs, xyz) in m, float64.
    """
    ss = np.arange(geometry.shape[0])[:, None, None] + 0.5
    fs = np.arange(geometry.shape[1])[None, :, None] + 0.5
    origin = geometry.corner + np.array([shift[0], shift[1], camera_length])
    return origin[:, None, None] + ss * geometry.ss_step[:, None, None] + fs * geometry.fs_step[:, None, None]


def positions_on_panels(
    geometry: Geometry,
    panel: np.ndarray,
    ss: np.ndarray,
    fs: np.ndarray,
    *,
    camera_length: float,
    shift: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Laboratory positions, (..., xyz) in m, of points on panels.

    ``ss`` and ``fs`` are coordinates from the panel's corner, not indices: the
    centre of the first pixel is (0.5, 0.5).
    """
    origin = geometry.corner + np.array([shift[0], shift[1], camera_length])
    panel = np.asarray(panel)
    return (
        origin[panel]
        + np.asarray(ss)[..., None] * geometry.ss_step[panel]
        + np.asarray(fs)[..., None] * geometry.fs_step[panel]
    )


def reciprocal_points(positions: np.ndarray, photon_energy: float) -> np.ndarray:
    """Points of reciprocal space, without 2 pi, that positions record.

    Parameters
    ----------
    positions
        (..., xyz) in m.
    photon_energy
        eV.

    Returns
    -------
    numpy.ndarray
        (..., xyz) in 1/angstrom: (unit vector to the pixel - beam) / wavelength.
    """
    points = positions / np.linalg.norm(positions, axis=-1, keepdims=True)
    points[..., 2] -= 1.0
    points /= wavelength(photon_energy)
    return points


def momentum_transfer(positions: np.ndarray, photon_energy: float) -> np.ndarray:
    """Q = 4 pi sin(theta) / wavelength in 1/angstrom of positions in m."""
    distance = np.sqrt(np.einsum("...i,...i", positions, positions))
    cosine = positions[..., 2] / distance
    half_sine = np.sqrt(np.clip((1.0 - cosine) / 2.0, 0.0, None))
    return 4.0 * np.pi * half_sine / wavelength(photon_energy)


def azimuths(positions: np.ndarray) -> np.ndarray:
    """Angle about the beam in rad, from +x towards +y, in [0, 2 pi)."""
    angle = np.arctan2(positions[..., 1], positions[..., 0]) % (2.0 * np.pi)
    # The remainder of a tiny negative angle rounds to the full turn itself.
    return np.where(angle < 2.0 * np.pi, angle, 0.0)


def polarisation_factor(positions: np.ndarray, *, fraction: float, angle: float = 0.0) -> np.ndarray:
    """Share of the unpolarised-beam maximum that polarisation lets through.

    Parameters
    ----------
    positions
        (..., xyz) in m.
    fraction
        P = (I_parallel - I_perpendicular) / (I_parallel + I_perpendicular).
    angle
        Direction of the polarisation from +x, degrees (0 horizontal, 90 vertical).

    Returns
    -------
    numpy.ndarray
        (1 + cos^2(2theta) - P cos(2rho) sin^2(2theta)) / 2; the intensity is
        divided by it.

    References
    ----------
    Kahn et al., J. Appl. Cryst. 15, 330 (1982).
    """
    squared = np.einsum("...i,...i", positions, positions)
    cosine2 = positions[..., 2] ** 2 / squared
    rho = azimuths(positions) - np.deg2rad(angle)
    return 0.5 * (1.0 + cosine2 - fraction * np.cos(2.0 * rho) * (1.0 - cosine2))


def solid_angle_factor(geometry: Geometry, positions: np.ndarray, *, camera_length: float) -> np.ndarray:
    """Solid angle of every pixel over that of the same pixel on the axis, facing it.

    Source: area (n . r) / r^3; on a flat detector cos^3(2theta).
    """
    normal = np.cross(geometry.fs_step, geometry.ss_step)
    area = np.linalg.norm(normal, axis=1)
    cosine = np.abs(np.einsum("pi,p...i->p...", normal / area[:, None], positions))
    distance = np.linalg.norm(positions, axis=-1)
    reference = area.min() / camera_length**2
    return area[:, None, None] * cosine / distance**3 / reference


def wide_columns(geometry: Geometry, first_fs: np.ndarray) -> np.ndarray:
    """Find the wide columns of CSPAD panels.

    Parameters
    ----------
    geometry
        Any detector; only panels of CSPAD's shape can have wide columns.
    first_fs
        (panel,) fast-scan index in the file of each panel's first pixel: it
        tells the left half of a 2x1 module from the right.

    Returns
    -------
    numpy.ndarray
        (panel, ss, fs) bool. Columns 193 and 194 of a 2x1 module are 274.80
        instead of 109.92 micrometre wide.
    """
    wide = np.zeros((geometry.panel_count, *geometry.shape), dtype=bool)
    if geometry.shape == _CSPAD_WHOLE:
        wide[:, :, 193:195] = True
    elif geometry.shape == _CSPAD_HALF:
        is_left = np.asarray(first_fs) % _CSPAD_WHOLE[1] == 0
        wide[is_left, :, 193] = True
        wide[~is_left, :, 0] = True
    return wide


def check_geometry(geometry: Geometry) -> None:
    """Raise :class:`BadGeometry` if sizes disagree or a panel has no area."""
    count = geometry.panel_count
    for name in ("corner", "ss_step", "fs_step"):
        array = getattr(geometry, name)
        if array.shape != (count, 3) or not np.isfinite(array).all():
            raise BadGeometry(f"{name} must be finite and of shape ({count}, 3), got {array.shape}")
    if (np.linalg.norm(np.cross(geometry.fs_step, geometry.ss_step), axis=1) == 0).any():
        raise BadGeometry("a panel's slow-scan and fast-scan steps are parallel: it has no area")
