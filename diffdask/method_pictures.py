"""Pictures of the methods: each one's figures with their intervals, and what more labels bring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diffdask.methods_table import share_of_labels
from diffdask.plots import draw_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Of lines, in the order of the rows; they stay apart for the colour-blind (Okabe & Ito) and by their dashes.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1c1917")
_DASHES = ("-", "--", "-.", ":")

_REFERENCE_COLOUR = "#57534e"


def plot_methods(comparison: dict[str, Any]) -> str:
    """Area under the curve and precision where diffuse hits are rare, a row a method, with intervals."""
    names = list(comparison["rows"])
    reference = comparison["reference_row"]

    def draw(area: Axes, precision: Axes) -> None:
        _draw_measures(area, comparison["rows"], "area_under_roc")
        _draw_measures(precision, comparison["rows"], "precision_at_prevalence")
        _mark_reference(precision, reference["precision_at_prevalence"])
        area.set_yticks(range(len(names)), names)
        area.set_ylim(len(names) - 0.5, -0.5)
        area.set_xlabel("area under the curve")
        area.axvline(0.5, color="#a8a29e", linewidth=0.8, linestyle=":")
        precision.set_xlabel(f"precision where {100 * comparison['prevalence']:g} % are diffuse")
        precision.set_xlim(-0.02, 1.02)
        precision.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 0.99))

    return draw_svg(draw, size=(8.2, 1.4 + 0.34 * len(names)), columns=2)


def plot_label_curves(curves: dict[str, Any], measure: str) -> str:
    """A measure against the number of labels, a line a feature set, with intervals."""

    def draw(axes: Axes) -> None:
        for number, (name, curve) in enumerate(curves.items()):
            _draw_curve(axes, curve["labels"], curve[measure], name, number)
        labels = next(iter(curves.values()))["labels"]
        axes.set_xscale("log")
        axes.set_xticks(labels, [str(count) for count in labels])
        axes.minorticks_off()
        axes.set_xlabel("labels")
        axes.set_ylabel("area under the curve" if measure == "area_under_roc" else "share of hits that are right")
        axes.legend(fontsize=7, loc="best")

    return draw_svg(draw)


def describe_methods(made: dict[str, Any]) -> dict[str, Any]:
    """What the report's sections need beside the file itself: pictures, and shares in per cent."""
    comparison, curves = made["comparison"], made["curves"]
    return {
        "picture": plot_methods(comparison),
        "pictures": {one: plot_label_curves(curves, one) for one in ("area_under_roc", "overall") if curves},
        "share": share_of_labels(comparison),
    }


def _draw_measures(axes: Axes, rows: dict[str, Any], column: str) -> None:
    """A point and its interval for each method; none where there is no value."""
    for at, row in enumerate(rows.values()):
        measure = row[column]
        if measure["value"] is not None:
            axes.plot([measure["low"], measure["high"]], [at, at], color="#0f766e", linewidth=1.4)
            axes.plot(measure["value"], at, "o", color="#0f766e", markersize=5)
    axes.grid(axis="x", color="#e7e5e4", linewidth=0.8)
    axes.set_axisbelow(True)


def _mark_reference(axes: Axes, value: float) -> None:
    look: dict[str, Any] = {"color": _REFERENCE_COLOUR, "linewidth": 1.0, "linestyle": "--"}
    axes.axvline(value, **look, label="reference (2018), from its recalls")


def _draw_curve(axes: Axes, labels: list[int], parts: dict[str, Any], name: str, number: int) -> None:
    value, low, high = (np.array(parts[part], dtype=float) for part in ("value", "low", "high"))
    color, dashes = _COLOURS[number % len(_COLOURS)], _DASHES[number // len(_COLOURS) % len(_DASHES)]
    axes.fill_between(labels, low, high, color=color, alpha=0.07, linewidth=0)
    axes.plot(labels, value, color=color, linestyle=dashes, marker="o", markersize=3.5, linewidth=1.4, label=name)
