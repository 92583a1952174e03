"""Four stills of staphylococcal nuclease, DIALS's lists of them, and the lattice that lunus merged from such stills.

What :mod:`real_frames` measures; it says where they are from. Needs fabio.

Orientations: DIALS's laboratory frame has z against the beam; ours is the same turned by half about y. Its lists turn
the crystal of later stills the wrong way about the spindle, as their Bragg spots say; ``is_as_listed`` leaves it so.
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy.ndimage import maximum_filter, median_filter
from scipy.spatial.transform import Rotation

from diffdask.geometry import EV_ANGSTROM, Geometry, pixel_positions, reciprocal_points
from diffdask.steps.layout import lay_out_rings
from diffdask.steps.merge import MapGrid, embed_hits
from diffdask.steps.polar import find_polar_residual
from diffdask.steps.screening import screening_parameters
from diffdask.symmetry import laue_rotations
from diffdask.variables import STATUS_OK, wrap

#: Laue group of P 41.
GROUP = "4/m"

#: 1/angstrom, of the rings that are used.
Q_RANGE = (0.5, 3.9)

RINGS, AZIMUTHS = 64, 180

#: Miller indices of a lattice's cube are -40 to 40; what is smooth is taken in shells this thick, 1/angstrom.
REACH, SHELL = 40, 0.06

#: What lunus was told: rows and columns that are used, the beam stop, the degree of polarisation.
_WINDOW, _STOP, _POLARISATION = slice(40, 985), (slice(468, 522), slice(505, 561)), 0.93

#: Any number near the detector's gain: it decides only which pixels are bright enough for a peak.
_ADU_PER_PHOTON = 5.0

#: Marks voxels of the lattice that are empty.
_EMPTY = -32768.0


@dataclass(frozen=True)
class Lattice:
    """A map on integer Miller indices; reduced as :mod:`diffdask.kernels.volume` has it."""

    sums: np.ndarray  #: (81**3,)
    weights: np.ndarray  #: (81**3,)


def read_frames(folder: Path, *, is_as_listed: bool = False) -> xr.Dataset:
    """Read the stills: ``adu``, geometry and columns, as the frames store has them, with ``orientation``."""
    lists = [json.loads(path.read_text()) for path in sorted(folder.glob("experiments_*.json"))]
    adu = np.array([_read_image(path) for path in sorted(folder.glob("*.img"))])
    to_ours = _turn_to_ours(np.array(lists[0]["beam"][0]["direction"]))
    panel, wavelength = lists[0]["detector"][0]["panels"][0], lists[0]["beam"][0]["wavelength"]
    corner, fs, ss = (to_ours @ np.array(panel[name]) for name in ("origin", "fast_axis", "slow_axis"))
    millimetre = 1e-3
    geometry = Geometry(
        panel_name=("panel",),
        shape=adu.shape[1:],
        corner=millimetre * (corner * (1, 1, 0))[None],
        ss_step=millimetre * panel["pixel_size"][1] * ss[None],
        fs_step=millimetre * panel["pixel_size"][0] * fs[None],
        adu_per_ev=np.array([np.nan]),
        adu_per_photon=np.array([_ADU_PER_PHOTON]),
    )
    is_good = np.zeros(adu.shape[1:], bool)
    is_good[_WINDOW, _WINDOW] = True
    is_good[_STOP] = False
    is_good &= (adu > 0).all(axis=0)
    count = len(adu)
    columns = wrap(
        adu=adu[:, None].astype(np.float32),
        pixel_is_good=is_good[None],
        photon_energy=np.full(count, EV_ANGSTROM / wavelength),
        camera_length=np.full(count, millimetre * corner[2]),
        run=np.ones(count, int),
        detector_shift=np.full((count, 2), np.nan),
        frame_status=np.array([STATUS_OK] * count, dtype=object),
        orientation=np.array([_find_axes(one, is_as_listed) @ to_ours.T for one in lists]),
    )
    return columns.merge(geometry.to_dataset())


def read_lattice(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read lunus's lattice: indices (n, 3) and mean intensity (n,) of the voxels that are filled.

    Its header is the number of voxels along x, y and z (int32), and the bounds of each axis (float32, 1/angstrom,
    without 2 pi); voxels follow in float32, x fastest. They lie at integer indices; the origin is where the bounds put
    it.
    """
    raw = path.read_bytes()
    shape, bounds = np.frombuffer(raw[:12], "<i4"), np.frombuffer(raw[12:36], "<f4").reshape(3, 2).astype(float)
    origin = np.rint(-bounds[:, 0] * (shape - 1) / (bounds[:, 1] - bounds[:, 0])).astype(int)
    values = np.frombuffer(raw[36:], "<f4").reshape(shape[::-1]).transpose(2, 1, 0).astype(float)
    filled = np.argwhere(values != _EMPTY)
    return filled - origin, values[tuple(filled.T)]


