"""How good the hits and the ranking are, against a person's labels.

A labelled frame is predicted *blank* if the screen found no hit, else
*diffuse* if its score is at least the threshold of the method that made it
(one half for probabilities), else *non-diffuse*. Every number comes as a
measure: its value, a 95 % interval, and the count it rests on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdask.catalogue import catalogue_table
from diffdask.classification import FIGURES, draw_hits, measure_scores, refer_to, warn_of_weights
from diffdask.errors import BadParameter
from diffdask.io.labels import read_labels
from diffdask.kernels.agreement import (
    Measure,
    confusion_matrix,
    measure_area,
    measure_likelihood,
    measure_precision,
    measure_proportion,
    measure_top,
)
from diffdask.variables import LABELS, STATUS_OK

if TYPE_CHECKING:
    import pandas as pd

#: A hit with at least this score is predicted diffuse, where scores do not come with their own threshold.
THRESHOLD = 0.5

#: Prevalence always reported: about 1 hit in 20 is diffuse in a real campaign.
USUAL_PREVALENCE = 0.05

_DIFFUSE, _NON_DIFFUSE, _BLANK = LABELS

_OWN_PREVALENCE = "share of diffuse among the frames labelled as hits"

#: What to know of scores that are cross-fitted, are not, or do not say so.
_NOTES = {
    True: "scores of frames that trained the ranker are out of fold: no model judged a frame whose label it had seen",
    False: "the ranker has seen the labels of the frames that trained it: their scores look too good",
    None: "no label had a part in the scores",
}

#: What it takes of the catalogue.
_COLUMNS = ("frame_id", "run", "frame_status", "frame_is_hit", "frame_score")

_BY_RUN = "scores of frames that trained the ranker are out of fold: no model judged a frame of a run it had seen"


def evaluate(
    results: str | Path,
    *,
    labels: str | Path,
    prevalence: float | None = None,
    top: int | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare the hits and the scores of a results store with labels.

    Parameters
    ----------
    results
        The results store; without scores only hits are compared with blanks.
    labels
        CSV of labels.
    prevalence
        Share of diffuse among the hits where the ranking will be used; None for
        the share among the labels.
    top
        Precision among this many best frames; None for as many as are labelled diffuse.
    bootstrap
        Random draws for the intervals that have no formula.
    seed
        Of those draws.

    Returns
    -------
    dict
        As :func:`evaluate_table`.

    Raises
    ------
    BadLabels
        If the labels cannot be used.
    BadParameter
        If a parameter is out of range.
    """
    table = catalogue_table(results, columns=_COLUMNS)
    given = read_labels(labels, table["frame_id"].tolist())
    return evaluate_table(table, given, prevalence=prevalence, top=top, bootstrap=bootstrap, seed=seed)


