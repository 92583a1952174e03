"""Polar residuals of hits without their pixels: the same physics as whole frames, a thousandth of the work.

A pixel of each fine ring and azimuth stands for its neighbours. Scene, crystal and disorder are drawn and rendered
as for a whole frame of the same plan, so that both are the same hit; only the photons are counted by other dice.
Of Bragg spots there is what screening leaves of them: those too weak to be seen, and the wings of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from diffdask.errors import BadParameter
from diffdask.kernels.polar_rendering import average_samples
from diffdask.simulate.campaign import Campaign, FramePlan, plan_campaign, plan_run
from diffdask.simulate.draw import DrawnFrame, draw_frame, draw_run
from diffdask.simulate.experiment import Experiment
from diffdask.simulate.polar_bragg import cut_haloes, leave_spots
from diffdask.simulate.polar_layout import PolarGrid, PolarSamples, make_grid, sample_run
from diffdask.simulate.render import add_streak_and_ice, render_isotropic_and_diffuse
from diffdask.variables import wrap


def simulate_polar_hits(
    experiment: Experiment,
    *,
    hits: int = 2000,
    diffuse: float = 0.05,
    runs: int = 4,
    seed: int = 0,
    rings: int = 64,
    azimuths: int = 72,
    q_min: float | None = None,
    q_max: float | None = None,
    bin_pixels: int = 10,
    orientation_error: float | None = None,
    misindexed: float | None = None,
    strengths: tuple[float, ...] | None = None,
    detector: str | Path = "cspad",
    only: Sequence[int] | None = None,
    threads: int = 1,
) -> xr.Dataset:
    """Simulate the polar residuals of hits.

    Parameters
    ----------
    experiment
        From :func:`~diffdask.simulate.make_experiment`.
    hits, diffuse, runs, seed
        How many hits, the share of them that is diffuse, the number of runs, and the seed, as in
        :func:`~diffdask.simulate.plan_campaign`: the hits are the frames of a campaign without blanks.
    rings, azimuths
        Polar bins.
    q_min, q_max
        Range of the rings, 1/angstrom; None for what the detector covers.
    bin_pixels
        Fewest pixels of a bin.
    orientation_error, misindexed, strengths
        ``orientation_error`` (deg), ``misindexed_fraction`` and ``strengths`` of the experiment, if not its own.
    detector
        ``"cspad"``, or the path of a CrystFEL geometry.
    only
        Numbers of the hits to simulate, if not all; each comes out as it would among all others.
    threads
        At once. They change nothing but the time.

    Returns
    -------
    xarray.Dataset
        ``polar_residual``, ``polar_noise`` (hit, polar_ring, azimuth) photons, float32, NaN where a bin has too few
        pixels; ``polar_ring_q``, ``polar_coverage`` (polar_ring), ``azimuth``; and a hit's ``hit`` (its number),
        ``run``, ``photon_energy``, ``orientation`` (as indexing gives it, NaN where it failed),
        ``true_orientation``, ``lattice``, ``is_diffuse``, ``strength``, ``is_misindexed``, ``ambiguity``
        (the labelling that indexing chose, 0 the true one, -1 without), ``has_streak``, ``has_ice``, ``pulse``.
        Attributes name the crystal's ``laue_group`` and the ``q_range``.

    Raises
    ------
    BadParameter
        If a number makes no sense.
    """
    changes: dict[str, Any] = {
        "orientation_error": orientation_error,
        "misindexed_fraction": misindexed,
        "strengths": strengths,
    }
    experiment = replace(experiment, **{name: value for name, value in changes.items() if value is not None})
    campaign = plan_campaign(
        experiment, frames=hits, runs=runs, hits=1.0, diffuse=diffuse, seed=seed, detector=detector
    )
    grid = make_grid(
        campaign.experiment, campaign.geometry_text, rings=rings, azimuths=azimuths, q_min=q_min, q_max=q_max
    )
    plans = _plan_hits(campaign, only)
    residual = np.empty((len(plans), rings, azimuths), np.float32)
    noise = np.empty_like(residual)
    described: list[dict[str, Any]] = []
    coverage = np.ones(rings)
    with ThreadPoolExecutor(threads) as pool:
        for run, group in groupby(plans, key=lambda plan: plan.run):
            of_run = list(group)
            samples = samples_of_run(campaign, run, grid)
            coverage = np.minimum(coverage, (samples.bin_pixels >= bin_pixels).mean(axis=1))
            first = len(described)
            for hit in pool.map(lambda plan, samples=samples: simulate_polar_hit(campaign, plan, samples), of_run):
                row = len(described)
                residual[row], noise[row] = hit.residual, hit.noise
                described.append(_describe_hit(campaign.experiment, of_run[row - first], hit.drawn))
            few = samples.bin_pixels < bin_pixels
            residual[first:, few], noise[first:, few] = np.nan, np.nan
    bins = wrap(
        polar_residual=residual,
        polar_noise=noise,
        polar_ring_q=grid.ring_q,
        polar_coverage=coverage,
        azimuth=grid.azimuth,
    )
    made = bins.merge(_join_descriptions(described))
    made.attrs |= {"laue_group": experiment.symmetry, "q_range": (grid.q_min, grid.q_max)}
    return made


@dataclass(frozen=True)
class PolarHit:
    """One hit on polar bins; p polar rings, a azimuths."""

    residual: np.ndarray  #: (p, a) photons, counted
    noise: np.ndarray  #: (p, a) photons, standard error as the scatter of the bin's pixels would tell it
    expected: np.ndarray  #: (p, a) photons, what ``residual`` is on average
    drawn: DrawnFrame


def samples_of_run(campaign: Campaign, run: int, grid: PolarGrid) -> PolarSamples:
    """Samples of one run of a campaign, whose detector has a shift of its own."""
    return sample_run(campaign.experiment, campaign.geometry_text, draw_run(campaign, run).shift, grid)


def simulate_polar_hit(campaign: Campaign, plan: FramePlan, samples: PolarSamples) -> PolarHit:
    """Simulate one hit on polar bins; a pure function of its arguments.

    :func:`~diffdask.simulate.simulate_frame` of the same campaign and plan shows the same crystal in the same
    scene, with the same common mode.
    """
    drawn = draw_frame(campaign, plan)
    expected = _render_samples(campaign, plan, drawn, samples)
    bins = samples.count.shape[0], samples.count.shape[2]
    signal, counts, variance = np.empty((3, *bins))
    average_samples(
        expected,
        samples.gain,
        drawn.draw_common_mode(samples.panel_count),
        samples.panel,
        samples.collected,
        samples.count,
        campaign.experiment.pixel_gain_spread,
        campaign.experiment.readout_noise,
        signal,
        counts,
        variance,
    )
    random = np.random.default_rng([campaign.seed, plan.run, 6, plan.index])
    fluctuation, noise = _count(random, samples.bin_pixels, counts, variance, campaign.experiment.readout_noise)
    return PolarHit((signal + fluctuation).astype(np.float32), noise.astype(np.float32), signal, drawn)


def _render_samples(campaign: Campaign, plan: FramePlan, drawn: DrawnFrame, samples: PolarSamples) -> np.ndarray:
    """Expected photons of every sample, corrected for polarisation and solid angle: (p, f, a) float32."""
    pixels = samples.scattering, samples.is_seen
    background, diffuse = render_isotropic_and_diffuse(
        campaign.experiment, plan, drawn.scene, drawn.crystal, *pixels, samples.s_max, with_haloes=False
    )
    add_streak_and_ice(drawn.scene, *pixels, background)
    expected = (background + diffuse).reshape(samples.count.shape)
    if drawn.crystal is not None:
        if plan.kind == "diffuse":
            expected += cut_haloes(campaign.experiment, plan, drawn.scene, drawn.crystal, samples)
        expected += leave_spots(campaign, drawn.scene, drawn.crystal, samples, expected)
    return expected


def _count(
    random: np.random.Generator, pixels: np.ndarray, counts: np.ndarray, variance: np.ndarray, readout: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fluctuation of bin means about their expectation, and what pixels' scatter says of it; (p, a) photons.

    ``counts`` photons are caught in a bin of ``pixels`` of which each has ``variance``. The variance of n pixels is
    known to about 2 / (n - 1) + 1 / counts, relative and squared: a gamma distribution's.
    """
    n = np.maximum(pixels, 1)
    # Photons and readout, in units of what they spread by: the photons bring their skewness along.
    off = random.poisson(counts) - counts + readout * np.sqrt(n) * random.standard_normal(n.shape)
    fluctuation = off / np.sqrt(np.maximum(counts + n * readout**2, 1e-9)) * np.sqrt(variance / n)
    fluctuation -= np.sum(pixels * fluctuation, axis=1, keepdims=True) / n.sum(axis=1, keepdims=True)
    shape = 1.0 / (2.0 / np.maximum(n - 1, 1) + 1.0 / np.maximum(counts, 1.0))
    return fluctuation, np.sqrt(variance * random.standard_gamma(shape) / shape / n)


