"""Compare methods with labels on simulated experiments, and write the tables of docs/results.md.

Usage: python benchmarks/methods.py --to build/methods [--data ../shared/data/cspad_sim_a]

Six crystals of one beam time make a campaign, half of which is trained on; each experiment is also tested by what was
trained on others. Frames, stores and features are kept under ``--to`` (about 15 GB), so that a run that was stopped
goes on; they do not know the code that made them: after a change of code give another folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from method_experiments import EXPERIMENTS, FRAMES, Store, prepare_campaign, prepare_experiment, prepare_other
from method_features import CARRIED_PICTURES, find_coordinates, find_label_free, gather_features, stack_features
from method_tables import write_tables

from diffdask.classification import draw_hits, find_values, measure_scores
from diffdask.learning_curve import find_label_curve
from diffdask.models.components import rotate_rows
from diffdask.models.coordinates import choose_coordinates
from diffdask.models.folds import Fold, make_folds
from diffdask.models.ranker import Ranker, score_folds

_RESULTS = Path(__file__).parents[1] / "docs" / "results.md"
_BEGIN, _END = "<!-- methods: begin -->", "<!-- methods: end -->"

#: Hits to train on and to test on, as the reference had.
_LABELS = 500

#: Scores of a method, (n,), and where predicted diffuse begins.
Scores = dict[str, tuple[np.ndarray, float]]

#: Strata of the diffuse hits; all non-diffuse ones are in each.
STRATA = {
    "all": ("strong", "medium", "weak"),
    "strong and medium": ("strong", "medium"),
    "strong": ("strong",),
    "medium": ("medium",),
    "weak": ("weak",),
}

#: Methods whose curves against the number of labels are drawn.
_CURVES = ("azimuthal, cleaned", "azimuthal + structure, cleaned", "VGG16, three channels, cleaned")

#: Features that are carried over from one experiment to another.
_CARRIED = (
    "azimuthal, as it is",
    "azimuthal, median out",
    "azimuthal, cleaned",
    "structure, as it is",
    "structure, median out",
    "structure, cleaned",
    "anisotropy",
    "azimuthal + structure, cleaned",
    *CARRIED_PICTURES,
)

#: What is measured, each into a file of its own.
PARTS = ("campaign", "other", "carried")

_SEED = 0


def ranker_for(method: str) -> Ranker:
    """The ranker of a method: the reference's 50 components for VGG16, the default for all else."""
    return Ranker(component_count=50 if "VGG16" in method else 20, engine="scikit-learn", seed=_SEED)


def score_methods(features: Mapping[str, np.ndarray], y: np.ndarray, run: np.ndarray, folds: Sequence[Fold]) -> Scores:
    """Score the tested hits of each fold by rankers trained on its other hits; NaN for the others."""
    found: Scores = {}
    for name, X in features.items():
        found[name] = score_folds(ranker_for(name), rotate_rows(X), y, folds, group=run), 0.5
        sys.stderr.write(f"{name}: AUC {find_values(*_known(y, found[name][0]))['area_under_roc']:.3f}\n")
    return found


