"""A place on Kubernetes, against an API that is real HTTP and runs the containers it is asked for as processes."""

import asyncio
import base64
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import distributed
import pytest
import yaml

from diffdask.cluster.kubernetes import open_kubernetes
from diffdask.cluster.kubernetes_resources import CERTIFICATE_FILES, KUBERNETES, worker_memory
from diffdask.cluster.running import ALLOWED_FAILURES
from diffdask.errors import BadJob

PAGE = Path(__file__).parents[2] / "docs" / "kubernetes.md"
MANIFESTS = Path(__file__).parents[2] / "deploy" / "kubernetes"
ROLE = MANIFESTS / "base" / "launcher.yaml"
#: What every server tells about itself to whoever may log in.
DISCOVERY = {
    "/version": {"gitVersion": "v1.34.0"},
    "/api": {"versions": ["v1"]},
    "/api/v1": {"resources": [{"name": "pods", "singularName": "pod", "kind": "Pod", "namespaced": True}]},
    "/apis": {"groups": []},
}
PLACE = {**KUBERNETES, "workers": 1}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Containers:
    """Starts containers as processes of this machine: other ports and folders, else as they are described."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.processes: list[subprocess.Popen] = []
        self.scheduler_port = free_port()
        self.dashboard_port = free_port()

    def start(self, pod: dict, more: dict[str, str]) -> None:
        (container,) = pod["containers"]
        told = {one["name"]: one["value"] for one in container["env"]}
        told = {key: self.local(value) for key, value in (more | told).items()}  # the operator adds what is not there
        line = [re.sub(r"\$\((\w+)\)", lambda match: told[match[1]], word) for word in container["args"]]
        line = [self.local(word) for word in line]
        command = [str(Path(sys.executable).with_name(container["command"][0])), *container["command"][1:]]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("DASK_")}
        with (self.folder / f"{container['name']}.log").open("w") as log:
            self.processes.append(
                subprocess.Popen([*command, *line], env={**clean, **told}, stdout=log, stderr=log, cwd=self.folder)
            )

    def run(self, script: str, *, env: dict[str, str]) -> str:
        """Run Python as a driver's pod does, and give what it prints."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("DASK_")}
        told = {key: self.local(value) for key, value in env.items()}
        command = [sys.executable, "-c", script, self.local("tls://diffdask-scheduler:8786")]
        done = subprocess.run(command, env={**clean, **told}, capture_output=True, text=True, check=True, timeout=90)
        return done.stdout

    def local(self, word: str) -> str:
        word = re.sub(r"^tls://[\w.-]+:8786$", f"tls://127.0.0.1:{self.scheduler_port}", word)
        word = word.replace("127.0.0.1:8787", f"127.0.0.1:{self.dashboard_port}").replace("0.0.0.0", "127.0.0.1")
        word = {"8786": str(self.scheduler_port), "8788": str(free_port()), "8789": str(free_port())}.get(word, word)
        return re.sub(r"^/(tls|tmp)\b", lambda match: str(self.folder / match[1]), word)

    def answers(self, probe: dict) -> bool:
        line = [self.local(word) for word in probe["exec"]["command"]]
        # as the kubelet, which takes no answer in time for a no
        asked = ["timeout", str(probe["timeoutSeconds"]), sys.executable, *line[1:]]
        return subprocess.run(asked, capture_output=True, check=False, timeout=60).returncode == 0

    def stop(self) -> None:
        for process in reversed(self.processes):  # a worker without its scheduler takes its time
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self.processes.clear()


