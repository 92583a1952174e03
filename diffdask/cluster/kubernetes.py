"""A cluster on Kubernetes, by the Dask operator.

``dask_kubernetes.KubeCluster`` knows no TLS (its issue 857), so the DaskCluster
is made through the API by kr8s, which dask-kubernetes brings along; the
operator does the rest.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from diffdask.cluster.kubernetes_resources import (
    CERTIFICATE_FILES,
    SCHEDULER_PORT,
    check_kubernetes,
    dask_cluster,
    scheduler_address,
)
from diffdask.errors import BadJob

logger = logging.getLogger(__name__)

#: Seconds that pods may take to come: images of gigabytes are pulled, machines are started.
PATIENCE = 900.0


@contextlib.contextmanager
def open_kubernetes(place: Mapping[str, Any], *, patience: float = PATIENCE) -> Iterator[Any]:
    """Make a DaskCluster, connect to it, and delete it in the end.

    Parameters
    ----------
    place
        All keys of :data:`~diffdask.cluster.kubernetes_resources.KUBERNETES`.
    patience
        Seconds to wait for the scheduler, and again for workers.

    Yields
    ------
    distributed.Client
        Encrypted, whether from inside the cluster or through a port-forward.

    Raises
    ------
    BadJob
        If dask-kubernetes is missing, no cluster answers, it refuses, or no pod comes in time.
    """
    import distributed

    check_kubernetes(place)
    with contextlib.ExitStack() as stack:
        kr8s = _import_kr8s()
        stack.enter_context(_refusals_told(place))
        api = _log_in(kr8s)
        security, secret = _certificate(kr8s, api, place)
        cluster = _create_cluster(kr8s, api, place, secret["metadata"]["name"] if secret else place["tls_secret"])
        stack.callback(_delete_cluster, cluster)
        if secret:
            _create_secret(kr8s, api, secret, owner=cluster)
        service = _wait_for_scheduler(kr8s, api, place, patience)
        address = stack.enter_context(_reach(service, place))
        client = stack.enter_context(
            distributed.Client(address, security=security, set_as_default=False, timeout="60s")
        )
        _wait_for_workers(client, place, patience)
        yield client


def _import_kr8s() -> Any:
    try:
        import kr8s
        import kr8s.objects
    except ImportError as error:
        raise BadJob("a place on Kubernetes needs dask-kubernetes: pip install 'diffdask[kubernetes]'") from error
    return kr8s


def _log_in(kr8s: Any) -> Any:
    try:
        # named, since kr8s hands out an open connection again to whoever gives it the same words
        return kr8s.api(kubeconfig=os.environ.get("KUBECONFIG"))
    except ValueError as error:
        raise BadJob(f"no Kubernetes is known here: {error}; does 'kubectl get nodes' work?") from error


@contextlib.contextmanager
def _refusals_told(place: Mapping[str, Any]) -> Iterator[None]:
    """Say what to do about what the API answers, or that none does."""
    import httpx
    import kr8s

    try:
        yield
    except kr8s.ServerError as error:
        status = error.response.status_code if error.response is not None else 0
        raise BadJob(f"Kubernetes refuses: {error}; {_advice(status, place)}") from error
    except (kr8s.APITimeoutError, httpx.TransportError) as error:
        raise BadJob(f"no Kubernetes answers: {error}; does 'kubectl get nodes' work?") from error


def _advice(status: int, place: Mapping[str, Any]) -> str:
    name, namespace = place["name"], place["namespace"]
    return {
        401: "log in again, then try 'kubectl get nodes'",
        403: f"ask for the Role diffdask-launcher of namespace '{namespace}' (docs/kubernetes.md)",
        404: "is the Dask operator installed, and the namespace there? See docs/kubernetes.md",
        409: f"another run has this name, or one was killed: wait for it, or 'kubectl delete daskcluster {name} "
        f"--namespace {namespace}', or give another name",
    }.get(status, f"'kubectl describe daskcluster {name} --namespace {namespace}' says more")


def _certificate(kr8s: Any, api: Any, place: Mapping[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    """Give the driver's certificate, and the Secret to be made for the pods, if there is none."""
    from distributed.security import Security

    if place["tls_secret"]:
        kept = kr8s.objects.Secret({"metadata": _metadata(place, place["tls_secret"])}, api=api)
        try:
            kept.refresh()
        except kr8s.NotFoundError as error:
            raise BadJob(
                f"tls_secret = {place['tls_secret']!r}: namespace '{place['namespace']}' has no such Secret; "
                "make it (docs/kubernetes.md), or leave the key empty for a certificate of this run's own"
            ) from error
        absent = [name for name in CERTIFICATE_FILES if name not in kept.raw.get("data", {})]
        if absent:
            raise BadJob(f"the Secret '{place['tls_secret']}' lacks {', '.join(absent)}; it must have all three")
        authority, certificate, key = (base64.b64decode(kept.raw["data"][name]).decode() for name in CERTIFICATE_FILES)
        made = Security(tls_ca_file=authority, tls_client_cert=certificate, tls_client_key=key, require_encryption=True)
        return made, None
    made = Security.temporary()
    contents = (made.tls_ca_file, made.tls_client_cert, made.tls_client_key)
    return made, {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(place, f"{place['name']}-tls"),
        "type": "Opaque",
        "stringData": dict(zip(CERTIFICATE_FILES, contents, strict=True)),
    }


