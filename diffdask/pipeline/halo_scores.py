"""Scores of hits by their haloes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffdask.errors import BadStore
from diffdask.io.results_store import open_group
from diffdask.pipeline.haloes import GROUP
from diffdask.pipeline.scores import SIGNIFICANT, HitScores


def score_by_haloes(results: str | Path) -> HitScores:
    """How much brighter a hit is close about its lattice points, in robust standard deviations of all hits.

    Raises
    ------
    BadStore
        If haloes were not looked for yet, or not in all hits that there are now.
    """
    found = open_group(results, GROUP)
    if found is None:
        raise BadStore(f"'{results}' has no finished '{GROUP}'; run: diffdask haloes {results}")
    numbers = found.hit_frame.values
    halo = found.frame_halo.values[numbers]
    source = np.where(np.isfinite(halo), "haloes", "none: not indexed or few peaks").astype(object)
    return HitScores(
        hit_frame=numbers,
        source=source,
        columns={"frame_score": halo},
        attributes={"threshold": SIGNIFICANT, "parameters": found.attrs["parameters"]},
    )
