"""Compile kernels so that a stale one can never be loaded from the cache.

Numba keeps compiled functions on disk and asks, before it takes one, whether
the file of *that* function changed; a changed function that it calls goes
unnoticed. Here the cache lies in a folder named after a digest of all kernels,
so that any change of any kernel compiles them anew.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, the GIL released; keep it in the cache of this version of all kernels."""
    dispatcher = numba.njit(nogil=True)(function)
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(_cache_folder())
    try:
        dispatcher.enable_caching()
    finally:
        config.CACHE_DIR = before
    return dispatcher


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function that kernels call; sums stay in the order in which they are written (see ``lanes``)."""
    return numba.njit(nogil=True)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Write a small function into the kernels that call it: passing a pixel list by value costs more than the work."""
    return numba.njit(nogil=True, inline="always")(function)


@cache
def _cache_folder() -> Path:
    here = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(here.glob("*.py")):
        digest.update(path.read_bytes())
    name = f"kernels-{digest.hexdigest()[:16]}"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for base in (here / "__pycache__", home / "diffdask", Path(tempfile.gettempdir()) / f"diffdask-{os.getuid()}"):
        try:
            (base / name).mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(base / name, os.W_OK):
            return base / name
    raise OSError("found no folder to keep compiled kernels in; set XDG_CACHE_HOME to one that can be written")
