"""The numbers of a run for Prometheus, beside Dask's own at ``/metrics`` of the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from diffdask.cluster.watched import Stage, Watched

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

#: Metrics of a stage, with the labels "stage" and "unit": name, kind, help and value.
_OF_A_STAGE: tuple[tuple[str, str, str, Callable[[Stage], float | None]], ...] = (
    ("diffdask_done", "counter", "Units of the stage that are done.", lambda stage: stage.done),
    ("diffdask_units", "gauge", "Units of the stage in all.", lambda stage: stage.total),
    ("diffdask_blocks_done", "counter", "Blocks of the stage that are done.", lambda stage: stage.blocks_done),
    ("diffdask_blocks", "gauge", "Blocks of the stage in all.", lambda stage: stage.blocks),
    ("diffdask_failed", "counter", "Units of blocks that failed.", lambda stage: stage.failed),
    ("diffdask_rate", "gauge", "Units a second, recently.", lambda stage: stage.rate),
    ("diffdask_seconds_left", "gauge", "Time until the stage is done, as it goes now.", lambda s: s.seconds_left),
    ("diffdask_told_seconds", "gauge", "When the driver last told of it, s since 1970.", lambda stage: stage.told),
)


def _of_frames(value: Callable[[Stage], float]) -> Callable[[Watched], float | None]:
    return lambda watched: value(watched.stages["screen"]) if "screen" in watched.stages else None


#: Metrics of a run: name, kind, help and value; without a value they are left out.
_OF_A_RUN: tuple[tuple[str, str, str, Callable[[Watched], float | None]], ...] = (
    ("diffdask_frames_done", "counter", "Frames that are screened.", _of_frames(lambda stage: stage.done)),
    ("diffdask_frames_total", "gauge", "Frames to be screened, in all.", _of_frames(lambda stage: stage.total)),
    ("diffdask_hits", "counter", "Hits so far.", lambda watched: watched.hits),
    ("diffdask_diffuse", "counter", "Hits that are predicted diffuse.", lambda watched: watched.diffuse),
    ("diffdask_failures", "counter", "Frames that are damaged or of blocks that failed.", lambda w: w.failures),
)


class Metrics:
    """A collector of Prometheus."""

    #: The one that is registered: a process has one registry, and one scheduler except in tests.
    _registered: Metrics | None = None

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def register(self) -> None:
        """Show the metrics, in place of those of an earlier scheduler of this process."""
        import prometheus_client

        if Metrics._registered is not None:
            Metrics._registered.unregister()
        prometheus_client.REGISTRY.register(self)
        Metrics._registered = self

    def unregister(self) -> None:
        """Show them no longer."""
        import prometheus_client

        if Metrics._registered is self:
            prometheus_client.REGISTRY.unregister(self)
            Metrics._registered = None

    def describe(self) -> list[Metric]:
        """Say nothing in advance, so that nothing is collected when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give all metrics with a value; a counter's name gets ``_total`` behind it."""
        for name, kind, told, value in _OF_A_RUN:
            now = value(self._watched)
            if now is not None:
                yield _family(kind)(name, told, value=now)
        for name, kind, told, of in _OF_A_STAGE:
            family = _family(kind)(name, told, labels=["stage", "unit"])
            for stage in self._watched.stages.values():
                number = of(stage)
                if number is not None:
                    family.add_metric([stage.name, stage.unit], number)
            yield family


def _family(kind: str) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    return {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}[kind]
