"""Folds of labelled hits: by hit, or by run so that nothing leaks from a run to itself."""

from __future__ import annotations

import numpy as np

from diffdask.errors import BadLabels

#: Fewest labelled hits of a class that a ranker can be fitted to.
MEMBERS = 5

Fold = tuple[np.ndarray, np.ndarray]


def make_folds(
    y: np.ndarray, *, fold_count: int, seed: int, group: np.ndarray | None = None, least: int = MEMBERS
) -> list[Fold]:
    """Deal labelled hits into folds with about the same share of diffuse.

    Parameters
    ----------
    y
        (n,) labels 0 and 1.
    fold_count
        Folds wanted; fewer where a class has few members or there are few groups.
    seed
        Of the deal.
    group
        (n,) what must not be split, such as the run; None to deal hits one by one.
    least
        Members of each class that every training part must keep.

    Returns
    -------
    list of tuple
        Rows to train on and rows to test on. Every hit is tested once.

    Raises
    ------
    BadLabels
        If that cannot be done.
    """
    return _deal_hits(y, fold_count, seed, least) if group is None else _deal_groups(y, fold_count, seed, group, least)


def _deal_hits(y: np.ndarray, fold_count: int, seed: int, least: int) -> list[Fold]:
    from sklearn.model_selection import StratifiedKFold

    members = _fewest(y)
    enough = [count for count in range(2, members + 1) if members - -(-members // count) >= least]
    if not enough:
        raise BadLabels(
            f"a class has {members} labelled hits; to score them by rankers that have not seen them, "
            f"each must be left at least {least}: label more"
        )
    count = max(enough[0], min(fold_count, members // 2))
    return list(StratifiedKFold(count, shuffle=True, random_state=seed).split(np.zeros(len(y)), y))


def _deal_groups(y: np.ndarray, fold_count: int, seed: int, group: np.ndarray, least: int) -> list[Fold]:
    """Deal whole groups; where a class lies in few of them, leave out one group at a time."""
    from sklearn.model_selection import LeaveOneGroupOut, StratifiedGroupKFold

    kinds = np.unique(group).size
    count = min(fold_count, kinds, _fewest(y))
    splits = []
    if count > 1:
        splits += [StratifiedGroupKFold(count, shuffle=True, random_state=seed), LeaveOneGroupOut()]
    for split in splits:
        folds = [(train, test) for train, test in split.split(np.zeros(len(y)), y, group) if test.size]
        if all(_fewest(y[train]) >= least for train, _ in folds):
            return folds
    raise BadLabels(
        f"{kinds} runs have labelled hits; without one of them fewer than {least} hits of a class may be left, "
        "so that folds by run cannot be made: label hits of more runs, or make folds by hit"
    )


def _fewest(y: np.ndarray) -> int:
    return int(np.bincount(np.asarray(y).astype(int), minlength=2).min())
