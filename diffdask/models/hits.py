"""Which frames are hits: enough Bragg peaks, or more diffuse excess than the blanks of the run have."""

from __future__ import annotations

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
        overall = self.overall_limit_ = self._limit(excess[is_blank])
        self.limit_ = {}
        for number in np.unique(run):
            own = excess[is_blank & (run == number)]
            self.limit_[int(number)] = self._limit(own) if own.size >= _BLANKS else overall
        return self

    def predict(self, peak_count: np.ndarray, excess: np.ndarray, run: np.ndarray) -> np.ndarray:
        """Say which frames are hits, (n,) bool."""
        check_is_fitted(self)
        limit = np.array([self.limit_.get(int(number), self.overall_limit_) for number in run])
        return np.asarray((peak_count >= self.min_peaks) | (np.nan_to_num(excess, nan=-np.inf) > limit))

    def _limit(self, excess: np.ndarray) -> float:
        if excess.size < _BLANKS:
            return np.inf
        middle = float(np.median(excess))
        return middle + self.min_excess * 1.4826 * float(np.median(np.abs(excess - middle)))
