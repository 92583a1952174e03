"""Which frames a report shows pictures of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diffdask.evaluation import predict_labels, threshold_of

if TYPE_CHECKING:
    import pandas as pd


def choose_pictures(table: pd.DataFrame, labels: pd.Series | None, top: int) -> dict[str, list[int]]:
    """Choose the frames to picture.

    Parameters
    ----------
    table
        The catalogue.
    labels
        By frame number, or None.
    top
        Most frames a section.

    Returns
    -------
    dict
        Frame numbers of "top" (best scores, or highest anisotropy of the hits
        where nothing is ranked), "doubtful" (scores nearest the threshold of
        their method) and "wrong" (the label disagrees with the prediction; the
        surest first).
    """
    hits = table[table["frame_is_hit"].fillna(False).astype(bool)]
    if not is_ranked(table):
        best = hits["frame_anisotropy"].dropna().astype(float).sort_values(ascending=False, kind="stable")
        return {"top": best.index[:top].tolist(), "doubtful": [], "wrong": []}
    score = hits["frame_score"].dropna().astype(float)
    doubt = (score - threshold_of(table)).abs().sort_values(kind="stable")
    wrong = [] if labels is None else _choose_wrong(table.loc[labels.index], labels, threshold_of(table))
    return {
        "top": score.sort_values(ascending=False, kind="stable").index[:top].tolist(),
        "doubtful": doubt.index[:top].tolist(),
        "wrong": wrong[:top],
    }


def is_ranked(table: pd.DataFrame) -> bool:
    """Whether any frame of the catalogue has a score."""
    return "frame_score" in table and bool(table["frame_score"].notna().any())


def _choose_wrong(table: pd.DataFrame, labels: pd.Series, threshold: float) -> list[int]:
    """Frames whose prediction is not their label, those first that were predicted with most certainty."""
    is_hit = table["frame_is_hit"].fillna(False).to_numpy(dtype=bool)
    score = table["frame_score"].to_numpy(dtype=float, na_value=np.nan)
    certainty = np.abs(score - threshold)
    # A frame taken for a blank has no score: it was turned down as surely as any.
    certainty = np.nan_to_num(certainty, nan=np.nanmax(certainty, initial=0.0))
    is_wrong = predict_labels(is_hit, score, threshold) != labels.to_numpy(dtype=object)
    order = np.argsort(-certainty, kind="stable")
    return table.index[order[is_wrong[order]]].tolist()
