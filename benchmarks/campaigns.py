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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from campaign_evidence import Campaign, Evidence, clean_hits, gather_evidence, simulate_campaign

from diffdask.kernels.agreement import area_under_roc, measure_area, measure_top
from diffdask.models.orientation_grid import judge_orientations
from diffdask.pipeline.scores import PROBABLE, SIGNIFICANT

_RESULTS = Path(__file__).parents[1] / "docs" / "results.md"
_BEGIN, _END = "<!-- campaigns: begin -->", "<!-- campaigns: end -->"

_DRAWS = 1000

#: What was asked of the label-free score where nuisances are taken out: area under the curve, and top N.
_ASKED, _ASKED_MISINDEXED, _ASKED_HALF = (0.995, 0.95), (0.985, 0.93), (0.97, 0.0)

#: By how much the area of the label-free score may be below that of the best kind of evidence.
_MAY_LOSE = 0.01

#: Kinds of evidence, in the order of the table.
_KINDS = ("structure", "pairs", "consistency", "search")


def plan_campaigns() -> list[Campaign]:
    """All campaigns of the page, in its order; the seeds are here and nowhere else."""
    lm = Campaign("liquid-like, mmm", 101, "liquid-like", "mmm", 0.15, asked=_ASKED)
    lt = Campaign("liquid-like, 4/mmm", 102, "liquid-like", "4/mmm", 0.30, asked=_ASKED)
    lh = Campaign("liquid-like, 6/m", 103, "liquid-like", "6/m", 0.15, asked=_ASKED)
    rm = Campaign("rigid-body, mmm", 104, "rigid-body", "mmm", 0.30, asked=_ASKED)
    rt = Campaign("rigid-body, 4/mmm", 105, "rigid-body", "4/mmm", 0.15, asked=_ASKED)
    rh = Campaign("rigid-body, 6/m", 106, "rigid-body", "6/m", 0.30, asked=_ASKED)
    lowest = Campaign("liquid-like, 2/m", 107, "liquid-like", "2/m", 0.30, asked=_ASKED)
    misindexed = [_vary(one, "10% misindexed", misindexed=0.1, asked=_ASKED_MISINDEXED) for one in (lt, lh, rm)]
    half = [_vary(one, "half not indexed", indexed=0.5, asked=_ASKED_HALF) for one in (lm, rh)]
    return [lm, lt, lh, rm, rt, rh, lowest, *misindexed, *half, *_plan_harder(lm, lt, rm)]


def _plan_harder(lm: Campaign, lt: Campaign, rm: Campaign) -> list[Campaign]:
    """Campaigns that go on from those asked for until something breaks."""
    weak, weaker = (0.011,), (0.0055,)
    return [
        *(_vary(lt, f"{share:.0%} diffuse", diffuse=share) for share in (0.02, 0.01)),
        _vary(lm, "1°", orientation_error=1.0),
        _vary(lt, "10°", orientation_error=10.0),
        _vary(lt, "weak only", strengths=weak),
        _vary(lt, "weak only, median alone", strengths=weak, cleanings=(0,)),
        _vary(lt, "weak only, 1% diffuse", strengths=weak, diffuse=0.01),
        *(_vary(one, "half of weak", strengths=weaker) for one in (lt, rm)),
        _vary(lt, "all misindexed", misindexed=1.0),
        Campaign("haloes, mmm", 108, "long-correlation", "mmm", 0.15),
    ]


def _vary(campaign: Campaign, how: str, **changes: Any) -> Campaign:
    """The same experiment and the same dice, changed in what is named; not asked for, and cleaned, unless said."""
    changes = {"cleanings": ("auto",), "asked": None, **changes}
    return replace(campaign, name=f"{campaign.name}, {how}", **changes)


# figures ---------------------------------------------------------------------------------------------------


def measure_campaign(campaign: Campaign) -> list[dict[str, Any]]:
    """Simulate a campaign, score its hits without labels, and measure the scores: a dict for each cleaning."""
    hits = simulate_campaign(campaign)
    is_diffuse, strength = hits.is_diffuse.values, hits.strength.values
    rows = []
    for components in campaign.cleanings:
        cleaned, taken_out = clean_hits(hits, components)
        measured = _measure_evidence(gather_evidence(hits, cleaned), is_diffuse, strength)
        rows.append({"asked_components": components, "components": taken_out, **measured})
    return rows


def _measure_evidence(evidence: Evidence, is_diffuse: np.ndarray, strength: np.ndarray) -> dict[str, Any]:
    label_free = evidence.label_free
    scores = {name: getattr(evidence, name) for name in (*_KINDS, "bound")} | {"label_free": label_free.score_}
    measured: dict[str, Any] = {name: _measure_score(score, is_diffuse, strength) for name, score in scores.items()}
    # Each kind is held against the label-free score of the very hits that have it.
    measured["ahead"] = {
        name: _area(label_free.score_, is_diffuse, scores[name]) - _area(scores[name], is_diffuse, scores[name])
        for name in _KINDS
    }
    is_agreeing = evidence.consistency >= SIGNIFICANT
    measured["picks"] = _measure_picks(label_free.probability_ >= PROBABLE, label_free.expected_wrong_, is_diffuse)
    measured["agreeing"] = _measure_picks(is_agreeing, evidence.false_discovery, is_diffuse)
    measured["oriented"] = {
        name: judge_orientations(evidence.found[some], evidence.true[some], evidence.symmetry.rotations)
        for name, some in _group_hits(is_diffuse, strength, np.isfinite(evidence.pairs)).items()
    }
    return measured


