"""How detectors say that a pixel must not be used: masks with bits, and values that are no intensities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mask:
    """A mask that a ``.geom`` names: where it lies and how its bits are read."""

    path: str  #: HDF5 path; shaped as the data, with or without the frame axis
    file: str | None  #: file with the mask, if not the data's own
    good_bits: int  #: bits that must be set
    bad_bits: int  #: bits that must not be set
    panels: tuple[int, ...]  #: panels it is for


@dataclass(frozen=True)
class Flag:
    """A value by which the detector says that a pixel has no intensity."""

    kind: str  #: "flag_equal", "flag_lessthan" or "flag_morethan"
    value: float
    panels: tuple[int, ...]


def is_good_by_mask(array: np.ndarray, mask: Mask) -> np.ndarray:
    """Turn mask bits into booleans: all good bits set and no bad bit."""
    bits = array.astype(np.int64)
    return ((bits & mask.good_bits) == mask.good_bits) & ((bits & mask.bad_bits) == 0)


def is_flagged(panels: np.ndarray, flags: Sequence[Flag]) -> np.ndarray:
    """Find pixels, (panel, ss, fs) bool, whose value says that they have no intensity."""
    flagged = np.zeros(panels.shape, dtype=bool)
    compare = {"flag_equal": np.equal, "flag_lessthan": np.less, "flag_morethan": np.greater}
    for flag in flags:
        which = list(flag.panels)
        flagged[which] |= compare[flag.kind](panels[which], flag.value)
    return flagged
