"""Which frames are hits: enough Bragg peaks, or more diffuse excess than the blanks of the run have."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

#: Fewest frames without peaks from which it can be told what is usual.
_BLANKS = 10


class HitFinder(BaseEstimator):
    """Tell hits from blanks.

    Shadows, gain steps and jet streaks give blanks a diffuse excess too, one
    that is usual for the run; so a frame without peaks is a hit only if its
    excess is unusual among the frames without peaks.

    Parameters
    ----------
    min_peaks
        Bragg peaks that make a frame a hit.
    min_excess
        Excess that makes a frame a hit even without peaks: robust standard
        deviations above the median of the run's frames without peaks.

    Attributes
    ----------
    limit_ : dict of int to float
        Diffuse excess from which on a frame of the run is a hit. Runs with few
        frames without peaks take what all runs have; infinite where those are
        few too: then peaks alone decide.
    overall_limit_ : float
        The same of all runs, for runs that were not seen.
    """

    def __init__(self, min_peaks: int = 5, min_excess: float = 6.0) -> None:
        self.min_peaks = min_peaks
        self.min_excess = min_excess

    def fit(self, peak_count: np.ndarray, excess: np.ndarray, run: np.ndarray) -> HitFinder:
        """Learn what is usual from all frames, each (n,): peaks, diffuse excess (NaN where unknown) and run."""
        is_blank = (peak_count < self.min_peaks) & np.isfinite(excess)
        self.overall_limit_ = self._limit(excess[is_blank])
        parts: dict[int, list[np.ndarray]] = {}
        for number, rows in _stretches(run):
            parts.setdefault(number, []).append(excess[rows][is_blank[rows]])
        self.limit_ = {}
        for number in sorted(parts):
            stretches = parts.pop(number)
            own = stretches[0] if len(stretches) == 1 else np.concatenate(stretches)
            self.limit_[number] = self._limit(own) if own.size >= _BLANKS else self.overall_limit_
        return self

    def predict(self, peak_count: np.ndarray, excess: np.ndarray, run: np.ndarray) -> np.ndarray:
        """Say which frames are hits, (n,) bool."""
        check_is_fitted(self)
        is_hit = np.asarray(peak_count >= self.min_peaks)
        for number, rows in _stretches(run):
            is_hit[rows] |= excess[rows] > self.limit_.get(number, self.overall_limit_)  # an unknown one is not
        return is_hit

    def _limit(self, excess: np.ndarray) -> float:
        """Give the limit of blanks, whose array is used up: there may be millions."""
        if excess.size < _BLANKS:
            return np.inf
        middle = float(np.median(excess, overwrite_input=True))
        excess -= middle
        return middle + self.min_excess * 1.4826 * float(np.median(np.abs(excess, out=excess), overwrite_input=True))


def _stretches(run: np.ndarray) -> Iterator[tuple[int, slice]]:
    """Frames of one run that follow each other; a run may come in several."""
    cuts = (np.flatnonzero(run[1:] != run[:-1]) + 1).tolist()
    for start, stop in itertools.pairwise([0, *cuts, run.size]):
        if start < stop:
            yield int(run[start]), slice(start, stop)
