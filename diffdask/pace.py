"""How fast a run goes, and how long it will take: from when its blocks were done.

A run may have stopped and gone on again, hours later. What counts is the last
stretch without a pause::

    blocks done   |||||||||||||                    ||||||||||||||||
                                    a pause        |<- the stretch ->|
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

#: How far back the recent rate looks, s.
WINDOW = 600.0

#: A pause is longer than this, s, and than so many times what is usual between two blocks.
_PAUSE, _PAUSE_RATIO = 60.0, 20.0


def recent_rate(times: Sequence[float], sizes: Sequence[float], *, window: float = WINDOW) -> float | None:
    """Units a second over the last stretch.

    Parameters
    ----------
    times
        When each block was done, ascending, s.
    sizes
        Units of each block, such as frames.
    window
        How far to look back from the last block, s.

    Returns
    -------
    float or None
        None where nothing can be said, as after a single block.

    Examples
    --------
    >>> recent_rate([0, 1, 2, 5000, 5002, 5004], [8, 8, 8, 8, 8, 8])
    4.0
    """
    first = len(times) - 1
    longest = pause_of(times, window=window)
    while first > 0 and times[-1] - times[first - 1] <= window and times[first] - times[first - 1] <= longest:
        first -= 1
    if first < 0 or times[-1] <= times[first]:
        return None
    return sum(sizes[first + 1 :]) / (times[-1] - times[first])


def pause_of(times: Sequence[float], *, window: float = WINDOW) -> float:
    """Time without a block from which on a run is taken to pause, s; ``times`` as in :func:`recent_rate`."""
    gaps = sorted(b - a for a, b in pairwise(times[-_LOOKED_AT:]) if b - a <= window)
    return max(_PAUSE, _PAUSE_RATIO * gaps[len(gaps) // 2]) if gaps else window


#: Blocks from which it is learnt what is usual.
_LOOKED_AT = 1000


def time_left(left: float, rate: float | None) -> float | None:
    """Seconds that so many units take at a rate; None where that cannot be said."""
    if left <= 0:
        return 0.0
    return left / rate if rate else None


def tell_time(seconds: float | None) -> str:
    """Write a time with two units at most.

    Examples
    --------
    >>> tell_time(42), tell_time(7500), tell_time(400_000)
    ('42 s', '2 h 5 min', '4 d 15 h')
    """
    if seconds is None:
        return "?"
    whole = round(seconds)
    for unit, size, smaller, divisor in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // divisor} {smaller}"
    return f"{whole} s"


def tell_rate(rate: float | None) -> str:
    """Write a rate with three digits or all before the point.

    Examples
    --------
    >>> tell_rate(0.1234), tell_rate(12.34), tell_rate(12345.6), tell_rate(None)
    ('0.123', '12.3', '12 346', '?')
    """
    if rate is None:
        return "?"
    return tell_count(round(rate)) if rate >= 100 else f"{rate:.3g}"


def tell_count(count: int) -> str:
    """Write a count with its thousands apart.

    Examples
    --------
    >>> tell_count(8_000_000)
    '8 000 000'
    """
    return f"{count:,}".replace(",", " ")
