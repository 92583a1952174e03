"""Errors that say what was found, what was expected and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DiffdaskError(Exception):
    """Base of every error that diffdask raises on purpose."""


class MissingVariable(DiffdaskError):
    """A Dataset lacks a variable that a step needs."""


class BadGeometry(DiffdaskError):
    """A geometry cannot be read, or does not fit the frames."""


class BadFrames(DiffdaskError):
    """A file of frames cannot be used: truncated, a dataset missing, another shape."""


class BadStream(DiffdaskError):
    """A CrystFEL stream cannot be used."""


class BadLabels(DiffdaskError):
    """A table of labels cannot be used."""


class BadStore(DiffdaskError):
    """A Zarr store is not what it should be: unfinished, of another kind, of other parameters."""


class BadWeights(DiffdaskError):
    """Weights of a network cannot be used: absent, truncated, of another network, or not safe to read."""


class BadJob(DiffdaskError):
    """A job or place file has a key or a value that diffdask does not know."""


class BadParameter(DiffdaskError):
    """A parameter is outside what the computation can take."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known word was probably meant.

    Examples
    --------
    >>> nearest("snrr", ["snr", "rings"])
    "did you mean 'snr'? Known: rings, snr"
    >>> nearest("zzz", ["snr", "rings"])
    'known: rings, snr'
    """
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    listed = ", ".join(known)
    return f"did you mean '{close[0]}'? Known: {listed}" if close else f"known: {listed}"
