"""What Kubernetes is asked for: the DaskCluster of a place, as plain dictionaries.

The manifests of ``deploy/kubernetes/`` say the same in YAML; a test holds the
two together. Nothing here talks to a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from diffdask.cluster.running import ALLOWED_FAILURES
from diffdask.errors import BadJob
from diffdask.version import __version__

#: Keys of a place with ``where = "kubernetes"``, and what they are if not given.
KUBERNETES: dict[str, Any] = {
    "name": "diffdask",
    "namespace": "diffdask",
    "image": f"diffdask:{__version__}",
    "workers": 4,
    "threads": 1,
    "memory": "4Gi",
    "scheduler_memory": "2Gi",
    "claim": "",
    "s3_secret": "",
    "tls_secret": "",
}

SCHEDULER_PORT = 8786
WORKER_PORT = 8788
NANNY_PORT = 8789

#: Where pods find the certificate, under the names that cert-manager and ``kubectl create secret tls`` use.
TLS_FOLDER = "/tls"
CERTIFICATE_FILES = ("ca.crt", "tls.crt", "tls.key")

#: Memory of a worker's container that is not the worker's, bytes: the nanny beside it, which restarts it.
NANNY_MEMORY = 384 << 20

#: Beneath this a worker does not even start: libraries and compiled kernels are 0.4 GB.
LEAST_MEMORY = 1 << 30

_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_USER = 10001  # as in the Dockerfile
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_HEALTH = "import urllib.request as web; web.urlopen('http://127.0.0.1:8787/health', timeout=5)"


def check_kubernetes(place: Mapping[str, Any]) -> None:
    """Check the values of a place; keys and types were checked before.

    Raises
    ------
    BadJob
        If a value is none that Kubernetes takes, or a worker's memory cannot hold a worker.
    """
    for key in ("name", "namespace"):
        if not _NAME.fullmatch(place[key]):
            raise BadJob(f"{key} = {place[key]!r}: give up to 40 of a-z, 0-9 and '-', a letter first")
    for key in ("workers", "threads"):
        if place[key] < 1:
            raise BadJob(f"{key} = {place[key]}: give 1 or more")
    if ":" not in place["image"].rpartition("/")[2] or place["image"].endswith(":latest"):
        raise BadJob(f"image = {place['image']!r}: name its version too, as in 'diffdask:{__version__}'")
    for key in ("memory", "scheduler_memory"):
        if read_bytes(place[key]) < LEAST_MEMORY:
            raise BadJob(f"{key} = {place[key]!r} is too little: give 1Gi or more")


def read_bytes(quantity: str) -> int:
    """Read a Kubernetes quantity of memory: ``"2Gi"`` is 2147483648.

    Raises
    ------
    BadJob
        If it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]i|[kMGT])", quantity)
    if match is None:
        raise BadJob(f"memory of {quantity!r}: give a number and a unit, as in '2Gi' or '1500Mi'")
    return int(float(match[1]) * _UNITS[match[2]])


def worker_memory(memory: str) -> int:
    """Give the bytes that Dask lets a worker have, out of its container's memory.

    Kubernetes kills a container that passes its limit; Dask restarts a worker at
    95 % of its own, which is less, so that a frame too many costs a block and not the pod.
    """
    return read_bytes(memory) - NANNY_MEMORY


def memory_needed(block_bytes: int, *, threads: int = 1, settings: int = 1, setting_bytes: int = 69_000_000) -> int:
    """Give the bytes a worker needs to screen, by the memory rule of ``docs/performance.md``.

    Parameters
    ----------
    block_bytes
        One block of frames as stored in memory (16 CSPAD frames: 73 MB).
    threads
        Blocks that a worker screens at once.
    settings
        Detector settings (geometry, distance, energy) of the campaign.
    setting_bytes
        Map and list of pixels of a setting: 30 bytes a pixel.

    Returns
    -------
    int
        Idle, pixel maps, and four blocks a thread.
    """
    idle = 400_000_000
    return idle + settings * setting_bytes + 4 * threads * block_bytes