def find_bragg_share(frames: xr.Dataset, *, within: float = 0.15) -> np.ndarray:
    """Share of the bright spots of each still whose three indices are whole numbers; by chance (2 x within)^3."""
    points = _find_pixel_points(frames)
    shares = []
    for adu, axes in zip(frames.adu.values[:, 0], frames.orientation.values, strict=True):
        around = np.kron(median_filter(adu[::4, ::4], 5), np.ones((4, 4)))
        is_spot = (adu == maximum_filter(adu, 7)) & (adu > around + 500) & (adu > 2 * around)
        index = points[is_spot & frames.pixel_is_good.values[0]] @ np.linalg.inv(axes)
        shares.append((np.abs(index - np.rint(index)).max(axis=1) < within).mean())
    return np.array(shares)


def find_residual(frames: xr.Dataset, *, harmonics: int = 2) -> xr.Dataset:
    """Polar residual of the stills over its noise, with these azimuthal harmonics of every ring taken out.

    The crystal's own absorption and the air's path make one side of a ring darker: the first harmonics.
    """
    layout = lay_out_rings(
        frames,
        ring_count=4 * RINGS,
        azimuth_count=AZIMUTHS,
        q_min=Q_RANGE[0],
        q_max=Q_RANGE[1],
        polarisation_fraction=_POLARISATION,
    )
    how = screening_parameters(
        common_mode="none", clip_low=5.0, clip_high=6.0, clip_passes=5, snr=6.0, threshold=20.0, min_pixels=1,
        max_pixels=60, radius=4,
    )  # fmt: skip
    polar = find_polar_residual(frames.merge(layout), how=how, polar_ring_count=RINGS, bin_pixels=10)
    residual = _leave_out_harmonics(polar.polar_residual.values.astype(float), harmonics)
    return wrap(
        cleaned_residual=(residual / polar.polar_noise.values).astype(np.float32),
        polar_noise=polar.polar_noise.values,
        polar_ring_q=polar.polar_ring_q.values,
    )


def merge_on_lattice(residual: xr.Dataset, orientation: np.ndarray, wavelength: np.ndarray) -> Lattice:
    """Merge stills on integer Miller indices, with the package's own merge.

    Axes that are stretched until all reciprocal axes are as long as c* make voxels of the indices cubes.
    """
    length = 2.0 * math.pi * np.linalg.norm(orientation[0, 2])
    stretched = length / (2.0 * math.pi) * np.linalg.inv(orientation).transpose(0, 2, 1)
    hits = residual.merge(wrap(crystal_rotation=stretched, hit_wavelength=wavelength))
    rotations = laue_rotations(GROUP).astype(float)
    return Lattice(*embed_hits(hits, grid=MapGrid(2 * REACH + 1, length), rotations=rotations))


def reduce_lattice(index: np.ndarray, value: np.ndarray) -> Lattice:
    """Average symmetry mates of a lattice, and give it as merging gives it."""
    mate, size = represent_index(index), (2 * REACH + 1) ** 3
    return Lattice(np.bincount(mate, value, size), np.bincount(mate, minlength=size).astype(float))


