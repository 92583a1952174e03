"""Simulate a campaign and gather all evidence that its hits are diffuse, as the verbs of the package do.

Imported by ``campaigns.py``, which says which campaigns there are and what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from diffdask.models.ambiguity import resolve_ambiguity, select_agreement, select_rows
from diffdask.models.chance import set_against_chance, standardise_scores
from diffdask.models.consistency import MapConsistency
from diffdask.models.label_free import LabelFreeScore
from diffdask.models.map_search import search_in_map_of
from diffdask.models.nuisance import NuisanceComponents
from diffdask.models.orientation_grid import measure_misorientation
from diffdask.models.orientation_search import TWISTS, FoundOrientations, OrientationSearch, twist_rings
from diffdask.models.pairs import PairStructure
from diffdask.pipeline.crystals import borrow_orientations
from diffdask.pipeline.oriented_hits import Symmetry, find_symmetry
from diffdask.planning import tiles_of
from diffdask.simulate import make_experiment, simulate_polar_hits
from diffdask.steps.similarity import find_ambiguity_agreement, find_arc_agreement, orient_hits, prepare_hits
from diffdask.steps.structure import find_structure
from diffdask.symmetry import crystal_rotations, laue_group_of, laue_rotations, mean_cell
from diffdask.variables import wrap

#: 1/angstrom: rings that are simulated end here, rings that are compared begin there (the default of ``compare``).
_Q_MAX, _COMPARE_Q_MIN = 2.6, 0.5

_TILE = 500

#: Hits that are twisted to see what chance gives: half of them one way, half the other (``orient``: each both ways).
_CHANCE_HITS = 2000


@dataclass(frozen=True)
class Campaign:
    """What is simulated and how it is cleaned; everything else is drawn by ``experiment``."""

    name: str  #: of its file and in the table
    experiment: int  #: seed of crystal, beam and detector
    disorder: str
    laue_group: str
    streaks: float  #: share of the hits with a jet streak
    orientation_error: float = 0.3  #: deg, rms
    diffuse: float = 0.05  #: share of the hits
    strengths: tuple[float, ...] = (0.05, 0.027, 0.011)  #: rms of the diffuse anisotropy over the background
    indexed: float = 0.95  #: share of the hits that the stream has an orientation for
    misindexed: float = 0.0  #: share of the indexed hits whose orientation is any
    ice: float = 0.15  #: share of the hits with ice rings
    hits: int = 2000
    runs: int = 4
    seed: int = 1  #: of what changes from hit to hit
    rings: int = 64
    azimuths: int = 72
    cleanings: tuple[int | str, ...] = ("auto",)  #: components taken out beside each run's median; a row for each
    asked: tuple[float, float] | None = None  #: of the label-free score: area under the curve, and top N


@dataclass(frozen=True)
class Evidence:
    """What the hits of a campaign show, each (n,); NaN where there is nothing."""

    structure: np.ndarray
    pairs: np.ndarray  #: in units of chance, as ``rank --method pairs`` has it
    consistency: np.ndarray  #: in units of chance, as ``rank --method map-consistency`` has it
    search: np.ndarray  #: in units of chance
    label_free: LabelFreeScore  #: of all of them
    false_discovery: np.ndarray  #: of consistency
    bound: np.ndarray  #: agreement with the map of all diffuse hits, at true orientations
    found: np.ndarray  #: (n, 3, 3) orientations that the search found
    true: np.ndarray  #: (n, 3, 3) orientations, in the labelling that the map has
    symmetry: Symmetry


def simulate_campaign(campaign: Campaign, *, threads: int = 1) -> xr.Dataset:
    """Simulate the hits of a campaign."""
    experiment = make_experiment(
        campaign.experiment,
        disorder=campaign.disorder,
        laue_group=campaign.laue_group,
        streak_fraction=campaign.streaks,
        ice_fraction=campaign.ice,
        indexed_fraction=campaign.indexed,
    )
    return simulate_polar_hits(
        experiment,
        **{name: getattr(campaign, name) for name in ("hits", "diffuse", "runs", "seed", "rings", "azimuths")},
        **{name: getattr(campaign, name) for name in ("orientation_error", "misindexed", "strengths")},
        q_max=_Q_MAX,
        threads=threads,
    )


def clean_hits(hits: xr.Dataset, components: int | str) -> tuple[xr.Dataset, int]:
    """Take out each run's median and nuisance components, as ``screen`` does; and say how many components."""
    noise = hits.polar_noise.values
    significance = np.divide(hits.polar_residual.values, noise, out=np.full_like(noise, np.nan), where=noise > 0)
    model = NuisanceComponents(component_count=components)
    cleaned = wrap(
        cleaned_residual=model.fit_transform(significance, hits.run.values),
        polar_ring_q=hits.polar_ring_q.values,
        polar_coverage=hits.polar_coverage.values,
    )
    return cleaned, model.component_count_


