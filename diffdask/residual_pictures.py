"""Pictures of frames as they were screened: the residual over the isotropic background."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffdask import pictures
from diffdask.errors import BadStore
from diffdask.geometry import Geometry
from diffdask.io.frames_store import open_frames, take_frames
from diffdask.io.results_store import frames_path, open_group, open_screen
from diffdask.pixels import list_pixels
from diffdask.steps.background import remove_background


def draw_residuals(results: str | Path, chosen: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Draw the residuals of frames, (frame number) to ``uri`` and ``limit`` (photons): peaks left out, smoothed."""
    if not chosen:
        return {}
    pictured = pictures.picture_map(Geometry.from_dataset(open_frames(frames_path(results), columns=())))
    drawn = {}
    for frame, panels in residual_panels(results, chosen):
        image = pictures.smooth(pictures.assemble(pictures.leave_out_peaks(panels, pictured), pictured))
        limit = pictures.robust_limit(image)
        drawn[frame] = {"uri": pictures.to_png(image, limit=limit), "limit": limit}
    return drawn


def residual_panels(results: str | Path, chosen: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Give residuals of frames, one frame at a time.

    Parameters
    ----------
    results
        The results store: its layout and its parameters, so that pictures show
        what was screened.
    chosen
        Frame numbers.

    Yields
    ------
    tuple
        (frame number, (panel, ss, fs) residual in photons).
    """
    where, layout = frames_path(results), open_group(results, "layout")
    if layout is None:
        raise BadStore(f"'{results}' has no layout; run: diffdask screen {where} --results {results}")
    layout = layout.load()
    pixels, background = list_pixels(layout), _meant_for(remove_background, open_screen(results).attrs["parameters"])
    for frame in chosen:
        one = take_frames(where, [frame]).merge(layout.isel(frame=[frame]), compat="equals", join="exact")
        yield frame, remove_background(one, pixels=pixels, **background)["residual"].values[0]


def _meant_for(step: Callable[..., Any], parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name in inspect.signature(step).parameters}
