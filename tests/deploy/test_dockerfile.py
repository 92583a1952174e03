"""The image: what goes in, who runs it, and that its steps work where no container engine is at hand."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from diffdask.cluster.kubernetes_resources import KUBERNETES, dask_cluster
from diffdask.version import __version__

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "kubernetes" / "Dockerfile"
PINNED_BASE = re.compile(r"python:3\.\d+\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?")
INSTRUCTIONS = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT", "CMD"}


def read(text: str) -> list[tuple[str, str]]:
    """Take a Dockerfile apart: (instruction, what follows it)."""
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [
        (word.upper(), " ".join(rest.split()))
        for word, _, rest in (line.strip().partition(" ") for line in lines if line)
    ]


def complaints(text: str) -> list[str]:
    """Say what is wrong with an image."""
    steps = read(text)
    final = steps[max(number for number, (word, _) in enumerate(steps) if word == "FROM") :]
    default = dict(rest.split("=", 1) for word, rest in steps if word == "ARG" and "=" in rest)
    bases = [
        re.sub(r"\$\{(\w+)\}", lambda one: default.get(one[1], ""), rest.split()[0])
        for word, rest in steps
        if word == "FROM"
    ]
    said = [f"unknown instruction {word}" for word, _ in steps if word not in INSTRUCTIONS]
    said += [f"base without a full version: {base}" for base in bases if not PINNED_BASE.fullmatch(base)]
    said += [f"bases that differ: {bases}"] * (len(set(bases)) > 1)
    users = [rest for word, rest in final if word == "USER"]
    if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
        said.append("the last user is no number above 0, which Kubernetes cannot tell from root")
    if any(
        re.search(r"\b(apt-get|apk|gcc|make|curl|wget|pip\b.* install)\b", rest)
        for word, rest in final
        if word == "RUN"
    ):
        said.append("the final stage installs or builds")
    said += [
        f"not in exec form: {word} {rest}" for word, rest in final if word in ("ENTRYPOINT", "CMD") and rest[0] != "["
    ]
    if "ENTRYPOINT" not in [word for word, _ in final]:
        said.append("no entry point")
    installs = [rest for word, rest in steps if word == "RUN" and re.search(r"\bpip\b.* install\b", rest)]
    said += [f"not pinned: {rest}" for rest in installs if "--constraint constraints.txt" not in rest]
    said += [f"keeps a cache: {rest}" for rest in installs if "--no-cache-dir" not in rest]
    said += [f"may compile: {rest}" for rest in installs if "--only-binary :all:" not in rest]
    copies = [rest.split() for word, rest in steps if word == "COPY"]
    said += [f"copies from elsewhere: {words}" for words in copies if any("://" in word for word in words)]
    said += [f"copies all there is: {words}" for words in copies if {".", "./", "*"} & set(words[:-1])]
    told = [rest for word, rest in steps if word in ("ARG", "ENV")]
    said += [
        f"tells a secret: {rest}" for rest in told if re.search(r"(?i)secret|token|passw|credential|\w_key\b", rest)
    ]
    return said


def test_the_image_is_pinned_without_root_and_without_tools():
    assert complaints(DOCKERFILE.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("BASE=python:3.11.14-slim-bookworm\n", "BASE=python:latest\n", "base without a full version"),
        ("3.11.14-slim-bookworm\n", "3.11.14-slim-bookworm@sha256:0123\n", "base without a full version"),
        ("FROM ${BASE}\n", "FROM python:3.12.1-slim-bookworm\n", "bases that differ"),
        ("USER 10001:10001\n", "", "the last user"),
        ("USER 10001:10001", "USER root", "the last user"),
        ("USER 10001:10001", "USER 0:0", "the last user"),
        ("--constraint constraints.txt ", "", "not pinned"),
        ("--no-cache-dir ", "", "keeps a cache"),
        ("--only-binary :all: ", "", "may compile"),
        ("COPY diffdask ./diffdask", "COPY . .", "copies all there is"),
        ("HOME=/tmp", "AWS_SECRET_ACCESS_KEY=abc", "tells a secret"),
        ('ENTRYPOINT ["diffdask"]', "ENTRYPOINT diffdask", "not in exec form"),
        ("WORKDIR /tmp\n", "RUN apt-get install gcc\n", "the final stage installs"),
        ("WORKDIR /tmp\n", "ADD https://example.org/a.tar.gz /\n", "unknown instruction ADD"),
    ],
)
def test_a_spoilt_image_is_complained_about(old, new, complaint):
    text = DOCKERFILE.read_text()
    assert old in text
    assert [one for one in complaints(text.replace(old, new)) if one.startswith(complaint)]


def test_a_base_by_digest_is_as_good_and_the_documents_say_how_to_find_it():
    text = DOCKERFILE.read_text()
    default = dict(rest.split("=", 1) for step, rest in read(text) if step == "ARG")["BASE"]
    assert complaints(text.replace(default, f"{default}@sha256:{'0f' * 32}")) == []
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    assert f"docker buildx imagetools inspect {default}\n" in page
    assert f"--build-arg BASE={default}@sha256:...`" in page


def test_pods_run_as_the_images_user_and_find_its_python():
    steps = dict(read(DOCKERFILE.read_text()))
    pod = dask_cluster(KUBERNETES, tls_secret="tls")["spec"]["worker"]["spec"]
    assert steps["USER"] == "{runAsUser}:{runAsGroup}".format(**pod["securityContext"])
    assert steps["ENV"].startswith("PATH=/opt/diffdask/bin:")
    assert "HOME=/tmp" in steps["ENV"]  # the only place that a pod can write to


def context(folder: Path) -> Path:
    """Copy what the engine is given and the Dockerfile takes."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    taken = [
        word
        for step, rest in read(DOCKERFILE.read_text())
        if step == "COPY" and "--from" not in rest
        for word in rest.split()[:-1]
    ]
    assert sorted(taken) == sorted(allowed)
    folder.mkdir()
    for name in taken:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.slow
