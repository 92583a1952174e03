"""What the verb ``methods`` found: read from its file, and as tables for a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffdask.classification import tell_reference
from diffdask.errors import BadParameter
from diffdask.io.frames_store import frames_attributes
from diffdask.io.whole_file import read_file
from diffdask.kernels.agreement import Measure
from diffdask.method_comparison import COLUMNS, FROM_RECALLS, REFERENCE_ROW, tell_basis
from diffdask.tables import lay_out, wrap_text

#: What marks its files.
KIND = "diffdask methods"

#: What the label curves are shown by.
_CURVE = "area_under_roc"


def read_methods(path: str | Path, *, frames: str | Path | None = None) -> dict[str, Any]:
    """Read the file of the verb ``methods``.

    Raises
    ------
    BadParameter
        If there is none at ``path``, or it was made from other frames than those of the store ``frames``.
    """
    try:
        made = json.loads(read_file(path))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise BadParameter(
            f"no file at '{path}'; diffdask methods RESULTS --labels LABELS --to it makes one"
        ) from error
    except ValueError as error:
        raise BadParameter(
            f"'{path}' is no JSON; diffdask methods RESULTS --labels LABELS --to it makes one"
        ) from error
    if not isinstance(made, dict) or made.get("kind") != KIND:
        raise BadParameter(f"'{path}' is not what 'diffdask methods' writes")
    if frames is not None and made["frames_identity"] != frames_attributes(frames)["identity"]:
        raise BadParameter(f"'{path}' is of other frames than those of '{frames}'")
    return made


def format_methods(made: dict[str, Any]) -> str:
    """Write the comparison of all methods and their label curves as tables to read."""
    lines = _tabulate_comparison(made["comparison"], made["without_labels"])
    for why, names in gather_left_out(made).items():
        lines += wrap_text(f"Left out: {'; '.join(names)}. {why}.")
    if made["curves"]:
        lines += ["", *_tabulate_curves(made["curves"])]
    for warning in made["warnings"]:
        lines += ["", *wrap_text(f"WARNING: {warning}")]
    return "\n".join(lines)


def gather_left_out(made: dict[str, Any]) -> dict[str, list[str]]:
    """Why methods were left out, and which."""
    found: dict[str, list[str]] = {}
    for name, why in made["left_out"].items():
        found.setdefault(f"{why[0].upper()}{why[1:]}", []).append(name)
    return found


def share_of_labels(comparison: dict[str, Any]) -> float:
    """Prevalence at which precisions of the labels hold: share of diffuse among the hits tested."""
    return float(comparison["diffuse"] / comparison["hits"])


def _tabulate_comparison(comparison: dict[str, Any], without_labels: Sequence[str]) -> list[str]:
    """A row a method, rankers first, with what the table rests on below."""
    own, at = (f"{100 * share:.3g} %" for share in (share_of_labels(comparison), comparison["prevalence"]))
    heads = [
        *("method", f"diffuse\nP at {own}", "\nrecall", f"non-diff.\nP at {own}", "\nrecall", "\noverall"),
        *("area under\nthe curve", f"P in the\ntop {comparison['top']}", f"diffuse\nP at {at}"),
    ]
    rows = [heads]
    for name, row in comparison["rows"].items():
        mark = " *" if row["passes_reference"] else ""
        rows.append([name + mark, *(_cell(row[column], column) for column in COLUMNS)])
    rows.append([f"{REFERENCE_ROW} †", *_reference_cells(comparison["reference_row"])])
    told = f"Per cent, the area as it is. {tell_basis(comparison)} * passes every figure of the reference."
    reference = f"† {tell_reference(comparison['reference_row'])} {FROM_RECALLS}"
    rules = (1, len(rows) - 1 - len(without_labels), len(rows) - 1, len(rows))
    return [*lay_out(rows, rules=rules), *wrap_text(told), *wrap_text(reference)]


def _reference_cells(reference: dict[str, Any]) -> list[str]:
    known = {name: f"{100 * value:.1f}" for name, value in reference["figures"].items()}
    known["precision_at_prevalence"] = f"{100 * reference['precision_at_prevalence']:.1f}"
    return [known.get(column, "") for column in COLUMNS]


def _tabulate_curves(curves: dict[str, Any]) -> list[str]:
    """Area under the curve against the number of labels, a column a number."""
    first = next(iter(curves.values()))
    rows = [["area under the curve after labels:", *map(str, first["labels"])]]
    for name, curve in curves.items():
        parts = zip(*(curve[_CURVE][part] for part in ("value", "low", "high")), strict=True)
        rows.append([name, *(_interval(*part, is_share=False) for part in parts)])
    told = f"Means over {first['repeats']} draws of labels; folds by {first['folds_by']}, seed {first['seed']}."
    if first["left_out"]:
        told += f" Too few hits for {', '.join(map(str, first['left_out']))} labels."
    return [*lay_out(rows, rules=(1, len(rows))), *wrap_text(told)]


def _cell(measure: Measure, column: str) -> str:
    return _interval(measure["value"], measure["low"], measure["high"], is_share=column != _CURVE)


def _interval(value: float | None, low: float | None, high: float | None, *, is_share: bool) -> str:
    """A number, and its interval below."""
    if value is None or low is None or high is None:
        return "none"
    if is_share:
        return f"{100 * value:.1f}\n{100 * low:.0f}–{100 * high:.0f}"
    return f"{value:.3f}\n{low:.3f}–{high:.3f}"
