"""The verb ``methods``: all ways to tell diffuse hits, held against the same labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffdask.classification import warn_of_weights
from diffdask.errors import BadLabels, BadParameter, BadStore, nearest
from diffdask.io.frames_store import frames_attributes, take_columns
from diffdask.io.paths import as_store
from diffdask.io.results_store import frames_path, open_features, open_screen
from diffdask.io.whole_file import whole_file
from diffdask.learning_curve import COUNTS, find_label_curve
from diffdask.method_comparison import compare_methods, find_complete
from diffdask.methods_table import KIND
from diffdask.models.chance import standardise_scores
from diffdask.models.ranker import Ranker
from diffdask.pipeline.features import take_features
from diffdask.pipeline.halo_scores import score_by_haloes
from diffdask.pipeline.scores import (
    SIGNIFICANT,
    HitScores,
    score_by_consistency,
    score_by_pairs,
    score_by_structure,
    score_label_free,
)
from diffdask.pipeline.train import choose_groups
from diffdask.pipeline.training_labels import LABEL_FREE, find_training_hits
from diffdask.version import __version__

#: Feature sets that are tried where none are named: those that every hit has.
_FEATURES = ("azimuthal", "structure", "anisotropy", "azimuthal+structure", "vgg16", "azimuthal+vgg16")

#: Scores likewise.
_SCORES = ("label-free", "pairs", "map-consistency", "structure", "anisotropy")

#: Sets of features that come in order of importance.
_ORDERED = ("diffusion-map",)

#: Behind the names of rows.
_NO_LABELS, _RANDOM = ", no labels", " [RANDOM WEIGHTS]"


def methods(
    results: str | Path,
    *,
    labels: str | Path,
    to: str | Path,
    features: Sequence[str] = (),
    scores: Sequence[str] = (),
    similarity: str = "common-arc",
    counts: Sequence[int] = COUNTS,
    repeats: int = 5,
    prevalence: float = 0.05,
    top: int | None = None,
    component_count: int = 20,
    C: float = 0.0,
    standardise: bool = False,
    fold_count: int = 5,
    fold_by: str = "run",
    bootstrap: int = 1000,
    draw_runs: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Hold all ways to tell diffuse hits against the same labels, in one table, and each against the number of labels.

    Rankers are trained and tested in the same folds of the same hits; no hit is scored by a ranker that has seen its
    run. Scores that need no label stand beside, and the figures of the study of 2018.

    Parameters
    ----------
    results
        The results store, screened; compared, searched and extracted for what needs that.
    labels
        CSV of labels, as for ``train``; blanks take no part.
    to
        JSON file to write; ``report --methods`` shows it.
    features
        Feature sets, or unions of them, each as for ``train``: "azimuthal", "structure", "anisotropy",
        "diffusion-map", "vgg16", "azimuthal+vgg16". None for all that are there and that every hit has.
    scores
        Scores that need no labels: "label-free", "pairs", "map-consistency", "structure", "haloes", as for ``rank``,
        and "anisotropy". None for all that are there and that every hit has.
    similarity
        Of the diffusion map: "common-arc", "correlation" or "euclidean".
    counts
        Numbers of labels of the label curve; those that there are too few hits for are left out.
    repeats
        Draws of labels for each of its points; 0 for no label curve.
    prevalence
        Share of diffuse among the hits where a method will be used, for the precision there.
    top
        Precision among this many best hits; None for as many as are diffuse.
    component_count, C, standardise
        Of the rankers, as for ``train``.
    fold_count
        Folds.
    fold_by
        What they keep together: "run"; "hit" deals hits one by one, and flatters; "auto" is "run" where there are
        runs enough.
    bootstrap
        Draws for the intervals.
    draw_runs
        Draw whole runs: right where there are many.
    seed
        Of folds, draws of labels, and draws for the intervals.

    Returns
    -------
    dict
        What is in the file: ``comparison``, ``curves`` (feature set to its label curve), ``left_out`` (method to why),
        ``warnings``, and the parameters.

    Raises
    ------
    BadLabels
        If there are too few labels, or runs.
    BadParameter
        If a method is not known.
    BadStore
        If one that is named is not there yet.
    """
    tried = _collect(as_store(results), features, scores, similarity=similarity, seed=seed)
    rows, y, run = _find_labelled(as_store(results), labels, fold_by, fold_count=fold_count, seed=seed)
    tried = tried.of_hits(rows)
    ranker = Ranker(component_count, C, engine="scikit-learn", standardise=standardise, seed=seed)
    folds: dict[str, Any] = {"ranker": ranker, "fold_count": fold_count, "seed": seed}
    drawn: dict[str, Any] = {"prevalence": prevalence, "top": top, "bootstrap": bootstrap, "draw_runs": draw_runs}
    comparison = compare_methods(tried.features, y, run, scores=tried.scores, ordered=_ORDERED, **drawn, **folds)
    is_there = tried.find_complete(y.size)
    group = None if run is None else run[is_there]
    curves = {
        name: find_label_curve(X[is_there], y[is_there], group, counts=counts, repeats=repeats, **folds)
        for name, X in tried.features.items()
        if repeats
    }
    made = {
        "kind": KIND,
        "version": __version__,
        "frames_identity": str(frames_attributes(frames_path(results))["identity"]),
        "parameters": {"labels": str(labels), "similarity": similarity, "fold_by": fold_by, **ranker.get_params()},
        "comparison": comparison,
        "curves": curves,
        "without_labels": list(tried.scores),
        "left_out": tried.left_out,
        "warnings": tried.warnings,
    }
    with whole_file(to) as partial:
        partial.write_text(json.dumps(made, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return made


@dataclass(frozen=True)
class _Tried:
    """Methods that are tried, by name."""

    features: dict[str, np.ndarray]  #: (n, f), not the same f for all
    scores: dict[str, tuple[np.ndarray, float]]  #: (n,) and the threshold of diffuse
    left_out: dict[str, str]  #: those that were not named and are not there, and why
    warnings: list[str]

    def of_hits(self, rows: np.ndarray) -> _Tried:
        """The same for some of the hits."""
        features = {name: values[rows] for name, values in self.features.items()}
        scores = {name: (values[rows], threshold) for name, (values, threshold) in self.scores.items()}
        return _Tried(features, scores, self.left_out, self.warnings)

    def find_complete(self, count: int) -> np.ndarray:
        """Hits, (n,), that every method can speak of."""
        return find_complete({**self.features, **{name: one for name, (one, _) in self.scores.items()}}, count)


def _collect(
    results: str | Path, features: Sequence[str], scores: Sequence[str], *, similarity: str, seed: int
) -> _Tried:
    """Take features and scores of all hits; what is not there is left out where nothing was named."""
    tried = _Tried({}, {}, {}, [])

    def take(name: str) -> None:
        found = take_features(results, features=name, similarity=similarity)
        warning = warn_of_weights(found.made_with.get("weights"))
        told = f"{name}{_RANDOM}" if warning else name
        tried.features[told] = found.values
        if warning and warning not in tried.warnings:
            tried.warnings.append(warning)

    def score(name: str) -> None:
        found = _score(results, name, seed)
        tried.scores[f"{name}{_NO_LABELS}"] = found.columns["frame_score"], float(found.attributes["threshold"])

    for named, known, add in ((features, _FEATURES, take), (scores, _SCORES, score)):
        for name in _listed(named) or known:
            try:
                add(name)
            except BadStore as error:
                if named:
                    raise
                tried.left_out[name if add is take else f"{name}{_NO_LABELS}"] = str(error)
    return tried


def _listed(named: Sequence[str]) -> list[str]:
    """Names, of which a job may give one as a text."""
    return [named] if isinstance(named, str) else list(named)


def _score(results: str | Path, name: str, seed: int) -> HitScores:
    """Scores that need no labels.

    Raises
    ------
    BadParameter
        If they are not known.
    BadStore
        If what they are made from is not there.
    """
    ways: dict[str, Callable[[], HitScores]] = {
        "label-free": lambda: score_label_free(results, seed=seed),
        "pairs": lambda: score_by_pairs(results, seed=seed),
        "map-consistency": lambda: score_by_consistency(results, seed=seed),
        "structure": lambda: score_by_structure(results),
        "haloes": lambda: score_by_haloes(results),
        "anisotropy": lambda: _score_by_anisotropy(results),
    }
    if name not in ways:
        raise BadParameter(f"scores '{name}' are not known; {nearest(name, ways)}")
    return ways[name]()


def _score_by_anisotropy(results: str | Path) -> HitScores:
    """The overall anisotropy, by our definition, in robust standard deviations of all hits."""
    hit_frame = open_features(results).hit_frame.values
    score = standardise_scores(open_screen(results).frame_anisotropy.values[hit_frame])
    source = np.full(score.size, "anisotropy", dtype=object)
    return HitScores(hit_frame, source, {"frame_score": score}, {"threshold": SIGNIFICANT})


def _find_labelled(
    results: str | Path, labels: str | Path, fold_by: str, *, fold_count: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Rows of the labelled hits, their labels 0 and 1, and what folds keep together."""
    if str(labels) == LABEL_FREE:
        raise BadLabels("methods are held against a person's labels: give a CSV file")
    hit_frame = open_features(results).hit_frame.values
    rows, y = find_training_hits(results, labels, hit_frame, seed=seed)
    run = take_columns(frames_path(results), hit_frame[rows], columns=("run",)).run.values
    return rows, y, choose_groups(y, run, fold_by, fold_count=fold_count, seed=seed)
