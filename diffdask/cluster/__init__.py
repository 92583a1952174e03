"""Where the work runs: the only package that imports ``distributed``.

:func:`connect` gives a client on a laptop, at a scheduler's address, or at the
place a file of ``deploy/`` describes; :func:`run_blocks` keeps a bounded number
of blocks in flight on it.
"""

from diffdask.cluster.connection import connect
from diffdask.cluster.laptop import MALLOC
from diffdask.cluster.performance import report_performance
from diffdask.cluster.places import capacity_of, find_place, read_place
from diffdask.cluster.running import run_blocks
from diffdask.cluster.telling import Teller, count, page_link, tell_counts
from diffdask.cluster.warming import warm_up

__all__ = [
    "MALLOC",
    "Teller",
    "capacity_of",
    "connect",
    "count",
    "find_place",
    "page_link",
    "read_place",
    "report_performance",
    "run_blocks",
    "tell_counts",
    "warm_up",
]