def dask_cluster(place: Mapping[str, Any], *, tls_secret: str) -> dict[str, Any]:
    """Make the DaskCluster resource of a place.

    Parameters
    ----------
    place
        All keys of :data:`KUBERNETES`.
    tls_secret
        Secret with the certificate that scheduler and workers show each other.
    """
    address = scheduler_address(place["name"])
    scheduler = [
        *("--protocol", "tls", "--host", "0.0.0.0", "--port", str(SCHEDULER_PORT)),
        *("--dashboard-address", "127.0.0.1:8787"),  # through a port-forward only
    ]
    worker = [
        *("--name", "$(DASK_WORKER_NAME)", "--protocol", "tls", "--nthreads", str(place["threads"])),
        *("--memory-limit", str(worker_memory(place["memory"]))),
        *("--worker-port", str(WORKER_PORT), "--nanny-port", str(NANNY_PORT), "--dashboard-address", "127.0.0.1:0"),
        *("--local-directory", "/tmp", "--death-timeout", "300"),
    ]
    from_address = [{"name": "DASK_SCHEDULER_ADDRESS", "value": address}]
    tries = [{"name": "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "value": str(ALLOWED_FAILURES)}]
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {
            "name": place["name"],
            "namespace": place["namespace"],
            "labels": {"app.kubernetes.io/part-of": "diffdask"},
        },
        "spec": {
            "scheduler": {
                "service": _service(place["name"]),
                "spec": _pod(place, tls_secret, "scheduler", scheduler, memory=place["scheduler_memory"], env=tries),
            },
            "worker": {
                "replicas": place["workers"],
                "spec": _pod(place, tls_secret, "worker", worker, memory=place["memory"], env=from_address),
            },
        },
    }


def scheduler_address(name: str, namespace: str = "") -> str:
    """Give the address of a cluster's scheduler, as pods of its namespace know it, or those of others."""
    return f"tls://{name}-scheduler{f'.{namespace}.svc' if namespace else ''}:{SCHEDULER_PORT}"


def _service(name: str) -> dict[str, Any]:
    """Describe what others find the scheduler by; the dashboard is not in it."""
    return {
        "type": "ClusterIP",
        "selector": {"dask.org/cluster-name": name, "dask.org/component": "scheduler"},
        "ports": [{"name": "tcp-comm", "protocol": "TCP", "port": SCHEDULER_PORT, "targetPort": "tcp-comm"}],
    }


def _pod(
    place: Mapping[str, Any],
    tls_secret: str,
    role: str,
    arguments: list[str],
    *,
    memory: str,
    env: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Describe a pod of the scheduler or a worker."""
    cpu = place["threads"] if role == "worker" else 1
    container: dict[str, Any] = {
        "name": role,
        "image": place["image"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["dask", role],
        "args": arguments,
        "env": [*_environment(), *(env or [])],
        "resources": {
            "requests": {"cpu": str(cpu), "memory": memory, "ephemeral-storage": "1Gi"},
            "limits": {"memory": memory, "ephemeral-storage": "6Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/tmp"},
            {"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True},
        ],
    }
    volumes: list[dict[str, Any]] = [
        {"name": "scratch", "emptyDir": {"sizeLimit": "5Gi"}},
        {"name": "tls", "secret": {"secretName": tls_secret, "defaultMode": 0o440}},
    ]
    if role == "scheduler":
        container["ports"] = [{"name": "tcp-comm", "containerPort": SCHEDULER_PORT, "protocol": "TCP"}]
        probe = {"exec": {"command": ["python", "-c", _HEALTH]}, "timeoutSeconds": 10}
        container["readinessProbe"] = {**probe, "periodSeconds": 10}
        container["livenessProbe"] = {**probe, "periodSeconds": 30, "failureThreshold": 10}
    else:
        container["ports"] = [
            {"name": "worker", "containerPort": WORKER_PORT, "protocol": "TCP"},
            {"name": "nanny", "containerPort": NANNY_PORT, "protocol": "TCP"},
        ]
        _add_storage(place, container, volumes)
    return {
        "serviceAccountName": "diffdask",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",  # else every start walks through all files of the volume
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }


def _add_storage(place: Mapping[str, Any], container: dict[str, Any], volumes: list[dict[str, Any]]) -> None:
    """Give a pod the volume or the bucket's credentials."""
    if place["claim"]:
        container["volumeMounts"].append({"name": "data", "mountPath": "/data"})
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": place["claim"]}})
        container["workingDir"] = "/data"  # as the driver's, so that a relative path is one place
    if place["s3_secret"]:
        container["envFrom"] = [{"secretRef": {"name": place["s3_secret"]}}]


def _environment() -> list[dict[str, str]]:
    """Give what every pod is told: one thread a library, where to write, and the certificate."""
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    told = {
        "HOME": "/tmp",
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
        f"{tls}CA_FILE": f"{TLS_FOLDER}/ca.crt",
    }
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        told |= {f"{tls}{role}__CERT": f"{TLS_FOLDER}/tls.crt", f"{tls}{role}__KEY": f"{TLS_FOLDER}/tls.key"}
    return [{"name": name, "value": value} for name, value in told.items()]