def represent_index(index: np.ndarray) -> np.ndarray:
    """Flat index (n,) of the one mate that stands for all of Miller indices (n, 3); -1 outside of the cube."""
    mates = [flatten_index(sign * index @ rotation.T) for rotation in laue_rotations(GROUP) for sign in (1, -1)]
    return np.max(mates, axis=0)


def flatten_index(index: np.ndarray) -> np.ndarray:
    """Flat index (n,) in the lattice's cube of Miller indices (n, 3); -1 outside."""
    size = 2 * REACH + 1
    flat = ((index[:, 0] + REACH) * size + index[:, 1] + REACH) * size + index[:, 2] + REACH
    return np.where((np.abs(index) <= REACH).all(axis=1), flat, -1)


def leave_out_smooth(values: np.ndarray, q: np.ndarray, radius: np.ndarray, degree: int) -> np.ndarray:
    """Take out of values, shell by shell, their mean, or what 4/m allows up to a degree in the direction."""
    x, y, z = (q / radius[:, None]).T
    terms = [np.ones(x.size), z**2, z**4, x**4 + y**4 - 6 * x**2 * y**2, x * y * (x**2 - y**2)]
    basis = np.stack(terms[: {0: 1, 2: 2, 4: 5}[degree]], axis=1)
    left = np.zeros(values.size)
    shell = (radius / SHELL).astype(int)
    for number in np.unique(shell):
        inside = shell == number
        fit = np.linalg.lstsq(basis[inside], values[inside], rcond=None)[0]
        left[inside] = values[inside] - basis[inside] @ fit
    return left


def _read_image(path: Path) -> np.ndarray:
    import fabio

    # its header ends in a way that fabio warns of; the pixels are all there
    logging.getLogger("fabio").setLevel(logging.ERROR)
    return np.asarray(fabio.open(str(path)).data)


def _turn_to_ours(direction: np.ndarray) -> np.ndarray:
    """Rotation from DIALS's frame to ours; its direction is from the sample to the source."""
    about_y = np.diag([-1.0, 1.0, -1.0])
    beam = about_y @ -direction / np.linalg.norm(direction)
    axis = np.cross(beam, [0.0, 0.0, 1.0])
    sine = np.linalg.norm(axis)
    return Rotation.from_rotvec(axis * (np.arcsin(sine) / sine if sine > 0.0 else 1.0)).as_matrix() @ about_y


def _find_axes(listed: dict[str, Any], is_as_listed: bool) -> np.ndarray:
    """Reciprocal axes (3, 3), rows a*, b*, c*, in DIALS's frame, 1/angstrom."""
    crystal = listed["crystal"][0]
    real = np.array([crystal[f"real_space_{axis}"] for axis in "abc"])
    if not is_as_listed:
        spindle = np.array(listed["goniometer"][0]["rotation_axis"])
        angle = math.radians(listed["scan"][0]["oscillation"][0])
        real = real @ Rotation.from_rotvec(-2.0 * angle * spindle).as_matrix().T
    return np.asarray(np.linalg.inv(real).T)


def _find_pixel_points(frames: xr.Dataset) -> np.ndarray:
    positions = pixel_positions(Geometry.from_dataset(frames), camera_length=float(frames.camera_length[0]))[0]
    return reciprocal_points(positions, float(frames.photon_energy[0]))


def _leave_out_harmonics(residual: np.ndarray, harmonics: int) -> np.ndarray:
    """Take the mean and harmonics out of rings, by least squares over the bins that are there; NaN with too few."""
    angle = (np.arange(residual.shape[-1]) + 0.5) * 2.0 * math.pi / residual.shape[-1]
    waves = [wave(order * angle) for order in range(1, harmonics + 1) for wave in (np.cos, np.sin)]
    basis = np.stack([np.ones(angle.size), *waves], axis=1)
    left = np.full(residual.shape, np.nan)
    for ring in np.ndindex(residual.shape[:-1]):
        there = np.isfinite(residual[ring])
        if there.mean() > 0.3:
            fit = np.linalg.lstsq(basis[there], residual[ring][there], rcond=None)[0]
            left[ring][there] = residual[ring][there] - basis[there] @ fit
    return left