class Api:
    """The API, the operator and the kubelet, as far as a DaskCluster needs them; keeps a list of what was asked."""

    def __init__(self, folder: Path, check):
        self.containers = Containers(folder)
        self.check = check
        self.objects: dict[tuple[str, str], dict] = {}
        self.asked: set[tuple[str, str, str]] = set()
        self.refusal: tuple[int, str] | None = None
        self.has_room = True
        self.port = free_port()
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        assert self.ready.wait(20)

    def close(self) -> None:
        self.containers.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(20)

    def _serve(self) -> None:
        from aiohttp import web

        asyncio.set_event_loop(self.loop)
        application = web.Application()
        application.router.add_route("*", "/{tail:.*}", self._handle)
        runner = web.AppRunner(application, shutdown_timeout=1)
        self.loop.run_until_complete(runner.setup())
        self.loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", self.port).start())
        self.ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(runner.cleanup())
        self.loop.close()

    async def _handle(self, request):
        if "namespaces" not in request.path:
            return _answer(DISCOVERY[request.path.rstrip("/")])
        match = re.fullmatch(
            r"/apis?/(?:([\w.]+)/)?v1/namespaces/diffdask/(\w+)(?:/([\w.-]+))?(?:/(\w+))?", request.path
        )
        assert match, request.path
        group, kind, name, below = match.groups()
        verb = {"POST": "create", "DELETE": "delete", "GET": "get" if name else "list"}[request.method]
        self.asked.add((group or "", f"{kind}/{below}" if below else kind, verb))
        if self.refusal:
            return _answer({"message": self.refusal[1]}, self.refusal[0])
        if below == "portforward":
            return await self._forward(request)
        if verb == "create":
            return await asyncio.to_thread(self._create, kind, await request.json())
        if verb == "list":
            return _answer({"items": [one for (of, _), one in self.objects.items() if of == kind]})
        if (kind, name) not in self.objects:
            return _answer({"message": f'{kind} "{name}" not found'}, 404)
        if verb == "delete":
            await asyncio.to_thread(self._delete, name)
            return _answer({})
        if kind == "pods":
            is_ready = await asyncio.to_thread(self._is_ready)
            said = [{"type": one, "status": str(is_ready)} for one in ("Ready", "ContainersReady")]
            self.objects[kind, name]["status"] = {"conditions": said}
        return _answer(self.objects[kind, name])

    def _create(self, kind: str, resource: dict):
        resource["metadata"].pop("creationTimestamp", None)
        self.check(resource)
        if (kind, resource["metadata"]["name"]) in self.objects:
            return _answer({"message": f'{kind} "{resource["metadata"]["name"]}" already exists'}, 409)
        resource["metadata"]["uid"] = "1-2-3"
        if "stringData" in resource:
            data = {key: base64.b64encode(value.encode()).decode() for key, value in resource["stringData"].items()}
            resource = {**resource, "data": data}
            del resource["stringData"]
        self.objects[kind, resource["metadata"]["name"]] = resource
        self._start_what_can_start()
        return _answer(resource, 201)

    def _start_what_can_start(self) -> None:
        """As the operator and the kubelet do: pods wait for the Secret that they mount."""
        from dask_kubernetes.operator.controller import controller

        for name in [name for kind, name in list(self.objects) if kind == "daskclusters"]:
            spec = self.objects["daskclusters", name]["spec"]
            volumes = spec["worker"]["spec"]["volumes"]
            (secret,) = [volume["secret"]["secretName"] for volume in volumes if "secret" in volume]
            if ("secrets", secret) not in self.objects or ("pods", f"{name}-scheduler") in self.objects:
                continue
            for folder in ("tls", "tmp"):
                (self.containers.folder / folder).mkdir(exist_ok=True)
            for key, value in self.objects["secrets", secret]["data"].items():
                (self.containers.folder / "tls" / key).write_bytes(base64.b64decode(value))
            about = {"name": f"{name}-scheduler", "namespace": "diffdask"}
            self.objects["services", f"{name}-scheduler"] = {"metadata": about, "spec": spec["scheduler"]["service"]}
            self.objects["pods", f"{name}-scheduler"] = {"metadata": about, "spec": spec["scheduler"]["spec"]}
            self.containers.start(spec["scheduler"]["spec"], {})
            for number in range(spec["worker"]["replicas"] if self.has_room else 0):
                made = controller.build_worker_deployment_spec(
                    f"{name}-default", "diffdask", name, str(number), spec["worker"]["spec"], {}, {}
                )
                pod = made["spec"]["template"]["spec"]
                self.containers.start(pod, {})

    def _is_ready(self) -> bool:
        (spec,) = [
            one["spec"]["scheduler"]["spec"] for (kind, _), one in self.objects.items() if kind == "daskclusters"
        ]
        return self.containers.answers(spec["containers"][0]["readinessProbe"])

    def _delete(self, name: str) -> None:
        self.containers.stop()
        owned = lambda one: [of["name"] for of in one["metadata"].get("ownerReferences", [])] == [name]  # noqa: E731
        for key in [key for key, one in self.objects.items() if key[1].startswith(f"{name}-scheduler") or owned(one)]:
            del self.objects[key]
        del self.objects["daskclusters", name]

    async def _forward(self, request):
        from aiohttp import WSMsgType, web

        assert request.query["ports"] == "8786"
        socket_ = web.WebSocketResponse()
        await socket_.prepare(request)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.containers.scheduler_port)
        port = (8786).to_bytes(2, "little")
        for channel in (b"\x00", b"\x01"):
            await socket_.send_bytes(channel + port)

        async def back() -> None:
            while data := await reader.read(1 << 16):
                await socket_.send_bytes(b"\x00" + data)
            await socket_.close()

        task = asyncio.create_task(back())
        async for message in socket_:
            if message.type == WSMsgType.BINARY:
                writer.write(message.data[1:])
                await writer.drain()
        writer.close()
        task.cancel()
        return socket_