def _group_hits(is_diffuse: np.ndarray, strength: np.ndarray, is_indexed: np.ndarray) -> dict[str, np.ndarray]:
    """Diffuse hits, all and in parts."""
    parts = {f"{tier:g}": is_diffuse & (strength == tier) for tier in np.unique(strength[is_diffuse])}
    return {"all": is_diffuse, "not indexed": is_diffuse & ~is_indexed, **parts}


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
        "diffuse": int(positive.size),
        "non_diffuse": int(negative.size),
    }


def _area(score: np.ndarray, is_diffuse: np.ndarray, other: np.ndarray) -> float:
    """Area under the curve over the hits that another score is known of."""
    known = np.isfinite(other)
    return area_under_roc(score[known & is_diffuse], score[known & ~is_diffuse])


def _measure_picks(is_picked: np.ndarray, promised: np.ndarray, is_diffuse: np.ndarray) -> dict[str, Any]:
    """Count hits that are picked, and hold the share of wrong ones that is promised for them against the true one."""
    count, wrong = int(is_picked.sum()), int((is_picked & ~is_diffuse).sum())
    return {
        "count": count,
        "wrong": wrong,
        "diffuse": int(is_diffuse.sum()),
        "promised": float(np.nanmax(promised[is_picked])) if count else 0.0,
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
                sys.stdout.write(f"{_write_scores(campaign, row)}\n{_write_promises(campaign, row)} {seconds:.0f} s\n")
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

_SCORES = (
    *("campaign", "taken out", *_KINDS, "label-free, area", "top N"),
    *("against the best", "bound, area", "top N", "asked"),
)

_PROMISES = (
    *("campaign", "label-free picks", "wrong, promised", "wrong, true", "consistency picks", "wrong, promised"),
    *("wrong, true", "orientations right", "of not indexed", "median angle"),
)


def write_tables(campaigns: Iterable[Campaign], folder: Path) -> str:
    """Write the tables of all campaigns that are measured."""
    measured = [(campaign, found) for campaign in campaigns if (found := _read_figures(campaign, folder)) is not None]
    rows = [(campaign, row) for campaign, found in measured for row in found["rows"]]
    minutes = sum(found["cpu_seconds"] for _, found in measured) / 60
    return "\n".join(
        [
            *("### How well hits are ranked", "", _line(_SCORES), _line(["---"] * len(_SCORES))),
            *(_write_scores(campaign, row) for campaign, row in rows),
            *("", "### What is promised, and what is oriented", ""),
            *(_line(_PROMISES), _line(["---"] * len(_PROMISES))),
            *(_write_promises(campaign, row) for campaign, row in rows),
            *("", f"{len(measured)} campaigns, {minutes:.0f} minutes of one core."),
        ]
    )


def _write_scores(campaign: Campaign, row: dict[str, Any]) -> str:
    """Areas, of each kind over the hits that have it."""
    kinds = (_cut(row[name]["area"]["value"]) for name in _KINDS)
    label_free, bound = row["label_free"], row["bound"]
    area = label_free["area"]
    return _line(
        [
            campaign.name,
            f"median, {row['components']}" if row["components"] else "median",
            *kinds,
            f"{_cut(area['value'])} ({_cut(area['low'])}–{_cut(area['high'])})",
            f"{label_free['top']['value']:.2f}",
            f"{min(row['ahead'].values()):+.3f}",
            _cut(bound["area"]["value"]),
            f"{bound['top']['value']:.2f}",
            _judge(campaign, row),
        ]
    )


def _write_promises(campaign: Campaign, row: dict[str, Any]) -> str:
    """What picks and orientations came to."""
    oriented = row["oriented"]
    return _line(
        [
            campaign.name,
            *_write_picks(row["picks"]),
            *_write_picks(row["agreeing"]),
            *(_write_share(oriented[name][0]) for name in ("all", "not indexed")),
            "–" if math.isnan(oriented["all"][1]) else f"{oriented['all'][1]:.1f}°",
        ]
    )


def _write_picks(picks: dict[str, Any]) -> list[str]:
    right, count = picks["count"] - picks["wrong"], picks["count"]
    if not count:
        return [f"0 of {picks['diffuse']}", "–", "–"]
    share = picks["wrong"] / count
    return [f"{right} of {picks['diffuse']}, {picks['wrong']} false", f"{picks['promised']:.1%}", f"{share:.1%}"]


def _write_share(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.0%}"


def _cut(area: float) -> str:
    """Three digits, never rounded up: 0.9996 is no 1."""
    return f"{math.floor(area * 1000 + 1e-9) / 1000:.3f}"


def _judge(campaign: Campaign, row: dict[str, Any]) -> str:
    """Which of the figures asked for are not met; nothing was asked where nuisances are left in."""
    if campaign.asked is None or row["asked_components"] == 0:
        return ""
    is_met = {
        "area": row["label_free"]["area"]["value"] >= campaign.asked[0],
        "top N": row["label_free"]["top"]["value"] >= campaign.asked[1],
        "the best": min(row["ahead"].values()) >= -_MAY_LOSE,
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
