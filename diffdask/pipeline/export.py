"""The verb ``export``: the best frames, back to files that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffdask.errors import BadParameter, MissingVariable
from diffdask.io.paths import as_store, suffix_of

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

_SUFFIXES = (".lst", ".cxi")


def export(
    results: str | Path,
    *,
    top: int = 500,
    to: str | Path,
    frames: str | Path | None = None,
) -> str | Path:
    """Write the frames of the highest scores for other programs.

    Parameters
    ----------
    results
        The results store, ranked.
    top
        How many frames, by rank; fewer where fewer have one.
    to
        ``.lst`` for CrystFEL's event list (source files are named, not
        copied), ``.cxi`` for a CXI file with these frames in it.
    frames
        Frames store to take the pixels from; None for the one of the results.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    BadParameter
        If the suffix is neither, or ``top`` is less than 1.
    MissingVariable
        If no frame has a rank.
    """
    from diffdask.catalogue import catalogue_table
    from diffdask.io.picks import write_cxi_subset, write_event_list
    from diffdask.io.results_store import frames_path, open_hits, open_scores

    to = as_store(to)
    if suffix_of(to) not in _SUFFIXES:
        raise BadParameter(f"'{to}' must end in {' or '.join(_SUFFIXES)}: event list, or CXI file with the frames")
    scores = open_scores(results)
    rank = np.zeros(0, dtype=int) if scores is None else scores.frame_rank.values
    ranked = np.flatnonzero((rank > 0) & (rank <= top))
    picks = choose_top(catalogue_table(results, frames=ranked), top)
    if suffix_of(to) == ".lst":
        return write_event_list(picks, to)
    where = as_store(frames) if frames is not None else frames_path(results)
    return write_cxi_subset(picks, where, to, peaks=_peaks_of(picks, open_hits(results)))


def _peaks_of(picks: pd.DataFrame, hits: xr.Dataset) -> xr.Dataset:
    """Rows of the hits that were picked, in the order of the picks."""
    rows = np.searchsorted(hits.hit_frame.values, picks.index.to_numpy())
    names = ["hit_peak_count", "peak_panel", "peak_ss", "peak_fs", "peak_intensity", "peak_snr"]
    return hits[names].load().isel(hit=rows)


def choose_top(table: pd.DataFrame, top: int) -> pd.DataFrame:
    """Rows of ranks 1 to ``top``, best first; the index stays the frame's number."""
    if top < 1:
        raise BadParameter(f"top must be at least 1, got {top}")
    if "frame_rank" not in table or not (table["frame_rank"] > 0).any():
        raise MissingVariable("no frame has a rank yet; run: diffdask rank RESULTS --ranker RANKER")
    return table[(table["frame_rank"] > 0) & (table["frame_rank"] <= top)].sort_values("frame_rank", kind="stable")
