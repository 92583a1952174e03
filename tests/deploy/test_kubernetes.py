"""The manifests: strictly valid, without rights or secrets, and what the package itself would make."""

import copy
import re
import shutil
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

from diffdask.cluster import find_place
from diffdask.cluster.kubernetes_resources import (
    KUBERNETES,
    NANNY_MEMORY,
    SCHEDULER_PORT,
    check_kubernetes,
    dask_cluster,
    read_bytes,
)
from diffdask.errors import BadJob
from diffdask.io.paths import as_store
from diffdask.pipeline.reach import check_reach
from diffdask.pipeline.run import plan_calls, read_job
from diffdask.version import __version__

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "kubernetes.md"


def of_kind(manifests, kind):
    return [one for one in manifests if one["kind"] == kind]


def named_ones(manifests, kind, name):
    return [one for one in of_kind(manifests, kind) if one["metadata"]["name"] == name]


def option(container, name):
    arguments = container["args"]
    return arguments[arguments.index(name) + 1]


def named(containers, name):
    return [one for one in containers if one["name"] == name]


# ---- strictly valid


def test_every_manifest_is_strictly_what_its_kind_says(manifests, deployment):
    assert len(manifests) > 8
    for resource in manifests:
        deployment.check(resource)


def test_what_the_operator_makes_of_them_is_strictly_valid(manifests, deployment):
    from dask_kubernetes.operator.controller import controller

    about = {"namespace": "diffdask", "annotations": {}, "labels": {}}
    made = []
    for resource in manifests:
        spec = resource.get("spec", {})
        if resource["kind"] == "DaskJob":
            made.append(
                controller.build_job_pod_spec("diffdask", "diffdask", spec=spec["job"]["spec"], **about),
            )
        cluster = spec.get("cluster", {}).get("spec") if resource["kind"] == "DaskJob" else spec
        if resource["kind"] in ("DaskJob", "DaskCluster"):
            scheduler = cluster["scheduler"]
            made += [
                controller.build_scheduler_deployment_spec("diffdask", scheduler["spec"], {}, {}),
                controller.build_scheduler_service_spec("diffdask", scheduler["service"], {}, {}),
            ]
        if resource["kind"] in ("DaskJob", "DaskCluster", "DaskWorkerGroup"):
            made.append(
                controller.build_worker_deployment_spec(
                    "diffdask-default", cluster_name="diffdask", uuid="0", pod_spec=cluster["worker"]["spec"], **about
                )
            )
    assert made
    for resource in made:
        deployment.check(resource)
    workers = [one for one in made if one["kind"] == "Deployment" and "worker" in one["metadata"]["name"]]
    for worker in workers:
        (container,) = worker["spec"]["template"]["spec"]["containers"]
        (address,) = [one["value"] for one in container["env"] if one["name"] == "DASK_SCHEDULER_ADDRESS"]
        assert address.startswith("tls://")


def copied(deployment, tmp_path, overlay, change):
    """Give an overlay of a copy whose kustomization was edited."""
    shutil.copytree(deployment.folder, tmp_path / "k")
    path = tmp_path / "k" / "overlays" / overlay / "kustomization.yaml"
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before
    return path.parent


@pytest.mark.parametrize("overlay", ["volume", "s3", "standing"])
def test_with_everything_that_an_overlay_offers_it_is_still_strictly_valid(overlay, deployment, tmp_path):
    folder = copied(
        deployment, tmp_path, overlay, lambda text: re.sub(r"^( +)# (- \.\.|newName)", r"\1\2", text, flags=re.M)
    )
    found = deployment.render(folder)
    for resource in found:
        deployment.check(resource)
    offered = {path.parent.name for path in deployment.folder.glob("components/*/kustomization.yaml")}
    told = yaml.safe_load((folder / "kustomization.yaml").read_text())["components"]
    assert {"spot-workers", "prometheus"} <= {Path(path).name for path in told} <= offered
    assert named_ones(found, "DaskWorkerGroup", "diffdask-spot")
    assert named_ones(found, "NetworkPolicy", "prometheus")
    (scheduler,) = named(deployment.containers(found), "scheduler")
    assert option(scheduler, "--dashboard-address") == ":8787"  # which is why it is not there unless it is asked for
    assert {one["image"] for one in deployment.containers(found)} == {f"registry.example/group/diffdask:{__version__}"}


