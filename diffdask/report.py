"""The report: one HTML file that shows what was found and how far to trust it."""

from __future__ import annotations

import datetime
import inspect
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdask import pictures, plots
from diffdask.catalogue import catalogue_table, whole_file
from diffdask.errors import BadParameter, BadStore
from diffdask.evaluation import THRESHOLD, evaluate_table, format_measure, threshold_of
from diffdask.frame_choice import choose_pictures, is_ranked
from diffdask.geometry import Geometry
from diffdask.io.frames_store import open_frames, take_frames
from diffdask.io.labels import read_labels
from diffdask.io.results_store import frames_path, open_group, open_scores, open_screen
from diffdask.pair_pictures import PairSummary, choose_evenly, draw_pairs, read_pairs
from diffdask.pixels import list_pixels
from diffdask.polar_pictures import draw_components
from diffdask.steps.background import remove_background
from diffdask.variables import STATUS_OK

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

UNLABELLED = "unlabelled"

#: Hits that tell what the background and the bins in use are: enough for a median, little to read.
_PROFILES = 500

_SHOWN_FAILURES = 50

#: Nuisance components pictured: later ones look like noise to the eye.
_DRAWN_COMPONENTS = 16

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


def report(results: str | Path, *, labels: str | Path | None = None, to: str | Path, top: int = 20) -> Path:
    """Write the report of a results store.

    Parameters
    ----------
    results
        The results store. What is not there yet is left out, and the report
        says what to run.
    labels
        CSV of labels; None for a report without evaluation.
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
        If ``top`` is below 1.
    """
    if top < 1:
        raise BadParameter(f"top = {top} must be at least 1")
    table = catalogue_table(results)
    given = None if labels is None else read_labels(labels, table["frame_id"].tolist())
    screen, scores = open_screen(results), open_scores(results)
    chosen = choose_pictures(table, given, top)
    content = ReportContent(
        title="/".join(Path(results).resolve().parts[-2:]),
        table=table,
        labels=given,
        evaluation=None if given is None else evaluate_table(table, given),
        learning_curve=None if scores is None else scores.attrs.get("learning_curve"),
        profile=summarise_background(screen),
        chosen=chosen,
        drawn=draw_residuals(results, sorted({frame for section in chosen.values() for frame in section})),
        top=top,
        made=datetime.datetime.now().astimezone(),
        shared=draw_shared(results),
        pairs=read_pairs(results, table.get("frame_score")),
    )
    target = Path(to) / "report.html"
    with whole_file(target) as partial:
        partial.write_text(render_report(content), encoding="utf-8")
    return target


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


def draw_shared(results: str | Path) -> dict[str, Any] | None:
    """Draw what hits share on the detector: ``uri``, components ``drawn`` and their ``count``; None without any."""
    features, hits = open_group(results, "features"), open_group(results, "hits")
    if features is None or hits is None or not features.sizes.get("component"):
        return None
    some = choose_evenly(features.sizes["hit"], all_up_to=_PROFILES, else_=_PROFILES)
    is_seen = np.isfinite(features["cleaned_residual"].isel(hit=some).values).any(axis=0)
    components = features["nuisance_component"][:_DRAWN_COMPONENTS].values
    uri = draw_components(components, hits["polar_ring_q"].values, is_seen)
    return {"uri": uri, "drawn": len(components), "count": features.sizes["component"]}


def draw_residuals(results: str | Path, chosen: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Draw the residuals of frames, (frame number) to ``uri`` and ``limit`` (photons): peaks left out, smoothed."""
    if not chosen:
        return {}
    pictured = pictures.picture_map(Geometry.from_dataset(open_frames(frames_path(results))))
    drawn = {}
    for frame, panels in residual_panels(results, chosen):
        image = pictures.smooth(pictures.assemble(pictures.leave_out_peaks(panels, pictured), pictured))
        limit = pictures.robust_limit(image)
        drawn[frame] = {"uri": pictures.to_png(image, limit=limit), "limit": limit}
    return drawn


def residual_panels(results: str | Path, chosen: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Give residuals of frames, one frame at a time.

    Parameters
    ----------
    results
        The results store: its layout and its parameters, so that pictures show
        what was screened.
    chosen
        Frame numbers.

    Yields
    ------
    tuple
        (frame number, (panel, ss, fs) residual in photons).
    """
    where, layout = frames_path(results), open_group(results, "layout")
    if layout is None:
        raise BadStore(f"'{results}' has no layout; run: diffdask screen {where} --results {results}")
    layout = layout.load()
    pixels, background = list_pixels(layout), _meant_for(remove_background, open_screen(results).attrs["parameters"])
    for frame in chosen:
        one = take_frames(where, [frame]).merge(layout.isel(frame=[frame]), compat="equals", join="exact")
        yield frame, remove_background(one, pixels=pixels, **background)["residual"].values[0]


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
        sources=_sources(table),
        plots=_plots(content),
        pairs=_pairs(content),
        sections=_sections(content),
        failures=failed[["frame_id", "run", "frame_status"]].head(_SHOWN_FAILURES).to_dict("records"),
        failure_count=len(failed),
        parameters={name: made for name, made in table.attrs.items() if made},
        versions={name: version(name) for name in ("diffdask", *_PACKAGES)} | {"Python": platform.python_version()},
    )


def _meant_for(step: Callable[..., Any], parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name in inspect.signature(step).parameters}


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


def _is_probability(table: pd.DataFrame) -> bool:
    return threshold_of(table) == THRESHOLD


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
        drawn["scores"] = plots.plot_scores(score, label, threshold_of(table), is_probability=_is_probability(table))
    if content.learning_curve:
        curve = {name: np.asarray(values, dtype=float) for name, values in content.learning_curve.items()}
        drawn["learning"] = plots.plot_learning(curve["iteration"], curve["training"], curve["held_out"])
    if content.profile is not None:
        profile = content.profile
        drawn["background"] = plots.plot_background(profile.ring_q, profile.low, profile.median, profile.high)
    return drawn


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
