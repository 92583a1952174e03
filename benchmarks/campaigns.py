"""Rank simulated campaigns without labels, hold the ranks against the truth, and write the tables of docs/results.md.

Usage: python benchmarks/campaigns.py --to build/campaigns

Figures of each campaign are kept under ``--to``, so that a run that was stopped goes on. They do not know the code
that made them: after a change of code give another folder.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from diffdask.kernels.agreement import area_under_roc, measure_area, measure_top
from diffdask.models.ambiguity import resolve_ambiguity, select_agreement, select_rows
from diffdask.models.nuisance import NuisanceComponents
from diffdask.models.pairs import PairStructure, measure_noise, whiten
from diffdask.pipeline.compare import Symmetry, borrow_orientations, find_symmetry
from diffdask.pipeline.scores import SIGNIFICANT, standardise_scores
from diffdask.planning import tiles_of
from diffdask.simulate import make_experiment, simulate_polar_hits
from diffdask.steps.similarity import find_ambiguity_agreement, find_arc_agreement, orient_hits, prepare_hits
from diffdask.steps.structure import find_structure
from diffdask.symmetry import laue_group_of, laue_rotations, mean_cell
from diffdask.variables import wrap

_RESULTS = Path(__file__).parents[1] / "docs" / "results.md"
_BEGIN, _END = "<!-- campaigns: begin -->", "<!-- campaigns: end -->"

#: 1/angstrom: rings that are simulated end here, rings that are compared begin there (the default of ``compare``).
_Q_MAX, _COMPARE_Q_MIN = 2.6, 0.5

_TILE, _DRAWS = 500, 1000

#: What was asked for, where nuisances are taken out and orientations are off by 0.3 degrees at most.
_ASKED = {"pairs": 0.995, "pairs_top": 0.95, "structure": 0.95}


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
    misindexed: float = 0.0  #: share of the indexed hits whose orientation is any
    ice: float = 0.15  #: share of the hits with ice rings
    hits: int = 2000
    runs: int = 4
    seed: int = 1  #: of what changes from hit to hit
    rings: int = 64
    azimuths: int = 72
    cleanings: tuple[int | str, ...] = ("auto",)  #: components taken out beside each run's median; a row for each
    is_asked: bool = False  #: whether its figures were asked for


def plan_campaigns() -> list[Campaign]:
    """All campaigns of the page, in its order; the seeds are here and nowhere else."""
    both: dict[str, Any] = {"cleanings": ("auto", 0), "is_asked": True}
    lm = Campaign("liquid-like, mmm", 101, "liquid-like", "mmm", 0.15, **both)
    lt = Campaign("liquid-like, 4/mmm", 102, "liquid-like", "4/mmm", 0.30, is_asked=True)
    lh = Campaign("liquid-like, 6/m", 103, "liquid-like", "6/m", 0.15, is_asked=True)
    rm = Campaign("rigid-body, mmm", 104, "rigid-body", "mmm", 0.30, **both)
    rt = Campaign("rigid-body, 4/mmm", 105, "rigid-body", "4/mmm", 0.15, is_asked=True)
    rh = Campaign("rigid-body, 6/m", 106, "rigid-body", "6/m", 0.30, **both)
    lowest = Campaign("liquid-like, 2/m", 107, "liquid-like", "2/m", 0.30, is_asked=True)
    exact = [_vary(campaign, "0.1°", orientation_error=0.1, is_asked=True) for campaign in (lm, rt)]
    return [lm, lt, lh, rm, rt, rh, lowest, *exact, *_plan_harder(lm, lt, rm, rt)]


def _plan_harder(lm: Campaign, lt: Campaign, rm: Campaign, rt: Campaign) -> list[Campaign]:
    """Campaigns that go on from those asked for until something breaks."""
    weak, weaker = (0.011,), (0.0055,)
    return [
        *(_vary(campaign, "1°", orientation_error=1.0) for campaign in (lm, rt)),
        *(_vary(lt, f"{error:g}°", orientation_error=error) for error in (3.0, 10.0)),
        *(_vary(lt, f"{share:.0%} diffuse", diffuse=share) for share in (0.02, 0.01)),
        _vary(lt, "weak only", strengths=weak, cleanings=("auto", 0)),
        _vary(rm, "weak only", strengths=weak, cleanings=("auto", 0)),
        _vary(lt, "weak only, 1% diffuse", strengths=weak, diffuse=0.01),
        _vary(rm, "weak only, 1% diffuse", strengths=weak, diffuse=0.01),
        _vary(lt, "half of weak", strengths=weaker),
        _vary(rm, "half of weak", strengths=weaker),
        _vary(rm, "10% misindexed", misindexed=0.1),
        _vary(lt, "all misindexed", misindexed=1.0),
        Campaign("haloes, mmm", 108, "long-correlation", "mmm", 0.15),
    ]


def _vary(campaign: Campaign, how: str, **changes: Any) -> Campaign:
    """The same experiment and the same dice, changed in what is named; not asked for, and cleaned, unless said."""
    changes = {"cleanings": ("auto",), "is_asked": False, **changes}
    return replace(campaign, name=f"{campaign.name}, {how}", **changes)


def measure_campaign(campaign: Campaign) -> list[dict[str, Any]]:
    """Simulate a campaign, score its hits without labels, and measure the scores: a dict for each cleaning."""
    experiment = make_experiment(
        campaign.experiment,
        disorder=campaign.disorder,
        laue_group=campaign.laue_group,
        streak_fraction=campaign.streaks,
        ice_fraction=campaign.ice,
    )
    hits = simulate_polar_hits(
        experiment,
        **{name: getattr(campaign, name) for name in ("hits", "diffuse", "runs", "seed", "rings", "azimuths")},
        **{name: getattr(campaign, name) for name in ("orientation_error", "misindexed", "strengths")},
        q_max=_Q_MAX,
    )
    return [_measure_cleaned(hits, components) for components in campaign.cleanings]


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


def score_pairs(hits: xr.Dataset, cleaned: xr.Dataset, structure: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score every hit by its agreement with the leading group, in units of chance, (hit,); NaN where not indexed.

    And with all diffuse hits, were they known: the bound for whatever finds the group.
    """
    lattice = str(next(name for name in hits.lattice.values if name))
    cell = mean_cell(hits.orientation.values, laue_rotations(laue_group_of(lattice)))
    symmetry = find_symmetry(hits.attrs["laue_group"], lattice, cell)
    prepared = prepare_hits(cleaned, q_min=_COMPARE_Q_MIN).merge(orient_hits(hits, cell=cell))
    agreement, samples = _compare_all(prepared, symmetry)
    choice = resolve_ambiguity(list(agreement), samples=list(samples), relative=symmetry.relative)
    chosen = select_agreement(list(agreement), choice, symmetry.relative)
    weight = PairStructure().fit(chosen, samples=samples[0], hint=structure).weight_
    exchanged, exchanged_samples = _exchange(prepared, symmetry, np.flatnonzero(weight > 0))
    null = select_rows(list(exchanged), choice, weight, symmetry.relative)
    null_samples = [exchanged_samples[0]]
    model = PairStructure().fit(chosen, samples=samples[0], null=[null], null_samples=null_samples, hint=structure)
    middle, spread = model.chance_
    whitened = whiten(chosen, samples[0], measure_noise(chosen, samples[0]), clip=model.clip)
    bound = np.where(np.isfinite(model.score_), whitened @ hits.is_diffuse.values.astype(np.float32), np.nan)
    return (model.score_ - middle) / spread, bound


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


