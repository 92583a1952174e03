"""Which frames are taken: pure planning, so that any worker can make any run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from diffdask.errors import BadGeometry, BadParameter
from diffdask.io.crystfel_geometry import GeometryFile, read_geometry
from diffdask.simulate.cspad import cspad_geometry_text
from diffdask.simulate.detector import layout_of
from diffdask.simulate.experiment import Experiment


@dataclass(frozen=True)
class Campaign:
    """A number of frames of an experiment. Small, hashable and picklable, however many frames it plans."""

    experiment: Experiment
    geometry_text: str  #: CrystFEL's ``.geom``, of which the campaign's folder gets a copy
    frames: int  #: in all runs
    runs: int
    hits: float  #: share of the frames that are hits
    diffuse: float  #: share of the hits that are diffuse
    seed: int  #: of everything that changes from run to run and frame to frame


@dataclass(frozen=True)
class FramePlan:
    """What one frame shall be."""

    frame: int  #: number in ingest order: runs by number, then order in the file
    run: int  #: from 1
    index: int  #: in the run
    kind: str  #: "diffuse", "non-diffuse" or "blank"
    strength: float  #: of the diffuse scattering; of what stands in for it in a non-diffuse hit; 0 in a blank
    has_jet: bool  #: False for blanks in which the jet misses the beam
    is_indexed: bool  #: whether the stream holds a crystal


def plan_campaign(
    experiment: Experiment,
    *,
    frames: int = 300,
    runs: int = 3,
    hits: float = 0.7,
    diffuse: float = 0.3,
    seed: int = 0,
    detector: str | Path = "cspad",
) -> Campaign:
    """Plan a campaign.

    Parameters
    ----------
    experiment
        From :func:`~diffdask.simulate.make_experiment`. Where the detector's geometry gives a camera length or a
        photon energy as a number, the geometry wins.
    frames, runs
        How many; every run gets its equal share.
    hits
        Share of the frames that are hits.
    diffuse
        Share of the hits that are diffuse.
    seed
        Of the frames; the experiment has its own.
    detector
        ``"cspad"``, or the path of a CrystFEL geometry.

    Raises
    ------
    BadParameter
        If a number is outside what can be planned.
    BadGeometry
        If the geometry cannot be read, or describes files that are not written here.
    """
    if not (frames >= runs >= 1 and runs <= 9999):
        raise BadParameter(f"frames={frames}, runs={runs}: give at least one run, at most 9999, and a frame a run")
    for name, share in (("hits", hits), ("diffuse", diffuse)):
        if not 0.0 <= share <= 1.0:
            raise BadParameter(f"{name}={share} is a share: give a number from 0 to 1")
    if detector == "cspad":
        text = cspad_geometry_text(adu_per_ev=experiment.adu_per_ev)
    else:
        text = _complete_gain(read_geometry(detector), experiment)
    file = layout_of(text)
    _check_layout(file)
    return Campaign(_fit_experiment(experiment, file), text, frames, runs, hits, diffuse, seed)


def plan_run(campaign: Campaign, run: int) -> tuple[FramePlan, ...]:
    """Plan the frames of one run (numbered from 1), in the order of its file.

    Counts are exact over the campaign: after n frames there are n * hits hits, rounded.
    """
    start, stop = (campaign.frames * end // campaign.runs for end in (run - 1, run))
    hits_before, hits_after = (_rounded(campaign.hits * end) for end in (start, stop))
    diffuse_count = _rounded(campaign.diffuse * hits_after) - _rounded(campaign.diffuse * hits_before)
    random = np.random.default_rng([campaign.seed, run, 1])
    kinds = np.full(stop - start, "blank", dtype="U11")
    kinds[: hits_after - hits_before] = "non-diffuse"
    kinds[:diffuse_count] = "diffuse"
    random.shuffle(kinds)
    strengths = random.choice(campaign.experiment.strengths, size=len(kinds))
    no_jet = random.uniform(size=len(kinds)) < campaign.experiment.no_jet_fraction
    indexed = random.uniform(size=len(kinds)) < campaign.experiment.indexed_fraction
    return tuple(
        FramePlan(
            frame=start + index,
            run=run,
            index=index,
            kind=str(kind),
            strength=0.0 if kind == "blank" else float(strengths[index]),
            has_jet=bool(kind != "blank" or not no_jet[index]),
            is_indexed=bool(kind != "blank" and indexed[index]),
        )
        for index, kind in enumerate(kinds)
    )


def _rounded(number: float) -> int:
    return math.floor(number + 0.5)


def _fit_experiment(experiment: Experiment, file: GeometryFile) -> Experiment:
    if file.clen is not None:
        experiment = replace(experiment, camera_length=file.clen + file.coffset)
    if file.photon_energy is not None:
        experiment = replace(experiment, photon_energy=file.photon_energy, photon_energy_jitter=0.0)
    return experiment


def _complete_gain(file: GeometryFile, experiment: Experiment) -> str:
    if np.isnan(file.geometry.adu_per_ev).all() and np.isnan(file.geometry.adu_per_photon).all():
        return f"adu_per_eV = {experiment.adu_per_ev:.8g}\n{file.text}"
    return file.text


def _check_layout(file: GeometryFile) -> None:
    paths = sorted(set(file.data_path))
    if len(paths) > 1 or "%" in paths[0]:
        raise BadGeometry(f"frames are simulated into one dataset, but the geometry names {', '.join(paths)}")
    if any(dims[0] != "%" for dims in file.dims):
        raise BadGeometry("frames are simulated along the first axis: the geometry needs 'dim0 = %'")
