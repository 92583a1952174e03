"""What diffdask adds to a scheduler: its page in the dashboard, its metrics, and an ear for those who tell."""

from __future__ import annotations

from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

from diffdask.cluster.metrics import Metrics
from diffdask.cluster.telling import HANDLER, TOPIC
from diffdask.cluster.watched import Watched

#: Of the plugin; a scheduler has it once.
NAME = "diffdask"


class Watching(SchedulerPlugin):
    """Knows how far a run is, and shows it."""

    idempotent = True

    async def start(self, scheduler: Any) -> None:
        """Begin to listen and to show."""
        self._watched = Watched()
        scheduler.handlers[HANDLER] = self._take
        self._metrics = Metrics(self._watched)
        self._metrics.register()
        _add_page(scheduler, self._watched)

    async def close(self) -> None:
        """Take the metrics away: a process may start another scheduler."""
        self._metrics.unregister()

    def log_event(self, topic: str, msg: Any) -> None:
        """Add what a worker found."""
        if topic == TOPIC:
            self._watched.add(msg)

    def _take(self, run: str, told: dict[str, Any]) -> dict[str, Any] | None:
        """Take what a driver tells; the answer is small."""
        if "counts" in told:
            self._watched.tell_counts(run, told["counts"])
            return None
        return dict(self._watched.tell_stage(run, told["stage"]))


def _add_page(scheduler: Any, watched: Watched) -> None:
    """Add the page, and a link to it on Dask's own, where there is a dashboard.

    Dask has no public way to do so at run time; the tests say whether this one still holds.
    """
    from bokeh.server.tornado import BokehTornado
    from tornado.ioloop import IOLoop

    shown = getattr(getattr(scheduler, "http_application", None), "applications", ())
    dashboard = next((app for app in shown if isinstance(app, BokehTornado)), None)
    if dashboard is None:
        return
    import functools

    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables

    from diffdask.cluster.page import PATH, draw_page

    show = functools.partial(_draw, watched=watched, draw=draw_page)
    page = BokehApplication({PATH: show}, scheduler, prefix=dashboard.prefix)
    scheduler.http_application.add_application(page)
    page.initialize(IOLoop.current())
    page.start()
    pages = template_variables(scheduler)["pages"]
    if PATH.strip("/") not in pages:
        pages.append(PATH.strip("/"))


def _draw(scheduler: Any, extra: Any, document: Any, *, watched: Watched, draw: Any) -> None:
    """Draw the page as Dask's dashboard calls those who draw its own."""
    draw(scheduler, watched, document)
