"""The group ``layout``: made once for a campaign, read once a process."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from diffdask.errors import BadGeometry, BadStore
from diffdask.frame_settings import extend_settings, group_settings, setting_columns
from diffdask.io.frames_store import frames_attributes, read_frame_columns
from diffdask.io.paths import absolute
from diffdask.io.results_store import open_group, replace_group
from diffdask.io.storage import storage_at
from diffdask.pixels import PixelList, list_pixels
from diffdask.steps.layout import lay_out_rings

#: Columns that decide on a frame's setting.
_COLUMNS = ("run", "photon_energy", "camera_length", "detector_shift")


def make_layout(results: str | Path, frames: str | Path, parameters: dict[str, Any]) -> None:
    """Lay out pixels for all settings; rings once chosen stay when frames are added.

    Parameters
    ----------
    results
        The results store.
    frames
        The frames store; columns of all its frames are held only here, for of millions they are hundreds of megabytes.
    parameters
        Of :func:`lay_out_rings`.

    Raises
    ------
    BadStore
        If frames that were laid out before have got another energy, camera length or beam centre since.
    """
    made, columns = open_group(results, "layout"), read_setting_columns(frames)
    if made is None:
        grouped, fixed = group_settings(*setting_columns(columns)), {}
    else:
        settings = [tuple(setting) for setting in made.attrs["settings"]]
        try:
            grouped = extend_settings(settings, made.frame_setting.values, *setting_columns(columns))
        except BadGeometry as error:
            raise BadStore(
                f"{error} since '{results}' was made (a stream ingested later?); "
                "choose another --results to make them anew"
            ) from error
        if made.sizes["frame"] == columns.sizes["frame"]:
            return
        fixed = dict(zip(("q_min", "q_max"), made.attrs["q_range"], strict=True))
    layout = lay_out_rings(columns, **{**parameters, **fixed}, grouped=grouped)
    stamp = {"parameters": parameters, "settings": grouped[0], "q_range": layout.attrs["q_range"]}
    replace_group(results, "layout", layout, stamp)


def read_setting_columns(frames: str | Path) -> xr.Dataset:
    """Read what decides on the settings of all frames, and the detector."""
    return read_frame_columns(frames, 0, int(frames_attributes(frames)["frame_count"]), columns=_COLUMNS)


def load_layout(results: str | Path) -> tuple[xr.Dataset, tuple[PixelList, ...]]:
    """Maps and pixel lists of a results store, read once a process until they change."""
    return _load_once(absolute(results), storage_at(results).stamp("layout/zarr.json"))


def with_layout(ds: xr.Dataset, layout: xr.Dataset, numbers: np.ndarray) -> xr.Dataset:
    """Join frames, of these numbers in ingest order, with the maps."""
    return ds.merge(layout.drop_vars("frame_setting")).merge(layout[["frame_setting"]].isel(frame=numbers))


@functools.lru_cache(maxsize=2)
def _load_once(results: str, stamp: Hashable) -> tuple[xr.Dataset, tuple[PixelList, ...]]:
    made = open_group(results, "layout")
    if made is None:
        raise BadStore(f"'{results}' has no layout; run: diffdask screen FRAMES --results {results}")
    made = made.load()
    return made, list_pixels(made)