def _metadata(place: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"name": name, "namespace": place["namespace"]}


def _create_cluster(kr8s: Any, api: Any, place: Mapping[str, Any], tls_secret: str) -> Any:
    kind = kr8s.objects.new_class("DaskCluster", "kubernetes.dask.org/v1", asyncio=False)
    cluster = kind(dask_cluster(place, tls_secret=tls_secret), api=api)
    cluster.create()
    logger.info("DaskCluster '%s' made in namespace '%s'", place["name"], place["namespace"])
    return cluster


def _create_secret(kr8s: Any, api: Any, secret: dict[str, Any], *, owner: Any) -> None:
    """Make the Secret so that Kubernetes deletes it with the cluster, even if this process is killed."""
    of = {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "name": owner.name,
        "uid": owner.raw["metadata"]["uid"],
    }
    secret = {**secret, "metadata": {**secret["metadata"], "ownerReferences": [of]}}
    kr8s.objects.Secret(secret, api=api).create()


def _delete_cluster(cluster: Any) -> None:
    import kr8s

    try:
        cluster.delete()
    except kr8s.NotFoundError:
        logger.warning("the DaskCluster '%s' was gone already", cluster.name)


def _wait_for_scheduler(kr8s: Any, api: Any, place: Mapping[str, Any], patience: float) -> Any:
    """Wait until the operator has made the scheduler's service and its pod is ready."""
    service = kr8s.objects.Service({"metadata": _metadata(place, f"{place['name']}-scheduler")}, api=api)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with contextlib.suppress(kr8s.NotFoundError):
            service.refresh()
            if service.ready_pods():
                return service
        time.sleep(1)
    raise BadJob(
        f"no scheduler after {patience:.0f} s: is the Dask operator running, can the image '{place['image']}' be "
        f"pulled, is there room? 'kubectl get pods --namespace {place['namespace']}' says more"
    )


@contextlib.contextmanager
def _reach(service: Any, place: Mapping[str, Any]) -> Iterator[str]:
    """Give the scheduler's address: by name in the cluster, else through a port-forward."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        yield scheduler_address(place["name"], place["namespace"])
        return
    with service.portforward(SCHEDULER_PORT, local_port="auto") as port:
        yield f"tls://127.0.0.1:{port}"


def _wait_for_workers(client: Any, place: Mapping[str, Any], patience: float) -> None:
    """Wait for all workers; go on with fewer if they do not come, but not with none."""
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(place["workers"], timeout=patience)
        return
    there = len(client.nthreads())
    if not there:
        raise BadJob(
            f"no worker after {patience:.0f} s: 'kubectl get pods --namespace {place['namespace']}' says why; "
            f"each asks for {place['threads']} CPU and {place['memory']} of memory"
        )
    logger.warning("only %d of %d workers came; going on with these", there, place["workers"])
