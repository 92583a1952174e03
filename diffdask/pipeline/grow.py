"""The map grown from the hits that agree with it: made once, kept in the results, used by ``rank`` and ``orient``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from diffdask.io.results_store import open_features, open_group, open_unfinished, replace_group
from diffdask.models.chance import standardise_scores
from diffdask.models.consistency import MapConsistency
from diffdask.models.pairs import PairStructure
from diffdask.pipeline.crystals import open_crystals
from diffdask.pipeline.oriented_hits import find_symmetry, load_oriented_hits
from diffdask.steps.similarity import prepare_hits
from diffdask.variables import wrap
from diffdask.version import __version__

#: Group of the results store.
GROUP = "consistency"


class PairEvidence(NamedTuple):
    """What pairs say of every hit, (n,) each; NaN for hits that were not among those compared."""

    pairs: np.ndarray  #: agreement with the group, in units of chance
    significance: np.ndarray  #: of the agreement with the group that other folds found
    p_value: np.ndarray
    weight: np.ndarray  #: in the group; 0 for hits not compared


def find_pairs(results: str | Path, *, seed: int) -> PairEvidence:
    """Find the group of hits that agree in pairs; matrices are read by rows: of 20 000 hits each has 1.6 GB.

    Raises
    ------
    BadStore
        If the hits are not compared yet.
    """
    crystals, compared = open_crystals(results), open_unfinished(results, "common-arc")
    rows = np.searchsorted(crystals.hit_frame.values, compared.hit_frame.values)
    model = PairStructure(seed=seed).fit(
        compared.pair_agreement,
        samples=compared.pair_samples,
        null=[compared.exchanged_agreement],
        null_samples=[compared.exchanged_samples],
        hint=find_standard_structure(results)[rows],
    )
    found = np.full((4, crystals.sizes["hit"]), np.nan)
    found[:, rows] = _count_in_chance(model), model.significance_, model.p_value_, model.weight_
    found[3] = np.nan_to_num(found[3])
    return PairEvidence(*found)


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
    crystals = open_crystals(results)
    told = crystals.attrs["parameters"]
    model = MapConsistency(friedel=told["friedel"], seed=seed)
    how = {**told, **model.get_params(), "hits": _digest(crystals, open_unfinished(results, "common-arc"))}
    found = open_group(results, GROUP)
    stamp = {"parameters": json.loads(json.dumps(how)), "version": __version__}
    if found is None or any(found.attrs.get(name) != value for name, value in stamp.items()):
        replace_group(results, GROUP, _grow(results, crystals, model, seed), {"parameters": how})
    return open_unfinished(results, GROUP).load()


def _grow(results: str | Path, crystals: xr.Dataset, model: MapConsistency, seed: int) -> xr.Dataset:
    told = crystals.attrs["parameters"]
    pairs = find_pairs(results, seed=seed)
    hits = load_oriented_hits(results, np.arange(crystals.sizes["hit"]))
    prepared = prepare_hits(hits, q_min=told["compare_q_min"], q_max=told["compare_q_max"] or np.inf)
    model.fit(
        prepared.standardised_residual.values,
        rotation=hits.crystal_rotation.values,
        wavelength=hits.hit_wavelength.values,
        ring_q=prepared.similarity_ring_q.values,
        rotations=find_symmetry(told["laue"], told["lattice"], crystals.crystal_cell.values).rotations,
        start_weight=pairs.weight,
    )
    return wrap(
        hit_frame=crystals.hit_frame.values,
        hit_pairs=pairs.pairs,
        hit_pairs_significance=pairs.significance,
        hit_pairs_p_value=pairs.p_value,
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


def _digest(crystals: xr.Dataset, compared: xr.Dataset) -> str:
    """Of what decides which hits are compared, and how they are oriented."""
    made_of = [crystals.hit_frame.values, crystals.crystal_rotation.values, compared.hit_frame.values]
    if "hit_labelling" in crystals:
        made_of.append(crystals.hit_labelling.values)
    return hashlib.sha256(b"".join(np.ascontiguousarray(one).tobytes() for one in made_of)).hexdigest()
