"""Tables of text, for a terminal: columns in line, rules between groups of rows."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence

_GAP = "  "

#: Of sentences, in characters.
_WIDTH = 110


def lay_out(rows: Sequence[Sequence[str]], *, rules: Collection[int] = (), left: Collection[int] = (0,)) -> list[str]:
    r"""Write rows of cells as lines.

    Parameters
    ----------
    rows
        Cells; one of several lines has newlines. Shorter rows have empty cells at their end.
    rules
        Rows that a line is drawn above; the number of rows for one below the last.
    left
        Columns that start in line; the others end in line, as numbers do.

    Examples
    --------
    >>> print("\n".join(lay_out([["", "n"], ["hits", "12"], ["of\nthem", "3"]], rules=[1])))
           n
    ────────
    hits  12
    of     3
    them
    """
    count = max(map(len, rows))
    split = [[cell.split("\n") for cell in (*row, *[""] * (count - len(row)))] for row in rows]
    widths = [max(len(line) for row in split for line in row[column]) for column in range(count)]
    rule = "─" * (sum(widths) + len(_GAP) * (count - 1))
    lines = []
    for number, row in enumerate(split):
        lines += [rule] if number in rules else []
        for height in range(max(map(len, row))):
            texts = [cell[height] if height < len(cell) else "" for cell in row]
            lines.append(_line(texts, widths, left))
    return [*lines, rule] if len(rows) in rules else lines


def wrap_text(text: str) -> list[str]:
    """Break a sentence below a table into lines."""
    return textwrap.wrap(text, _WIDTH)


def _line(texts: Sequence[str], widths: Sequence[int], left: Collection[int]) -> str:
    placed = [
        text.ljust(width) if column in left else text.rjust(width)
        for column, (text, width) in enumerate(zip(texts, widths, strict=True))
    ]
    return _GAP.join(placed).rstrip()
