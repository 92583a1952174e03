"""Counting frames by a text, such as their status."""

from __future__ import annotations

from collections import Counter

import xarray as xr

#: Frames whose texts are read together: of millions, all take gigabytes.
ROWS_AT_ONCE = 1 << 17


def count_texts(texts: xr.DataArray) -> dict[str, int]:
    """Count frames by text, in the order of the texts."""
    counted: Counter[str] = Counter()
    for start in range(0, texts.size, ROWS_AT_ONCE):
        counted.update(texts[start : start + ROWS_AT_ONCE].values.tolist())
    return dict(sorted(counted.items()))