def gather_evidence(hits: xr.Dataset, cleaned: xr.Dataset) -> Evidence:
    """Find structure, pairs, consistency and search of hits that are cleaned, and the label-free score of them all.

    And the bound: the truth enters nothing else.
    """
    prepared, symmetry, cell = prepare_campaign(hits, cleaned)
    structure = standardise_scores(find_structure(cleaned).hit_structure.values)
    pairs, choice = find_pairs(prepared, symmetry, structure)
    labelled = symmetry.labellings[np.maximum(choice, 0)] @ prepared.crystal_rotation.values
    prepared = prepared.assign(wrap(crystal_rotation=labelled))
    grown = grow_map(MapConsistency(), prepared, symmetry, pairs.weight_)
    found, search = search_hits(grown, prepared, symmetry)
    true = _label_alike(crystal_rotations(hits.true_orientation.values, cell), labelled, symmetry)
    known = grow_map(
        MapConsistency(rounds=0, fold_count=2, borrowed=1),
        prepared.assign(wrap(crystal_rotation=true)),
        symmetry,
        hits.is_diffuse.values.astype(float),
    )
    columns = np.column_stack([structure, pairs.significance_, grown.significance_, search])
    whole = np.column_stack([_count_in_chance(pairs), _count_in_chance(grown)])
    return Evidence(
        structure=structure,
        pairs=whole[:, 0],
        consistency=whole[:, 1],
        search=search,
        label_free=LabelFreeScore().fit(columns, whole=whole),
        false_discovery=grown.false_discovery_,
        bound=known.score_,
        found=found.rotation,
        true=true,
        symmetry=symmetry,
    )


def prepare_campaign(hits: xr.Dataset, cleaned: xr.Dataset) -> tuple[xr.Dataset, Symmetry, np.ndarray]:
    """Standardise and orient hits as ``compare`` does; and the symmetry and the mean cell (3, 3)."""
    lattice = str(next(name for name in hits.lattice.values if name))
    cell = mean_cell(hits.orientation.values, laue_rotations(laue_group_of(lattice)))
    symmetry = find_symmetry(hits.attrs["laue_group"], lattice, cell)
    prepared = prepare_hits(cleaned, q_min=_COMPARE_Q_MIN).merge(orient_hits(hits, cell=cell))
    return prepared, symmetry, cell


def find_pairs(prepared: xr.Dataset, symmetry: Symmetry, structure: np.ndarray) -> tuple[PairStructure, np.ndarray]:
    """Find the group of hits that agree in pairs, and the labelling of every hit, -1 where not indexed."""
    agreement, samples = _compare_all(prepared, symmetry)
    choice = resolve_ambiguity(list(agreement), samples=list(samples), relative=symmetry.relative)
    chosen = select_agreement(list(agreement), choice, symmetry.relative)
    weight = PairStructure().fit(chosen, samples=samples[0], hint=structure).weight_
    exchanged, exchanged_samples = _exchange(prepared, symmetry, np.flatnonzero(weight > 0))
    null = select_rows(list(exchanged), choice, weight, symmetry.relative)
    null_samples = [exchanged_samples[0]]
    model = PairStructure().fit(chosen, samples=samples[0], null=[null], null_samples=null_samples, hint=structure)
    return model, choice


def grow_map(model: MapConsistency, prepared: xr.Dataset, symmetry: Symmetry, start: np.ndarray) -> MapConsistency:
    """Grow the map of hits from their weights in the group of pairs."""
    return model.fit(
        prepared.standardised_residual.values,
        rotation=prepared.crystal_rotation.values,
        wavelength=prepared.hit_wavelength.values,
        ring_q=prepared.similarity_ring_q.values,
        rotations=symmetry.rotations,
        start_weight=start,
    )