def test_a_key_that_kustomize_does_not_know_is_refused(deployment, tmp_path):
    folder = copied(deployment, tmp_path, "volume", lambda text: text.replace("components:", "component:"))
    with pytest.raises(AssertionError, match="unknown field"):
        deployment.render(folder)


def test_a_run_from_outside_finds_the_network_that_a_run_on_a_bucket_has(deployment):
    outside, inside = (deployment.render(deployment.folder / "overlays" / name) for name in ("outside", "s3"))
    for resource in outside:
        deployment.check(resource)
    assert not deployment.pods(outside)
    assert of_kind(outside, "NetworkPolicy") == of_kind(inside, "NetworkPolicy")
    assert of_kind(outside, "Role") == of_kind(inside, "Role") != []


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("DaskJob", lambda one: one["spec"]["cluster"]["spec"]["worker"].update(replica=3)),
        ("DaskJob", lambda one: one["spec"]["cluster"]["spec"]["worker"].update(replicas="four")),
        ("DaskJob", lambda one: one["spec"]["job"]["spec"]["securityContext"].update(runAsNonroot=True)),
        ("DaskJob", lambda one: one["spec"]["job"]["spec"]["containers"][0].pop("name")),
        ("DaskJob", lambda one: one["spec"].pop("cluster")),
        ("NetworkPolicy", lambda one: one["spec"].update(ingres=[])),
        ("NetworkPolicy", lambda one: one["spec"].update(podSelector=[])),
        ("PersistentVolumeClaim", lambda one: one["spec"].update(accessModes="ReadWriteMany")),
        ("PodDisruptionBudget", lambda one: one["spec"].update(minimumAvailable=1)),
        ("Role", lambda one: one["rules"][0].pop("verbs")),
        ("ServiceAccount", lambda one: one.update(automountToken=False)),
    ],
)
def test_a_spoilt_manifest_is_refused(kind, spoil, deployment):
    resource = copy.deepcopy(of_kind(deployment.render(deployment.folder / "overlays" / "volume"), kind)[0])
    deployment.check(resource)
    spoil(resource)
    with pytest.raises(jsonschema.ValidationError):
        deployment.check(resource)


# ---- memory


def test_a_worker_is_stopped_by_dask_before_kubernetes_kills_its_pod(manifests, deployment):
    workers = named(deployment.containers(manifests), "worker")
    assert workers
    for worker in workers:
        limit = read_bytes(worker["resources"]["limits"]["memory"])
        assert int(option(worker, "--memory-limit")) == limit - NANNY_MEMORY < limit


def test_memory_that_is_asked_for_is_memory_that_is_had(manifests, deployment):
    for container in deployment.containers(manifests):
        resources = container["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        assert "cpu" in resources["requests"]
        assert "cpu" not in resources["limits"]  # a limit would only make a core wait that nobody else uses


# ---- rights and secrets


def test_no_container_has_rights(manifests, deployment):
    for pod in deployment.pods(manifests):
        whole = pod["securityContext"]
        assert whole["runAsNonRoot"] is True
        assert whole["runAsUser"] > 0
        assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume]


def test_the_pods_account_is_bound_to_no_role(manifests):
    (account,) = of_kind(manifests, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert not [one for one in manifests if one["kind"].endswith("RoleBinding")]


def test_no_role_takes_all(manifests):
    for role in of_kind(manifests, "Role"):
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
    assert not of_kind(manifests, "ClusterRole")


def test_no_manifest_holds_a_secret(manifests):
    assert not of_kind(manifests, "Secret")
    text = yaml.safe_dump_all(manifests)
    assert not re.search(r"BEGIN [A-Z ]*KEY|AKIA[0-9A-Z]{16}|(?i:password|access_key|\btoken):", text)


@pytest.mark.parametrize("overlay", ["s3", "standing"])
def test_credentials_of_the_bucket_come_from_a_secret_and_go_to_those_who_need_them(overlay, deployment):
    found = deployment.containers(deployment.render(deployment.folder / "overlays" / overlay))
    for container in found:
        expected = [{"secretRef": {"name": "diffdask-s3"}}] if container["name"] != "scheduler" else None
        assert container.get("envFrom") == expected


def test_everything_that_is_mounted_is_there(manifests, deployment):
    claims = {one["metadata"]["name"] for one in of_kind(manifests, "PersistentVolumeClaim")}
    maps = {one["metadata"]["name"] for one in of_kind(manifests, "ConfigMap")}
    for pod in deployment.pods(manifests):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for one in pod["containers"] for mount in one["volumeMounts"]} == set(volumes)
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in {None, *claims}
            assert volume.get("configMap", {}).get("name") in {None, *maps}


