"""Workers that import what they will need while the driver is still finding out what is to be done."""

from __future__ import annotations

import asyncio
import importlib
import logging
from typing import Any

_log = logging.getLogger(__name__)


def warm_up(client: Any, module: str) -> None:
    """Have the workers that there are import a module, which takes seconds; it is not waited for, nor does it matter.

    Parameters
    ----------
    client
        From :func:`~diffdask.cluster.connect`.
    module
        Dotted name, such as ``diffdask.pipeline.screen``.
    """
    if client.status != "running":
        return

    async def send() -> None:
        try:
            await client.run(_import, module, wait=False, on_error="ignore")
        except Exception as error:  # the scheduler is gone, or going: what runs the blocks says so
            _log.debug("workers were not warmed up: %s", error)

    client.loop.add_callback(send)


async def _import(module: str) -> None:
    """Import in a thread, so that the worker goes on answering."""
    await asyncio.to_thread(importlib.import_module, module)
