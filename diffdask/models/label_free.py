"""One score from all evidence that needs no labels: the log odds that a hit is diffuse.

Evidence is noise, and to it a diffuse hit adds an amount. Some other hits have
an amount as well, of what the detector leaves (streaks, ice). How large the
amounts are, how often a diffuse hit shows none (misindexed ones do not agree
with anybody), and how many hits are diffuse, is learnt from the hits by
expectation maximisation. So evidence that tells nothing in these hits, such as
the search in a map of few frames, counts for little.

Structure and search are kept in check by agreement, of which alone chance is known: how much they count is what they
tell of the hits that agree (:mod:`diffdask.models.weighing`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from diffdask.errors import BadLabels, BadParameter
from diffdask.models.amounts import Amounts, Split, SplitPair, expect_amount, split_evidence, split_pair
from diffdask.models.evidence import CARRIERS, EVIDENCE, expect_noise, learn_noise
from diffdask.models.weighing import find_existence, learn_weighing

#: What is expected before any hit is seen, and how many hits that counts as.
_EXPECTED = {
    "structure": Amounts(diffuse=8.0, shown=0.95, left=1.5, left_share=0.1),
    "agreement": Amounts(diffuse=6.0, shown=0.85, left=1.5, left_share=0.01),
    "search": Amounts(diffuse=8.0, shown=0.95, left=1.5, left_share=0.02),
}
_PRIOR_HITS, _PRIOR_SHOWN_HITS = 4.0, 10.0

#: Share of the hits that are diffuse, and of these the share so faint that only agreement shows them.
_SHARE, _FAINT = 0.05, 0.15

#: Of hits that are not diffuse, shares with nothing left, or something, in structure; and in the search: frames with
#: ice may make a map of their own. And how many hits that counts as.
_LEFT, _PRIOR_LEFT_HITS = np.array([[0.89, 0.01], [0.09, 0.01]]), 20.0

#: Mean amount of diffuse hits below which there is no signal to speak of.
_LEAST = {"structure": 3.0, "agreement": 4.0, "search": 4.0}

#: Largest share of hits that are not diffuse and agree by more than chance, and hits with none that are expected.
_MOST_AGREEING, _NOT_AGREEING = 0.03, 50.0

#: Agreement, and search where no agreement is known, that are taken for diffuse to begin with.
_FIRST_AGREEMENT, _FIRST_SEARCH = 4.0, 6.0

#: Logarithm of the likelihood ratio by which agreement must speak for there being diffuse hits at all; below the first
#: it proves nothing.
_NO_PROOF, _PROOF = 2.0, 8.0

#: Places in ``CARRIERS`` of the kinds that agreement keeps in check.
_OTHERS = [CARRIERS.index("structure"), CARRIERS.index("search")]

#: Change of a probability at which all has settled.
_SETTLED = 1e-3

#: Fewest hits of a class that a ranker is trained on.
_MEMBERS = 5


class LabelFreeScore(BaseEstimator):
    """Weigh structure, pairs, consistency and search against one another, without labels.

    Parameters
    ----------
    least_shown
        Least share of the diffuse hits that must show in each kind of evidence: most of them make the map, and
        agree with it, or there is none.
    rounds
        Most rounds.

    Attributes
    ----------
    score_ : ndarray (n,)
        Natural logarithm of the odds that the hit is diffuse: 0 is even, 4.6 is 99 %; NaN for hits without evidence.
    probability_ : ndarray (n,)
        The same as a probability.
    expected_wrong_ : ndarray (n,)
        Expected share of wrong ones among the hits that score as high or higher.
    contribution_ : ndarray (n, 3)
        What each of ``CARRIERS`` adds to the log odds; 0 where it is missing. That of the search is what it adds to
        the structure's.
    carried_by_ : ndarray (n,) of str
        The one of ``CARRIERS`` that adds most, "nothing" where none adds anything.
    existence_ : float
        Logarithm of how much more likely the agreement of all hits is with diffuse hits among them than without.
    share_ : float
        Share of the hits that are diffuse, if any are.
    amounts_ : dict of str to Amounts
        Of each of ``CARRIERS``; ``left_share`` is learnt of agreement alone.
    noise_ : EvidenceNoise
        What chance gives.
    weighing_ : Weighing
        How much structure and search count, and what agreement tells.
    round_count_ : int
        Rounds until it settled.

    Notes
    -----
    More agreement never lowers the score. More structure at the same search may, for it explains the search.
    Where agreement does not prove that there are diffuse hits, it counts for less, and so does the search in a map
    that nobody agrees with, down to nothing; without any proof structure alone ranks the hits, and none is called
    diffuse.
    Kinds of evidence count as independent, but for faint hits; weights below 1 make up for that on average.

    References
    ----------
    Dempster, Laird & Rubin, J. R. Stat. Soc. B 39, 1 (1977), expectation maximisation; Efron, J. Am. Stat. Assoc. 99,
    96 (2004), the spread of chance from the bulk of many cases.
    """

    def __init__(self, least_shown: float = 0.4, rounds: int = 200) -> None:
        self.least_shown = least_shown
        self.rounds = rounds

    def fit(self, X: np.ndarray, y: None = None, *, whole: np.ndarray | None = None) -> LabelFreeScore:
        """Learn the weights, and score the hits.

        Parameters
        ----------
        X
            (n, 4) evidence in the order of ``EVIDENCE``, each about 0 and of about unit spread in hits that are not
            diffuse; NaN where missing. Pairs and consistency are best the significances of
            :class:`~diffdask.models.pairs.PairStructure` and :class:`~diffdask.models.consistency.MapConsistency`: a
            group or a map that knows the hit agrees with it where there is no diffuse hit at all.
        y
            Not used.
        whole
            (n, 2) pairs and consistency with the group and the map of *all* other hits, in units of chance; NaN where
            missing. They tell more, above all of weak hits, where a fold's map misses those left out; but a map of
            nothing agrees with those that made it. So they count as far as ``X`` proves that there are diffuse hits.

        Raises
        ------
        BadParameter
            If a shape is another, or a parameter makes no sense.
        """
        X = _check(X)
        if not 0.0 < self.least_shown < 1.0 or self.rounds < 1:
            raise BadParameter(f"{self}: give a share between 0 and 1, and at least 1 round")
        if whole is not None and np.shape(whole) != (len(X), 2):
            raise BadParameter(f"pairs and consistency with the whole must be ({len(X)}, 2), got {np.shape(whole)}")
        self._learn_all(X)
        self.existence_ = self._find_existence(X)
        if whole is not None and self._proof > 0.0:
            X = self._use_whole(X, whole)
            self._learn_all(X)
        self._learn_weighing(X)
        self.contribution_ = self._weigh_proven(X)
        self.score_ = self.decision_function(X)
        self.probability_ = expit(self.score_)
        self.expected_wrong_ = expect_wrong(self.probability_)
        largest = np.array(CARRIERS)[self.contribution_.argmax(axis=1)]
        self.carried_by_ = np.where(self.contribution_.max(axis=1) > 0.0, largest, "nothing")
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Log odds (n,) of hits by what was learnt of these or of others; NaN for hits without evidence.

        Where ``fit`` was given the agreement with the whole, it stands in ``X`` here.
        """
        check_is_fitted(self)
        X = _check(X)
        doubt = 1.0 - self._proof
        score = self.weighing_.bias - _PROOF * doubt + self._weigh_proven(X).sum(axis=1)
        with np.errstate(divide="ignore"):
            score = -np.logaddexp(np.log(doubt), -score)  # odds / (1 + doubt * odds): without proof never even
        return np.where(np.isfinite(X).any(axis=1), score, np.nan)

    @property
    def _proof(self) -> float:
        """How surely there are diffuse hits, 0 to 1."""
        return float(np.clip((self.existence_ - _NO_PROOF) / (_PROOF - _NO_PROOF), 0.0, 1.0))

    def _find_existence(self, X: np.ndarray) -> float:
        """The most that agreement proves: that of either kind, or of both."""
        kinds = [*(X / expect_noise(X).spread).T[1:3], self.noise_.reduce(X)["agreement"]]
        return max(find_existence(kind, _EXPECTED["agreement"]) for kind in kinds)

    def _use_whole(self, X: np.ndarray, whole: np.ndarray) -> np.ndarray:
        """Evidence with the agreement with the whole in place of the cross-fitted one, as far as there is proof."""
        known = np.where(np.isfinite(whole), whole, X[:, 1:3])
        folds = np.where(np.isfinite(X[:, 1:3]), X[:, 1:3], known)
        return np.column_stack([X[:, 0], self._proof * known + (1.0 - self._proof) * folds, X[:, 3]])

    def _learn_all(self, X: np.ndarray) -> None:
        """Learn noise, amounts and shares by expectation maximisation."""
        self.noise_, self.share_ = expect_noise(X), _SHARE
        self.amounts_, self._faint, self._left_shares = dict(_EXPECTED), _FAINT, _LEFT
        probability = self._guess(X)
        for number in range(1, self.rounds + 1):
            self.round_count_ = number
            self._learn(X, probability)
            before, probability = probability, expit(logit(self.share_) + self._weigh(X).sum(axis=1))
            if np.abs(probability - before).max(initial=0.0) < _SETTLED:
                break

    def _learn_weighing(self, X: np.ndarray) -> None:
        """Learn how much structure and search count, and from that the share of diffuse hits."""
        ratios, agreement = self._weigh(X)[:, _OTHERS], self.noise_.reduce(X)["agreement"]
        found = self.weighing_ = learn_weighing(
            ratios, agreement, other=_EXPECTED["agreement"], least_shown=self.least_shown, share=self.share_
        )
        odds = found.bias + found.weigh(ratios).sum(axis=1) + found.rate(agreement)
        is_known = np.isfinite(X).any(axis=1)
        self.share_ = float(expit(odds[is_known]).mean()) if is_known.any() else self.share_

    def _guess(self, X: np.ndarray) -> np.ndarray:
        """Probability (n,) to begin with: where agreement is known it decides, for it knows chance best."""
        z = self.noise_.reduce(X)
        is_alone = np.isnan(z["agreement"])
        is_high = np.where(is_alone, z["search"] > _FIRST_SEARCH, z["agreement"] > _FIRST_AGREEMENT)
        return np.where(is_high, 0.9, 0.001)

    def _split(self, z: dict[str, np.ndarray]) -> tuple[dict[str, Split], SplitPair]:
        structure, search = ((z[name], self.amounts_[name]) for name in ("structure", "search"))
        pair = split_pair(structure, search, self._left_shares, self._faint)
        agreement = split_evidence(z["agreement"], self.amounts_["agreement"])
        return {"structure": pair.one, "agreement": agreement, "search": pair.other}, pair

    def _weigh(self, X: np.ndarray) -> np.ndarray:
        """What each of ``CARRIERS`` adds to the log odds, (n, 3)."""
        found, _ = self._split(self.noise_.reduce(X))
        return np.column_stack([found[name].ratio for name in CARRIERS])

    def _weigh_proven(self, X: np.ndarray) -> np.ndarray:
        """The same, weighed; where there may be no diffuse hits, there is no map to agree with or to search."""
        ratios = self._weigh(X)
        ratios[:, _OTHERS] = self.weighing_.weigh(ratios[:, _OTHERS])
        ratios[:, CARRIERS.index("agreement")] = self.weighing_.rate(self.noise_.reduce(X)["agreement"])
        return ratios * [1.0 if name == "structure" else self._proof for name in CARRIERS]

    def _learn(self, X: np.ndarray, probability: np.ndarray) -> None:
        """Learn all from the hits and how probably each is diffuse."""
        z = self.noise_.reduce(X)
        found, pair = self._split(z)
        is_known = np.isfinite(X).any(axis=1)
        probability = np.where(is_known, probability, 0.0)
        self._learn_shares(z, pair, probability, int(is_known.sum()))
        is_noise, is_signal = {}, {}
        for name in CARRIERS:
            is_there = np.isfinite(z[name]).astype(float)
            may_show = is_there * probability * (1.0 if name == "agreement" else 1.0 - pair.faint)
            is_signal[name] = may_show * found[name].shown
            is_left = (is_there - is_signal[name]) * found[name].left
            is_noise[name] = is_there - is_signal[name] - is_left
            self.amounts_[name] = self._learn_amounts(name, z[name], may_show, is_signal[name], is_left)
        self.noise_ = learn_noise(X, is_noise, is_signal["agreement"])

    def _learn_shares(self, z: dict[str, np.ndarray], pair: SplitPair, probability: np.ndarray, count: int) -> None:
        """Learn what share of the hits is diffuse, and faint, and what share of the others shows something."""
        count = max(count, 1)
        self.share_ = float(np.clip(probability.sum() / count, 0.5 / count, 0.8))
        of_indexed = np.where(np.isfinite(z["agreement"]), probability, 0.0)
        faint = _PRIOR_SHOWN_HITS * _FAINT + of_indexed @ pair.faint
        self._faint = float(np.clip(faint / (_PRIOR_SHOWN_HITS + of_indexed.sum()), 0.01, 0.5))
        others = np.where(np.isfinite(z["structure"] + z["search"]), 1.0 - probability, 0.0)
        left = _PRIOR_LEFT_HITS * _LEFT + np.tensordot(others, pair.left, axes=1)
        self._left_shares = left / (_PRIOR_LEFT_HITS + others.sum())

    def _learn_amounts(
        self, name: str, z: np.ndarray, may_show: np.ndarray, is_signal: np.ndarray, is_left: np.ndarray
    ) -> Amounts:
        """Learn the amounts of one kind; probabilities (n,) are 0 where it is missing."""
        now, expected, z = self.amounts_[name], _EXPECTED[name], np.nan_to_num(z)
        diffuse = _PRIOR_HITS * expected.diffuse + is_signal @ expect_amount(z, now.diffuse, shape=2)
        diffuse = max(float(diffuse / (_PRIOR_HITS + is_signal.sum())), _LEAST[name])
        left = _PRIOR_HITS * expected.left + is_left @ expect_amount(z, now.left, shape=1)
        left = float(np.clip(left / (_PRIOR_HITS + is_left.sum()), 1.0, diffuse / 2.0))  # so that ratios rise
        shown = _PRIOR_SHOWN_HITS * expected.shown + is_signal.sum()
        shown = float(np.clip(shown / (_PRIOR_SHOWN_HITS + may_show.sum()), self.least_shown, 0.99))
        if name != "agreement":  # of which shares are learnt together
            return Amounts(diffuse, shown, left, expected.left_share)
        share = (_NOT_AGREEING * expected.left_share + is_left.sum()) / (_NOT_AGREEING + len(z) - may_show.sum())
        return Amounts(diffuse, shown, left, min(float(share), _MOST_AGREEING))


