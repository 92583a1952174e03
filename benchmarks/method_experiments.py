"""Simulated experiments on which methods with labels are compared, from frames to features.

Imported by ``methods.py``, which says what is measured. Everything goes through the verbs, and is kept in a folder: a
run that was stopped goes on.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from method_geometries import eight_modules_text, turned_cspad_text

from diffdask.io.results_store import open_features
from diffdask.pipeline.ingest import ingest
from diffdask.pipeline.screen import screen
from diffdask.pipeline.simulate import simulate

#: Rings of all experiments, 1/angstrom: features of one mean the same in another.
Q_MIN, Q_MAX = 0.15, 2.6

_DETECTORS = {"turned": turned_cspad_text, "modules": eight_modules_text}


@dataclass(frozen=True)
class Experiment:
    """A crystal at a beam time; all else that differs between beam times is drawn by ``crystal``."""

    name: str
    crystal: int  #: seed of crystal, disorder, beam, background, distance
    laue: str = ""  #: of the crystal, where it is not drawn
    detector: str = "cspad"  #: or a key of ``_DETECTORS``
    polarisation_angle: float = 0.0  #: deg, as the seed draws it
    in_campaign: bool = True  #: whether it is one of the crystals of the campaign

    @property
    def folder(self) -> str:
        """Its folder's name."""
        return f"{self.name}-{self.detector}"


#: Six crystals of horizontal polarisation, which one beam time may have, and two experiments more on other detectors.
EXPERIMENTS = (
    Experiment("a", 201),
    Experiment("b", 203),
    Experiment("c", 204, laue="mmm"),
    Experiment("d", 207),
    Experiment("e", 212),
    Experiment("f", 217),
    Experiment("g", 209, detector="turned", polarisation_angle=90.0, in_campaign=False),
    Experiment("h", 211, detector="modules", polarisation_angle=90.0, in_campaign=False),
)

#: Runs of each experiment, and a run's frames and share of hits; the others are blanks, by which hits are known.
RUNS, FRAMES, HIT_SHARE = 2, 96, 0.9375

#: Run numbers of the crystals of a campaign: those of the second are 21, 22.
_RUN_STEP = 10

#: Strengths of ``simulate``, and how docs call them.
TIERS = {0.05: "strong", 0.027: "medium", 0.011: "weak"}


@dataclass(frozen=True)
class Store:
    """A results store, screened, and the truth about its hits."""

    name: str
    results: Path
    hit_frame: np.ndarray  #: (n,) frame numbers of the hits that count: blanks do not
    rows: np.ndarray  #: (n,) of these among all hits of the store
    y: np.ndarray  #: (n,) 1 for diffuse
    run: np.ndarray  #: (n,)
    index: np.ndarray  #: (n,) of the frame in the file of its run
    tier: np.ndarray  #: (n,) text: "strong", "medium", "weak"; "none" where not diffuse
    missed: int  #: diffuse and non-diffuse frames that were not found to be hits


def simulate_experiment(one: Experiment, folder: Path, *, frames: int = FRAMES, on: str = "laptop") -> Path:
    """Simulate an experiment of half diffuse hits, all of them indexed, so that all methods see the same hits."""
    to, detector = folder / one.folder / "files", one.detector
    if detector in _DETECTORS:
        geometry = folder / f"{one.folder}.geom"
        folder.mkdir(parents=True, exist_ok=True)
        geometry.write_text(_DETECTORS[detector](), encoding="utf-8")
        detector = str(geometry)
    return simulate(
        to,
        frames=RUNS * frames,
        runs=RUNS,
        hits=HIT_SHARE,
        diffuse=0.5,
        indexed=1.0,
        crystal=one.crystal,
        laue=one.laue,
        detector=detector,
        seed=one.crystal,
        on=on,
        progress=False,
    )


