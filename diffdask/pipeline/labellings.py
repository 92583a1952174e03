"""Which way each hit's axes were labelled, where indexing is ambiguous: what ``compare`` settles after its tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from diffdask.io.results_store import open_unfinished, write_rows
from diffdask.models.ambiguity import resolve_ambiguity, select_agreement, select_rows
from diffdask.models.pairs import PairStructure
from diffdask.pipeline.crystals import GROUP
from diffdask.pipeline.oriented_hits import find_symmetry
from diffdask.variables import wrap


def choose_labellings(results: Path, how: dict[str, Any]) -> None:
    """Choose a labelling for every hit, and write the agreements under the choices."""
    stored = open_unfinished(results, "common-arc")
    cell = open_unfinished(results, GROUP).crystal_cell.values
    relative = find_symmetry(how["laue"], how["lattice"], cell).relative
    agreement, samples = list(stored.ambiguity_agreement.values), list(stored.ambiguity_samples.values)
    choice = resolve_ambiguity(agreement, samples=samples, relative=relative)
    chosen = select_agreement(agreement, choice, relative)
    counted = np.nan_to_num(select_agreement([one.astype(np.float32) for one in samples], choice, relative))
    weight = PairStructure().fit(chosen, samples=counted).weight_
    exchanged, exchanged_samples = _choose_anew(stored, choice, weight, relative)
    found = wrap(
        hit_labelling=choice,
        pair_agreement=chosen,
        pair_samples=counted.astype(np.int32),
        exchanged_agreement=exchanged,
        exchanged_samples=exchanged_samples,
    )
    write_rows(results, "common-arc", 0, found)


def _choose_anew(
    stored: xr.Dataset, choice: np.ndarray, weight: np.ndarray, relative: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Agreement at borrowed orientations, and its samples, of hits that choose their labelling as well.

    Fisher's z is what is compared; it is written as the agreement that has it with the first labelling's samples.
    """
    counted = stored.exchanged_ambiguity_samples.values
    freedom = np.sqrt(np.where(counted > 3, counted - 3.0, np.nan)).astype(np.float32)
    z = np.arctanh(np.clip(stored.exchanged_ambiguity_agreement.values, -0.999, 0.999)) * freedom
    chosen = select_rows(list(z), choice, weight, relative)
    return np.tanh(chosen / freedom[0]), counted[0]
