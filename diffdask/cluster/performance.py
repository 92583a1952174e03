"""Dask's own report of a run: what every worker did when, profiles and memory, in one HTML file."""

from __future__ import annotations

import contextlib
import html
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def report_performance(client: Any, to: str | Path, *, title: str = "") -> Iterator[None]:
    """Write Dask's performance report when the context ends, be it by an error.

    What Dask remembers is bounded, so that of a long run the report shows the last tasks only. A report that cannot be
    made, as when the scheduler is gone, is told and is no error.

    Parameters
    ----------
    client
        From :func:`~diffdask.cluster.connect`.
    to
        The HTML file; it needs no network to be looked at.
    title
        Text shown in it, such as the job file's.
    """
    from distributed import performance_report

    report = performance_report(filename=str(to), mode="inline")
    is_begun = _done(client, to, report.__aenter__)
    try:
        yield
    finally:
        if is_begun:
            _done(client, to, report.__aexit__, None, None, None, code=html.escape(title))


def _done(client: Any, to: str | Path, what: Callable[..., Any], *arguments: Any, **options: Any) -> bool:
    """Whether Dask did it, within a minute; what it raises else, of whatever kind, is not worth a run."""
    try:
        if client.status != "running":  # it would be waited for
            raise OSError("the scheduler is gone")
        with client.as_current():
            client.sync(what, *arguments, callback_timeout=60, **options)
    except Exception as error:
        _log.warning("no performance report in '%s': %s: %s", to, type(error).__name__, error)
        return False
    return True
