"""What a scheduler is told of the runs it serves: the numbers of its page and of its metrics.

The driver tells once a second where its stage is, workers tell what they find
in a block. Nothing here grows with the frames.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from diffdask.pace import WINDOW, recent_rate, time_left

#: Samples of a stage's history that are kept; when there are more, every other one is dropped.
_MOST_SAMPLES = 1000

#: How far back a rate looks, s, if there are so many samples; else as far as :data:`diffdask.pace.WINDOW`.
_NEAR, _FEWEST_NEAR = 60.0, 5


@dataclass(frozen=True)
class Sample:
    """Where a stage was at a moment."""

    time: float  #: s since 1970
    done: int
    rate: float | None  #: units a second


@dataclass
class Stage:
    """A stage of a run, such as the screen.

    Attributes
    ----------
    name, unit
        What is done, and with what.
    total, done, failed
        Units.
    blocks, blocks_done
        Blocks.
    is_over
        Nothing more will be told of it.
    told
        When the driver last told something, s since 1970.
    samples
        History of this run, ascending in time.
    """

    name: str
    unit: str
    total: int = 0
    done: int = 0
    failed: int = 0
    blocks: int = 0
    blocks_done: int = 0
    is_over: bool = False
    told: float = 0.0
    samples: list[Sample] = field(default_factory=list)

    @property
    def rate(self) -> float | None:
        """Units a second, recently."""
        return self.samples[-1].rate if self.samples else None

    @property
    def seconds_left(self) -> float | None:
        """Until it is done, as it goes now; None where that cannot be said."""
        return 0.0 if self.is_over else time_left(self.total - self.done - self.failed, self.rate)

    def update(self, told: Mapping[str, Any], now: float) -> None:
        """Take over what the driver tells."""
        for name in ("total", "done", "failed", "blocks", "blocks_done"):
            setattr(self, name, int(told[name]))
        self.is_over, self.told = bool(told["is_over"]), now
        if self.samples and self.samples[-1].done == self.done:
            return
        rate = _rate_of([*self.samples, Sample(now, self.done, None)])
        self.samples.append(Sample(now, self.done, rate))
        if len(self.samples) > _MOST_SAMPLES:
            del self.samples[1:-1:2]


class Watched:
    """A run, as far as it was told of; another one takes its place."""

    def __init__(self) -> None:
        self.run = ""
        self.stages: dict[str, Stage] = {}
        self.hits: int | None = None
        self.diffuse: int | None = None
        self.damaged = 0

    @property
    def current(self) -> Stage | None:
        """The stage going on, or the last one."""
        return list(self.stages.values())[-1] if self.stages else None

    @property
    def failures(self) -> int:
        """Frames, or hits, of which nothing is known: damaged, or of blocks that failed."""
        return self.damaged + sum(stage.failed for stage in self.stages.values())

    def tell_stage(self, run: str, told: Mapping[str, Any], now: float | None = None) -> dict[str, int | None]:
        """Take what a driver tells of its stage, and answer with what workers found.

        Parameters
        ----------
        run
            Of the driver.
        told
            ``stage``, ``unit`` and the counts of :class:`Stage`.
        now
            s since 1970; None for now.
        """
        self._enter(run)
        name = str(told["stage"])
        if name in self.stages and self.stages[name].is_over and not told["is_over"]:
            del self.stages[name]  # once more, as with frames added since
        stage = self.stages.pop(name, None) or Stage(name, str(told["unit"]))
        self.stages[name] = stage  # the last is the current one
        stage.update(told, time.time() if now is None else now)
        return {"hits": self.hits, "failures": self.failures}

    def tell_counts(self, run: str, told: Mapping[str, Any]) -> None:
        """Take what a driver knows of ``hits``, ``diffuse`` and ``damaged`` frames, in all."""
        self._enter(run)
        for name in ("hits", "diffuse", "damaged"):
            if told.get(name) is not None:
                setattr(self, name, int(told[name]))

    def add(self, told: Mapping[str, Any]) -> None:
        """Add what a worker found in a block: ``hits`` and ``damaged`` frames."""
        self.hits = (self.hits or 0) + int(told.get("hits", 0))
        self.damaged += int(told.get("damaged", 0))

    def _enter(self, run: str) -> None:
        if run != self.run:
            self.__init__()  # type: ignore[misc]
            self.run = run


def _rate_of(samples: list[Sample]) -> float | None:
    times = [sample.time for sample in samples]
    steps = [0, *(b.done - a.done for a, b in pairwise(samples))]
    is_dense = len(times) >= _FEWEST_NEAR and times[-_FEWEST_NEAR] >= times[-1] - _NEAR
    return recent_rate(times, steps, window=_NEAR if is_dense else WINDOW)
