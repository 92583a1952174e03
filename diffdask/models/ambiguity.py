"""Which of several labellings of its axes each frame was indexed with: the one that agrees best with the others.

Indexing sees the lattice only. Where the crystal has less symmetry than its
lattice, each frame comes in one of m labellings, told apart by operators of the
lattice (``ambiguity_rotations`` of :mod:`diffdask.symmetry`). Frames that show
the crystal's signal agree under the right operators alone, so they tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffdask.errors import BadParameter
from diffdask.models.pairs import measure_noise, whiten

#: Evidence, in units of its noise, that a frame must have to have a say; as in ``PairStructure``.
_THRESHOLD = 2.0

_CLIP = 5.0

#: Largest change of a weight at which the iteration stops.
_TOLERANCE = 1e-5


def resolve_ambiguity(
    agreement: Sequence[Any],
    *,
    samples: Sequence[Any] | None = None,
    relative: np.ndarray | None = None,
    start_count: int = 32,
    iterations: int = 60,
) -> np.ndarray:
    """Choose a labelling for every frame.

    Every frame takes the labelling under which it agrees best with the others,
    each weighted by its own evidence past a threshold, until nothing changes.
    The frames with the strongest agreements are tried as seeds one by one; the
    start in which frames agree most is kept. No random numbers enter.

    Parameters
    ----------
    agreement
        m matrices (n, n): agreement of frames i (row) and j (column) when j is
        turned by operator r relative to i; operator 0 is the identity. NaN
        where unknown; the diagonal is ignored.
    samples
        m matrices (n, n): number of samples behind each value. With them
        agreements are correlations.
    relative
        (m, m) integers: the operator between a frame of choice a (row) and one
        of choice b (column), see :func:`relate_choices`. None for m of 1 or 2.
    start_count
        Seeds.
    iterations
        Most rounds.

    Returns
    -------
    numpy.ndarray
        (n,) int64, operator to turn each frame by; -1 for frames without a
        known pair. What all choices share cannot be told: the frame with most
        evidence has 0.

    Raises
    ------
    BadParameter
        If shapes do not fit one another, or ``relative`` is no table of a group.
    """
    table = _check_table(relative, len(agreement))
    whitened = _whiten_all(agreement, samples)
    is_known = np.any([matrix.any(axis=1) for matrix in whitened], axis=0)
    weights = _start(whitened, table, start_count)
    for _ in range(iterations):
        before = weights
        weights = _vote(_gather_evidence(whitened, table, weights))
        if np.abs(weights - before).max(initial=0.0) < _TOLERANCE:
            break
    evidence = _gather_evidence(whitened, table, weights)
    total = (np.maximum(evidence.max(axis=0) - _THRESHOLD, 0.0) ** 2).sum(axis=0)
    best = evidence[:, :, np.argmax(total)]
    choice = best.argmax(axis=0)
    most_evident = choice[best.max(axis=0).argmax()]
    return np.where(is_known, table[most_evident, choice], -1)


def select_agreement(agreement: Sequence[Any], choice: np.ndarray, relative: np.ndarray | None = None) -> np.ndarray:
    """Agreement (n, n) of frames turned by their choices; NaN for frames without one.

    Parameters
    ----------
    agreement, relative
        As for :func:`resolve_ambiguity`.
    choice
        (n,) from there.
    """
    return _select(agreement, choice, choice, _check_table(relative, len(agreement)))


def select_rows(
    agreement: Sequence[Any], choice: np.ndarray, weight: np.ndarray, relative: np.ndarray | None = None
) -> np.ndarray:
    """Agreement (n, n) of frames that choose anew with others that keep their choice.

    Whoever may choose agrees somewhat better, for want of any signal too. So
    the frames of null matrices must choose as well.

    Parameters
    ----------
    agreement
        m matrices (n, n): of the row's frame at a shuffled orientation with
        the column's, turned by each operator.
    choice, weight
        (n,) choices of the columns, and their say, as ``PairStructure.weight_``.
    relative
        As for :func:`resolve_ambiguity`.
    """
    table = _check_table(relative, len(agreement))
    everyone = [
        _select(agreement, np.where(choice >= 0, own, -1), choice, table).astype(np.float32)
        for own in range(len(table))
    ]
    off_diagonal = ~np.eye(len(choice), dtype=bool)
    votes = [np.where(np.isfinite(matrix) & off_diagonal, matrix, 0.0) @ weight for matrix in everyone]
    best = np.argmax(votes, axis=0)
    return np.asarray(np.choose(best[:, None], everyone))


def relate_choices(operators: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Operator between two frames turned by operators a and b: the index of the coset of a^-1 b.

    Parameters
    ----------
    operators
        (m, 3, 3) integer rotations, one of each coset, the identity first: ``ambiguity_rotations``.
    group
        (g, 3, 3) rotations of the crystal: ``laue_rotations``.

    Returns
    -------
    numpy.ndarray
        (m, m) int64.

    Raises
    ------
    BadParameter
        If a^-1 b is in no coset of the operators: they are no group with the crystal's.

    Examples
    --------
    >>> half_turn = np.diag([-1, -1, 1])
    >>> relate_choices(np.stack([np.eye(3, dtype=int), half_turn]), np.eye(3, dtype=int)[None]).tolist()
    [[0, 1], [1, 0]]
    """
    table = np.full((len(operators), len(operators)), -1)
    cosets = [{_key(member @ operator) for member in group} for operator in operators]
    for a, first in enumerate(operators):
        inverse = np.rint(np.linalg.inv(first)).astype(int)
        for b, second in enumerate(operators):
            found = [index for index, coset in enumerate(cosets) if _key(inverse @ second) in coset]
            if not found:
                raise BadParameter(f"operators {a} and {b} differ by a rotation that is in no coset of the group")
            table[a, b] = found[0]
    return _check_table(table, len(operators))


