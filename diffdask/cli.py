"""The command line: a subcommand for every verb, its options made from the function's parameters.

Nothing is said twice: names, types and defaults come from the signature, the
help from the docstring.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import logging
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diffdask.errors import DiffdaskError, LostStorage
from diffdask.interruption import EXIT_CODE, Terminated, ended_by_sigterm
from diffdask.verbs import VERBS, verb

_INTRODUCTION = """\
Diffdask finds the rare diffuse frames among the millions that an X-ray laser
records. Data flow from files of frames to a frames store, from there to a
results store, and from there to a catalogue with a row for every frame:
"""

_EXAMPLE = """\
a first analysis:
  diffdask ingest run*.cxi --geometry det.geom --stream run.stream --to frames.zarr
  diffdask screen frames.zarr --results results.zarr
  diffdask train results.zarr --labels labels.csv --to ranker.zarr
  diffdask rank results.zarr --ranker ranker.zarr
  diffdask report results.zarr --labels labels.csv --to report/

'diffdask VERB --help' explains a verb and all its options.
"""

#: Verbs whose numbers are shown as tables, and what writes them.
_TABLES = {
    "evaluate": ("diffdask.evaluation_table", "format_evaluation"),
    "methods": ("diffdask.methods_table", "format_methods"),
    "status": ("diffdask.pipeline.status_table", "format_status"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit with 1 and one clear line if something is wrong, with 143 after SIGTERM."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(arguments)
    given = vars(parser.parse_args(arguments))
    name = given.pop("verb")
    as_json = given.pop("json", False)
    _show_messages()
    try:
        with ended_by_sigterm():
            result = call(name, given)
    except DiffdaskError as error:
        sys.exit(f"diffdask {name}: {error}")
    except LostStorage as error:
        sys.exit(f"diffdask {name}: {error}; the same command goes on where it stopped")
    except OSError as error:
        sys.exit(f"diffdask {name}: {_in_a_line(error)}; once it is mended, the same command goes on where it stopped")
    except KeyboardInterrupt:
        sys.exit(f"diffdask {name}: interrupted; the same command goes on where it stopped")
    except Terminated:
        sys.stderr.write(f"diffdask {name}: ended by SIGTERM; the same command goes on where it stopped\n")
        sys.exit(EXIT_CODE)
    sys.stdout.write(_told(name, result, as_json=as_json) + "\n")


def _in_a_line(error: OSError) -> str:
    """What the system says of a file, a disk or a connection."""
    where = f" ('{error.filename}')" if error.filename else ""
    return f"{error.strerror or error}{where}"


def _show_messages() -> None:
    """Show what diffdask itself says; what its libraries say stays with them."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("diffdask")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def call(name: str, given: dict[str, Any]) -> Any:
    """Call a verb with its parameters by name."""
    function = verb(name)
    first, *_ = inspect.signature(function).parameters
    return function(given[first], **{key: value for key, value in given.items() if key != first})


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Make the parser; only the verb that was asked for is imported."""
    width = max(map(len, VERBS))
    listed = "\n".join(
        textwrap.fill(known.sentence, 78, initial_indent=f"  {name:<{width}}  ", subsequent_indent=" " * (width + 4))
        for name, known in VERBS.items()
    )
    parser = argparse.ArgumentParser(
        prog="diffdask",
        description=f"{_INTRODUCTION}\n{listed}",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="diffdask VERB ...",
    )
    parser.add_argument("--version", action=_ShowVersion)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", help=argparse.SUPPRESS)
    asked = next((argument for argument in arguments if argument in VERBS), None)
    for name in VERBS:
        if name == asked:
            _add_verb(verbs, name)
        else:
            verbs.add_parser(name, prog=f"diffdask {name}")
    return parser


class _ShowVersion(argparse.Action):
    """Read the version only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="say the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from diffdask.version import __version__

        sys.stdout.write(f"diffdask {__version__}\n")
        parser.exit()


def _add_verb(verbs: Any, name: str) -> None:
    function = verb(name)
    described = read_docstring(function)
    parser = verbs.add_parser(
        name,
        prog=f"diffdask {name}",
        description=described.pop(""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for parameter in inspect.signature(function).parameters.values():
        _add_parameter(parser, parameter, described.get(parameter.name, ""))
    if _gives_numbers(function):
        parser.add_argument("--json", action="store_true", help="print JSON")


def _add_parameter(parser: argparse.ArgumentParser, parameter: inspect.Parameter, text: str) -> None:
    text = text.replace("%", "%%")
    annotation = str(parameter.annotation)
    takes_many = "Sequence" in annotation
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        parser.add_argument(parameter.name, nargs="+" if takes_many else None, help=text)
        return
    option = "--" + parameter.name.replace("_", "-")
    if parameter.default is inspect.Parameter.empty:
        parser.add_argument(option, required=True, nargs="+" if takes_many else None, help=text)
    elif isinstance(parameter.default, bool):
        parser.add_argument(option, action=argparse.BooleanOptionalAction, default=parameter.default, help=text)
    else:
        told = text if parameter.default in (None, "") else f"{text} [{parameter.default}]"
        parser.add_argument(
            option,
            type=_type_of(annotation),
            nargs="+" if takes_many else None,
            default=parameter.default,
            metavar=parameter.name.upper(),
            help=told,
        )


def _type_of(annotation: str) -> Callable[[str], Any]:
    if re.search(r"\bint\b.*\bstr\b", annotation):
        return lambda text: int(text) if text.lstrip("-").isdigit() else text
    for name, kind in (("int", int), ("float", float)):
        if re.search(rf"\b{name}\b", annotation):
            return kind
    return str


def _gives_numbers(function: Callable[..., Any]) -> bool:
    return "dict" in str(inspect.signature(function).return_annotation)


def read_docstring(function: Callable[..., Any]) -> dict[str, str]:
    """Take a NumPy docstring apart.

    Returns
    -------
    dict
        Parameter to its text, in one line; the introduction under "".
    """
    text = inspect.getdoc(function) or ""
    parts = re.split(r"\n\n?(\w+)\n-{3,}\n", text)
    found = {"": parts[0].replace("``", "'")}
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        if title == "Parameters":
            for match in re.finditer(r"^(\w[\w, ]*)\n((?:[ ]{4}.*\n?|\n)+)", body, re.MULTILINE):
                for name in match[1].split(", "):
                    found[name] = " ".join(match[2].split()).replace("``", "'")
    return found


def _told(name: str, result: Any, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(result, indent=2, default=str)
    if name in _TABLES:
        return _tabulate(name, result)
    if name == "run" and "total" in result:
        from diffdask.pipeline.plan_table import format_plan

        return format_plan(result)
    if name == "run":
        return "\n".join(_gave(verb_name, done) for verb_name, done in result["verbs"].items())
    if isinstance(result, str | Path):
        return str(result)
    return json.dumps(result, indent=2, default=str)


def _gave(name: str, done: dict[str, Any]) -> str:
    gave = f"\n{_tabulate(name, done['gave'])}\n" if name in _TABLES else f"  {done['gave']}"
    return f"{name:<10} {done['seconds']:8.1f} s{gave}"


def _tabulate(name: str, result: dict[str, Any]) -> str:
    """Write as tables what a verb gave."""
    module, function = _TABLES[name]
    return str(getattr(importlib.import_module(module), function)(result))
