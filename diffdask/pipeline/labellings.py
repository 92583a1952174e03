"""Which way each hit's axes were labelled, where indexing is ambiguous: what ``compare`` settles after its tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from diffdask.io.results_store import open_unfinished, write_rows, write_whole
from diffdask.models.ambiguity import resolve_ambiguity, select_agreement, select_rows
from diffdask.models.consistency import MapConsistency
from diffdask.models.pairs import PairStructure
from diffdask.pipeline.crystals import GROUP, is_oriented
from diffdask.pipeline.oriented_hits import Symmetry, find_symmetry, load_prepared_hits
from diffdask.variables import wrap


def choose_labellings(results: str | Path, how: dict[str, Any]) -> None:
    """Choose a labelling for every hit, write it, and write the agreements of pairs under the choices."""
    stored, crystals = open_unfinished(results, "common-arc"), open_unfinished(results, GROUP)
    symmetry = find_symmetry(how["laue"], how["lattice"], crystals.crystal_cell.values)
    relative = symmetry.relative
    agreement, samples = list(stored.ambiguity_agreement.values), list(stored.ambiguity_samples.values)
    choice = resolve_ambiguity(agreement, samples=samples, relative=relative)
    chosen = select_agreement(agreement, choice, relative)
    counted = np.nan_to_num(select_agreement([one.astype(np.float32) for one in samples], choice, relative))
    weight = PairStructure().fit(chosen, samples=counted).weight_
    exchanged, exchanged_samples = _choose_anew(stored, choice, weight, relative)
    found = wrap(
        pair_agreement=chosen,
        pair_samples=counted.astype(np.int32),
        exchanged_agreement=exchanged,
        exchanged_samples=exchanged_samples,
    )
    write_rows(results, "common-arc", 0, found)
    labelling, all_weights = np.full(crystals.sizes["hit"], -1), np.zeros(crystals.sizes["hit"])
    rows = np.searchsorted(crystals.hit_frame.values, stored.hit_frame.values)
    labelling[rows], all_weights[rows] = choice, weight
    labelling = _label_others(results, how, symmetry, labelling, all_weights)
    write_whole(results, GROUP, wrap(hit_labelling=labelling))


def _label_others(
    results: str | Path, how: dict[str, Any], symmetry: Symmetry, labelling: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Labellings of all hits: those that are in no pair take the one that agrees best with the map of the group."""
    crystals = open_unfinished(results, GROUP)
    given = crystals.crystal_rotation.values
    others = np.flatnonzero(is_oriented(given) & (labelling < 0))
    if not others.size:
        return labelling
    hits = load_prepared_hits(results, slice(None), how)
    scores = []
    for label in range(len(symmetry.labellings)):
        tried = np.where(labelling < 0, label, labelling)
        model = MapConsistency(rounds=0, fold_count=2, borrowed=1, friedel=how["friedel"]).fit(
            hits.standardised_residual.values,
            rotation=symmetry.labellings[tried] @ given,
            wavelength=crystals.hit_wavelength.values,
            ring_q=hits.similarity_ring_q.values,
            rotations=symmetry.rotations,
            start_weight=weight,
        )
        scores.append(np.nan_to_num(model.score_[others]))
    labelled = labelling.copy()
    labelled[others] = np.argmax(scores, axis=0)
    return labelled


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