def evaluate_table(
    table: pd.DataFrame,
    labels: pd.Series,
    *,
    prevalence: float | None = None,
    top: int | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare a catalogue with labels.

    Parameters
    ----------
    table
        The catalogue: ``run``, ``frame_is_hit``, ``frame_status`` and, once ranked, ``frame_score``.
    labels
        Label of the labelled frames, indexed as the catalogue.
    prevalence, top, bootstrap, seed
        As in :func:`evaluate`.

    Returns
    -------
    dict
        JSON-able. A number that cannot be had is None. Without any score what
        needs one is None, and ``next`` says what to run. ``hits_only`` is the reference's Table I: labelled hits of
        both classes that the screen found and that have a score.

    Notes
    -----
    True and false positive rate count a diffuse frame that the screen lost as
    missed. The precision at a prevalence is that among hits: blanks taken for
    hits show in the confusion matrix, not there.
    """
    _check(prevalence, top, bootstrap)
    label = labels.to_numpy(dtype=object)
    chosen = table.loc[labels.index]
    is_hit = chosen["frame_is_hit"].fillna(False).to_numpy(dtype=bool)
    score = _scores_of(chosen)
    is_ranked = bool(np.isfinite(_scores_of(table)).any())
    predicted = predict_labels(is_hit, score, threshold_of(table))
    result: dict[str, Any] = {
        "frames": len(table),
        "hits": int(table["frame_is_hit"].sum()),
        "labelled": {name: int((label == name).sum()) for name in LABELS},
        "labelled_not_ok": int((chosen["frame_status"] != STATUS_OK).sum()),
        "hits_against_blanks": _compare_hits(label, is_hit),
        "is_ranked": is_ranked,
        "next": None if is_ranked else "no scores yet: run 'diffdask rank', then evaluate again",
        "runs": _runs(chosen["run"].to_numpy(), label, is_hit, predicted if is_ranked else None),
        **_provenance(table.attrs.get("scores") or {}),
    }
    options = (threshold_of(table), prevalence, top, bootstrap, seed)
    ranking = _compare_ranking(label, is_hit, score, predicted, *options) if is_ranked else {}
    return result | {name: ranking.get(name) for name in _RANKING}


def threshold_of(table: pd.DataFrame) -> float:
    """Score from which on a hit of the catalogue is predicted diffuse."""
    return float((table.attrs.get("scores") or {}).get("threshold", THRESHOLD))


def predict_labels(is_hit: np.ndarray, score: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """Predicted label, (frame,), of frames by hit and score; a hit without a score is not picked, hence non-diffuse."""
    with np.errstate(invalid="ignore"):
        picked = np.where(score >= threshold, _DIFFUSE, _NON_DIFFUSE)
    return np.where(is_hit, picked, _BLANK).astype(object)


#: What needs a score.
_RANKING = (
    "hits_only",
    "confusion",
    "classes",
    "accuracy",
    "area_under_roc",
    "precision_in_top",
    "prevalence",
    "precision_at_prevalence",
    "log_likelihood",
    "hits_without_score",
)


def _compare_hits(label: np.ndarray, is_hit: np.ndarray) -> dict[str, Measure]:
    is_blank = label == _BLANK
    return {
        "accuracy": measure_proportion((is_hit != is_blank).sum(), label.size),
        "hits_found": measure_proportion((is_hit & ~is_blank).sum(), (~is_blank).sum()),
        "blanks_left_out": measure_proportion((~is_hit & is_blank).sum(), is_blank.sum()),
    }


def _compare_ranking(
    label: np.ndarray,
    is_hit: np.ndarray,
    score: np.ndarray,
    predicted: np.ndarray,
    threshold: float,
    prevalence: float | None,
    top: int | None,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    counts = confusion_matrix(label, predicted, LABELS)
    is_scored = is_hit & np.isfinite(score)
    diffuse, other = (score[is_scored & (label == name)] for name in (_DIFFUSE, _NON_DIFFUSE))
    random = np.random.default_rng(seed)
    own = float(counts[0].sum() / counts[:2].sum()) if counts[:2].any() else None
    return {
        "hits_only": _compare_classes(label[is_scored], score[is_scored], threshold, bootstrap, seed),
        "confusion": {"labels": list(LABELS), "rows": "label", "columns": "predicted", "counts": counts.tolist()},
        "classes": {
            name: {
                "precision": measure_proportion(counts[i, i], counts[:, i].sum()),
                "recall": measure_proportion(counts[i, i], counts[i].sum()),
            }
            for i, name in enumerate(LABELS)
        },
        "accuracy": measure_proportion(np.trace(counts), counts.sum()),
        "area_under_roc": measure_area(diffuse, other, bootstrap, random),
        "precision_in_top": measure_top(score[is_scored], label[is_scored] == _DIFFUSE, top or int(counts[0].sum())),
        "prevalence": {
            "value": own if prevalence is None else prevalence,
            "source": _OWN_PREVALENCE if prevalence is None else "as given",
        },
        "precision_at_prevalence": _precisions(counts, prevalence, own, bootstrap, random),
        "log_likelihood": measure_likelihood(diffuse, other, bootstrap, random)
        if threshold == THRESHOLD  # a probability
        else None,
        "hits_without_score": int((is_hit & ~np.isfinite(score)).sum()),
    }


def _compare_classes(
    label: np.ndarray, score: np.ndarray, threshold: float, bootstrap: int, seed: int
) -> dict[str, Any] | None:
    """Table I of hits, labels and scores (n,), that are labelled as hits; None where a class has none."""
    y, score = (label == _DIFFUSE)[label != _BLANK].astype(int), score[label != _BLANK]
    if np.unique(y).size < 2:
        return None
    order = np.lexsort((score, y))  # so that the draws do not depend on the order of the frames
    samples = draw_hits(y.size, bootstrap, seed=seed)
    found = measure_scores(y[order], score[order], samples=samples, threshold=threshold, seed=seed)
    return {
        "hits": int(y.size),
        "prevalence": float(y.mean()),
        **{name: found[name] for name in (*FIGURES, "confusion", "passes_reference")},
        "reference": refer_to(USUAL_PREVALENCE),
    }


def _precisions(
    counts: np.ndarray, given: float | None, own: float | None, draws: int, random: np.random.Generator
) -> list[Measure]:
    """Precision at the usual prevalence, at that of the labels and at the one given, ascending."""
    wanted = {USUAL_PREVALENCE: "usual: 1 hit in 20"}
    wanted |= {own: _OWN_PREVALENCE} if own else {}
    wanted |= {given: "as given"} if given else {}
    diffuse, other = counts[0], counts[1]
    return [
        {
            "prevalence": share,
            "source": source,
            **measure_precision(
                int(diffuse[0]), int(diffuse.sum()), int(other[0]), int(other.sum()), share, draws, random
            ),
        }
        for share, source in sorted(wanted.items())
    ]


def _runs(
    run: np.ndarray, label: np.ndarray, is_hit: np.ndarray, predicted: np.ndarray | None
) -> dict[str, dict[str, int]]:
    """Labelled frames per run: how many of each label, and how many predicted right (hit or blank if not ranked)."""
    is_right = is_hit != (label == _BLANK) if predicted is None else predicted == label
    return {
        str(number): {
            **{name: int(((run == number) & (label == name)).sum()) for name in LABELS},
            "right": int(is_right[run == number].sum()),
        }
        for number in sorted(set(run.tolist()))
    }


def _scores_of(table: pd.DataFrame) -> np.ndarray:
    if "frame_score" not in table:
        return np.full(len(table), np.nan)
    return table["frame_score"].to_numpy(dtype=float, na_value=np.nan)


def _provenance(scores: dict[str, Any]) -> dict[str, Any]:
    cross_fitted = None if scores.get("cross_fitted") is None else bool(scores["cross_fitted"])
    fold_by = (scores.get("parameters") or {}).get("fold_by")
    return {
        "method": scores.get("method"),
        "cross_fitted": cross_fitted,
        "note": (_BY_RUN if cross_fitted and fold_by == "run" else _NOTES[cross_fitted]) if scores else None,
        "version": scores.get("version"),
        "features": scores.get("features"),
        "warning": warn_of_weights(scores.get("weights")),
    }


def _check(prevalence: float | None, top: int | None, bootstrap: int) -> None:
    if prevalence is not None and not 0 < prevalence < 1:
        raise BadParameter(f"prevalence = {prevalence} must lie between 0 and 1: the share of diffuse among the hits")
    if top is not None and top < 1:
        raise BadParameter(f"top = {top} must be at least 1")
    if bootstrap < 1:
        raise BadParameter(f"bootstrap = {bootstrap} must be at least 1; the default is 1000")