class TrainingHits(NamedTuple):
    """Hits that are surely diffuse or surely not, to train a ranker on."""

    rows: np.ndarray  #: (m,) of the hits, rising
    label: np.ndarray  #: (m,) 1 for diffuse and 0 for non-diffuse
    sure_diffuse: int  #: hits that are surely diffuse: all of them are taken
    sure_other: int  #: hits that are surely not, of which some are drawn


def choose_training_hits(score: np.ndarray, *, sure: float = 0.95, ratio: float = 5.0, seed: int = 0) -> TrainingHits:
    """Choose hits whose label-free score makes them surely diffuse or surely not.

    Parameters
    ----------
    score
        (n,) log odds from :class:`LabelFreeScore`; NaN where unknown.
    sure
        Least probability of either.
    ratio
        Most non-diffuse hits for each diffuse one. They are drawn at random among all that are sure, not the lowest
        first: a ranker shall meet streaks and ice as often as there are any.
    seed
        Of the draw.

    Raises
    ------
    BadParameter
        If ``sure`` or ``ratio`` makes no sense.
    BadLabels
        If fewer than five hits of either are sure.

    Examples
    --------
    >>> chosen = choose_training_hits(np.array([9.0] * 5 + [0.0] * 3 + [-9.0] * 99), ratio=2)
    >>> chosen.rows[:5].tolist(), int(chosen.label.sum()), chosen.label.size, chosen.sure_other
    ([0, 1, 2, 3, 4], 5, 15, 99)
    """
    if not 0.5 <= sure < 1.0 or not ratio > 0:
        raise BadParameter(f"sure = {sure} must be at least 0.5 and less than 1, and ratio = {ratio} more than 0")
    high, low = np.flatnonzero(score >= logit(sure)), np.flatnonzero(score <= -logit(sure))
    if min(high.size, low.size) < _MEMBERS:
        raise BadLabels(
            f"{high.size} of {len(score)} hits are diffuse and {low.size} are not, with a probability of {sure:g} or "
            f"more by the label-free score; a ranker needs {_MEMBERS} of each: label hits by hand"
        )
    most = max(round(ratio * high.size), _MEMBERS)
    drawn = np.random.default_rng(seed).permutation(low)[:most]
    rows = np.sort(np.concatenate([high, drawn]))
    return TrainingHits(rows, np.isin(rows, high).astype(int), high.size, low.size)


def expect_wrong(probability: np.ndarray) -> np.ndarray:
    """Find the expected share of wrong ones among hits as probable or more, (n,); NaN where it is unknown.

    Examples
    --------
    >>> expect_wrong(np.array([0.5, np.nan, 0.9])).round(3).tolist()
    [0.3, nan, 0.1]
    """
    expected = np.full(len(probability), np.nan)
    known = np.flatnonzero(np.isfinite(probability))
    levels, place, count = np.unique(-probability[known], return_inverse=True, return_counts=True)
    expected[known] = (np.cumsum((1.0 + levels) * count) / np.cumsum(count))[place]
    return expected


def _check(X: np.ndarray) -> np.ndarray:
    X = np.asarray(X, dtype=float)
    if X.ndim != 2 or X.shape[1] != len(EVIDENCE):
        raise BadParameter(f"evidence must be (n, {len(EVIDENCE)}): {', '.join(EVIDENCE)}; got {X.shape}")
    return np.where(np.isfinite(X), X, np.nan)
