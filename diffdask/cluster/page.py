"""diffdask's page in Dask's dashboard: how far a run is, updated by itself."""

from __future__ import annotations

import time
from html import escape
from importlib import resources
from typing import Any

from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, HoverTool, NumeralTickFormatter
from bokeh.models.widgets import Div
from bokeh.plotting import figure

from diffdask.cluster.watched import Stage, Watched
from diffdask.pace import tell_count, tell_rate, tell_time

#: Of the page, below the dashboard's address.
PATH = "/diffdask"

#: Time between two updates, ms.
_EVERY = 1000

#: Without a word from the driver for so long, the page says so, s.
_SILENCE = 60.0

#: Workers whose memory is drawn: those that use most.
_MOST_WORKERS = 60

#: Samples of a stage that are worth a line.
_FEWEST_DRAWN = 4

#: Share of its memory from which on a worker is drawn in the colour of a warning; Dask pauses it at 80 %.
_MUCH_MEMORY = 0.7

_SOFT, _LINE, _PAPER = "#57534e", "#e7e5e4", "#ffffff"
_WARM, _COLD = "#c2410c", "#2563eb"


def draw_page(scheduler: Any, watched: Watched, document: Any) -> None:
    """Draw the page into a document of Bokeh, and keep it up to date."""
    texts = resources.files("diffdask.cluster")
    style = texts.joinpath("page.css").read_text()
    page = _Page(scheduler, watched, style)
    page.update()
    document.title = "diffdask"
    document.template = texts.joinpath("page.html").read_text()
    document.add_root(page.root)
    document.add_periodic_callback(page.update, _EVERY)


class _Page:
    def __init__(self, scheduler: Any, watched: Watched, style: str) -> None:
        self._scheduler, self._watched = scheduler, watched
        wide: dict[str, Any] = {"stylesheets": [style], "sizing_mode": "stretch_width", "margin": 0}
        self._headline, self._cards, self._bars = Div(**wide), Div(**wide), Div(**wide)
        self._rate = ColumnDataSource({"time": [], "rate": []})
        self._memory = ColumnDataSource({"at": [], "used": [], "limit": [], "name": [], "colour": []})
        self._rate_figure, self._memory_figure = self._draw_rate(), self._draw_memory()
        figures = row(self._rate_figure, self._memory_figure, sizing_mode="stretch_width", spacing=16)
        self.root = column(
            self._headline, self._cards, self._bars, figures, name="page", sizing_mode="stretch_width", spacing=14
        )

    def update(self) -> None:
        """Show what is known now."""
        stage, now = self._watched.current, time.time()
        _show(self._headline, _headline(stage, now, driver_is_there=self._watched.run in self._scheduler.clients))
        _show(self._cards, _cards(self._watched, stage))
        _show(self._bars, "".join(map(_bar, self._watched.stages.values())))
        self._update_rate(_drawn_stage(self._watched))
        self._update_memory()

    def _update_rate(self, stage: Stage | None) -> None:
        samples = [sample for sample in stage.samples if sample.rate is not None] if stage else []
        self._rate.data = {
            "time": [1000 * sample.time for sample in samples],
            "rate": [sample.rate for sample in samples],
        }
        if stage:
            self._rate_figure.title.text = f"{stage.unit}s a second: {stage.name}"

    def _update_memory(self) -> None:
        workers = sorted(self._scheduler.workers.values(), key=_memory_of, reverse=True)
        drawn = workers[:_MOST_WORKERS]
        used, limit = [_memory_of(w) / 2**30 for w in drawn], [(w.memory_limit or 0) / 2**30 for w in drawn]
        self._memory.data = {
            "at": list(range(1, len(drawn) + 1)),
            "used": used,
            "limit": limit,
            "name": [str(worker.name) for worker in drawn],
            "colour": [_WARM if b and a > _MUCH_MEMORY * b else _COLD for a, b in zip(used, limit, strict=True)],
        }
        self._memory_figure.x_range.end = max(len(drawn), 2) + 0.6
        total = sum(map(_memory_of, workers)) / 2**30
        self._memory_figure.title.text = f"memory of {len(workers)} workers, GiB ({total:.3g} in all)"

    def _draw_rate(self) -> Any:
        drawn = _start_figure("frames a second", "time (UTC)", min_width=420, x_axis_type="datetime")
        drawn.varea("time", 0, "rate", source=self._rate, fill_color=_COLD, fill_alpha=0.12)
        drawn.line("time", "rate", source=self._rate, line_color=_COLD, line_width=2)
        return drawn

    def _draw_memory(self) -> Any:
        drawn = _start_figure("memory of workers", "worker", min_width=320, x_range=(0.4, 2.6))
        drawn.vbar("at", 0.8, "limit", source=self._memory, fill_color=_LINE, line_color=None)
        bars = drawn.vbar("at", 0.8, "used", source=self._memory, fill_color="colour", line_color=None)
        told = [("worker", "@name"), ("GiB", "@used{0.00} of @limit{0.00}")]
        drawn.add_tools(HoverTool(renderers=[bars], tooltips=told))
        drawn.xaxis.ticker.min_interval = 1
        drawn.xaxis.ticker.num_minor_ticks = 0
        return drawn


