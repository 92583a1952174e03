"""The report: one HTML file that shows what was found and how far to trust it."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdask import plots
from diffdask.catalogue import catalogue_table
from diffdask.errors import BadParameter
from diffdask.evaluation import THRESHOLD, evaluate_table, threshold_of
from diffdask.evaluation_table import format_measure
from diffdask.frame_choice import choose_pictures, is_ranked
from diffdask.io.labels import read_labels
from diffdask.io.paths import as_store, join
from diffdask.io.results_store import frames_path, open_scores, open_screen
from diffdask.io.whole_file import whole_file
from diffdask.method_pictures import describe_methods
from diffdask.methods_table import gather_left_out, read_methods
from diffdask.orientation_pictures import OrientationSummary, draw_orientations, read_orientations, read_structure
from diffdask.pair_pictures import PairSummary, draw_pairs, read_pairs
from diffdask.polar_pictures import draw_shared
from diffdask.residual_pictures import draw_residuals
from diffdask.variables import STATUS_OK
from diffdask.volume_pictures import MapSummary, read_map

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

UNLABELLED = "unlabelled"

#: What it takes of the catalogue.
_COLUMNS = (
    *("frame_id", "run", "frame_status", "frame_is_hit", "frame_peak_count", "frame_peak_intensity"),
    *("frame_anisotropy", "frame_score", "frame_rank", "frame_score_source"),
)

#: Hits that tell what the background and the bins in use are: enough for a median, little to read.
_PROFILES = 500

_SHOWN_FAILURES = 50

_PACKAGES = ("dask", "matplotlib", "numba", "numpy", "pandas", "scikit-learn", "xarray", "zarr")


@dataclass(frozen=True)
class Profile:
    """Isotropic background of a campaign's hits, each (ring,)."""

    ring_q: np.ndarray  #: 1/angstrom
    low: np.ndarray  #: photon, 10 % of the hits lie below
    median: np.ndarray  #: photon
    high: np.ndarray  #: photon, 10 % of the hits lie above


@dataclass(frozen=True)
class ReportContent:
    """All that a report shows."""

    title: str
    table: pd.DataFrame  #: the catalogue
    labels: pd.Series | None  #: by frame number
    evaluation: dict[str, Any] | None
    learning_curve: dict[str, Sequence[float]] | None
    profile: Profile | None
    chosen: dict[str, list[int]]  #: section to numbers of the frames pictured
    drawn: dict[int, dict[str, Any]]  #: frame number to the picture's ``uri`` and colour ``limit`` in photons
    top: int
    made: datetime.datetime
    shared: dict[str, Any] | None = None  #: nuisance components: ``uri``, how many are ``drawn``, of what ``count``
    pairs: Sequence[PairSummary] = ()
    structure: pd.Series | None = None  #: of hits, by frame number, in robust standard deviations
    orientations: OrientationSummary | None = None
    map: MapSummary | None = None
    methods: dict[str, Any] | None = None  #: what the verb ``methods`` wrote


def report(
    results: str | Path,
    *,
    labels: str | Path | None = None,
    map: str | Path | None = None,
    methods: str | Path | None = None,
    prevalence: float | None = None,
    to: str | Path,
    top: int = 20,
) -> str | Path:
    """Write the report of a results store.

    Parameters
    ----------
    results
        The results store. What is not there yet is left out, and the report
        says what to run.
    labels
        CSV of labels; None for a report without evaluation.
    map
        The map that ``merge`` made of these results, such as map.zarr; None for a report without.
    methods
        The file that ``methods`` wrote of these results; None for a report without that table.
    prevalence
        Share of diffuse among the hits where the ranking will be used, as for ``evaluate``.
    to
        Folder for ``report.html``; made if needed.
    top
        Number of best frames marked and pictured; also the most doubtful and
        the most wrong ones pictured.

    Returns
    -------
    pathlib.Path
        The HTML file.

    Raises
    ------
    BadLabels
        If the labels cannot be used.
    BadParameter
        If ``top`` is below 1, or ``methods`` is no such file, or of other frames.
    BadStore
        If there is no map at ``map``.
    """
    if top < 1:
        raise BadParameter(f"top = {top} must be at least 1")
    table = catalogue_table(results, columns=_COLUMNS)
    given = None if labels is None else read_labels(labels, table["frame_id"].tolist())
    volume = None if map is None else read_map(map)
    compared = None if methods is None else read_methods(methods, frames=frames_path(results))
    screen, scores = open_screen(results), open_scores(results)
    chosen = choose_pictures(table, given, top)
    content = ReportContent(
        title=_title(results),
        table=table,
        labels=given,
        evaluation=None if given is None else evaluate_table(table, given, prevalence=prevalence),
        learning_curve=None if scores is None else scores.attrs.get("learning_curve"),
        profile=summarise_background(screen),
        chosen=chosen,
        drawn=draw_residuals(results, sorted({frame for section in chosen.values() for frame in section})),
        top=top,
        made=datetime.datetime.now().astimezone(),
        shared=draw_shared(results),
        pairs=read_pairs(results, table.get("frame_score")),
        structure=read_structure(results),
        orientations=read_orientations(results),
        map=volume,
        methods=compared,
    )
    target = join(to, "report.html")
    with whole_file(target) as partial:
        partial.write_text(render_report(content), encoding="utf-8")
    return target


