"""The usable pixels of a setting as a list, in the order in which kernels walk it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

from diffdask.errors import BadGeometry
from diffdask.geometry import Geometry
from diffdask.kernels.background import RUN_COLUMNS, count_runs
from diffdask.kernels.residual import Scratch
from diffdask.variables import require


class PixelList(NamedTuple):
    """Usable pixels of one setting; masked pixels and gaps do not appear and cost nothing.

    The list goes ring by ring, in a ring azimuth by azimuth, and in such a cell
    in the order of memory; the two maps serve the few pixels that are looked up
    by place. A named tuple, because compiled kernels take it as it is.
    """

    place: np.ndarray  #: (n,) int32, place in the flattened frame
    run_start: np.ndarray  #: (m + 1,) int32, where in the list each run of pixels of one ring and panel begins
    run_panel: np.ndarray  #: (m,) int32, its panel
    correction: np.ndarray  #: (n,) float32, 1 / (polarisation x solid angle x area)
    start: np.ndarray  #: (r * a + 1,) int32, where in the list each cell begins
    cell: np.ndarray  #: (p,) int32, cell of every pixel of the frame: ring * a + azimuth; -1 where not usable
    factor: np.ndarray  #: (p,) float32, correction of every pixel of the frame
    place_in_panel: np.ndarray  #: (n,) uint16, or int32 for large panels: what is walked is best short


def list_pixels(ds: xr.Dataset) -> tuple[PixelList, ...]:
    """List the usable pixels of every setting.

    Parameters
    ----------
    ds
        With the maps of ``lay_out_rings``.

    Returns
    -------
    tuple of PixelList
        One a setting.
    """
    require(ds, "pixel_ring", "pixel_azimuth", "pixel_correction", "ring_q", "azimuth")
    panel_size = ds.sizes["ss"] * ds.sizes["fs"]
    azimuths = ds.sizes["azimuth"]
    cell_count = ds.sizes["ring"] * azimuths
    lists = []
    for ring, azimuth, factor in zip(
        ds.pixel_ring.values, ds.pixel_azimuth.values, ds.pixel_correction.values, strict=True
    ):
        cell = np.where(ring >= 0, ring * azimuths + azimuth, -1).ravel().astype(np.int32)
        usable = np.flatnonzero(cell >= 0).astype(np.int32)
        place = usable[np.argsort(cell[usable], kind="stable")]
        run_start = _find_runs(place // panel_size, cell[place] // azimuths)
        flat = np.ascontiguousarray(factor, dtype=np.float32).ravel()
        lists.append(
            PixelList(
                place=place,
                run_start=run_start,
                run_panel=(place // panel_size)[run_start[:-1]].astype(np.int32),
                correction=flat[place],
                start=np.searchsorted(cell[place], np.arange(cell_count + 1)).astype(np.int32),
                cell=cell,
                factor=flat,
                place_in_panel=(place % panel_size).astype(np.uint16 if panel_size <= 1 << 16 else np.int32),
            )
        )
    return tuple(lists)


def _find_runs(*labels: np.ndarray) -> np.ndarray:
    """Where runs of equal labels, (n,) each, begin, and n at the end: (m + 1,) int32."""
    changes = np.any([np.diff(label) != 0 for label in labels], axis=0)
    return np.concatenate([[0], np.flatnonzero(changes) + 1, [labels[0].size]] if labels[0].size else [[0]]).astype(
        np.int32
    )


def photons_per_adu(geometry: Geometry, photon_energy: np.ndarray) -> np.ndarray:
    """Gain of every panel in every frame.

    Parameters
    ----------
    geometry
        With ``adu_per_ev`` or ``adu_per_photon`` for every panel; the former wins.
    photon_energy
        (frame,) eV.

    Returns
    -------
    numpy.ndarray
        (frame, panel) photons per ADU, float32; NaN where a frame has no photon energy above 0.

    Raises
    ------
    BadGeometry
        If a panel has neither.
    """
    energy = np.asarray(photon_energy, dtype=float)[:, None]
    per_photon = np.where(np.isfinite(geometry.adu_per_ev), geometry.adu_per_ev * energy, geometry.adu_per_photon)
    unknown = ~(np.isfinite(geometry.adu_per_ev) | np.isfinite(geometry.adu_per_photon))
    if unknown.any():
        name = geometry.panel_name[int(np.argmax(unknown))]
        raise BadGeometry(f"panel '{name}' has neither adu_per_eV nor adu_per_photon; add one to the geometry file")
    return np.divide(1.0, per_photon, out=np.full(per_photon.shape, np.nan), where=per_photon > 0).astype(np.float32)


def make_scratch(pixels: tuple[PixelList, ...], shape: tuple[int, ...], ring_count: int) -> Scratch:
    """Memory for kernels to work in, for frames (panel, ss, fs) of any of these settings."""
    size = int(np.prod(shape))
    azimuths = (pixels[0].start.size - 1) // ring_count
    longest = max(int(np.diff(setting.start[::azimuths]).max()) for setting in pixels)
    return Scratch(
        photons=np.empty(longest, dtype=np.float32),
        runs=np.empty((count_runs(longest), RUN_COLUMNS)),
        offset=np.zeros(shape[0], dtype=np.float32),
        deviation=np.empty(ring_count),
        state=np.zeros(size, dtype=np.uint8),
        bright=np.empty(size, dtype=np.int32),
        touched=np.empty(size, dtype=np.int32),
    )
