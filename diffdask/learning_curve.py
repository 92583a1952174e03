"""How good a ranker gets with the number of labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffdask.classification import FIGURES, draw_hits, find_values
from diffdask.errors import BadLabels, BadParameter
from diffdask.models.components import rotate_rows
from diffdask.models.folds import MEMBERS, Fold, make_folds
from diffdask.models.ranker import Ranker, score_folds

_log = logging.getLogger(__name__)

#: Numbers of labels: from a first look to what the reference had.
COUNTS = (10, 20, 50, 100, 200, 500)

#: What the curve tells.
CURVES = ("area_under_roc", "precision_in_top", *FIGURES)

_SHOWN = ("area_under_roc", "precision_in_top", "overall")


def find_label_curve(
    X: np.ndarray,
    y: np.ndarray,
    run: np.ndarray | None,
    *,
    counts: Sequence[int] = COUNTS,
    repeats: int = 5,
    ranker: Ranker | None = None,
    fold_count: int = 5,
    bootstrap: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Train on few labels, test on hits of other runs, and repeat with other labels.

    Parameters
    ----------
    X, y
        (n, f) features, finite, and (n,) labels 0 and 1.
    run
        (n,) what folds must not split; None to deal hits one by one.
    counts
        Labels to train on, at least ten: drawn at random from the training hits of each fold, at their share of
        diffuse, five of a class at least. Counts above what the smallest training part has are left out.
    repeats
        Draws of labels for each count.
    ranker
        Whose parameters to use; None for the defaults.
    fold_count, seed
        Of the folds, the same for all counts.
    bootstrap
        Samples of hits for the intervals, dealt among the repeats: they hold the chance of the hits tested and of
        the labels drawn.

    Returns
    -------
    dict
        JSON-able: ``labels``, the counts; ``left_out``, counts that there were too few hits for; ``hits``,
        ``diffuse``, ``repeats``, ``folds_by`` and ``seed``; and for each of ``CURVES`` a dict of lists ``value`` (mean
        over repeats), ``low`` and ``high`` (95 %).

    Raises
    ------
    BadLabels
        If there are too few labelled hits for any count.
    BadParameter
        If a count is below ten.
    """
    if min(counts) < 2 * MEMBERS:
        raise BadParameter(f"counts of {min(counts)} labels: a ranker needs at least {2 * MEMBERS}")
    y, ranker = np.asarray(y), ranker or Ranker(engine="scikit-learn", seed=seed)
    X = X if ranker.standardise else rotate_rows(np.asarray(X, dtype=float))  # once for all fits
    folds = make_folds(y, fold_count=fold_count, seed=seed, group=run)
    kept, left_out = _keep_counts(counts, min(train.size for train, _ in folds))
    trial = _Trial(X, y, run, folds, ranker, draw_hits(y.size, bootstrap, seed=seed), repeats, seed)
    points = [trial.find_point(count) for count in kept]
    curves = {
        name: {part: [point[name][part] for point in points] for part in ("value", "low", "high")} for name in CURVES
    }
    told = {"hits": int(y.size), "diffuse": int(y.sum()), "folds_by": "hit" if run is None else "run", "seed": seed}
    return {"labels": kept, "left_out": left_out, "repeats": repeats, **told, **curves}


def format_label_curve(curve: dict[str, Any]) -> str:
    """Write a curve as a Markdown table, a row a number of labels."""
    lines = ["| labels | AUC | top N | overall |", "|---|---|---|---|"]
    for i, count in enumerate(curve["labels"]):
        cells = [_cell(curve[name], i, is_share=name != "area_under_roc") for name in _SHOWN]
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw_labels(y: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Draw ``count`` rows at the share of diffuse among them all, ``MEMBERS`` of each class at least."""
    diffuse, other = (random.permutation(np.flatnonzero(y == label)) for label in (1, 0))
    wanted = round(count * diffuse.size / y.size)
    taken = int(np.clip(wanted, max(MEMBERS, count - other.size), min(diffuse.size, count - MEMBERS)))
    return np.sort(np.concatenate([diffuse[:taken], other[: count - taken]]))


def _cell(one: dict[str, list[float | None]], i: int, *, is_share: bool) -> str:
    known = [value for value in (one["value"][i], one["low"][i], one["high"][i]) if value is not None]
    if len(known) < 3:
        return "none"
    value, low, high = (f"{100 * number:.1f}" if is_share else f"{number:.3f}" for number in known)
    return f"{value} ({low}–{high})"


def _keep_counts(counts: Sequence[int], most: int) -> tuple[list[int], list[int]]:
    """Counts, rising, that there are hits enough for, and those that there are not."""
    wanted = sorted(set(counts))
    kept, left_out = [count for count in wanted if count <= most], [count for count in wanted if count > most]
    if not kept:
        raise BadLabels(f"{most} hits are left to train on; a curve from {min(counts)} labels needs more")
    if left_out:
        _log.debug("%d hits are left to train on: no point of the curve at %s", most, ", ".join(map(str, left_out)))
    return kept, left_out


@dataclass(frozen=True)
class _Trial:
    """What all points of a curve have in common."""

    X: np.ndarray  #: (n, f)
    y: np.ndarray  #: (n,) 0 and 1
    run: np.ndarray | None  #: (n,)
    folds: Sequence[Fold]
    ranker: Ranker
    samples: Sequence[np.ndarray]  #: rows of each draw of the bootstrap
    repeats: int
    seed: int

    def find_point(self, count: int) -> dict[str, dict[str, float | None]]:
        """Measures at one number of labels, over repeats."""
        repeated, drawn = [], []
        for repeat in range(self.repeats):
            score = self._score(count, np.random.default_rng([self.seed, count, repeat]))
            repeated.append(_values(self.y, score))
            drawn += [_values(self.y[rows], score[rows]) for rows in self.samples[repeat :: self.repeats]]
        return {name: _summarise(np.array(repeated)[:, i], np.array(drawn)[:, i]) for i, name in enumerate(CURVES)}

    def _score(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Scores of all hits, (n,), by rankers that had ``count`` labels of other folds."""
        fewer = [(train[draw_labels(self.y[train], count, random)], test) for train, test in self.folds]
        return score_folds(self.ranker, self.X, self.y, fewer, group=self.run)


def _values(y: np.ndarray, score: np.ndarray) -> list[float]:
    found = find_values(y, score)
    return [found[name] for name in CURVES]


def _summarise(repeated: np.ndarray, drawn: np.ndarray) -> dict[str, float | None]:
    """Mean and interval of what is known; None where nothing is."""
    repeated, drawn = repeated[np.isfinite(repeated)], drawn[np.isfinite(drawn)]
    if not repeated.size or not drawn.size:
        return {"value": None, "low": None, "high": None}
    mean = float(repeated.mean())
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {"value": mean, "low": float(min(low, mean)), "high": float(max(high, mean))}
