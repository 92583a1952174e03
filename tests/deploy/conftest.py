"""Manifests as Kustomize renders them, and strict schemas."""

import copy
import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
OVERLAYS = ("volume", "s3", "standing")  # those that start pods


def render(folder: Path) -> list[dict[str, Any]]:
    """Give what ``kubectl apply -k`` would send; a folder is rendered once, so copy it before you change it."""
    return copy.deepcopy(_rendered(folder))


@functools.cache
def _rendered(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.load_all(done.stdout, yaml.CSafeLoader) if one]


@functools.cache
def kubectl() -> str:
    """Find kubectl, that of this Python's environment first."""
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = shutil.which("kubectl", path=here)
    assert found is not None, "no kubectl: 'make install' brings one on Linux; elsewhere put your own on the path"
    return found


def containers(resource: Any) -> list[dict[str, Any]]:
    """Find all containers of a resource, however deep."""
    if isinstance(resource, dict):
        here = resource.get("containers", []) + resource.get("initContainers", [])
        return here + [found for value in resource.values() for found in containers(value)]
    return [found for value in resource for found in containers(value)] if isinstance(resource, list) else []


def pods(resource: Any) -> list[dict[str, Any]]:
    """Find all descriptions of pods in a resource."""
    if isinstance(resource, dict):
        here = [resource] if "containers" in resource else []
        return here + [found for value in resource.values() for found in pods(value)]
    return [found for value in resource for found in pods(value)] if isinstance(resource, list) else []


@functools.cache
def custom_schema(kind: str) -> dict[str, Any]:
    """Give the operator's own schema of a kind, with nothing allowed that it does not name."""
    package = importlib.util.find_spec("dask_kubernetes")
    assert package is not None
    assert package.origin is not None
    crds = Path(package.origin).parent / "operator" / "deployment" / "helm" / "dask-kubernetes-operator" / "crds"
    definition = yaml.safe_load((crds / f"{kind.lower()}.yaml").read_text())
    (version,) = definition["spec"]["versions"]
    schema = _closed(version["schema"]["openAPIV3Schema"])
    schema["properties"] |= {"apiVersion": {"const": "kubernetes.dask.org/v1"}, "kind": {"const": kind}}
    schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return schema


def _closed(schema: Any) -> Any:
    """Forbid properties that are not named."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: _closed(value) for key, value in schema.items()}
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        schema.setdefault("additionalProperties", False)
    return schema


def check(resource: dict[str, Any]) -> None:
    """Raise ``jsonschema.ValidationError`` if a resource is not strictly what its kind says."""
    _check(json.dumps(resource, sort_keys=True))


@functools.cache  # overlays have much in common, and a schema takes a second to read
def _check(text: str) -> None:
    import jsonschema
    import kubernetes_validate

    resource = json.loads(text)
    if resource["apiVersion"].startswith("kubernetes.dask.org/"):
        jsonschema.Draft202012Validator(custom_schema(resource["kind"])).validate(resource)
    else:
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


@pytest.fixture(scope="session")
def check_manifest():
    """Gives the strict check of one manifest."""
    return check


class Deployment:
    """What the tests of this folder share."""

    folder = FOLDER
    render = staticmethod(render)
    check = staticmethod(check)
    containers = staticmethod(containers)
    pods = staticmethod(pods)


@pytest.fixture(scope="session")
def deployment() -> type[Deployment]:
    """Renders and checks manifests."""
    return Deployment


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Resources of every overlay in turn, rendered."""
    return render(FOLDER / "overlays" / request.param)
