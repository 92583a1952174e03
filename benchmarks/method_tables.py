"""Markdown of what ``methods.py`` measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from method_features import WEIGHTS

from diffdask.classification import FIGURES, REFERENCE
from diffdask.learning_curve import format_label_curve

_HEADS = {
    "diffuse_precision": "diffuse P",
    "diffuse_recall": "R",
    "non_diffuse_precision": "non-diffuse P",
    "non_diffuse_recall": "R",
    "overall": "right",
    "area_under_roc": "area",
    "precision_in_top": "top N",
    "precision_at_prevalence": "P at 5 %",
}

#: Behind the names of methods with VGG16: nobody shall take them for what the reference did.
_RANDOM = " [RANDOM WEIGHTS]" if WEIGHTS.startswith("seed:") else ""

_TIERS = ("strong", "medium", "weak")

_REFERENCE_ROW = "**reference, 2018** (VGG16 with ImageNet's weights)"


def write_tables(measured: Mapping[str, Any]) -> str:
    """Write the tables of all parts that are measured."""
    campaign, other, carried = (measured.get(part) or {} for part in ("campaign", "other", "carried"))
    lines = []
    if campaign:
        trained = f"{campaign['trained']} hits to train on, {campaign['tested']} of other runs to test on."
        lines += ["### A campaign of six crystals", "", trained, *_write_measures(campaign["rows"]), ""]
    if other:
        lines += ["### The independent renderer", "", f"{other['tested']} hits, {other['folds']} folds by run."]
        lines += [*_write_measures(other["rows"]), ""]
    if carried:
        lines += [*_write_carried(carried), ""]
    if campaign:
        lines += ["### How many labels", ""]
        for name, curve in campaign["curves"].items():
            lines += [f"{_name(name)}:", "", format_label_curve(curve), ""]
    return "\n".join(lines).rstrip()


def _write_measures(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Tables of all hits, of strong and medium ones, and by strength."""
    lines = ["", "All test hits, 95 % intervals by bootstrap:", "", *_write_stratum(rows["all"], with_interval=True)]
    both = rows["strong and medium"]
    lines += ["", f"Without weak diffuse hits ({both['hits']} hits):", "", *_write_stratum(both, with_interval=False)]
    return [*lines, "", "Diffuse hits found, and area, by strength:", "", *_write_tiers(rows)]


def _write_stratum(rows: Mapping[str, Any], *, with_interval: bool) -> list[str]:
    lines = [_line(["method", *_HEADS.values()]), _line(["---"] * (1 + len(_HEADS)))]
    for name, row in _methods(rows):
        star = " \\*" if row["passes_reference"] else ""
        lines.append(_line([_name(name) + star, *(_cell(row[column], column, with_interval) for column in _HEADS)]))
    known = [f"{100 * REFERENCE[name]:.1f}" for name in FIGURES]
    return [*lines, _line([_REFERENCE_ROW, *known, *["–"] * (len(_HEADS) - len(known))])]


def _write_tiers(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [_line(["method", *_TIERS]), _line(["---"] * (1 + len(_TIERS)))]
    for name, _ in _methods(rows["all"]):
        found = [rows[tier][name] for tier in _TIERS]
        cells = [
            f"{_share(one['diffuse_recall']['value'])} %, {_area(one['area_under_roc']['value'])}" for one in found
        ]
        lines.append(_line([_name(name), *cells]))
    return lines


def _methods(rows: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, row) for name, row in rows.items() if name != "hits"]


def _write_carried(carried: Mapping[str, Any]) -> list[str]:
    """Tables of what was trained on other experiments: on all of them, and on a single one."""
    names = carried["names"]
    lines = [
        "### Experiments not seen",
        "",
        f"{carried['hits']} hits. Trained on all experiments but one, tested on that. Per cent right, and area:",
        "",
        _line(["method", *names, "mean", "without weak"]),
        _line(["---"] * (3 + len(names))),
    ]
    for name, found in carried["methods"].items():
        means = [_mean(found["left_out"]), _mean([one["without_weak"] for one in found["left_out"]])]
        lines.append(_line([_name(name), *map(_both, [*found["left_out"], *means])]))
    lines += [
        "",
        "Trained on a single experiment, tested on each of the others; means over the others, and the worst pair:",
        "",
        _line(["method", *(f"on {name}" for name in names), "mean", "without weak", "least right", "least area"]),
        _line(["---"] * (5 + len(names))),
    ]
    for name, found in carried["methods"].items():
        if not found["from_one"]:
            continue
        pairs = [[one for one in row if one is not None] for row in found["from_one"]]
        every = [one for row in pairs for one in row]
        worst = [_share(min(one["overall"] for one in every)), _area(min(one["area_under_roc"] for one in every))]
        means = [*map(_mean, pairs), _mean(every), _mean([one["without_weak"] for one in every])]
        lines.append(_line([_name(name), *map(_both, means), *worst]))
    return lines


def _name(method: str) -> str:
    return method + _RANDOM if "VGG16" in method else method


def _mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in found])) for name in ("overall", "area_under_roc")}


def _both(one: Mapping[str, float]) -> str:
    return f"{_share(one['overall'])}, {_area(one['area_under_roc'])}"


def _cell(measure: Mapping[str, Any], column: str, with_interval: bool) -> str:
    if measure["value"] is None:
        return "none"
    write = _area if column == "area_under_roc" else _share
    value, low, high = (write(measure[name]) for name in ("value", "low", "high"))
    return f"{value} ({low}–{high})" if with_interval else value


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _area(value: float | None) -> str:
    """Three digits, never rounded up: 0.9996 is no 1."""
    return "–" if value is None else f"{int(value * 1000 + 1e-9) / 1000:.3f}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
