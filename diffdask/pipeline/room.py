"""How much a place can do at once, asked of its cluster where only that knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffdask.cluster import capacity_of, connect
from diffdask.cluster.capacity import Capacity, of_workers
from diffdask.errors import BadJob

#: How long a scheduler may take to answer a plan, s.
_SOON = 5.0


def ask_room(place: Mapping[str, Any], on: Any) -> Capacity:
    """How much a place can do at once; a scheduler that runs already is asked, and nothing is started.

    Parameters
    ----------
    place
        As :func:`~diffdask.cluster.find_place` gives it.
    on
        What it was found from.

    Returns
    -------
    Capacity
        Without workers where the scheduler does not answer from here, or has none; then it says why.
    """
    import dask

    capacity = capacity_of(dict(place))
    if place["where"] != "address":
        return capacity
    try:
        with dask.config.set({"distributed.comm.timeouts.connect": f"{_SOON}s"}), connect(on) as client:
            return of_workers(capacity, client.scheduler_info(n_workers=-1)["workers"].values())
    except BadJob as error:  # a plan is of use without it
        return replace(capacity, told=f"{capacity.told}, which was not reached ({error})")