def _title(results: str | Path) -> str:
    place = as_store(results)
    parts = place.split("/") if isinstance(place, str) else place.resolve().parts
    return "/".join(parts[-2:])


def summarise_background(screen: xr.Dataset) -> Profile | None:
    """Median and spread of the background profile over hits spread evenly over the campaign; None without hits."""
    hits = np.flatnonzero(screen["frame_is_hit"].values)
    if not hits.size:
        return None
    some = hits[np.unique(np.linspace(0, hits.size - 1, min(hits.size, _PROFILES)).astype(int))]
    profiles = screen["background_profile"].isel(frame=some).values
    is_known = np.isfinite(profiles).any(axis=0)
    if not is_known.any():
        return None
    low, median, high = np.nanpercentile(profiles[:, is_known], [10, 50, 90], axis=0)
    return Profile(ring_q=screen["ring_q"].values[is_known], low=low, median=median, high=high)


def render_report(content: ReportContent) -> str:
    """Write the report as HTML; all text from outside is escaped."""
    import jinja2

    template = files("diffdask").joinpath("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["measure"] = format_measure
    environment.filters["number"] = _format_number
    table = content.table
    failed = table[table["frame_status"] != STATUS_OK]
    return environment.from_string(template).render(
        content=content,
        is_ranked=is_ranked(table),
        counts=_counts(table),
        threshold=threshold_of(table),
        is_probability=_is_probability(table),
        unit=_unit(table),
        sources=_sources(table),
        promise=_promise(table),
        plots=_plots(content),
        methods=None if content.methods is None else content.methods | describe_methods(content.methods),
        left_out={} if content.methods is None else gather_left_out(content.methods),
        pairs=_pairs(content),
        orientations=_orientations(content),
        sections=_sections(content),
        failures=failed[["frame_id", "run", "frame_status"]].head(_SHOWN_FAILURES).to_dict("records"),
        failure_count=len(failed),
        parameters={name: made for name, made in table.attrs.items() if made},
        versions={name: version(name) for name in ("diffdask", *_PACKAGES)} | {"Python": platform.python_version()},
    )


def _counts(table: pd.DataFrame) -> dict[str, int]:
    counts = {
        "frames": len(table),
        "runs": table["run"].nunique(),
        "hits": int(table["frame_is_hit"].sum()),
        "not usable": int((table["frame_status"] != STATUS_OK).sum()),
    }
    if is_ranked(table):
        counts["predicted diffuse"] = int((table["frame_score"] >= threshold_of(table)).sum())
    return counts


def _promise(table: pd.DataFrame) -> dict[str, Any] | None:
    """What share of its picks the method expects to be ``wrong``, and how many ``alone`` this is not said of."""
    told = table.attrs.get("scores") or {}
    wrong = told.get("expected_wrong_share")
    return None if wrong is None else {"wrong": wrong, "alone": told.get("picks_without_promise") or 0}


def _is_probability(table: pd.DataFrame) -> bool:
    return threshold_of(table) == THRESHOLD


def _unit(table: pd.DataFrame) -> str:
    """What the scores of the catalogue are."""
    if _is_probability(table):
        return "probability"
    return "log odds" if (table.attrs.get("scores") or {}).get("method") == "label-free" else "units of chance"


def _sources(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Which scores hits have and why: the ``source``, how many ``hits``, how many of them ``picked`` as diffuse."""
    if "frame_score_source" not in table:
        return []
    hits = table[table["frame_is_hit"].fillna(False).astype(bool)]
    picked = hits["frame_score"] >= threshold_of(table)
    counted = picked.fillna(False).astype(int).groupby(hits["frame_score_source"]).agg(["size", "sum"])
    ordered = counted.sort_values("size", ascending=False, kind="stable")
    return [{"source": name, "hits": int(size), "picked": int(number)} for name, size, number in ordered.itertuples()]


def _plots(content: ReportContent) -> dict[str, str]:
    """Name to ``data:`` URI of the plots that can be drawn."""
    table = content.table
    hits = table[table["frame_is_hit"].fillna(False).astype(bool)]
    label = _labels_of(hits, content.labels)
    drawn = {}
    per_run = table.groupby("run")["frame_is_hit"].agg(["size", "sum"])
    drawn["runs"] = plots.plot_runs(
        per_run.index.to_numpy(), per_run["size"].to_numpy(dtype=int), per_run["sum"].to_numpy(dtype=int)
    )
    if len(hits):
        drawn["anisotropy"] = plots.plot_anisotropy(
            _numbers(hits, "frame_peak_intensity"),
            _numbers(hits, "frame_anisotropy"),
            label,
            hits.index.isin(content.chosen["top"]),
        )
    if is_ranked(table):
        score = _numbers(hits, "frame_score")
        drawn |= _score_plots(content, hits, score, label)
    if content.learning_curve:
        curve = {name: np.asarray(values, dtype=float) for name, values in content.learning_curve.items()}
        drawn["learning"] = plots.plot_learning(curve["iteration"], curve["training"], curve["held_out"])
    if content.profile is not None:
        profile = content.profile
        drawn["background"] = plots.plot_background(profile.ring_q, profile.low, profile.median, profile.high)
    return drawn


def _score_plots(content: ReportContent, hits: pd.DataFrame, score: np.ndarray, label: np.ndarray) -> dict[str, str]:
    threshold, is_probability, unit = threshold_of(content.table), _is_probability(content.table), _unit(content.table)
    told = unit if unit == "units of chance" else f"{unit} that the hit is diffuse"
    drawn = {"scores": plots.plot_scores(score, label, threshold, is_probability=is_probability, unit=told)}
    method = (content.table.attrs.get("scores") or {}).get("method")
    if content.structure is None or method == "structure":  # a score against itself says nothing
        return drawn
    structure = content.structure.reindex(hits.index).to_numpy(dtype=float)
    is_known = np.isfinite(structure) & np.isfinite(score)
    if content.labels is None:
        label = np.where(score >= threshold, "predicted diffuse", "predicted non-diffuse").astype(object)
    found = content.orientations
    is_misindexed = np.isin(hits.index, [] if found is None else found.hit_frame[found.is_misindexed])
    if is_known.any():
        structure, score, label, is_misindexed = (one[is_known] for one in (structure, score, label, is_misindexed))
        drawn["structure"] = plots.plot_structure(structure, score, label, is_misindexed, threshold, unit=told)
    return drawn


def _orientations(content: ReportContent) -> dict[str, Any] | None:
    found, table = content.orientations, content.table
    if found is None:
        return None
    is_picked = None
    if is_ranked(table):
        is_picked = _numbers(table.reindex(found.hit_frame), "frame_score") >= threshold_of(table)
    return draw_orientations(found, is_picked)


def _pairs(content: ReportContent) -> list[dict[str, Any]]:
    """What was compared: numbers and pictures of each similarity."""
    table, found = content.table, []
    for one in content.pairs:
        rows = table.loc[one.hit_frame]
        drawn = draw_pairs(one, _labels_of(rows, content.labels), rows.index.isin(content.chosen["top"]))
        picked = int((rows["frame_score"] >= threshold_of(table)).sum()) if one.is_by_score else None
        found.append({"summary": one, "count": len(rows), "picked": picked, **drawn})
    return found


def _sections(content: ReportContent) -> dict[str, list[dict[str, Any]]]:
    """Cards of the pictures: what is written beside each."""
    return {
        name: [_card(content, frame) for frame in chosen if frame in content.drawn]
        for name, chosen in content.chosen.items()
    }


def _card(content: ReportContent, frame: int) -> dict[str, Any]:
    row = content.table.loc[frame]
    rank, peak_count = _number(row.get("frame_rank")), _number(row.get("frame_peak_count"))
    return {
        "frame": frame,
        "frame_id": row["frame_id"],
        "run": row["run"],
        "score": _number(row.get("frame_score")),
        "source": row.get("frame_score_source"),
        "rank": int(rank) if rank else None,
        "anisotropy": _number(row.get("frame_anisotropy")),
        "peak_count": None if peak_count is None else int(peak_count),
        "label": UNLABELLED if content.labels is None else content.labels.get(frame, UNLABELLED),
        **content.drawn[frame],
    }


def _labels_of(table: pd.DataFrame, labels: pd.Series | None) -> np.ndarray:
    if labels is None:
        return np.full(len(table), UNLABELLED, dtype=object)
    return labels.reindex(table.index).fillna(UNLABELLED).to_numpy(dtype=object)


def _numbers(table: pd.DataFrame, name: str) -> np.ndarray:
    return table[name].to_numpy(dtype=float, na_value=np.nan)


def _number(value: Any) -> float | None:
    import pandas as pd

    return None if value is None or pd.isna(value) else float(value)


def _format_number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}g}"
