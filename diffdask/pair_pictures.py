"""What pairs of hits say, to look at: the matrix of their agreement, and the diffusion map made from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdask import pictures, plots
from diffdask.errors import BadParameter
from diffdask.io.results_store import open_group
from diffdask.kernels.agreement import area_under_roc
from diffdask.variables import LABELS, SIMILARITIES

if TYPE_CHECKING:
    import pandas as pd

#: Hits up to which all pairs are looked at, and hits spread evenly over the campaign where there are more.
_ALL_HITS, _SOME_HITS = 5000, 2000

#: Rows and columns of the matrix as a picture.
_MOST_CELLS = 400

#: Coordinates of the diffusion map: as many as can enter a ranker.
_COORDINATES = 30

#: Hits that make a diffusion map with two coordinates.
_LEAST_HITS = 4

_DIFFUSE, _NON_DIFFUSE, _ = LABELS

_DRAWN = ("matrix", "limit", "centre", "eigenvalues", "map", "telling", "areas", "chance")


@dataclass(frozen=True)
class PairSummary:
    """Agreement of n hits with one another, by one similarity."""

    similarity: str  #: the group it comes from
    hit_count: int  #: hits of the campaign; those looked at may be fewer
    hit_frame: np.ndarray  #: (n,) frame numbers, in the order of the matrix
    is_by_score: bool  #: whether that order is the score's, the highest first; else that of the leading coordinate
    cells: np.ndarray  #: (m, m) mean agreement, m at most 400; a hit with itself left out, NaN where nothing is known
    eigenvalues: np.ndarray  #: (k,) of the diffusion map, the trivial one left out
    coordinates: np.ndarray  #: (n, k)
    failure: str  #: why there is no diffusion map; empty where there is
    left_out: int = 0  #: hits looked at that share too little with all others

    @property
    def is_subset(self) -> bool:
        """Whether some hits of the campaign were not looked at."""
        return len(self.hit_frame) + self.left_out < self.hit_count


def read_pairs(results: str | Path, score: pd.Series | None) -> list[PairSummary]:
    """Summarise what was compared; a matrix of other hits than there are now is left out.

    Parameters
    ----------
    results
        The results store.
    score
        Score by frame number; None where nothing is ranked.
    """
    features, found = open_group(results, "features"), []
    for similarity in SIMILARITIES:
        compared = open_group(results, similarity)
        if features is None or compared is None:
            continue
        hit_frame = compared["hit_frame"].values
        if not np.array_equal(hit_frame, features["hit_frame"].values):
            continue
        some = choose_evenly(hit_frame.size)
        agreement = compared["pair_agreement"].isel(hit=some, other_hit=some).values
        known = np.full(some.size, np.nan)
        if score is not None:
            known = score.reindex(hit_frame[some]).to_numpy(dtype=float, na_value=np.nan)
        found.append(summarise_pairs(similarity, hit_frame.size, hit_frame[some], agreement, known))
    return found


def choose_evenly(count: int, *, all_up_to: int = _ALL_HITS, else_: int = _SOME_HITS) -> np.ndarray:
    """Choose hits to look at: all of a few, else some that are spread evenly.

    Examples
    --------
    >>> choose_evenly(4).tolist(), choose_evenly(9, all_up_to=8, else_=3).tolist()
    ([0, 1, 2, 3], [0, 3, 6])
    """
    return np.arange(count) if count <= all_up_to else np.arange(else_) * count // else_


def summarise_pairs(
    similarity: str, hit_count: int, hit_frame: np.ndarray, agreement: np.ndarray, score: np.ndarray
) -> PairSummary:
    """Order a matrix, average it down, and find its diffusion map.

    Parameters
    ----------
    similarity, hit_count
        As in :class:`PairSummary`.
    hit_frame
        (n,) frame numbers.
    agreement
        (n, n) logarithm of the similarity; NaN where two hits share too little.
        Hits that share too little with all others are left out.
    score
        (n,); NaN for hits without. Those come last.
    """
    others = np.where(np.eye(len(agreement), dtype=bool), np.nan, agreement)
    is_compared = np.isfinite(others).any(axis=1)
    kept = np.flatnonzero(is_compared)
    eigenvalues, coordinates, failure = _find_map(np.exp(agreement[np.ix_(kept, kept)]))
    is_by_score = bool(np.isfinite(score[kept]).any())
    key = score[kept] if is_by_score or not eigenvalues.size else coordinates[:, 0]
    order = np.argsort(-key, kind="stable")  # NaN come last
    return PairSummary(
        similarity=similarity,
        hit_count=hit_count,
        hit_frame=hit_frame[kept[order]],
        is_by_score=is_by_score,
        cells=average_cells(others[np.ix_(kept[order], kept[order])]),
        eigenvalues=eigenvalues,
        coordinates=coordinates[order],
        failure=failure,
        left_out=len(agreement) - kept.size,
    )


def average_cells(matrix: np.ndarray, *, most: int = _MOST_CELLS) -> np.ndarray:
    """Average a matrix, (n, n), over blocks of neighbours to at most so many rows; NaN only where a block has nothing.

    Examples
    --------
    >>> average_cells(np.arange(16.0).reshape(4, 4), most=2).tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """
    count = min(len(matrix), most)
    first = np.arange(count) * len(matrix) // max(count, 1)
    is_there = np.isfinite(matrix)
    total = _add_blocks(np.where(is_there, matrix, 0.0), first)
    number = _add_blocks(is_there.astype(np.float32), first)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def find_telling(coordinates: np.ndarray, label: np.ndarray) -> tuple[list[int], list[float]]:
    """Find the two coordinates that tell diffuse from non-diffuse hits best.

    Parameters
    ----------
    coordinates
        (n, k), the leading one first.
    label
        (n,) labels, or anything else for hits without.

    Returns
    -------
    tuple
        Numbers of the two counted from 0, and the area under the curve of
        each, whichever way round. Without labels of both kinds: the leading
        two, and no areas.
    """
    is_known = np.isfinite(coordinates).all(axis=1)
    diffuse, other = (coordinates[is_known & (label == name)] for name in (_DIFFUSE, _NON_DIFFUSE))
    if not len(diffuse) or not len(other):
        return [0, 1], []
    area = np.array([area_under_roc(one, two) for one, two in zip(diffuse.T, other.T, strict=True)])
    area = np.maximum(area, 1.0 - area)
    best = np.argsort(-area, kind="stable")[:2]
    return best.tolist(), area[best].tolist()


def chance_area(diffuse: int, other: int, coordinates: int) -> float:
    """Area under the curve that the best of so many coordinates without meaning stays below, 19 times of 20.

    The area of one is nearly normal about one half, of variance (n + m + 1) / 12 n m for n and m hits (Mann & Whitney,
    Ann. Math. Stat. 18, 50 (1947)). The coordinates count as independent.

    Examples
    --------
    >>> round(chance_area(50, 50, 30), 2), chance_area(1, 1, 30)
    (0.68, 1.0)
    """
    spread = ((diffuse + other + 1) / (12 * diffuse * other)) ** 0.5
    within = 0.95 ** (1 / coordinates)
    return min(1.0, 0.5 + spread * NormalDist().inv_cdf((1 + within) / 2))


def draw_pairs(pairs: PairSummary, label: np.ndarray, is_top: np.ndarray) -> dict[str, Any]:
    """Draw a summary.

    Parameters
    ----------
    pairs
        From :func:`summarise_pairs`.
    label
        (n,) label or "unlabelled" of its hits.
    is_top
        (n,) bool: top picks, which are ringed.

    Returns
    -------
    dict
        ``matrix`` (a PNG) with its colour ``limit`` about ``centre``;
        ``eigenvalues`` and ``map`` (plots) with ``telling`` (coordinates shown,
        counted from 1), their ``areas`` and the area that is ``chance``. None
        where there is nothing to draw.
    """
    drawn: dict[str, Any] = dict.fromkeys(_DRAWN)
    if np.isfinite(pairs.cells).any():
        # Correlations have a zero between like and unlike; of distances only the differences mean something.
        centre = float(np.nanmedian(pairs.cells)) if pairs.similarity == "euclidean" else 0.0
        limit = pictures.robust_limit(pairs.cells - centre)
        drawn |= {"matrix": pictures.to_png(pairs.cells - centre, limit=limit), "limit": limit, "centre": centre}
    if pairs.eigenvalues.size:
        telling, areas = find_telling(pairs.coordinates, label)
        names = [f"coordinate {number + 1}" for number in telling]
        names = [f"{name} (area {area:.2f})" for name, area in zip(names, areas, strict=True)] if areas else names
        x, y = pairs.coordinates[:, telling].T
        drawn |= {
            "eigenvalues": plots.plot_eigenvalues(pairs.eigenvalues, telling),
            "map": plots.plot_coordinates(x, y, label, is_top, names),
            "telling": [number + 1 for number in telling],
            "areas": areas,
        }
        if areas:
            diffuse, other = (int((label == name).sum()) for name in (_DIFFUSE, _NON_DIFFUSE))
            drawn["chance"] = chance_area(diffuse, other, pairs.eigenvalues.size)
    return drawn


def _find_map(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Eigenvalues (k,) and coordinates (n, k) of the diffusion map, or why there are none."""
    from diffdask.models.diffusion_map import DiffusionMap

    count = len(weights)
    failure = f"{count} hits could be compared with others, and a map needs at least {_LEAST_HITS}"
    if count >= _LEAST_HITS:
        try:
            model = DiffusionMap(component_count=min(_COORDINATES, count - 2)).fit(weights)
        except BadParameter as error:  # a matrix in many parts says little, and is no reason to have no report
            failure = str(error)
        else:
            return model.eigenvalues_, model.coordinates_, ""
    return np.empty(0), np.empty((count, 0)), failure


def _add_blocks(matrix: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Sums of a matrix over blocks that begin at ``first`` along both axes."""
    if not first.size:
        return matrix
    return np.asarray(np.add.reduceat(np.add.reduceat(matrix, first, axis=0), first, axis=1))