def test_what_the_image_is_given_builds_a_wheel_of_the_package_alone(tmp_path):
    source = context(tmp_path / "source")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("needs a package index, for the build's own setuptools")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"diffdask-{__version__}-")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"diffdask", f"diffdask-{__version__}.dist-info"}
    inside = {name for name in names if name.startswith("diffdask/")}
    given = {str(path.relative_to(source)) for path in (source / "diffdask").rglob("*") if path.is_file()}
    assert inside == given
    assert not [name for name in names if re.search(r"test|\.(h5|cxi|npy|zarr|csv)$", name)]


def test_the_environment_of_the_image_has_no_pip_of_its_own_and_is_filled_from_outside(tmp_path):
    runs = [shlex.split(rest) for step, rest in read(DOCKERFILE.read_text()) if step == "RUN"]
    (make,) = [line for line in runs if "venv" in line]
    (fill,) = [line for line in runs if "install" in line]
    folder = str(tmp_path / "environment")
    make = [sys.executable if word == "python" else word.replace("/opt/diffdask", folder) for word in make]
    subprocess.run(make, check=True)
    assert not list((tmp_path / "environment" / "bin").glob("pip*"))
    assert fill[fill.index("--python") + 1] == make[-1].replace(folder, "/opt/diffdask")
    listed = [sys.executable, "-m", "pip", "--python", folder, "list"]
    assert subprocess.run(listed, capture_output=True, text=True, check=True).stdout == ""


def test_every_dependency_of_the_image_is_pinned_and_so_are_theirs():
    pinned = {
        _normal(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    needed: dict[str, set[str]] = {}
    left = [(one, {""}) for one in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]]
    while left:
        text, asked = left.pop()
        wanted = Requirement(text)
        name, extras = _normal(wanted.name), {"", *wanted.extras}
        is_wanted = wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in asked)
        if is_wanted and not extras <= needed.get(name, set()):
            needed[name] = extras | needed.get(name, set())
            left += [(theirs, needed[name]) for theirs in requires(name) or []]
    assert {"numpy", "msgpack"} <= set(needed)
    assert set(needed) - pinned == {"setuptools", "wheel"}  # the documents say so: pip freeze leaves them out


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