def _drawn_stage(watched: Watched) -> Stage | None:
    """The current stage, or the one with most to draw as long as that has next to nothing."""
    current = watched.current
    if current is None or len(current.samples) >= _FEWEST_DRAWN:
        return current
    return max(watched.stages.values(), key=lambda stage: len(stage.samples))


def _headline(stage: Stage | None, now: float, *, driver_is_there: bool) -> str:
    if stage is None:
        return '<p class="state">Nothing has been told yet: a run shows here once its first stage begins.</p>'
    share = 100 * stage.done / stage.total if stage.total else 100.0
    told = f"<b>{escape(stage.name)}</b>: {share:.0f} % done"
    if stage.is_over:
        told = f"<b>{escape(stage.name)}</b> is done"
    elif not driver_is_there:
        told += '; <span class="warning">the driver is gone: the same command goes on where it stopped</span>'
    elif now - stage.told > _SILENCE:
        told += f'; <span class="warning">no block was done for {tell_time(now - stage.told)}</span>'
    elif stage.seconds_left is not None:
        told += f", {tell_time(stage.seconds_left)} left"
    return f'<p class="state">{told}</p>'


def _cards(watched: Watched, stage: Stage | None) -> str:
    screened = watched.stages.get("screen") or stage
    unit = screened.unit if screened else "frame"
    left, is_ranked = None if stage is None else stage.seconds_left, watched.diffuse is not None
    cards = [
        ("done", tell_count(screened.done) if screened else "–", f"{unit}s done", _of(screened)),
        ("rate", tell_rate(stage.rate if stage else None), f"{stage.unit if stage else unit}s a second", ""),
        ("left", tell_time(left), "left", stage.name if stage else ""),
        ("hits", _or_dash(watched.hits), "hits so far", ""),
        ("diffuse", _or_dash(watched.diffuse), "predicted diffuse", "" if is_ranked else "not ranked yet"),
        ("failures", tell_count(watched.failures), "failures", ""),
    ]
    shown = "".join(
        f'<li data-name="{name}"><b>{escape(value)}</b>{escape(text)}<small>{escape(more) or "&nbsp;"}</small></li>'
        for name, value, text, more in cards
    )
    return f'<ul class="numbers">{shown}</ul>'


def _bar(stage: Stage) -> str:
    done, failed = (100 * part / stage.total if stage.total else 0.0 for part in (stage.done, stage.failed))
    told = f"{tell_count(stage.done)} of {tell_count(stage.total)} {stage.unit}s"
    return (
        f'<div class="stage" data-stage="{escape(stage.name)}"><span class="name">{escape(stage.name)}</span>'
        f'<span class="bar"><i style="width:{done:.2f}%"></i><i class="failed" style="width:{failed:.2f}%"></i></span>'
        f'<span class="told">{told}<small>{tell_count(stage.blocks_done)} of {tell_count(stage.blocks)} blocks</small>'
        f"</span></div>"
    )


def _of(stage: Stage | None) -> str:
    return f"of {tell_count(stage.total)}" if stage else ""


def _or_dash(count: int | None) -> str:
    return "–" if count is None else tell_count(count)


def _memory_of(worker: Any) -> float:
    return float(worker.metrics.get("memory", 0))


def _show(div: Div, text: str) -> None:
    """Send a text to the browser only if it is another."""
    if div.text != text:
        div.text = text


def _start_figure(title: str, along: str, **options: Any) -> Any:
    """Make an empty figure in the style of the page."""
    make: Any = figure  # its stubs know but few of its options
    drawn = make(
        title=title,
        x_axis_label=along,
        height=270,
        sizing_mode="stretch_width",
        tools="",
        toolbar_location=None,
        outline_line_color=None,
        background_fill_color=_PAPER,
        border_fill_color=_PAPER,
        min_border_right=34,
        stylesheets=[f":host {{ border: 1px solid {_LINE}; border-radius: 6px; overflow: hidden; }}"],
        **options,
    )
    drawn.y_range.start = 0
    drawn.xaxis.ticker.desired_num_ticks = 6
    drawn.xgrid.grid_line_color = None
    drawn.ygrid.grid_line_color = _LINE
    drawn.yaxis.formatter = NumeralTickFormatter(format="0,0.[00]")
    _style_text(drawn.title, "text", "13px")
    drawn.title.text_font_style = "normal"
    for axis in (*drawn.xaxis, *drawn.yaxis):
        axis.axis_line_color = axis.major_tick_line_color = _SOFT
        axis.minor_tick_line_color = None
        axis.axis_label_text_font_style = "normal"
        _style_text(axis, "major_label_text", "12px")
        _style_text(axis, "axis_label_text", "12px")
    return drawn


def _style_text(model: Any, what: str, size: str) -> None:
    for name, value in (("font", "system-ui, sans-serif"), ("font_size", size), ("color", _SOFT)):
        setattr(model, f"{what}_{name}", value)
