import argparse
import inspect
import json
import logging
import re
import subprocess
import sys

import pytest

from diffdask import cli
from diffdask.cli import main, read_docstring
from diffdask.pipeline.ingest import ingest
from diffdask.verbs import VERBS, verb
from diffdask.version import __version__


@pytest.fixture(autouse=True)
def messages():
    """Leave the logger as it was: the command line takes it over."""
    logger = logging.getLogger("diffdask")
    kept = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = kept[0], kept[2]
    logger.setLevel(kept[1])


def parser_of(name: str) -> argparse.ArgumentParser:
    (verbs,) = (action for action in cli._parser([name])._actions if isinstance(action, argparse._SubParsersAction))
    return verbs.choices[name]


def actions_of(name: str) -> dict[str, argparse.Action]:
    return {action.dest: action for action in parser_of(name)._actions if action.dest not in ("help", "json")}


@pytest.mark.parametrize("name", VERBS)
def test_the_options_are_the_functions_parameters(name):
    parameters, actions = inspect.signature(verb(name)).parameters, actions_of(name)
    assert list(actions) == list(parameters)
    for key, parameter in parameters.items():
        action = actions[key]
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            assert action.option_strings == []
            continue
        assert "--" + key.replace("_", "-") in action.option_strings
        is_required = parameter.default is inspect.Parameter.empty
        assert action.required == is_required
        assert is_required or action.default == parameter.default


@pytest.mark.parametrize("name", VERBS)
def test_every_option_is_explained(name):
    for key, action in actions_of(name).items():
        assert action.help, f"{name} {key} has no help"
        assert re.match(r"\S", action.help)


@pytest.mark.parametrize("name", VERBS)
def test_the_help_of_a_verb_can_be_read(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: diffdask {name}")
    assert inspect.getdoc(verb(name)).splitlines()[0] in text
    assert "``" not in text


def test_the_first_help_reads_like_a_methods_section(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    positions = [text.index(known.sentence) for known in VERBS.values()]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["ingest", "a", "b", "--geometry", "g", "--to", "t", "--stream", "s", "u"], "stream", ["s", "u"]),
        (["ingest", "a", "b", "--geometry", "g", "--to", "t"], "sources", ["a", "b"]),
        (["ingest", "a", "--geometry", "g", "--to", "t", "--run", "3"], "run", 3),
        (["screen", "f", "--results", "r", "--snr", "5"], "snr", 5.0),
        (["screen", "f", "--results", "r", "--min-peaks", "5"], "min_peaks", 5),
        (["screen", "f", "--results", "r", "--overwrite"], "overwrite", True),
        (["screen", "f", "--results", "r", "--no-progress"], "progress", False),
        (["train", "r", "--labels", "l", "--to", "t", "--C", "0.5"], "C", 0.5),
        (["evaluate", "r", "--labels", "l", "--prevalence", "0.1"], "prevalence", 0.1),
        (["methods", "r", "--labels", "l", "--to", "t", "--counts", "10", "50"], "counts", [10, 50]),
        (["methods", "r", "--labels", "l", "--to", "t", "--features", "a", "a+b"], "features", ["a", "a+b"]),
        (["run", "j", "--on", "deploy/laptop.toml"], "on", "deploy/laptop.toml"),
    ],
)
def test_values_arrive_with_their_types(arguments, key, value, monkeypatch):
    called = {}
    monkeypatch.setattr(cli, "call", lambda name, given: called.update(given) or {"verbs": {}})
    monkeypatch.setattr(cli, "_told", lambda *_, **__: "")
    main(arguments)
    assert called[key] == value
    assert type(called[key]) is type(value)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["scren", "f"],
        ["screen"],
        ["screen", "f"],
        ["screen", "f", "--results", "r", "--snrr", "5"],
        ["screen", "f", "--results", "r", "--over"],
        ["screen", "f", "--results", "r", "--snr", "five"],
    ],
)
def test_a_command_that_makes_no_sense_is_told_with_its_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: diffdask" in capsys.readouterr().err


def run_cli(*arguments):
    return subprocess.run([sys.executable, "-m", "diffdask", *arguments], capture_output=True, text=True, check=False)


def test_an_error_is_one_line_and_status_1(tmp_path):
    for arguments in (
        ("info", "absent.zarr"),
        ("screen", "absent.zarr", "--results", str(tmp_path / "r.zarr"), "--on", "threads"),
        ("run", "absent.toml"),
    ):
        done = run_cli(*arguments)
        assert done.returncode == 1
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith(f"diffdask {arguments[0]}: no ")


def test_what_the_system_refuses_is_told_in_a_line_with_the_file(tmp_path):
    (tmp_path / "file").touch()
    done = run_cli("simulate", str(tmp_path / "file" / "campaign"), "--frames", "8", "--on", "threads", "--no-progress")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert re.fullmatch(r"diffdask simulate: Not a directory \('.*file/campaign.*'\); once .*", last)


def test_the_module_says_its_version():
    done = run_cli("--version")
    assert (done.returncode, done.stdout) == (0, f"diffdask {__version__}\n")


def test_numbers_come_as_json(tiny, capsys):
    source = tiny.write("a.cxi", 3)
    store = ingest(source, geometry=tiny.geometry, to=tiny.folder / "f.zarr", on="threads", progress=False)
    main(["info", str(store), "--json"])
    assert json.loads(capsys.readouterr().out)["frames"] == 3


def test_a_store_is_made_from_the_command_line(tiny, capsys):
    sources = [str(tiny.write(f"{name}.cxi", 2)) for name in "ab"]
    to = tiny.folder / "f.zarr"
    main(["ingest", *sources, "--geometry", str(tiny.geometry), "--to", str(to), "--on", "threads", "--no-progress"])
    assert capsys.readouterr().out == f"{to}\n"
    assert (to / "zarr.json").is_file()


def test_an_interruption_says_how_to_go_on(monkeypatch):
    def interrupt(name, given):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "call", interrupt)
    with pytest.raises(SystemExit, match="interrupted; the same command goes on where it stopped"):
        main(["info", "x"])


def test_a_docstring_is_taken_apart():
    def example(a, *, b=1, c=2):
        """Do a thing.

        More of it.

        Parameters
        ----------
        a
            First, in
            two lines.
        b, c
            ``Both``.

        Returns
        -------
        int
            No parameter.
        """

    read = read_docstring(example)
    assert read == {"": "Do a thing.\n\nMore of it.", "a": "First, in two lines.", "b": "'Both'.", "c": "'Both'."}