# figures ---------------------------------------------------------------------------------------------------


def _measure_cleaned(hits: xr.Dataset, components: int | str) -> dict[str, Any]:
    cleaned, taken_out = clean_hits(hits, components)
    structure = standardise_scores(find_structure(cleaned).hit_structure.values)
    pairs, bound = score_pairs(hits, cleaned, structure)
    scores = {
        "pairs": pairs,
        "structure": structure,
        "bound": bound,
        # what ``rank --method pairs`` gives: a hit that is not indexed gets its structure
        "both": np.where(np.isfinite(pairs), pairs, structure),
    }
    is_diffuse, strength = hits.is_diffuse.values, hits.strength.values
    measured = {name: _measure_score(score, is_diffuse, strength) for name, score in scores.items()}
    return {"asked_components": components, "components": taken_out, **measured}


def _measure_score(score: np.ndarray, is_diffuse: np.ndarray, strength: np.ndarray) -> dict[str, Any]:
    """Hold a score (n,) against the truth, over the hits that have it; top N: N the number of diffuse ones."""
    known = np.isfinite(score)
    score, is_diffuse, strength = score[known], is_diffuse[known], strength[known]
    positive, negative = score[is_diffuse], score[~is_diffuse]
    by_strength = {
        f"{tier:g}": area_under_roc(positive[strength[is_diffuse] == tier], negative) for tier in np.unique(strength)
    }
    return {
        "area": measure_area(positive, negative, _DRAWS, np.random.default_rng(0)),
        "top": measure_top(score, is_diffuse, int(is_diffuse.sum())),
        "area_by_strength": by_strength,
        "found": int((positive > SIGNIFICANT).sum()),
        "wrong": int((negative > SIGNIFICANT).sum()),
        "diffuse": int(positive.size),
        "non_diffuse": int(negative.size),
    }


# runs ------------------------------------------------------------------------------------------------------


