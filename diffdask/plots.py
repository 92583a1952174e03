"""Plots of a report, each a small SVG in a ``data:`` URI."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdask.pictures import data_uri
from diffdask.variables import LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Colours that stay apart in grey and for the colour-blind.
COLOURS = {**dict(zip(LABELS, ("#c2410c", "#2563eb", "#a8a29e"), strict=True)), "unlabelled": "#78716c"}

#: Points past which a cloud is drawn as pixels, not as a shape each.
_MANY_POINTS = 500

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "diffdask",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#57534e",
    "axes.labelcolor": "#292524",
    "xtick.color": "#57534e",
    "ytick.color": "#57534e",
    "legend.frameon": False,
}


def plot_anisotropy(peak_intensity: np.ndarray, anisotropy: np.ndarray, label: np.ndarray, is_top: np.ndarray) -> str:
    """Anisotropy against peak intensity of the hits, the top picks ringed.

    Parameters
    ----------
    peak_intensity
        (hit,) photon.
    anisotropy
        (hit,).
    label
        (hit,) label or "unlabelled".
    is_top
        (hit,) bool.
    """

    def draw(axes: Axes) -> None:
        for name in ("unlabelled", *reversed(LABELS)):
            of = label == name
            if of.any():
                axes.scatter(
                    peak_intensity[of],
                    anisotropy[of],
                    s=10,
                    color=COLOURS[name],
                    alpha=0.35 if name == "unlabelled" else 0.85,
                    linewidths=0,
                    label=name,
                    rasterized=bool(of.sum() > _MANY_POINTS),
                )
        if is_top.any():
            axes.scatter(
                peak_intensity[is_top],
                anisotropy[is_top],
                s=34,
                facecolors="none",
                edgecolors="#1c1917",
                linewidths=0.8,
                label=f"top {int(is_top.sum())}",
            )
        _scale(axes.set_xscale, axes.xaxis, peak_intensity)
        _scale(axes.set_yscale, axes.yaxis, anisotropy)
        axes.set_xlabel("mean peak intensity / photon")
        axes.set_ylabel("anisotropy")
        axes.legend(fontsize=8, loc="best")

    return _svg(draw)


def plot_scores(score: np.ndarray, label: np.ndarray, threshold: float) -> str:
    """Histogram of the scores of hits, (hit,), by label: share of each label's frames."""

    def draw(axes: Axes) -> None:
        bins = np.linspace(0.0, 1.0, 21).tolist()
        for name in ("unlabelled", *reversed(LABELS)):
            of = (label == name) & np.isfinite(score)
            if of.any():
                weights = np.full(int(of.sum()), 1.0 / of.sum())
                look: dict[str, Any] = {"histtype": "stepfilled", "alpha": 0.25, "color": COLOURS[name]}
                axes.hist(score[of], bins=bins, weights=weights, label=f"{name} ({of.sum()})", **look)
                axes.hist(score[of], bins=bins, weights=weights, histtype="step", color=COLOURS[name], linewidth=1.2)
        axes.axvline(threshold, color="#1c1917", linewidth=0.8, linestyle=":")
        axes.set_xlabel("score: probability that the hit is diffuse")
        axes.set_ylabel("share of the label's frames")
        axes.set_xlim(0, 1)
        axes.legend(fontsize=8, loc="best")

    return _svg(draw)


def plot_learning(iteration: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> str:
    """Mean log-likelihood of a label against the iteration of the fit, on training and on held-out frames."""

    def draw(axes: Axes) -> None:
        axes.plot(iteration, training, color="#57534e", linewidth=1.4, label="training")
        axes.plot(iteration, held_out, color="#0f766e", linewidth=1.4, label="held out")
        axes.axhline(-np.log(2), color="#a8a29e", linewidth=0.8, linestyle=":", label="a coin")
        axes.set_xlabel("iteration")
        axes.set_ylabel("mean log-likelihood of a label")
        axes.legend(fontsize=8, loc="lower right")

    return _svg(draw)


def plot_runs(run: np.ndarray, frame_count: np.ndarray, hit_count: np.ndarray) -> str:
    """Share of hits in every run, (run,), with the counts written where there is room."""

    def draw(axes: Axes) -> None:
        share = hit_count / frame_count
        where = np.arange(run.size)
        axes.bar(where, share, color="#0f766e", width=0.7)
        step = max(1, run.size // 12)
        axes.set_xticks(where[::step], [str(number) for number in run[::step]])
        if run.size <= 8:
            for x, y, hits, frames in zip(where, share, hit_count, frame_count, strict=True):
                axes.annotate(f"{hits} of {frames}", (x, y), ha="center", va="bottom", fontsize=8)
        axes.set_ylim(0, max(float(share.max()) * 1.15, 1e-6))
        axes.set_xlabel("run")
        axes.set_ylabel("share of frames that are hits")

    return _svg(draw)


def plot_background(ring_q: np.ndarray, low: np.ndarray, median: np.ndarray, high: np.ndarray) -> str:
    """Isotropic background against q: median over hits and the range of the middle four fifths, (ring,)."""

    def draw(axes: Axes) -> None:
        axes.fill_between(ring_q, low, high, color="#0f766e", alpha=0.2, linewidth=0, label="10 to 90 % of the hits")
        axes.plot(ring_q, median, color="#0f766e", linewidth=1.4, label="median")
        axes.set_xlabel("q / Å⁻¹")
        axes.set_ylabel("background / photon per pixel")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8, loc="upper right")

    return _svg(draw)


def _scale(set_scale: Any, axis: Any, values: np.ndarray) -> None:
    """Give an axis a logarithmic scale, one that knows both signs where needed: anisotropy has noise taken off."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    finite = values[np.isfinite(values)]
    if not finite.any():
        return
    if finite.min() <= 0:
        set_scale("symlog", linthresh=float(np.median(np.abs(finite[finite != 0]))))
        return
    set_scale("log")
    if finite.max() < 50 * finite.min():
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _svg(draw: Any) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.0, 3.3), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        file = io.BytesIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return data_uri(file.getvalue(), "image/svg+xml")
