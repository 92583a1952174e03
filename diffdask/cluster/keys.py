"""Keys of a place file: what each is when it is left out, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffdask.errors import BadJob, nearest


@dataclass(frozen=True)
class Key:
    """A key of a place file.

    Attributes
    ----------
    default
        Its value where the file lacks it; a value given must be of the same type.
    meaning
        In a line, for people.
    is_required
        Whether the file must have it.
    """

    default: Any
    meaning: str
    is_required: bool = False


#: Keys of every place.
COMMON = {
    "cost_per_core_hour": Key(0.0, "price of a core for an hour in any currency, for 'run --dry-run'; 0: not told"),
}


def fill_in(given: Mapping[str, Any], keys: Mapping[str, Key], *, path: str) -> dict[str, Any]:
    """Check a place's keys and fill in what it leaves out.

    Raises
    ------
    BadJob
        If a key is not known, not of its type, or required and absent.
    """
    known = {**COMMON, **keys}
    for name, value in given.items():
        if name not in known:
            raise BadJob(f"'{path}': unknown key '{name}'; {nearest(name, ('where', *known))}")
        _check(name, value, known[name].default, path=path)
    missing = [name for name, key in known.items() if key.is_required and name not in given]
    if missing:
        raise BadJob(f"'{path}' lacks {', '.join(missing)}: {known[missing[0]].meaning}")
    return {name: given.get(name, key.default) for name, key in known.items()}


def _check(name: str, value: Any, default: Any, *, path: str) -> None:
    kind = type(default)
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        fits = True  # as in jobs, an integer will do
    if kind is list:
        fits = fits and all(isinstance(item, str) for item in value)
    if not fits:
        raise BadJob(f"'{path}': {name} = {value!r} must be like {default!r}")
    if kind in (int, float) and value < 0:
        raise BadJob(f"'{path}': {name} = {value!r} is below zero")