def _key(rotation: np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in np.rint(rotation).ravel())


def _check_table(relative: np.ndarray | None, count: int) -> np.ndarray:
    if relative is None and count > 2:
        raise BadParameter(f"{count} labellings need the table 'relative' of ({count}, {count}): see relate_choices")
    table = np.array([[0, 1], [1, 0]])[:count, :count] if relative is None else np.asarray(relative)
    each = np.arange(count)
    if table.shape != (count, count) or (np.sort(table, axis=1) != each).any() or (table[each, each] != 0).any():
        raise BadParameter(
            f"'relative' must be ({count}, {count}), each row holding 0 to {count - 1} once and 0 on the diagonal, "
            f"got {table.tolist()}"
        )
    return table


def _whiten_all(agreement: Sequence[Any], samples: Sequence[Any] | None) -> list[np.ndarray]:
    """Agreements over their noise, m matrices (n, n) float32."""
    counts = [None] * len(agreement) if samples is None else samples
    size = len(agreement[0])
    for matrix in (*agreement, *(() if samples is None else samples)):
        if np.shape(matrix) != (size, size) or len(counts) != len(agreement):
            raise BadParameter(f"agreements and samples must be {len(agreement)} matrices each, all ({size}, {size})")
    pairs = list(zip(agreement, counts, strict=True))
    return [whiten(*pair, measure_noise(*pair), clip=_CLIP) for pair in pairs]


def _start(whitened: list[np.ndarray], table: np.ndarray, count: int) -> np.ndarray:
    """Weights (m, n, c) of candidates: a frame of choice 0, and those it agrees with at the choices they prefer."""
    strength = np.sum([(np.maximum(matrix, 0.0) ** 3).sum(axis=1) for matrix in whitened], axis=0)
    first = np.argsort(-strength, kind="stable")[:count]
    weights = np.stack([whitened[operator][first].T for operator in table[0]])
    weights = np.where(weights == weights.max(axis=0), np.maximum(weights, 0.0), 0.0)
    weights[0, first, np.arange(len(first))] = weights.max(axis=(0, 1))
    return _normalise(weights)


def _gather_evidence(whitened: list[np.ndarray], table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Agreement (m, n, c) of every frame at every choice with the others at theirs."""
    return np.stack([sum(whitened[operator] @ weights[b] for b, operator in enumerate(row)) for row in table])


def _vote(evidence: np.ndarray) -> np.ndarray:
    """Weights (m, n, c): each frame's evidence past the threshold, at its best choice."""
    is_best = np.arange(len(evidence))[:, None, None] == evidence.argmax(axis=0)
    return _normalise(np.where(is_best, np.maximum(evidence - np.float32(_THRESHOLD), 0.0), 0.0))


def _normalise(weights: np.ndarray) -> np.ndarray:
    norm = np.sqrt((weights**2).sum(axis=(0, 1)))
    return np.asarray(weights / np.where(norm > 0, norm, 1.0), dtype=np.float32)


def _select(agreement: Sequence[Any], rows: np.ndarray, columns: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Agreement (n, n) at the choices of rows and of columns; NaN where either has none."""
    operator = table[np.maximum(rows, 0)[:, None], np.maximum(columns, 0)[None, :]]
    selected = np.choose(operator, [np.asarray(matrix) for matrix in agreement])
    selected[(rows < 0)[:, None] | (columns < 0)[None, :]] = np.nan
    return np.asarray(selected)
