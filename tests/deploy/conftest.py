"""Kustomize as far as ``deploy/kubernetes`` uses it, and strict schemas."""

import copy
import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
OVERLAYS = ("volume", "s3", "standing")

#: Keys of a kustomization that are understood below; with another one, the rendering would quietly be another.
UNDERSTOOD = {
    *("apiVersion", "kind", "namespace", "resources", "components", "patches", "images", "configMapGenerator"),
    "generatorOptions",
}
WITHOUT_NAMESPACE = {"Namespace"}


def render(folder: Path, resources: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Render a kustomization: resources, components, patches, images, names of the namespace."""
    said = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(said) <= UNDERSTOOD, set(said) - UNDERSTOOD
    resources = resources or []
    for name in said.get("resources", []):
        path = (folder / name).resolve()
        resources += render(path) if path.is_dir() else [one for one in yaml.safe_load_all(path.read_text()) if one]
    resources = copy.deepcopy(resources)  # anchors of YAML are one object
    for name in said.get("components", []):
        resources = render((folder / name).resolve(), resources)
    for made in said.get("configMapGenerator", []):
        data = {name: (folder / name).read_text() for name in made["files"]}
        resources.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": made["name"]}, "data": data})
    for patch in said.get("patches", []):
        for one in resources:
            if one["kind"] == patch["target"]["kind"]:
                _apply(yaml.safe_load(patch["patch"]), one)
    for image in said.get("images", []):
        for container in (found for one in resources for found in containers(one)):
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
    for one in resources:
        if "namespace" in said and one["kind"] not in WITHOUT_NAMESPACE:
            one["metadata"]["namespace"] = said["namespace"]
    return [_unshared(one) for one in resources]


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


def _unshared(value: Any) -> Any:
    """Copy so that no two places are one object, as anchors of YAML make them."""
    if isinstance(value, dict):
        return {key: _unshared(one) for key, one in value.items()}
    return [_unshared(one) for one in value] if isinstance(value, list) else value


def _apply(patch: list[dict[str, Any]], resource: dict[str, Any]) -> None:
    """Apply a JSON patch (RFC 6902): add, replace and test."""
    resource.update(_unshared(resource))
    for operation in patch:
        *way, last = operation["path"].strip("/").split("/")
        at: Any = resource
        for step in way:
            at = at[int(step)] if isinstance(at, list) else at[step]
        match operation["op"], at:
            case "add", list() if last == "-":
                at.append(operation["value"])
            case (("add" | "replace"), _):
                at[int(last) if isinstance(at, list) else last] = operation["value"]
            case "test", _:
                assert (at[int(last)] if isinstance(at, list) else at[last]) == operation["value"], operation
            case other:
                raise AssertionError(f"not understood: {other}")


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
