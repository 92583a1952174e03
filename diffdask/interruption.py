"""SIGTERM, as batch systems send it before the time is up: what was begun is closed, not cut off."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

#: Exit code of a process that SIGTERM ended, as a shell would tell it.
EXIT_CODE = 128 + signal.SIGTERM


class Terminated(BaseException):
    """SIGTERM came. Like KeyboardInterrupt no Exception, so that nothing takes it for a failure and goes on."""


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Raise :class:`Terminated` in the main thread at SIGTERM, once.

    A batch system may send it to the script and to what the script started, which passes it on: what comes after the
    first is ignored, so that closing is not cut off. In other threads, where Python does not let signals be handled,
    nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
