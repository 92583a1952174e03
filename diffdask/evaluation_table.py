"""An evaluation as text to read: what the verb ``evaluate`` prints."""

from __future__ import annotations

from typing import Any

from diffdask.classification import tell_reference
from diffdask.kernels.agreement import Measure
from diffdask.tables import lay_out, wrap_text

_CLASSES = ("diffuse", "non-diffuse")


def format_evaluation(result: dict[str, Any]) -> str:
    """Write an evaluation as tables to read."""
    labelled = ", ".join(f"{count} {name}" for name, count in result["labelled"].items())
    against = result["hits_against_blanks"]
    lines = [
        f"labelled frames        {labelled}",
        f"hits against blanks    {format_measure(against['accuracy'])}",
        f"  hits found           {format_measure(against['hits_found'])}",
        f"  blanks left out      {format_measure(against['blanks_left_out'])}",
    ]
    if result["labelled_not_ok"]:
        lines.append(
            f"{result['labelled_not_ok']} labelled frames could not be used: see frame_status in the catalogue"
        )
    if not result["is_ranked"]:
        return "\n".join([*lines, result["next"]])
    warning = ["", *wrap_text(f"WARNING: {result['warning']}")] if result["warning"] else []
    parts = (_tabulate_frames(result), _tabulate_hits(result["hits_only"]), _list_ranking(result))
    return "\n".join([*lines, *warning, *(line for part in parts for line in part)])


def format_measure(measure: Measure, *, is_share: bool = True) -> str:
    """Write a measure with its interval, shares in per cent.

    Examples
    --------
    >>> format_measure({"value": 0.5, "low": 0.095, "high": 0.905, "count": 2})
    '50.0 % (9.5 to 90.5, n = 2)'
    """
    if measure["value"] is None:
        return f"none (n = {measure['count']})"
    value, low, high = ((measure[name] * 100 if is_share else measure[name]) for name in ("value", "low", "high"))
    digits, unit = (1, " %") if is_share else (3, "")
    return f"{value:.{digits}f}{unit} ({low:.{digits}f} to {high:.{digits}f}, n = {measure['count']})"


def _tabulate_frames(result: dict[str, Any]) -> list[str]:
    """Precision, recall and counts of all three labels."""
    confusion = result["confusion"]
    rows = [["all labelled frames", "precision", "recall", *(f"as {name}" for name in confusion["labels"])]]
    for (name, row), counts in zip(result["classes"].items(), confusion["counts"], strict=True):
        rows.append([name, format_measure(row["precision"]), format_measure(row["recall"]), *map(str, counts)])
    rows.append(["overall right", format_measure(result["accuracy"])])
    return ["", *lay_out(rows, rules=(1, len(rows)), left=(0, 1, 2))]


def _tabulate_hits(found: dict[str, Any] | None) -> list[str]:
    """The reference's Table I of our hits, and the reference's own figures beside."""
    if found is None:
        return ["", "Hits only, as in Table I: labelled hits of both classes with scores are needed"]
    at, reference = f"at {100 * found['prevalence']:.1f} %", found["reference"]
    known = {name: f"{100 * value:.1f}" for name, value in reference["figures"].items()}
    heads = [f"precision {at}", "recall", *(f"as {name}" for name in _CLASSES), "reference P, R"]
    rows = [["hits only (Table I)", *heads]]
    for name, counts in zip(_CLASSES, found["confusion"], strict=True):
        names = [f"{name.replace('-', '_')}_{figure}" for figure in ("precision", "recall")]
        rows.append(
            [
                name,
                *(format_measure(found[one]) for one in names),
                *map(str, counts),
                ", ".join(known[one] for one in names),
            ]
        )
    rows.append(["overall right", format_measure(found["overall"]), "", "", "", known["overall"]])
    told = (
        f"{found['hits']} labelled hits, {100 * found['prevalence']:.1f} % of them diffuse. Intervals: 95 %, bootstrap."
    )
    return ["", *lay_out(rows, rules=(1, len(rows)), left=(0, 1, 2)), told, *wrap_text(tell_reference(reference))]


def _list_ranking(result: dict[str, Any]) -> list[str]:
    """What goes by the order of the scores, and the precision where diffuse hits are rare."""
    top = result["precision_in_top"]
    lines = [
        "",
        f"area under the curve              {format_measure(result['area_under_roc'], is_share=False)}",
        f"precision among the top {top['count']:<9} {format_measure(top)}",
    ]
    if result["log_likelihood"]:
        lines.append(f"log-likelihood a label            {format_measure(result['log_likelihood'], is_share=False)}")
    for row in result["precision_at_prevalence"]:
        at = f"precision at {100 * row['prevalence']:.1f} % diffuse"
        lines.append(f"{at:<34}{format_measure(row)}: {row['source']}")
    if result["hits_without_score"]:
        lines.append(f"{result['hits_without_score']} labelled hits have no score and count as not picked")
    return [*lines, "", f"note: {result['note']}"]