def run_campaigns(campaigns: Iterable[Campaign], folder: Path, *, workers: int) -> None:
    """Measure campaigns that were not measured yet, and write the figures of each to its file in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [campaign for campaign in campaigns if _read_figures(campaign, folder) is None]
    # A fresh interpreter each, in which libraries find the number of threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        running = {pool.submit(_measure_timed, campaign): campaign for campaign in missing}
        for done in as_completed(running):
            campaign, (rows, seconds) = running[done], done.result()
            figures = {"campaign": _plain(campaign), "cpu_seconds": seconds, "rows": rows}
            _file_of(campaign, folder).write_text(json.dumps(figures, indent=1), encoding="utf-8")
            for row in rows:
                sys.stdout.write(f"{_write_row(campaign, row)} {seconds:.0f} s\n")
                sys.stdout.flush()


def _measure_timed(campaign: Campaign) -> tuple[list[dict[str, Any]], float]:
    start = time.process_time()
    rows = measure_campaign(campaign)
    return rows, round(time.process_time() - start, 1)


def _read_figures(campaign: Campaign, folder: Path) -> dict[str, Any] | None:
    """Figures of this very campaign, None where there are none."""
    path = _file_of(campaign, folder)
    figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return figures if figures.get("campaign") == _plain(campaign) else None


def _file_of(campaign: Campaign, folder: Path) -> Path:
    words = "".join(letter if letter.isalnum() or letter == "." else "-" for letter in campaign.name)
    return folder / f"{words}.json"


def _plain(campaign: Campaign) -> dict[str, Any]:
    """A campaign as JSON gives it back."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(campaign)))
    return plain


# the tables ------------------------------------------------------------------------------------------------

_HEADS = (
    *("campaign", "streaks", "error", "diffuse", "taken out"),
    *("pairs, area", "top N", "above 4", "all hits, area", "top N", "structure, area", "top N"),
)

_BOUND = ("pairs, were the diffuse hits known: area", "top N")


def write_tables(campaigns: Iterable[Campaign], folder: Path) -> str:
    """Write the tables of all campaigns that are measured."""
    measured = [(campaign, found) for campaign in campaigns if (found := _read_figures(campaign, folder)) is not None]
    asked = [_write_row(one, row, _judge(row)) for one, found in measured if one.is_asked for row in found["rows"]]
    harder = [
        _write_row(one, row, *_write_score(row["bound"], interval=False))
        for one, found in measured
        if not one.is_asked
        for row in found["rows"]
    ]
    minutes = sum(found["cpu_seconds"] for _, found in measured) / 60
    return "\n".join(
        [
            *("### Asked for", "", _line([*_HEADS, "asked"]), _line(["---"] * (len(_HEADS) + 1)), *asked, ""),
            *("### Harder", "", _line([*_HEADS, *_BOUND]), _line(["---"] * (len(_HEADS) + len(_BOUND))), *harder, ""),
            f"{len(measured)} campaigns, {minutes:.0f} minutes of one core.",
        ]
    )


def _write_row(campaign: Campaign, row: dict[str, Any], *further: str) -> str:
    pairs = row["pairs"]
    return _line(
        [
            campaign.name,
            f"{campaign.streaks:.0%}",
            f"{campaign.orientation_error:g}°",
            f"{campaign.diffuse:.0%}",
            f"median, {row['components']}" if row["components"] else "median",
            *_write_score(pairs),
            f"{pairs['found']} of {pairs['diffuse']}, {pairs['wrong']} false",
            *_write_score(row["both"], interval=False),
            *_write_score(row["structure"]),
            *further,
        ]
    )


def _write_score(measured: dict[str, Any], *, interval: bool = True) -> list[str]:
    area, top = measured["area"], measured["top"]
    spread = f" ({_cut(area['low'])}–{_cut(area['high'])})" if interval else ""
    return [f"{_cut(area['value'])}{spread}", f"{top['value']:.2f}"]


def _cut(area: float) -> str:
    """Three digits, never rounded up: 0.9996 is no 1."""
    return f"{math.floor(area * 1000 + 1e-9) / 1000:.3f}"


def _judge(row: dict[str, Any]) -> str:
    """Which of the figures asked for are not met; nothing was asked where nuisances are left in."""
    if row["asked_components"] == 0:
        return ""
    is_met = {
        "pairs": row["pairs"]["area"]["value"] >= _ASKED["pairs"],
        "pairs in the top N": row["pairs"]["top"]["value"] >= _ASKED["pairs_top"],
        "structure": row["structure"]["area"]["value"] >= _ASKED["structure"],
    }
    return "met" if all(is_met.values()) else "not " + ", ".join(name for name, met in is_met.items() if not met)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def replace_block(text: str, tables: str) -> str:
    """Put the tables between the two comments of a page, in place of what is there."""
    before, _, rest = text.partition(_BEGIN)
    _, mark, after = rest.partition(_END)
    if not mark:
        raise SystemExit(f"the page lacks '{_BEGIN}' or '{_END}' behind it: put them where the tables shall be")
    return f"{before}{_BEGIN}\n{tables}\n{_END}{after}"


def main() -> None:
    """Measure what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--to", type=Path, required=True, help="folder for the figures of each campaign")
    parser.add_argument("--page", type=Path, default=_RESULTS, help="page with the tables, %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="campaigns at once, of one thread each")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="names of campaigns, if not all")
    chosen = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    campaigns = plan_campaigns()
    wanted = [campaign for campaign in campaigns if not chosen.only or campaign.name in chosen.only]
    run_campaigns(wanted, chosen.to, workers=chosen.workers)
    page = chosen.page.read_text(encoding="utf-8")
    chosen.page.write_text(replace_block(page, write_tables(campaigns, chosen.to)), encoding="utf-8")


if __name__ == "__main__":
    main()
