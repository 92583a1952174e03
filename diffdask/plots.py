"""Plots of a report, each a small SVG in a ``data:`` URI."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdask.pictures import data_uri
from diffdask.variables import LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Colours that stay apart in grey and for the colour-blind.
COLOURS = {
    "misindexed": "#1c1917",
    "predicted diffuse": "#c2410c",
    "predicted non-diffuse": "#2563eb",
    **dict(zip(LABELS, ("#c2410c", "#2563eb", "#a8a29e"), strict=True)),
    "unlabelled": "#78716c",
    "not ranked": "#78716c",
}

#: Scores up to here are the bulk where no threshold says what is high: log odds of so much are as good as certain.
_BULK = 4.0

#: Scores past this have a scale that is logarithmic outside the bulk.
_FAR = 50.0

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
        _scatter(axes, peak_intensity, anisotropy, label, is_top)
        _scale(axes.set_xscale, axes.xaxis, peak_intensity)
        _scale(axes.set_yscale, axes.yaxis, anisotropy)
        axes.set_xlabel("mean peak intensity / photon")
        axes.set_ylabel("anisotropy")
        axes.legend(fontsize=8, loc="best")

    return draw_svg(draw)


def plot_scores(
    score: np.ndarray,
    label: np.ndarray,
    threshold: float,
    *,
    is_probability: bool = True,
    unit: str = "probability that the hit is diffuse",
) -> str:
    """Histogram of the scores of hits by label: share of each label's frames.

    Parameters
    ----------
    score
        (hit,); NaN for hits without.
    label
        (hit,) label or "unlabelled".
    threshold
        Where predicted diffuse begins.
    is_probability
        Whether scores are probabilities; else a few may be so high that they
        are counted in the outermost bar.
    unit
        What scores are.
    """

    def draw(axes: Axes) -> None:
        edges = np.linspace(0.0, 1.0, 21) if is_probability else bin_scores(score, threshold)
        inside = np.clip(score, edges[0], edges[-1])
        beyond = int((np.isfinite(score) & (score != inside)).sum())
        _histogram(axes, inside, label, edges)
        axes.axvline(threshold, color="#1c1917", linewidth=0.8, linestyle=":")
        axes.set_ylabel("share of the label's frames")
        axes.set_xlabel(f"score: {unit}" + (f" ({beyond} beyond the ends)" if beyond else ""))
        if not is_probability:
            axes.set_yscale("log")  # one hit in twenty is diffuse, and their scores are wide apart
        axes.legend(fontsize=8, loc="best")

    return draw_svg(draw)


def bin_scores(score: np.ndarray, threshold: float) -> np.ndarray:
    """Edges of bins for scores that are no probabilities, (hit,); the threshold is one, the long tail lies beyond.

    Examples
    --------
    >>> bin_scores(np.array([-0.9, 0.3, 1.0, 9000.0]), 2.0).tolist()[:4]
    [-1.0, 0.0, 1.0, 2.0]
    """
    known = score[np.isfinite(score)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    reach = threshold or _BULK
    low, high = max(min(low, 0.0), -4 * reach), np.clip(high, 2 * reach, 10 * reach)
    width = np.ceil((high - low) / 20) / 2  # a multiple of one half, so that there are at most about 40
    below, above = np.ceil((threshold - low) / width), np.ceil((high - threshold) / width)
    return threshold + width * np.arange(-below, above + 1)


def plot_structure(
    structure: np.ndarray,
    score: np.ndarray,
    group: np.ndarray,
    is_misindexed: np.ndarray,
    threshold: float,
    *,
    unit: str,
) -> str:
    """Scores of hits against the structure of each by itself; above the dotted line a hit is predicted diffuse.

    Parameters
    ----------
    structure, score
        (hit,); NaN for hits without. Structure in robust standard deviations.
    group
        (hit,) label, "unlabelled", or what is predicted.
    is_misindexed
        (hit,) bool: crossed.
    threshold
        Of the score.
    unit
        What scores are.
    """

    def draw(axes: Axes) -> None:
        _scatter(axes, structure, score, group, np.zeros(score.size, dtype=bool))
        if is_misindexed.any():
            cross: dict[str, Any] = {"s": 36, "marker": "x", "linewidths": 1.1, "color": COLOURS["misindexed"]}
            label = f"misindexed ({int(is_misindexed.sum())})"
            axes.scatter(structure[is_misindexed], score[is_misindexed], **cross, label=label)
        axes.axhline(threshold, color="#1c1917", linewidth=0.8, linestyle=":")
        for set_scale, values in ((axes.set_xscale, structure), (axes.set_yscale, score)):
            if (np.abs(values[np.isfinite(values)]) > _FAR).any():
                set_scale("symlog", linthresh=_BULK)
        axes.set_xlabel("structure / robust standard deviations")
        axes.set_ylabel(f"score: {unit}")
        axes.legend(fontsize=8, loc="best")

    return draw_svg(draw)


def plot_groups(
    values: np.ndarray, group: np.ndarray, edges: np.ndarray, name: str, *, marked: float | None = None
) -> str:
    """Histogram of what hits have, by group: share of each group's hits.

    Parameters
    ----------
    values
        (hit,); NaN for hits without. What lies beyond the ends is counted in the outermost bars.
    group
        (hit,) names that ``COLOURS`` has.
    edges
        Of the bars.
    name
        Of the values, with their unit.
    marked
        Where to draw a line.
    """

    def draw(axes: Axes) -> None:
        _histogram(axes, np.clip(values, edges[0], edges[-1]), group, edges)
        if marked is not None:
            axes.axvline(marked, color="#1c1917", linewidth=0.8, linestyle=":")
        axes.set_xlabel(name)
        axes.set_ylabel("share of the group's hits")
        axes.legend(fontsize=8, loc="best")

    return draw_svg(draw)


def plot_half_maps(shell_q: np.ndarray, correlation: np.ndarray) -> str:
    """Correlation of two half maps against resolution, both (map_shell,); a gap where it is NaN."""

    def draw(axes: Axes) -> None:
        axes.plot(shell_q, correlation, color="#0f766e", linewidth=1.4, marker="o", markersize=3.5)
        axes.axhline(0, color="#a8a29e", linewidth=0.8, linestyle=":")
        axes.set_ylim(min(0.0, 1.1 * float(np.nanmin(correlation))), 1)
        axes.set_xlim(left=0)
        axes.set_xlabel("q / Å⁻¹")
        axes.set_ylabel("correlation of the half maps")

    return draw_svg(draw)


def plot_learning(iteration: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> str:
    """Mean log-likelihood of a label against the iteration of the fit, on training and on held-out frames."""

    def draw(axes: Axes) -> None:
        axes.plot(iteration, training, color="#57534e", linewidth=1.4, label="training")
        axes.plot(iteration, held_out, color="#0f766e", linewidth=1.4, label="held out")
        axes.axhline(-np.log(2), color="#a8a29e", linewidth=0.8, linestyle=":", label="a coin")
        axes.set_xlabel("iteration")
        axes.set_ylabel("mean log-likelihood of a label")
        axes.legend(fontsize=8, loc="lower right")

    return draw_svg(draw)


def plot_eigenvalues(eigenvalues: np.ndarray, marked: Sequence[int]) -> str:
    """Eigenvalues of a diffusion map, (k,), the trivial one left out; those of the coordinates shown are marked."""
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        number = np.arange(1, eigenvalues.size + 1)
        is_marked = np.isin(number - 1, marked)
        axes.bar(number[~is_marked], eigenvalues[~is_marked], color="#a8a29e", width=0.7)
        axes.bar(number[is_marked], eigenvalues[is_marked], color="#0f766e", width=0.7, label="shown beside")
        axes.axhline(0, color="#57534e", linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("coordinate")
        axes.set_ylabel("eigenvalue")
        axes.legend(fontsize=8, loc="upper right")

    return draw_svg(draw)


def plot_coordinates(x: np.ndarray, y: np.ndarray, label: np.ndarray, is_top: np.ndarray, names: Sequence[str]) -> str:
    """Two coordinates of a diffusion map, (hit,), by label, the top picks ringed; ``names`` are those of the axes."""

    def draw(axes: Axes) -> None:
        _scatter(axes, x, y, label, is_top)
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])
        axes.legend(fontsize=8, loc="best")

    return draw_svg(draw)


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

    return draw_svg(draw)


def plot_background(ring_q: np.ndarray, low: np.ndarray, median: np.ndarray, high: np.ndarray) -> str:
    """Isotropic background against q: median over hits and the range of the middle four fifths, (ring,)."""

    def draw(axes: Axes) -> None:
        axes.fill_between(ring_q, low, high, color="#0f766e", alpha=0.2, linewidth=0, label="10 to 90 % of the hits")
        axes.plot(ring_q, median, color="#0f766e", linewidth=1.4, label="median")
        axes.set(xlabel="q / Å⁻¹", ylabel="background / photon per pixel")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8, loc="upper right")

    return draw_svg(draw)


def _scatter(axes: Axes, x: np.ndarray, y: np.ndarray, label: np.ndarray, is_top: np.ndarray) -> None:
    """Points by label, the rare ones above; rings about the top picks."""
    for name in reversed(COLOURS):
        of = label == name
        if of.any():
            look: dict[str, Any] = {"s": 10, "color": COLOURS[name], "linewidths": 0, "label": name}
            look |= {"alpha": 0.35 if name == "unlabelled" else 0.85, "rasterized": bool(of.sum() > _MANY_POINTS)}
            axes.scatter(x[of], y[of], **look)
    if is_top.any():
        ring: dict[str, Any] = {"s": 34, "facecolors": "none", "edgecolors": "#1c1917", "linewidths": 0.8}
        axes.scatter(x[is_top], y[is_top], **ring, label=f"top {int(is_top.sum())}")


def _histogram(axes: Axes, values: np.ndarray, group: np.ndarray, edges: np.ndarray) -> None:
    """Share of each group's hits in every bar, those without a value left out."""
    for name in reversed(COLOURS):
        of = (group == name) & np.isfinite(values)
        if of.any():
            look: dict[str, Any] = {"bins": edges.tolist(), "weights": np.full(int(of.sum()), 1.0 / of.sum())}
            look["color"] = COLOURS[name]
            axes.hist(values[of], **look, histtype="stepfilled", alpha=0.25, label=f"{name} ({of.sum()})")
            axes.hist(values[of], **look, histtype="step", linewidth=1.2)
    axes.set_xlim(edges[0], edges[-1])


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


def draw_svg(draw: Any, *, size: tuple[float, float] = (5.0, 3.3), columns: int = 1) -> str:
    """Draw on ``columns`` axes that share theirs of y, ``size`` in inches, and give a ``data:`` URI."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(*figure.subplots(1, columns, sharey=True, squeeze=False)[0])
        file = io.BytesIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return data_uri(file.getvalue(), "image/svg+xml")