def prepare_experiment(one: Experiment, folder: Path, *, frames: int, on: str) -> Store:
    """Simulate, ingest and screen one experiment."""
    files = simulate_experiment(one, folder, frames=frames, on=on)
    stored = ingest(
        str(files / "*.cxi"),
        geometry=files / "campaign.geom",
        stream=files / "campaign.stream",
        to=folder / one.folder / "frames.zarr",
        on=on,
        progress=False,
    )
    results = _screen(stored, folder / one.folder, one.polarisation_angle, on)
    return describe_store(one.name, results, read_truth(files / "labels.csv"))


def prepare_campaign(experiments: Sequence[Experiment], folder: Path, *, frames: int, on: str) -> Store:
    """Ingest several crystals together, each its own runs, and screen them as one campaign."""
    to = folder / "campaign" / "frames.zarr"
    truth: list[dict[str, str]] = []
    for number, one in enumerate(experiments, start=1):
        files = simulate_experiment(one, folder, frames=frames, on=on)
        stream = folder / "campaign" / f"{one.folder}.stream"
        _name_folder(files / "campaign.stream", f"{one.folder}/files", stream)
        for run in range(1, RUNS + 1):
            ingest(
                files / f"r{run:04d}.cxi",
                geometry=files / "campaign.geom",
                to=to,
                run=_RUN_STEP * number + run,
                on=on,
                progress=False,
            )
        truth += [{**row, "run": str(_RUN_STEP * number + int(row["run"]))} for row in read_truth(files / "labels.csv")]
        ingest(
            [files / f"r{run:04d}.cxi" for run in range(1, RUNS + 1)],
            geometry=files / "campaign.geom",
            stream=stream,
            to=to,
            on=on,
            progress=False,
        )
    return describe_store("campaign", _screen(to, folder / "campaign", 0.0, on), truth)


def read_truth(path: Path) -> list[dict[str, str]]:
    """Rows of a file of labels, in ingest order."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def describe_store(name: str, results: Path, truth: Sequence[dict[str, str]]) -> Store:
    """Join the hits of a store with the truth, a row a frame."""
    frames = open_features(results).hit_frame.values
    label = np.array([row["label"] for row in truth])
    rows = np.flatnonzero(label[frames] != "blank")
    chosen = frames[rows]
    return Store(
        name=name,
        results=results,
        hit_frame=chosen,
        rows=rows,
        y=(label[chosen] == "diffuse").astype(int),
        run=np.array([int(row["run"]) for row in truth])[chosen],
        index=np.array([int(row.get("event", row["frame"]).strip("/")) for row in truth])[chosen],
        tier=np.array([_tier_of(row) for row in truth])[chosen],
        missed=int((label != "blank").sum()) - chosen.size,
    )


def _tier_of(row: dict[str, str]) -> str:
    if row["label"] != "diffuse":
        return "none"
    return row["strength_tier"] if "strength_tier" in row else TIERS[float(row["strength"])]


def _screen(frames: str | Path, folder: Path, polarisation_angle: float, on: str) -> Path:
    made = screen(
        frames,
        results=folder / "results.zarr",
        q_min=Q_MIN,
        q_max=Q_MAX,
        polarisation_angle=polarisation_angle,
        on=on,
        progress=False,
    )
    return Path(made)


def _name_folder(stream: Path, folder: str, to: Path) -> None:
    """Write a stream with the folder before the name of each image: files of all crystals have the same names."""
    to.parent.mkdir(parents=True, exist_ok=True)
    text = stream.read_text(encoding="utf-8")
    to.write_text(text.replace("Image filename: ", f"Image filename: {folder}/"), encoding="utf-8")


def prepare_other(data: Path, folder: Path, *, on: str) -> Store:
    """Ingest and screen the simulation of another renderer: its files begin with A_dev."""
    stored = ingest(
        data / "A_dev.cxi",
        geometry=data / "A_dev.geom",
        stream=data / "A_dev.stream",
        to=folder / "other" / "frames.zarr",
        on=on,
        progress=False,
    )
    return describe_store("i", _screen(stored, folder / "other", 0.0, on), read_truth(data / "A_dev_labels.csv"))