def _plan_hits(campaign: Campaign, only: Sequence[int] | None) -> list[FramePlan]:
    """Plans of the hits asked for, in order of their numbers."""
    if only is None:
        return [plan for run in range(1, campaign.runs + 1) for plan in plan_run(campaign, run)]
    numbers = sorted({int(number) for number in only})
    if not numbers:
        raise BadParameter("'only' names no hit")
    if not 0 <= numbers[0] <= numbers[-1] < campaign.frames:
        raise BadParameter(
            f"hits are numbered from 0 to {campaign.frames - 1}; 'only' goes from {numbers[0]} to {numbers[-1]}"
        )
    chosen = set(numbers)
    starts = [campaign.frames * run // campaign.runs for run in range(campaign.runs + 1)]
    runs = np.unique(np.searchsorted(starts, numbers, side="right"))
    return [plan for run in runs for plan in plan_run(campaign, int(run)) if plan.frame in chosen]


def _describe_hit(experiment: Experiment, plan: FramePlan, drawn: DrawnFrame) -> dict[str, Any]:
    indexing, unknown = drawn.indexing, np.full((3, 3), np.nan)
    return {
        "hit": plan.frame,
        "run": plan.run,
        "photon_energy": drawn.scene.photon_energy,
        "orientation": unknown if indexing is None else indexing.reciprocal,
        "true_orientation": unknown if drawn.crystal is None else drawn.crystal.reciprocal,
        "lattice": "" if indexing is None else experiment.lattice_text,
        "is_diffuse": plan.kind == "diffuse",
        "strength": plan.strength,
        "is_misindexed": indexing is not None and indexing.is_misindexed,
        "ambiguity": -1 if indexing is None else indexing.ambiguity,
        "has_streak": drawn.scene.streak is not None,
        "has_ice": drawn.scene.ice is not None,
        "pulse": drawn.scene.pulse,
    }


def _join_descriptions(described: list[dict[str, Any]]) -> xr.Dataset:
    joined = xr.Dataset()
    for name in described[0]:
        values = [description[name] for description in described]
        dims = ("hit", "reciprocal_axis", "xyz")[: np.ndim(values)]
        joined[name] = (dims, np.array(values, dtype=object if name == "lattice" else None))
    for name in ("orientation", "true_orientation"):
        joined[name].attrs["units"] = "1/angstrom"
    return joined
