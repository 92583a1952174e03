"""The detector as polar hits see it: a pixel to stand for each fine cell of ring and azimuth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diffdask.errors import BadParameter
from diffdask.geometry import azimuths, momentum_transfer, pixel_positions, wavelength
from diffdask.io.crystfel_geometry import GeometryFile
from diffdask.simulate.detector import layout_of, map_pixels
from diffdask.simulate.experiment import Experiment

#: Rings that make one polar ring, and so samples of a polar bin. Azimuthal bins are coarse beside diffuse features.
FINE_RINGS = 8

#: Rings with fewer pixels have no isotropic part, as when frames are screened.
_RING_PIXELS = 20

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class PolarGrid:
    """Polar bins, the same in all runs."""

    rings: int
    azimuths: int
    q_min: float  #: 1/angstrom
    q_max: float  #: 1/angstrom

    @property
    def shape(self) -> tuple[int, int, int]:
        """Polar rings, fine rings of each, azimuths."""
        return self.rings, FINE_RINGS, self.azimuths

    @property
    def s_range(self) -> np.ndarray:
        """First and last edge of the rings, (2,) 1/angstrom without 2 pi."""
        return np.array([self.q_min, self.q_max]) / (2 * np.pi)

    @property
    def ring_q(self) -> np.ndarray:
        """Centres of the polar rings, (rings,) 1/angstrom."""
        edges = np.linspace(self.q_min, self.q_max, self.rings + 1)
        return (edges[1:] + edges[:-1]) / 2

    @property
    def azimuth(self) -> np.ndarray:
        """Centres of the azimuthal bins, (azimuths,) rad."""
        return (np.arange(self.azimuths) + 0.5) * 2 * np.pi / self.azimuths


@dataclass(frozen=True)
class PolarSamples:
    """What is the same for all hits of a run; shapes (p, f, a) as in ``kernels.rendering.average_samples``."""

    scattering: (
        np.ndarray
    )  #: (p * f * a, xyz) float32, as in ``detector.PixelMaps``, at the mean s of the cell's pixels
    collected: np.ndarray  #: (p, f, a) float32, share of the photons that the sample's pixel collects
    is_seen: np.ndarray  #: (p * f * a,) float32: 1 where there are pixels, else 0
    gain: np.ndarray  #: (p, f, a) float32, mean over the cell's pixels, relative to what the geometry says
    panel: np.ndarray  #: (p, f, a) int32
    count: np.ndarray  #: (p, f, a) int64, usable pixels of the cell
    cell_pixels: np.ndarray  #: (p, f, a) float64, pixels of the cell, gaps and all
    panel_count: int
    s_range: np.ndarray  #: (2,) 1/angstrom (no 2 pi), first and last edge of the rings
    ring_s: np.ndarray  #: (p,) 1/angstrom (no 2 pi), centres of the polar rings
    s_max: float  #: 1/angstrom, end of the diffuse map

    @property
    def bin_pixels(self) -> np.ndarray:
        """Pixels of every polar bin, (p, a)."""
        return np.asarray(self.count.sum(axis=1))


def make_grid(
    experiment: Experiment,
    geometry_text: str,
    *,
    rings: int,
    azimuths: int,
    q_min: float | None = None,
    q_max: float | None = None,
) -> PolarGrid:
    """Choose the polar bins; without limits in q (1/angstrom), what the unshifted detector covers.

    Raises
    ------
    BadParameter
        If there are too few bins, or the limits leave nothing between them.
    """
    if rings < 1 or azimuths < 16:
        raise BadParameter(f"rings={rings}, azimuths={azimuths}: give at least 1 and 16")
    q, _ = _place_pixels(experiment, layout_of(geometry_text), (0.0, 0.0))
    q_min = float(q.min()) if q_min is None else q_min
    q_max = float(q.max()) if q_max is None else q_max
    if not 0 <= q_min < q_max:
        raise BadParameter(f"q_min={q_min:g}, q_max={q_max:g}: the first must be below the second (1/angstrom)")
    return PolarGrid(rings, azimuths, q_min, q_max)


@lru_cache(maxsize=2)
def sample_run(experiment: Experiment, geometry_text: str, shift: tuple[float, float], grid: PolarGrid) -> PolarSamples:
    """Choose the samples of a run from its detector shift (m); kept, since all its hits need them.

    The fine rings of a polar ring take their samples at different azimuths of the cell, so that the samples of a
    bin are spread over it evenly.
    """
    file, maps = layout_of(geometry_text), map_pixels(experiment, geometry_text, shift)
    q, angle = _place_pixels(experiment, file, shift)
    is_used = (file.pixel_is_good & ~file.pixel_is_wide & ~maps.is_bad).ravel() & (maps.collected > 0)
    fine_ring = np.floor((q.ravel() - grid.q_min) / (grid.q_max - grid.q_min) * grid.rings * FINE_RINGS)
    place = np.flatnonzero(is_used & (fine_ring >= 0) & (fine_ring < grid.rings * FINE_RINGS))
    turn = np.minimum(angle.ravel()[place] / (2 * np.pi) * grid.azimuths, np.nextafter(grid.azimuths, 0))
    cell = fine_ring[place].astype(np.int64) * grid.azimuths + turn.astype(np.int64)
    # By ring, and in a ring by azimuth: each cell's pixels follow one another.
    order = np.argsort(fine_ring[place] * grid.azimuths + turn, kind="stable")
    place, cell = place[order], cell[order]
    cells = grid.rings * FINE_RINGS * grid.azimuths
    count = np.bincount(cell, minlength=cells)
    share = (0.5 + _GOLDEN * np.arange(FINE_RINGS)) % 1.0
    chosen = np.cumsum(count) - count + (np.tile(np.repeat(share, grid.azimuths), grid.rings) * count).astype(np.int64)
    sample = place[np.minimum(chosen, place.size - 1)]
    panel_pixels = maps.gain.shape[1]
    relative = maps.gain / maps.adu_per_photon[:, None].astype(np.float32)
    gain = np.bincount(cell, relative.ravel()[place], cells) / np.maximum(count, 1)
    # Chance would else have some samples at the crest of an ice ring and some beside it.
    size = np.bincount(cell, np.linalg.norm(maps.scattering, axis=1)[place], cells) / np.maximum(count, 1)
    of_ring = count.reshape(-1, grid.azimuths)
    of_ring[of_ring.sum(axis=1) < _RING_PIXELS] = 0
    return PolarSamples(
        scattering=_move_to(maps.scattering[sample], size.astype(np.float32)),
        collected=maps.collected[sample].reshape(grid.shape),
        is_seen=(count > 0).astype(np.float32),
        gain=gain.astype(np.float32).reshape(grid.shape),
        panel=(sample // panel_pixels).astype(np.int32).reshape(grid.shape),
        count=count.reshape(grid.shape),
        cell_pixels=np.maximum(count.reshape(grid.shape), _count_whole_cells(experiment, file, grid)[:, :, None]),
        panel_count=len(maps.gain),
        s_range=grid.s_range,
        ring_s=grid.ring_q / (2 * np.pi),
        s_max=maps.s_max,
    )


def _move_to(scattering: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Scattering vectors, (n, xyz), of the same azimuth and of other lengths, (n,)."""
    out = np.hypot(scattering[:, 0], scattering[:, 1])
    moved = scattering * (size * np.sqrt(1 - size**2 / 4) / np.maximum(out, 1e-9))[:, None]
    moved[:, 2] = -(size**2) / 2
    return moved


def _place_pixels(
    experiment: Experiment, file: GeometryFile, shift: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Momentum transfer (1/angstrom) at the experiment's energy, and azimuth (rad), of all pixels."""
    positions = pixel_positions(file.geometry, camera_length=experiment.camera_length, shift=shift)
    return momentum_transfer(positions, experiment.photon_energy), azimuths(positions)


def _count_whole_cells(experiment: Experiment, file: GeometryFile, grid: PolarGrid) -> np.ndarray:
    """Pixels of a cell without gaps, (p, f): its solid angle over that of a pixel of a flat detector."""
    length, geometry = wavelength(experiment.photon_energy), file.geometry
    edges = np.linspace(grid.s_range[0], grid.s_range[1], grid.rings * FINE_RINGS + 1)
    solid_angle = np.pi * np.diff(edges**2) * length**2 / grid.azimuths
    half_sine = np.minimum((edges[1:] + edges[:-1]) / 4 * length, 0.7)  # of half the scattering angle
    pixel = np.linalg.norm(np.cross(geometry.fs_step[0], geometry.ss_step[0])) / experiment.camera_length**2
    return (solid_angle / (pixel * (1 - 2 * half_sine**2) ** 3)).reshape(grid.rings, FINE_RINGS)
