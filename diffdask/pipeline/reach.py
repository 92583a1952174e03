"""Whether the workers of a place can see what a job names: told before anything is begun."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffdask.errors import BadJob
from diffdask.io.paths import absolute, is_url
from diffdask.verbs import verb

#: Arguments of verbs that workers read from or write to.
_SEEN_BY_WORKERS = ("sources", "frames", "results", "to")

#: What to do with a store, and with files of frames, which no bucket may hold.
_TO_A_BUCKET = 'put it into a bucket (folder = "s3://bucket/campaign")'
_FROM_HERE = "ingest it from here first (diffdask ingest ... --to s3://bucket/campaign/frames.zarr)"

#: Where a volume is mounted in the pods of a place on Kubernetes.
_VOLUME = Path("/data")


def check_reach(calls: Mapping[str, Mapping[str, Any]], place: Mapping[str, Any]) -> None:
    """Refuse paths of this machine where the place shows that no worker has them.

    Only of pods on Kubernetes is it known what they have: a volume if one is claimed, at one folder. Of other places
    it is taken that all machines share the folders, as the documentation asks.

    Parameters
    ----------
    calls
        Verb to its arguments.
    place
        As :func:`~diffdask.cluster.find_place` gives it.

    Raises
    ------
    BadJob
        If a verb for the cluster names a path that no pod can see.
    """
    if place["where"] != "kubernetes":
        return
    claim = place["claim"]
    for name, key, path in _local_paths(calls):
        if claim and Path(absolute(path)).resolve().is_relative_to(_VOLUME):
            continue
        has = f"see nothing but the volume '{claim}', at {_VOLUME}" if claim else "have no volume (claim is empty)"
        way = _FROM_HERE if key == "sources" else _TO_A_BUCKET
        raise BadJob(
            f"[{name}] {key} = '{path}' lies on this machine, and the pods of '{place['name']}' {has}: {way}, or run "
            "the job in the cluster, where the volume is (kubectl apply -k deploy/kubernetes/overlays/volume); "
            "docs/kubernetes.md says how"
        )


def _local_paths(calls: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Verb, argument and path of all that workers would look for in a folder."""
    for name, arguments in calls.items():
        if "on" not in inspect.signature(verb(name)).parameters:
            continue
        for key in _SEEN_BY_WORKERS:
            given = arguments.get(key, [])
            for path in [given] if isinstance(given, str | Path) else given:
                if not is_url(path):
                    yield name, key, str(path)
