"""What one can do with diffdask: the verbs, in the order of an analysis.

``from diffdask.verbs import ingest, screen`` gives the functions; each takes
what it works on by position and everything else by keyword, under the names
that the command line and job files use. A verb's module is imported when it is
first asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verb:
    """A verb, where it is, and how a methods section would put it."""

    module: str
    sentence: str


VERBS: dict[str, Verb] = {
    "simulate": Verb("diffdask.pipeline.simulate", "Made-up but physical frames of a crystal experiment are written."),
    "ingest": Verb("diffdask.pipeline.ingest", "Frames, geometry and orientations are brought into one Zarr store."),
    "screen": Verb(
        "diffdask.pipeline.screen",
        "Every frame is corrected; hits, isotropic background and anisotropy are found, and the features of the hits.",
    ),
    "compare": Verb("diffdask.pipeline.compare", "All pairs of hits are compared where their Ewald spheres meet."),
    "haloes": Verb(
        "diffdask.pipeline.haloes", "Diffuse scattering close about the Bragg spots of indexed hits is looked for."
    ),
    "orient": Verb(
        "diffdask.pipeline.orient", "Orientations that indexing lost are found in the map that the other hits make."
    ),
    "extract": Verb(
        "diffdask.pipeline.extract",
        "A picture of every hit is drawn and passed through VGG16, which gives its features.",
    ),
    "train": Verb("diffdask.pipeline.train", "A ranker is trained on hits that a person has labelled."),
    "rank": Verb("diffdask.pipeline.rank", "All hits are ranked, by a trained ranker or without any label."),
    "merge": Verb(
        "diffdask.pipeline.merge", "Hits that are predicted diffuse are merged into a 3D map of the crystal."
    ),
    "evaluate": Verb("diffdask.evaluation", "The ranking is held against labels, at the true prevalence."),
    "methods": Verb(
        "diffdask.pipeline.methods",
        "All ways to tell diffuse hits are held against the same labels, and the number of labels they need.",
    ),
    "report": Verb("diffdask.report", "Figures, pictures and parameters are put into one HTML file."),
    "catalogue": Verb("diffdask.catalogue", "A row for every frame is written as Parquet or CSV."),
    "export": Verb("diffdask.pipeline.export", "The best frames are given back to CrystFEL as a list or a CXI file."),
    "run": Verb("diffdask.pipeline.run", "All of it is done from one job file, at one place."),
    "status": Verb("diffdask.pipeline.status", "How far a run is, and how long it will take, whoever started it."),
    "info": Verb("diffdask.pipeline.info", "A store is described: what it holds and what made it."),
}


def verb(name: str) -> Callable[..., Any]:
    """Give the function of a verb, importing its module."""
    function: Callable[..., Any] = getattr(importlib.import_module(VERBS[name].module), name)
    return function


def __getattr__(name: str) -> Callable[..., Any]:
    if name in VERBS:
        return verb(name)
    raise AttributeError(f"diffdask has no verb {name!r}; it has: {', '.join(VERBS)}")


def __dir__() -> list[str]:
    return [*globals(), *VERBS]
