"""The map grown from the hits that agree with it: made once, kept in the results, used by ``rank`` and ``orient``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import xarray as xr

from diffdask.io.results_store import open_features, open_group, open_unfinished, replace_group
from diffdask.models.chance import standardise_scores
from diffdask.models.consistency import MapConsistency
from diffdask.models.pairs import PairStructure
from diffdask.pipeline.features import open_compared
from diffdask.pipeline.oriented_hits import find_symmetry, load_oriented_hits
from diffdask.steps.similarity import prepare_hits
from diffdask.variables import wrap
from diffdask.version import __version__

#: Group of the results store.
GROUP = "consistency"


def find_group(compared: xr.Dataset, structure: np.ndarray, seed: int) -> PairStructure:
    """Find the group of hits that agree in pairs; matrices are read by rows: of 20 000 hits each has 1.6 GB."""
    return PairStructure(seed=seed).fit(
        compared.pair_agreement,
        samples=compared.pair_samples,
        null=[compared.exchanged_agreement],
        null_samples=[compared.exchanged_samples],
        hint=structure,
    )


def find_standard_structure(results: str | Path) -> np.ndarray:
    """Structure of all hits, (n,), in robust standard deviations."""
    return standardise_scores(open_features(results).hit_structure.values)


def grow_map(results: str | Path, *, seed: int) -> xr.Dataset:
    """Grow the map, or open it if these very hits made it before.

    Parameters
    ----------
    results
        The results store, compared.
    seed
        Of the folds and of the orientations borrowed.

    Returns
    -------
    xarray.Dataset
        Pairs and consistency of all hits, their weights in the map, and in those grown without each fold.

    Raises
    ------
    BadStore
        If the hits are not compared yet.
    """
    compared = open_compared(results, "common-arc")
    told = compared.attrs["parameters"]
    model = MapConsistency(friedel=told["friedel"], seed=seed)
    how = {**told, **model.get_params(), "hits": _digest(compared)}
    found = open_group(results, GROUP)
    stamp = {"parameters": json.loads(json.dumps(how)), "version": __version__}
    if found is None or any(found.attrs.get(name) != value for name, value in stamp.items()):
        replace_group(results, GROUP, _grow(results, compared, model, seed), {"parameters": how})
    return open_unfinished(results, GROUP).load()


def _grow(results: str | Path, compared: xr.Dataset, model: MapConsistency, seed: int) -> xr.Dataset:
    told = compared.attrs["parameters"]
    pairs = find_group(compared, find_standard_structure(results), seed)
    hits = load_oriented_hits(results, np.arange(compared.sizes["hit"]))
    prepared = prepare_hits(hits, q_min=told["compare_q_min"], q_max=told["compare_q_max"] or np.inf)
    model.fit(
        prepared.standardised_residual.values,
        rotation=hits.crystal_rotation.values,
        wavelength=hits.hit_wavelength.values,
        ring_q=prepared.similarity_ring_q.values,
        rotations=find_symmetry(told["laue"], told["lattice"], compared.crystal_cell.values).rotations,
        start_weight=pairs.weight_,
    )
    return wrap(
        hit_frame=compared.hit_frame.values,
        hit_pairs=_count_in_chance(pairs),
        hit_pairs_significance=pairs.significance_,
        hit_pairs_p_value=pairs.p_value_,
        hit_consistency=_count_in_chance(model),
        hit_consistency_significance=model.significance_,
        hit_false_discovery=model.false_discovery_,
        hit_weight=model.weight_,
        hit_fold=model.fold_,
        fold_weight=model.fold_weight_,
    )


def _count_in_chance(model: PairStructure | MapConsistency) -> np.ndarray:
    """Scores, less the mean and over the spread of those by chance."""
    middle, spread = model.chance_
    return np.asarray((model.score_ - middle) / spread)


def _digest(compared: xr.Dataset) -> str:
    """Of what decides which hits are compared, and how they are oriented."""
    made_of = [compared.hit_frame.values, compared.crystal_rotation.values]
    if "hit_labelling" in compared:
        made_of.append(compared.hit_labelling.values)
    return hashlib.sha256(b"".join(np.ascontiguousarray(one).tobytes() for one in made_of)).hexdigest()
