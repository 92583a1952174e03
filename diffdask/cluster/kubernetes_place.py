"""The kind of place ``kubernetes``: its keys, and how much it can do."""

from __future__ import annotations

import contextlib
from typing import Any

from diffdask.cluster.capacity import Capacity
from diffdask.cluster.keys import Key
from diffdask.cluster.kubernetes import open_kubernetes
from diffdask.cluster.kubernetes_resources import KUBERNETES, worker_memory

_MEANINGS = {
    "name": "of the DaskCluster; one run at a time has it",
    "namespace": "in which it is made",
    "image": "container image of scheduler and workers, with its version",
    "workers": "worker pods",
    "threads": "threads of a worker; each is a core that is asked for",
    "memory": "of a worker's pod, as in 2Gi",
    "scheduler_memory": "of the scheduler's pod",
    "claim": "PersistentVolumeClaim that is mounted at /data; empty: none",
    "s3_secret": "Secret with keys of S3 as environment variables; empty: none",
    "tls_secret": "Secret with ca.crt, tls.crt and tls.key; empty: a certificate of the run's own",
}

KEYS = {name: Key(default, _MEANINGS[name]) for name, default in KUBERNETES.items()}


def open_client(place: dict[str, Any], stack: contextlib.ExitStack) -> Any:
    """Make the cluster and connect to it."""
    return stack.enter_context(open_kubernetes(place))


def capacity(place: dict[str, Any]) -> Capacity:
    """How much the place can do at once."""
    return Capacity(
        told=f"Kubernetes: {place['workers']} worker pods in namespace '{place['namespace']}'",
        workers=place["workers"],
        threads=place["threads"],
        memory=worker_memory(place["memory"]),
        cores=place["workers"] * place["threads"],
        cost_per_core_hour=place["cost_per_core_hour"],
    )
