"""Progress bars on the terminal."""

from __future__ import annotations

from typing import Any


def progress_bar(total: int, *, what: str, unit: str, shown: bool, done: int = 0) -> Any:
    """Make a bar that counts ``total`` units, ``done`` of them already there; silent unless ``shown``."""
    from tqdm import tqdm

    return tqdm(total=total, initial=done, desc=what, unit=unit, disable=not shown, mininterval=0.5)