def search_hits(
    grown: MapConsistency, prepared: xr.Dataset, symmetry: Symmetry
) -> tuple[FoundOrientations, np.ndarray]:
    """Search every hit in the map that was grown without its fold, and set its fit against that of twisted hits."""
    values, wavelength = prepared.standardised_residual.values, prepared.hit_wavelength.values
    parts, order = [], []
    twisted = np.full(len(values), np.nan)
    chosen = np.linspace(0, len(values) - 1, min(len(values), _CHANCE_HITS)).astype(int)
    for fold in range(-1, grown.fold_count):
        rows = np.flatnonzero(grown.fold_ == fold)
        weight = grown.weight_ if fold < 0 else grown.fold_weight_[fold]
        if not rows.size:
            continue
        search = fit_search(OrientationSearch(), prepared, symmetry, weight)
        parts.append(search.search(values[rows], wavelength[rows]))
        order.append(rows)
        for parity, bins in enumerate(TWISTS):
            some = rows[np.isin(rows, chosen[parity::2])]
            twisted[some] = search.search(twist_rings(values[some], bins), wavelength[some]).score
    back = np.argsort(np.concatenate(order))
    found = FoundOrientations(
        **{name: np.concatenate([getattr(part, name) for part in parts])[back] for name in vars(parts[0])}
    )
    return found, set_against_chance(found.score, twisted)[0]


def fit_search(
    model: OrientationSearch, prepared: xr.Dataset, symmetry: Symmetry, weight: np.ndarray
) -> OrientationSearch:
    """Cut the slices of the map of hits with their weights, as ``orient`` does."""
    return search_in_map_of(
        prepared.standardised_residual.values,
        rotation=prepared.crystal_rotation.values,
        wavelength=prepared.hit_wavelength.values,
        weight=weight,
        ring_q=prepared.similarity_ring_q.values,
        rotations=symmetry.rotations,
        mean_wavelength=float(prepared.hit_wavelength.mean()),
        search=model,
    )


def _label_alike(true: np.ndarray, labelled: np.ndarray, symmetry: Symmetry) -> np.ndarray:
    """True orientations in the labelling that most hits were given: which of them it is, no map can tell."""
    candidates = [labelling @ true for labelling in symmetry.labellings]
    angles = [np.nanmedian(measure_misorientation(one, labelled, symmetry.rotations)) for one in candidates]
    return candidates[int(np.argmin(angles))]


def _count_in_chance(model: PairStructure | MapConsistency) -> np.ndarray:
    middle, spread = model.chance_
    return np.asarray((model.score_ - middle) / spread)


def _compare_all(prepared: xr.Dataset, symmetry: Symmetry) -> tuple[np.ndarray, np.ndarray]:
    """Agreement and samples of all pairs, (labelling, n, n), by tiles as the verb ``compare``."""
    agreement, samples = _start_matrices(prepared, symmetry)
    for rows, columns in tiles_of(prepared.sizes["hit"], _TILE):
        one, other = (prepared.isel(hit=slice(*block)) for block in (rows, columns))
        made = _compare_tile(one, other, symmetry, is_diagonal=rows == columns)
        for whole, tile in zip((agreement, samples), made, strict=True):
            # Rows and columns exchanged, a labelling becomes its inverse; on the diagonal that is there already.
            whole[:, slice(*columns), slice(*rows)] = tile.swapaxes(1, 2)[symmetry.relative[:, 0]]
            whole[:, slice(*rows), slice(*columns)] = tile
    return agreement, samples


def _exchange(prepared: xr.Dataset, symmetry: Symmetry, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What chance gives: all hits at borrowed orientations with those of a group; NaN with others, who have no say."""
    rotation = prepared.crystal_rotation.values
    lender = borrow_orientations(np.isfinite(rotation).all(axis=(1, 2)), seed=0)
    turned = prepared.assign(wrap(crystal_rotation=rotation[lender]))
    agreement, samples = _start_matrices(prepared, symmetry)
    found = _compare_tile(turned, prepared.isel(hit=group), symmetry, is_diagonal=False)
    agreement[:, :, group], samples[:, :, group] = found
    return agreement, samples


def _start_matrices(prepared: xr.Dataset, symmetry: Symmetry) -> tuple[np.ndarray, np.ndarray]:
    shape = len(symmetry.labellings), prepared.sizes["hit"], prepared.sizes["hit"]
    return np.full(shape, np.nan, np.float32), np.zeros(shape, np.int32)


def _compare_tile(
    rows: xr.Dataset, columns: xr.Dataset, symmetry: Symmetry, *, is_diagonal: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Agreement and samples, (labelling, hit, other_hit)."""
    options: dict[str, Any] = {"rotations": symmetry.rotations, "is_diagonal": is_diagonal}
    if len(symmetry.labellings) == 1:
        found = find_arc_agreement(rows, columns, **options)
        return found.pair_agreement.values[None], found.pair_samples.values[None]
    found = find_ambiguity_agreement(rows, columns, ambiguities=symmetry.labellings, **options)
    return found.ambiguity_agreement.values, found.ambiguity_samples.values
