"""The usable pixels of a setting as a list, in the order in which memory is walked."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

from diffdask.errors import BadGeometry
from diffdask.geometry import Geometry
from diffdask.variables import require


class PixelList(NamedTuple):
    """Usable pixels of one setting; masked pixels and gaps do not appear and cost nothing.

    A named tuple, because compiled kernels take it as it is.
    """

    place: np.ndarray  #: (n,) int32, ascending place in the flattened frame
    panel: np.ndarray  #: (n,) int16
    ring: np.ndarray  #: (n,) int32
    azimuth: np.ndarray  #: (n,) int32, azimuthal bin
    correction: np.ndarray  #: (n,) float32, 1 / (polarisation x solid angle x area)


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
    require(ds, "pixel_ring", "pixel_azimuth", "pixel_correction")
    panel_size = ds.sizes["ss"] * ds.sizes["fs"]
    lists = []
    for setting in range(ds.sizes["setting"]):
        ring = ds.pixel_ring.values[setting].ravel()
        place = np.flatnonzero(ring >= 0).astype(np.int32)
        lists.append(
            PixelList(
                place=place,
                panel=(place // panel_size).astype(np.int16),
                ring=ring[place].astype(np.int32),
                azimuth=ds.pixel_azimuth.values[setting].ravel()[place].astype(np.int32),
                correction=ds.pixel_correction.values[setting].ravel()[place].astype(np.float32),
            )
        )
    return tuple(lists)


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