# ---- network


def reached_by(policies, target, port):
    """Components that may open a connection to a port of a component, by the rules of both ends."""
    into, out = set(), set()
    for policy in policies:
        own = policy["spec"]["podSelector"].get("matchLabels", {}).get("dask.org/component")
        for direction, found in (("ingress", into), ("egress", out)):
            for rule in policy["spec"].get(direction, []):
                for other in rule.get("from", rule.get("to", [])):
                    peer = other.get("podSelector", {}).get("matchLabels", {}).get("dask.org/component")
                    if port in [one["port"] for one in rule["ports"]]:
                        if direction == "ingress" and own == target:
                            found.add(peer)
                        if direction == "egress" and peer == target:
                            found.add(own)
    return into & out


def test_the_scheduler_hears_workers_and_the_driver_only_and_nobody_sees_the_dashboard(manifests):
    policies = of_kind(manifests, "NetworkPolicy")
    assert reached_by(policies, "scheduler", SCHEDULER_PORT) == {"worker", "job-runner"}
    assert reached_by(policies, "worker", 8788) == {"worker", "scheduler"}
    assert reached_by(policies, "worker", 8789) == {"scheduler"}
    assert not [
        rule
        for policy in policies
        for rule in policy["spec"].get("ingress", []) + policy["spec"].get("egress", [])
        if 8787 in [port["port"] for port in rule["ports"]]
    ]


def test_each_component_has_a_policy_and_the_rest_is_denied(manifests):
    policies = of_kind(manifests, "NetworkPolicy")
    everything = [one for one in policies if not one["spec"]["podSelector"]]
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in [one["spec"] for one in everything]
    for component in ("scheduler", "worker", "job-runner"):
        own = [
            one
            for one in policies
            if one["spec"]["podSelector"].get("matchLabels") == {"dask.org/component": component}
        ]
        assert own, component


def test_policies_name_the_ports_that_pods_listen_on(manifests, deployment):
    found = deployment.containers(manifests)
    for scheduler in named(found, "scheduler"):
        assert option(scheduler, "--port") == str(SCHEDULER_PORT)
    for worker in named(found, "worker"):
        assert (option(worker, "--worker-port"), option(worker, "--nanny-port")) == ("8788", "8789")


def test_the_dashboard_listens_within_its_pod_and_no_service_names_it(manifests, deployment):
    (scheduler,) = named(deployment.containers(manifests), "scheduler")
    assert option(scheduler, "--dashboard-address") == "127.0.0.1:8787"
    (cluster,) = [
        one["spec"]["cluster"]["spec"] if one["kind"] == "DaskJob" else one["spec"]
        for one in manifests
        if one["kind"] in ("DaskJob", "DaskCluster")
    ]
    service = cluster["scheduler"]["service"]
    assert service["type"] == "ClusterIP"
    assert [port["port"] for port in service["ports"]] == [SCHEDULER_PORT]