def _answer(body: dict, status: int = 200):
    from aiohttp import web

    # kr8s never closes its connections by itself
    return web.json_response(body, status=status, headers={"Connection": "close"})


@pytest.fixture
def api(tmp_path, monkeypatch, check_manifest):
    made = Api(tmp_path, check_manifest)
    point_at(made.port, tmp_path, monkeypatch)
    yield made
    made.close()


def point_at(port: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a kubeconfig, as 'kubectl config view' shows it."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "me", "user": {"token": "none"}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(folder / "kubeconfig"))


@pytest.mark.slow
def test_a_run_makes_its_cluster_computes_encrypted_and_leaves_nothing(api):
    with open_kubernetes(PLACE, patience=60) as client:
        assert client.scheduler.address.startswith("tls://")
        assert client.submit(sum, [1, 2, 3]).result(timeout=30) == 6
        (worker,) = client.scheduler_info(n_workers=-1)["workers"].values()
        assert worker["memory_limit"] == worker_memory(PLACE["memory"])
        assert worker["nthreads"] == 1
        assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures) == ALLOWED_FAILURES
        (secret,) = [one for (kind, _), one in api.objects.items() if kind == "secrets"]
        assert secret["metadata"]["ownerReferences"][0]["uid"] == "1-2-3"  # goes with the cluster, whoever dies
        with pytest.raises(OSError, match=r"TCP|Timed out"):
            distributed.Client(f"tcp://127.0.0.1:{api.containers.scheduler_port}", timeout="2s", set_as_default=False)
    assert not api.objects
    assert api.asked == allowed() - {("", "secrets", "get")}


@pytest.mark.slow
def test_a_certificate_that_somebody_made_serves_all_and_stays(api):
    commands = ["sh", "-ec", made_by_hand()]
    subprocess.run(commands, cwd=api.containers.folder, check=True, capture_output=True, timeout=60)
    data = {name: base64.b64encode((api.containers.folder / name).read_bytes()).decode() for name in CERTIFICATE_FILES}
    api.objects["secrets", "mine"] = {"metadata": {"name": "mine", "namespace": "diffdask"}, "data": data}
    with open_kubernetes({**PLACE, "tls_secret": "mine"}, patience=60) as client:
        assert client.submit(int, "7").result(timeout=30) == 7
        assert api.containers.run(DRIVER, env=driver_environment()) == "6\n"
    assert list(api.objects) == [("secrets", "mine")]
    assert api.asked == allowed() - {("", "secrets", "create")}


