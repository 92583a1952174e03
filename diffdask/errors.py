"""Errors that say what was found, what was expected and what to do next."""

from __future__ import annotations

import difflib
import errno as numbers
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


class KilledBlock(DiffdaskError):
    """A block took down every worker that it was run on."""


class FailedBlocks(DiffdaskError):
    """Some blocks could not be done; the others are, and stay."""


class LostScheduler(DiffdaskError):
    """Dask's scheduler is gone in the midst of a run."""


class BadStorage(DiffdaskError, OSError):
    """Object storage refuses, and will again: wrong credentials, no such bucket, or nobody there to begin with."""

    errno = numbers.EACCES  # one of those after which nobody tries again


class LostStorage(OSError):
    """Object storage does not answer, or not well: as of any ``OSError``, another time it may."""


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
