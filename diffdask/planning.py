"""Which frames belong together in one task: integers in, tuples out.

A block is (start, stop): frames start, start + 1, ..., stop - 1.

A shard of the frames store is written whole, by one task. Where frames are
appended to a last shard that is not full, that shard is written again::

    shard size 4      0 1 2 3 | 4 5 . .            6 frames there
    append 5 frames   0 1 2 3 | 4 5 6 7 | 8 9 10   blocks to write: (4, 8), (8, 11)
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Collection, Iterator, Sequence

from diffdask.errors import BadParameter

Block = tuple[int, int]


def blocks_of(frame_count: int, size: int) -> list[Block]:
    """Cut frames into blocks of ``size``; the last one may be smaller.

    Examples
    --------
    >>> blocks_of(10, 4)
    [(0, 4), (4, 8), (8, 10)]
    """
    _check_size(size)
    return [(start, min(start + size, frame_count)) for start in range(0, frame_count, size)]


def blocks_to_write(first_new: int, frame_count: int, shard: int) -> list[Block]:
    """Whole shards that hold frames from ``first_new`` on.

    Examples
    --------
    >>> blocks_to_write(6, 11, 4)
    [(4, 8), (8, 11)]
    """
    _check_size(shard)
    start = first_new // shard * shard
    return [(start + a, start + b) for a, b in blocks_of(frame_count - start, shard)] if first_new < frame_count else []


def to_do(blocks: Sequence[Block], done: Collection[Block]) -> list[Block]:
    """Blocks that are not done, in order.

    Examples
    --------
    >>> to_do([(0, 4), (4, 8)], {(0, 4)})
    [(4, 8)]
    """
    return [block for block in blocks if block not in done]


def align(size: int, unit: int) -> int:
    """Round a number of frames up to a multiple of ``unit``.

    Examples
    --------
    >>> align(5, 4)
    8
    """
    _check_size(unit)
    return -(-max(size, 1) // unit) * unit


def pieces_of(block: Block, segments: Sequence[Block]) -> Iterator[tuple[int, Block]]:
    """Cut a block where segments meet.

    Parameters
    ----------
    block
        Frames wanted.
    segments
        Segments of frames, in order, without gap.

    Yields
    ------
    tuple
        (number of the segment, the part of the block in it).

    Examples
    --------
    >>> list(pieces_of((2, 6), [(0, 3), (3, 5), (5, 9)]))
    [(0, (2, 3)), (1, (3, 5)), (2, (5, 6))]
    """
    number = max(0, bisect.bisect_right(segments, block[0], key=lambda segment: segment[0]) - 1)
    while number < len(segments) and segments[number][0] < block[1]:
        first, last = max(segments[number][0], block[0]), min(segments[number][1], block[1])
        if first < last:
            yield number, (first, last)
        number += 1


def runs_of(numbers: Sequence[int]) -> list[Block]:
    """Cut a sequence of integers where it does not go on by one.

    Returns
    -------
    list
        Blocks of positions in the sequence.

    Examples
    --------
    >>> runs_of([3, 4, 5, 9, 2])
    [(0, 3), (3, 4), (4, 5)]
    """
    cuts = [0, *(n for n in range(1, len(numbers)) if numbers[n] != numbers[n - 1] + 1), len(numbers)]
    return [(a, b) for a, b in itertools.pairwise(cuts) if a < b]


def tiles_of(count: int, side: int) -> list[tuple[Block, Block]]:
    """Cut the pairs of hits into square tiles, on and above the diagonal only: similarity is symmetric.

    Returns
    -------
    list
        (rows, columns) of each tile; tiles on the diagonal have equal ones.

    Examples
    --------
    >>> tiles_of(5, 3)
    [((0, 3), (0, 3)), ((0, 3), (3, 5)), ((3, 5), (3, 5))]
    """
    return list(itertools.combinations_with_replacement(blocks_of(count, side), 2))


def _check_size(size: int) -> None:
    if size < 1:
        raise BadParameter(f"a block must hold at least one frame, got {size}")
