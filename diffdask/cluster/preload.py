"""For schedulers that are started by hand: ``dask scheduler --preload diffdask.cluster.preload``."""

from __future__ import annotations

from typing import Any

from diffdask.cluster.plugin import NAME, Watching


async def dask_setup(scheduler: Any) -> None:
    """Add diffdask's page and metrics."""
    await scheduler.register_scheduler_plugin(Watching(), name=NAME, idempotent=True)