def _known(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = np.isfinite(score)
    return y[known], score[known]


def measure_methods(scores: Scores, store: Store, tested: np.ndarray) -> dict[str, dict[str, Any]]:
    """Measures of all methods over the tested hits (rows), by stratum; draws are the same for all."""
    measured: dict[str, dict[str, Any]] = {}
    for stratum, tiers in STRATA.items():
        rows = tested[np.isin(store.tier[tested], (*tiers, "none"))]
        samples = draw_hits(rows.size, 1000, seed=_SEED)
        measured[stratum] = {
            name: measure_scores(
                store.y[rows], _fill(score[rows]), samples=samples, threshold=threshold, prevalence=0.05, seed=_SEED
            )
            for name, (score, threshold) in scores.items()
        }
        measured[stratum]["hits"] = int(rows.size)
    return measured


def _fill(score: np.ndarray) -> np.ndarray:
    """Hits that a method says nothing of count as its lowest."""
    known = score[np.isfinite(score)]
    return np.where(np.isfinite(score), score, known.min(initial=0.0) - 1.0)


# the campaign ----------------------------------------------------------------------------------------------


def measure_campaign(campaign: Store, crystals: Sequence[Store], *, on: str) -> dict[str, Any]:
    """Train on 500 hits of each crystal's first run, test on 500 of its second, by all methods."""
    fold = split_campaign(campaign)
    features = gather_features(campaign, on=on)
    scores = score_methods(features, campaign.y, campaign.run, [fold])
    scores |= _score_one_by_one(campaign, crystals, fold, on=on)
    return {
        "trained": int(fold[0].size),
        "tested": int(fold[1].size),
        "missed": campaign.missed,
        "rows": measure_methods(scores, campaign, fold[1]),
        "curves": {
            name: find_label_curve(
                rotate_rows(features[name]), campaign.y, campaign.run, ranker=ranker_for(name), seed=_SEED
            )
            for name in _CURVES
        },
    }


def split_campaign(campaign: Store) -> Fold:
    """Rows to train on, of odd runs, and to test on, of even ones; as many as the reference had, drawn at random."""
    random = np.random.default_rng(_SEED)
    parts = (np.flatnonzero(campaign.run % 2 == 1), np.flatnonzero(campaign.run % 2 == 0))
    train, test = (np.sort(random.permutation(part)[:_LABELS]) for part in parts)
    return train, test


def _score_one_by_one(campaign: Store, crystals: Sequence[Store], fold: Fold, *, on: str) -> Scores:
    """Methods that compare hits of one crystal: the diffusion map's ranker, and all without labels."""
    found: dict[str, np.ndarray] = {}
    limits: dict[str, float] = {"diffusion map, a ranker a crystal": 0.5}
    for number, one in enumerate(crystals, start=1):
        own = campaign.run // 10 == number
        place = dict(zip(_keys(campaign, own), np.flatnonzero(own).tolist(), strict=True))
        rows = np.array([place[key] for key in _keys(one, np.ones(one.y.size, bool))])
        for name, (score, limit) in find_label_free(one, on=on).items():
            found.setdefault(name, np.full(campaign.y.size, np.nan))[rows] = score
            limits[name] = limit
        within = [(np.flatnonzero(np.isin(rows, fold[0])), np.flatnonzero(np.isin(rows, fold[1])))]
        score = score_coordinates(find_coordinates(one), one.y, None, within)
        found.setdefault("diffusion map, a ranker a crystal", np.full(campaign.y.size, np.nan))[rows] = score
    return {name: (found[name], limits[name]) for name in limits}


def score_coordinates(X: np.ndarray, y: np.ndarray, run: np.ndarray | None, folds: Sequence[Fold]) -> np.ndarray:
    """Scores, (n,), from as many diffusion coordinates as the training hits of each fold find best."""
    score, ranker = np.full(y.size, np.nan), ranker_for("")
    for train, test in folds:
        group = None if run is None else run[train]
        count = choose_coordinates(ranker, X[train], y[train], seed=_SEED, group=group)
        score[test] = score_folds(ranker, X[:, :count], y, [(train, test)], group=run)[test]
    return score


def _keys(store: Store, chosen: np.ndarray) -> list[tuple[int, int]]:
    """Run of the crystal and number in its file: the same in a store of one crystal and in that of all."""
    return list(zip((store.run[chosen] % 10).tolist(), store.index[chosen].tolist(), strict=True))


# an independent renderer, and other experiments -------------------------------------------------------------


def measure_other(store: Store, *, on: str) -> dict[str, Any]:
    """All methods on one store in folds by run."""
    folds = make_folds(store.y, fold_count=4, seed=_SEED, group=store.run)
    scores = score_methods(gather_features(store, on=on), store.y, store.run, folds)
    label_free = find_label_free(store, on=on)
    scores["diffusion map"] = score_coordinates(find_coordinates(store), store.y, store.run, folds), 0.5
    rows = measure_methods(scores | label_free, store, np.arange(store.y.size))
    return {"tested": int(store.y.size), "folds": len(folds), "rows": rows}


def measure_carried(stores: Sequence[Store], *, on: str) -> dict[str, Any]:
    """Train on all experiments but one and test on that, and train on one and test on each other."""
    stacked = stack_features([gather_features(store, pictures=CARRIED_PICTURES, on=on) for store in stores])
    y = np.concatenate([store.y for store in stores])
    owner = np.repeat(np.arange(len(stores)), [store.y.size for store in stores])
    run = 100 * owner + np.concatenate([store.run for store in stores])
    left_out = [(np.flatnonzero(owner != one), np.flatnonzero(owner == one)) for one in range(len(stores))]
    found: dict[str, Any] = {"names": [store.name for store in stores], "hits": int(y.size), "methods": {}}
    pairs = list(enumerate(left_out))
    is_weak = np.concatenate([store.tier for store in stores]) == "weak"
    for name in [name for name in _CARRIED if name in stacked]:
        X = rotate_rows(stacked[name])
        from_all = score_folds(ranker_for(name), X, y, left_out, group=run)
        from_one = [score_folds(ranker_for(name), X, y, [fold[::-1]], group=run) for fold in left_out]
        found["methods"][name] = {
            "left_out": [_measure_some(y, from_all, test, is_weak) for _, test in left_out],
            "from_one": [
                [_measure_some(y, score, test, is_weak) if one != other else None for other, (_, test) in pairs]
                for one, score in enumerate(from_one)
            ],
        }
        sys.stderr.write(f"{name} carried over\n")
    found["methods"]["label-free score"] = {"left_out": measure_label_free(stores, on=on), "from_one": []}
    return found


def measure_label_free(stores: Sequence[Store], *, on: str) -> list[dict[str, Any]]:
    """Values of the label-free score of each experiment: nothing has to be carried over."""
    found = []
    for store in stores:
        score, threshold = find_label_free(store, on=on)["label-free score"]
        everything = np.arange(store.y.size)
        found.append(_measure_some(store.y, _fill(score), everything, store.tier == "weak", threshold=threshold))
    return found


def _measure_some(
    y: np.ndarray, score: np.ndarray, rows: np.ndarray, is_weak: np.ndarray, *, threshold: float = 0.5
) -> dict[str, Any]:
    """Values of some hits, and of those of them that are not weak."""
    clear = rows[~is_weak[rows]]
    values = find_values(y[rows], score[rows], threshold=threshold)
    return {**values, "without_weak": find_values(y[clear], score[clear], threshold=threshold)}


# runs ------------------------------------------------------------------------------------------------------


def main() -> None:
    """Prepare what is missing, measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--to", type=Path, required=True, help="folder for frames, stores, features and figures")
    parser.add_argument("--data", type=Path, default=None, help="folder of an independent simulation, cspad_sim_a")
    parser.add_argument("--page", type=Path, default=_RESULTS, help="page with the tables, %(default)s")
    parser.add_argument("--frames", type=int, default=FRAMES, help="frames of a run, %(default)s")
    parser.add_argument("--on", default="threads", help="where verbs run, %(default)s")
    parser.add_argument("--only", nargs="*", default=PARTS, choices=PARTS, help="parts, if not all")
    chosen = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for part in chosen.only:
        path = chosen.to / f"{part}.json"
        if not path.exists():
            measured = _measure(part, chosen.to, chosen.data, frames=chosen.frames, on=chosen.on)
            path.write_text(json.dumps(measured, indent=1), encoding="utf-8")
    found = [part for part in PARTS if (chosen.to / f"{part}.json").exists()]
    figures = {part: json.loads((chosen.to / f"{part}.json").read_text(encoding="utf-8")) for part in found}
    page = chosen.page.read_text(encoding="utf-8")
    chosen.page.write_text(_replace_block(page, write_tables(figures)), encoding="utf-8")


def _measure(part: str, folder: Path, data: Path | None, *, frames: int, on: str) -> dict[str, Any]:
    """Prepare and measure one part; a part that rests on other data without them is not there."""
    if part == "other":
        return measure_other(prepare_other(data, folder, on=on), on=on) if data else {}
    stores = [prepare_experiment(one, folder, frames=frames, on=on) for one in EXPERIMENTS]
    if part == "carried":
        return measure_carried([*stores, *([prepare_other(data, folder, on=on)] if data else [])], on=on)
    crystals = [store for one, store in zip(EXPERIMENTS, stores, strict=True) if one.in_campaign]
    campaign = prepare_campaign([one for one in EXPERIMENTS if one.in_campaign], folder, frames=frames, on=on)
    return measure_campaign(campaign, crystals, on=on)


def _replace_block(text: str, tables: str) -> str:
    """Put the tables between the two comments of a page, in place of what is there."""
    before, _, rest = text.partition(_BEGIN)
    _, mark, after = rest.partition(_END)
    if not mark:
        raise SystemExit(f"the page lacks '{_BEGIN}' or '{_END}' behind it: put them where the tables shall be")
    return f"{before}{_BEGIN}\n{tables}\n{_END}{after}"


if __name__ == "__main__":
    main()