#: What 'diffdask run JOB --on tls://diffdask-scheduler:8786' does in the driver's pod of a DaskJob, in short.
DRIVER = """
import sys
from diffdask.cluster import connect
with connect(sys.argv[1]) as client:
    sys.stdout.write(f"{client.submit(sum, [1, 2, 3]).result(timeout=60)}\\n")
"""


def driver_environment() -> dict[str, str]:
    """Read what the manifests tell the driver."""
    job = yaml.safe_load((MANIFESTS / "job" / "job.yaml").read_text())
    (driver,) = job["spec"]["job"]["spec"]["containers"]
    assert driver["args"] == ["--on", "tls://diffdask-scheduler:8786"]
    return {one["name"]: one["value"] for one in driver["env"]}


def made_by_hand() -> str:
    """Give the commands of the documents that make a certificate."""
    (commands,) = re.findall(r"^openssl req .*?^cp .*?$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return commands


def allowed() -> set[tuple[str, str, str]]:
    """Read what the launcher's role allows, but for how kubectl and newer servers ask for a port-forward."""
    rules = yaml.safe_load(ROLE.read_text())["rules"]
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    } - {("", "pods/portforward", "create")}


@pytest.mark.parametrize(
    ("status", "advice"),
    [(403, "diffdask-launcher"), (404, "operator installed"), (409, "kubectl delete daskcluster diffdask")],
)
def test_a_refusal_says_what_to_do(api, status, advice):
    api.refusal = (status, "no")
    with pytest.raises(BadJob, match=advice), open_kubernetes(PLACE, patience=5):
        pass


def test_a_second_run_of_the_same_name_leaves_the_first_alone(api):
    api.objects["daskclusters", "diffdask"] = {"metadata": {"name": "diffdask"}}
    with pytest.raises(BadJob, match="another run has this name"), open_kubernetes(PLACE, patience=5):
        pass
    assert ("daskclusters", "diffdask") in api.objects


@pytest.mark.parametrize("data", [None, {"ca.crt": "", "tls.crt": ""}])
def test_a_certificate_that_is_not_there_is_said_before_anything_is_made(api, data):
    if data is not None:
        api.objects["secrets", "mine"] = {"metadata": {"name": "mine"}, "data": data}
    message = r"no such Secret|lacks tls\.key"
    with pytest.raises(BadJob, match=message), open_kubernetes({**PLACE, "tls_secret": "mine"}, patience=5):
        pass
    assert not [one for one in api.asked if one[1] == "daskclusters"]


@pytest.mark.slow
def test_no_worker_in_time_ends_the_run_and_the_cluster(api):
    api.has_room = False
    with pytest.raises(BadJob, match="no worker after 20 s"), open_kubernetes(PLACE, patience=20):
        pass
    assert not api.objects


def test_where_no_kubernetes_answers_it_is_said(tmp_path, monkeypatch):
    point_at(free_port(), tmp_path, monkeypatch)
    with pytest.raises(BadJob, match="kubectl get nodes"), open_kubernetes(PLACE):
        pass
    (tmp_path / "kubeconfig").unlink()
    with pytest.raises(BadJob, match="kubectl get nodes"), open_kubernetes(PLACE):
        pass


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "kr8s", None)
    with pytest.raises(BadJob, match=r"pip install 'diffdask\[kubernetes\]'"), open_kubernetes(PLACE):
        pass


def test_wrong_values_are_found_before_anything_is_asked():
    with pytest.raises(BadJob, match="workers"), open_kubernetes({**PLACE, "workers": 0}):
        pass
