"""Telling the scheduler how far a run is: a small message a second from the driver, one a block from workers.

None of it is waited for, and none of it can stop a run.
"""

from __future__ import annotations

import logging
import time
import weakref
from typing import Any

#: Time between two messages of a driver, s.
_EVERY = 1.0

#: How long the last message of a stage is waited for, s.
_LAST_WAIT = 2.0

#: Topic of what workers tell, and name of the scheduler's handler for what drivers tell.
TOPIC, HANDLER = "diffdask", "diffdask_told"

_log = logging.getLogger(__name__)

#: Clients whose scheduler listens, and those whose scheduler does not.
_LISTENING: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


def watch(client: Any) -> bool:
    """Have the client's scheduler show diffdask's page and metrics; once a client.

    Returns
    -------
    bool
        Whether it does. A scheduler that cannot, as when diffdask is not installed where it runs, is told once and is
        no error.
    """
    if client not in _LISTENING:
        from diffdask.cluster.plugin import NAME, Watching

        try:
            client.register_plugin(Watching(), name=NAME)
            _LISTENING[client] = True
        except Exception as error:  # whatever the scheduler raised, the run does not need it
            _LISTENING[client] = False
            _log.warning(
                "the scheduler shows no page of diffdask (%s: %s); is diffdask installed there?",
                type(error).__name__,
                error,
            )
    return _LISTENING[client]


def page_link(client: Any) -> str:
    """Address of diffdask's page in the dashboard, or of the dashboard where there is no such page; "" without."""
    link = client.dashboard_link or ""
    return link.removesuffix("status") + "diffdask" if link.endswith("/status") and watch(client) else link


def tell_counts(client: Any, **counts: int | None) -> None:
    """Tell how many ``hits``, ``diffuse`` hits and ``damaged`` frames a run has by now."""
    if watch(client):
        _send(client, {"counts": counts}, wait=True)


def count(**found: int) -> None:
    """Tell from within a task what was found in its block: ``hits`` and ``damaged`` frames; zeros cost nothing."""
    from distributed import get_worker

    told = {name: number for name, number in found.items() if number}
    if not told:
        return
    try:
        worker = get_worker()
    except ValueError:  # not within a task
        return
    worker.log_event(TOPIC, told)


class Teller:
    """Tells how far a stage is.

    Parameters
    ----------
    client
        From ``connect``.
    stage, unit
        What is done, and with what.

    Attributes
    ----------
    answer : dict
        What the scheduler knows: ``hits`` and ``failures``, or nothing yet.
    """

    def __init__(self, client: Any, *, stage: str, unit: str) -> None:
        self.answer: dict[str, Any] = {}
        self._client, self._what, self._last = client, {"stage": stage, "unit": unit}, 0.0
        self._listens = watch(client)

    def tell(self, *, is_over: bool = False, at_once: bool = False, **counts: int) -> None:
        """Tell ``total``, ``done``, ``failed``, ``blocks`` and ``blocks_done``; at most once a second."""
        now = time.monotonic()
        if not self._listens or (now - self._last < _EVERY and not is_over and not at_once):
            return
        self._last = now
        _send(self._client, {"stage": {**self._what, **counts, "is_over": is_over}}, answer=self.answer, wait=is_over)


def _send(client: Any, told: dict[str, Any], *, answer: dict[str, Any] | None = None, wait: bool = False) -> None:
    """Send a message; it may be waited for, so that a driver does not end before it is gone."""
    if client.status != "running":
        return

    async def send() -> None:
        try:
            given = await getattr(client.scheduler, HANDLER)(run=client.id, told=told)
        except Exception as error:  # the scheduler is gone, or going: what runs the blocks says so
            _log.debug("the scheduler was not told: %s", error)
        else:
            if answer is not None and given:
                answer.update(given)

    if wait and not client.asynchronous:
        try:
            client.sync(send, callback_timeout=_LAST_WAIT)
        except (TimeoutError, RuntimeError) as error:
            _log.debug("the scheduler was not told: %s", error)
    else:
        client.loop.add_callback(send)