def test_all_speak_tls_and_nothing_else(manifests, deployment):
    for container in deployment.containers(manifests):
        told = {one["name"]: one["value"] for one in container["env"]}
        assert told["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"
        assert "tcp://" not in str(container)
        assert {"name": "tls", "mountPath": "/tls", "readOnly": True} in container["volumeMounts"]


# ---- one version, one description


def test_every_image_is_of_this_version(manifests, deployment):
    images = {container["image"] for container in deployment.containers(manifests)}
    assert images == {f"diffdask:{__version__}"}


@pytest.mark.parametrize("overlay", ["volume", "s3", "standing"])
def test_changing_the_image_in_one_place_changes_all(overlay, deployment, tmp_path):
    folder = copied(deployment, tmp_path, overlay, lambda text: text.replace(f"newTag: {__version__}", "newTag: 9.9.9"))
    changed = deployment.containers(deployment.render(folder))
    assert {one["image"] for one in changed} == {"diffdask:9.9.9"}


def written_place():
    place = tomllib.loads((ROOT / "deploy" / "kubernetes.toml").read_text())
    assert place.pop("where") == "kubernetes"
    return {**KUBERNETES, **place}


@pytest.mark.parametrize(
    ("overlay", "storage"),
    [("volume", {"claim": "diffdask", "s3_secret": ""}), ("s3", {"claim": "", "s3_secret": "diffdask-s3"})],
)
def test_the_job_runs_on_the_cluster_that_the_package_would_make(overlay, storage, deployment):
    (job,) = of_kind(deployment.render(deployment.folder / "overlays" / overlay), "DaskJob")
    made = dask_cluster({**written_place(), **storage}, tls_secret="diffdask-tls")
    assert job["spec"]["cluster"]["spec"] == made["spec"]
    (driver,) = job["spec"]["job"]["spec"]["containers"]
    (worker,) = made["spec"]["worker"]["spec"]["containers"]
    assert driver.get("workingDir") == worker.get("workingDir")  # or relative paths would mean two places
    told = [one for one in worker["env"] if one["name"] != "DASK_SCHEDULER_ADDRESS"]
    assert driver["env"] == told


def test_the_standing_cluster_is_the_one_that_the_package_would_make(deployment):
    (cluster,) = of_kind(deployment.render(deployment.folder / "cluster"), "DaskCluster")
    made = dask_cluster({**written_place(), "claim": "", "s3_secret": ""}, tls_secret="diffdask-tls")
    assert cluster["spec"] == made["spec"]
    (spot,) = of_kind(deployment.render(deployment.folder / "components" / "spot-workers"), "DaskWorkerGroup")
    assert spot["spec"]["worker"]["spec"] == made["spec"]["worker"]["spec"]


def test_the_place_that_is_shipped_gives_a_valid_cluster(deployment):
    place = written_place()
    check_kubernetes(place)
    assert set(place) == set(KUBERNETES)
    deployment.check(dask_cluster(place, tls_secret="diffdask-tls"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Diffdask"},
        {"namespace": ""},
        {"workers": 0},
        {"threads": 0},
        {"image": "diffdask"},
        {"image": "registry:5000/diffdask"},
        {"image": "diffdask:latest"},
        {"memory": "2"},
        {"memory": "512Mi"},
        {"scheduler_memory": "lots"},
    ],
)
def test_a_place_that_cannot_be_says_so(wrong):
    with pytest.raises(BadJob, match=next(iter(wrong)).removeprefix("scheduler_")):
        check_kubernetes({**KUBERNETES, **wrong})


@pytest.mark.parametrize(
    ("text", "bytes_"), [("2Gi", 2 << 30), ("1500Mi", 1500 << 20), ("1.5Gi", 3 << 29), ("2G", 2 * 10**9)]
)
def test_quantities_are_read_as_kubernetes_reads_them(text, bytes_):
    assert read_bytes(text) == bytes_


@pytest.mark.parametrize("overlay", ["volume", "s3"])
def test_the_job_that_is_shipped_is_one(overlay, deployment):
    assert read_job(deployment.folder / "overlays" / overlay / "job.toml")


# ---- what the documents tell to type


def test_what_the_documents_apply_is_there_and_renders(deployment):
    commands = " ".join(re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    folders = set(re.findall(r"kubectl apply -k (\S+)", commands))
    assert {ROOT / folder for folder in folders} <= {
        path.parent for path in deployment.folder.rglob("kustomization.yaml")
    }
    assert all(deployment.render(ROOT / folder) for folder in folders)
    for path in re.findall(r"(?:--file|--filename|--on) (deploy/\S+)|diffdask run (\S+)", commands):
        assert (ROOT / "".join(path)).is_file(), path


def test_a_job_that_the_documents_send_to_kubernetes_is_one_that_pods_can_see():
    jobs = re.findall(r"diffdask run (\S+) --on deploy/kubernetes.toml", PAGE.read_text())
    assert jobs
    for job in jobs:
        sections = read_job(ROOT / job)
        calls = plan_calls(sections, as_store(sections.pop("folder")))
        check_reach(calls, find_place(ROOT / "deploy" / "kubernetes.toml"))
