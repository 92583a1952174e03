"""Find haloes in simulated hits, whole CSPAD frames with all their nuisances, and hold the score against the truth.

Usage: python benchmarks/haloes.py [--hits 60] [--only NAME ...] [--workers 2]

Half of the hits are diffuse, in three strengths. Areas under the curve of ``hit_halo`` at several errors of the
orientation, all hits without the weak ones, and of ``hit_structure``; a hit without a score counts as lowest.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from diffdask.kernels.agreement import area_under_roc
from diffdask.kernels.rendering import meet_panels, stamp_spots
from diffdask.models.nuisance import NuisanceComponents
from diffdask.pixels import PixelList, list_pixels
from diffdask.simulate import (
    Campaign,
    FramePlan,
    SimulatedFrame,
    make_experiment,
    plan_campaign,
    plan_run,
    simulate_frame,
)
from diffdask.simulate.crystal import excite_reflections
from diffdask.simulate.detector import layout_of, map_pixels
from diffdask.simulate.draw import draw_run
from diffdask.simulate.frame import spot_radii
from diffdask.simulate.indexing import turn_about
from diffdask.steps.haloes import find_directions, find_haloes
from diffdask.steps.layout import lay_out_rings
from diffdask.steps.polar import find_polar_residual
from diffdask.steps.screening import screening_parameters
from diffdask.steps.structure import find_structure
from diffdask.variables import wrap

_STRENGTHS = (0.05, 0.027, 0.011)
_BLOCK = 20

#: The defaults of ``screen``.
_SCREENING: dict[str, Any] = {
    **{"window_q_min": 0.0, "window_q_max": 0.0, "common_mode": "zero-peak"},
    **{"clip_low": 5.0, "clip_high": 5.0, "clip_passes": 3, "snr": 6.0, "threshold": 5.0},
    **{"min_pixels": 2, "max_pixels": 30, "radius": 4},
}


@dataclass(frozen=True)
class Case:
    """What is simulated; the rest is drawn by the experiment's seed."""

    name: str
    halo_length: float = 180.0  #: angstrom
    experiment: int = 108  #: seed
    errors: tuple[float, ...] = (0.3,)  #: deg, rms, of the orientations
    tails: float = 0.0  #: share of the Bragg intensity in tails three times as wide as the spots
    overrides: dict[str, Any] = field(default_factory=dict)  #: of the experiment


def plan_cases() -> list[Case]:
    """All cases, in the order of the table."""
    lengths = [
        Case("115 A", 115.0, errors=(0.0, 0.1, 0.3)),
        Case("180 A"),
        Case("243 A", 243.0, errors=(0.0, 0.1, 0.3, 1.0, 2.0)),
        Case("350 A", 350.0),
        Case("500 A", 500.0),
    ]
    harder = [
        Case("180 A, mosaicity 0.15 deg", overrides={"mosaicity": 0.15}),
        Case("180 A, 10% of Bragg in tails", tails=0.1),
        Case("180 A, other crystal, 30% streaks", experiment=111, overrides={"streak_fraction": 0.3}),
        Case("180 A, half of the strengths", overrides={"strengths": tuple(0.5 * s for s in _STRENGTHS)}),
    ]
    return [*lengths, *harder]


def measure_case(case: Case, hits: int) -> list[str]:
    """Simulate a case and score it: a line of the table for each error of the orientation."""
    start = time.process_time()
    experiment = make_experiment(
        case.experiment,
        **{"disorder": "long-correlation", "laue_group": "mmm", "streak_fraction": 0.15, "ice_fraction": 0.15}
        | {"halo_length": case.halo_length, "strengths": _STRENGTHS}
        | case.overrides,
    )
    campaign = plan_campaign(experiment, frames=hits, runs=1, hits=1.0, diffuse=0.5, seed=1)
    plans = plan_run(campaign, 1)
    is_diffuse = np.array([plan.kind == "diffuse" for plan in plans])
    strength = np.array([plan.strength for plan in plans])
    layout = _lay_out(campaign)
    blocks = [plans[first : first + _BLOCK] for first in range(0, hits, _BLOCK)]
    found = [_score_block(case, campaign, block, *layout) for block in blocks]
    polar = xr.concat([polar for polar, _ in found], "hit", data_vars="minimal")
    structure = find_structure(_clean(polar))
    seconds = (time.process_time() - start) / hits
    lines = []
    for number, error in enumerate(case.errors):
        halo = np.concatenate([scores[number] for _, scores in found])
        lines.append(_write_line(case, error, halo, structure.hit_structure.values, is_diffuse, strength, seconds))
    return lines


def _lay_out(campaign: Campaign) -> tuple[xr.Dataset, tuple[PixelList, ...], tuple[np.ndarray, ...]]:
    """Detector and maps of the one run; its pixels, and where they look."""
    experiment, file = campaign.experiment, layout_of(campaign.geometry_text)
    shift = draw_run(campaign, 1).shift
    bad = map_pixels(experiment, campaign.geometry_text, shift).is_bad
    detector = file.geometry.to_dataset().merge(
        wrap(pixel_is_good=file.pixel_is_good & ~bad, pixel_is_wide=file.pixel_is_wide)
    )
    setting = experiment.camera_length, experiment.photon_energy, *shift
    one = wrap(
        photon_energy=np.array(setting[1:2]),
        camera_length=np.array(setting[:1]),
        run=np.ones(1, int),
        detector_shift=np.array([shift]),
    )
    maps = lay_out_rings(
        detector.merge(one),
        **{name: getattr(experiment, name) for name in ("polarisation_fraction", "polarisation_angle")},
        q_min=0.2,
        q_max=2.6,
    ).drop_vars("frame_setting")
    pixels = list_pixels(maps)
    return detector.merge(maps), pixels, find_directions(file.geometry, pixels, [setting])


def _score_block(
    case: Case,
    campaign: Campaign,
    plans: tuple[FramePlan, ...],
    layout: xr.Dataset,
    pixels: tuple[PixelList, ...],
    directions: tuple[np.ndarray, ...],
) -> tuple[xr.Dataset, list[np.ndarray]]:
    """Polar residuals of a block of hits, and their halo scores at every error of the orientation."""
    frames, experiment = [simulate_frame(campaign, plan) for plan in plans], campaign.experiment
    columns = wrap(
        adu=np.stack([_add_tails(campaign, frame, case.tails) if case.tails else frame.adu for frame in frames]),
        photon_energy=np.array([frame.scene.photon_energy for frame in frames]),
        frame_setting=np.zeros(len(plans), int),
        lattice=np.full(len(plans), experiment.lattice_text, dtype=object),
    )
    ds, how = columns.merge(layout), screening_parameters(**_SCREENING)
    settings = [(experiment.camera_length, experiment.photon_energy, *frames[0].run_scene.shift)]
    polar = find_polar_residual(ds, how=how, pixels=pixels)
    scores = []
    for error in case.errors:
        axes = [_turn_axes(frame, plan.frame, error) for frame, plan in zip(frames, plans, strict=True)]
        oriented = ds.assign(wrap(orientation=np.stack(axes)))
        found = find_haloes(oriented, how=how, settings=settings, pixels=pixels, directions=directions)
        scores.append(found.hit_halo.values)
    return polar, scores


def _turn_axes(frame: SimulatedFrame, number: int, error: float) -> np.ndarray:
    """Axes of a hit, (3, xyz) 1/angstrom, turned by an rms angle of ``error`` deg; the same axis for all errors."""
    crystal = frame.crystal
    if crystal is None:
        raise SystemExit("all frames are to be hits")
    axis = np.random.default_rng([7, number]).normal(size=3) * math.radians(error) / math.sqrt(3)
    return np.asarray(crystal.reciprocal @ turn_about(axis).T)


def _add_tails(campaign: Campaign, frame: SimulatedFrame, share: float) -> np.ndarray:
    """Readout with more photons: Bragg spots of three times the mosaicity and a third of the domains."""
    crystal, file = frame.crystal, layout_of(campaign.geometry_text)
    if crystal is None:
        return frame.adu
    wide = replace(
        crystal,
        mosaicity=3.0 * crystal.mosaicity,
        domain_size=crystal.domain_size / 3.0,
        bragg=crystal.bragg * share / 3.0,
    )
    maps = map_pixels(campaign.experiment, campaign.geometry_text, frame.run_scene.shift)
    excited = excite_reflections(campaign.experiment, wide, frame.scene.photon_energy, maps.s_max)
    panel, (ss, fs) = np.empty(excited.s.size, np.int64), np.empty((2, excited.s.size))
    geometry = file.geometry
    meet_panels(maps.corner, geometry.ss_step, geometry.fs_step, file.panel_shapes, excited.ray, panel, ss, fs)
    met = panel >= 0
    expected = np.zeros(frame.adu.shape, np.float32)
    photons = excited.photons[met] * frame.scene.pulse
    stamp_spots(panel[met], ss[met], fs[met], photons, spot_radii(campaign, wide, excited.s[met]), expected)
    expected *= maps.collected.reshape(expected.shape)
    counted = np.random.default_rng([9, frame.plan.frame]).poisson(expected)
    return np.asarray(frame.adu + np.rint(counted * frame.adu_per_photon[:, None, None]).astype(frame.adu.dtype))


def _clean(polar: xr.Dataset) -> xr.Dataset:
    """Take out the median of the run and the nuisance components, as ``screen`` does."""
    noise = polar.polar_noise.values
    significance = np.divide(polar.polar_residual.values, noise, out=np.full_like(noise, np.nan), where=noise > 0)
    cleaned = NuisanceComponents(component_count="auto").fit_transform(significance, np.ones(len(noise), int))
    return wrap(
        cleaned_residual=cleaned, polar_ring_q=polar.polar_ring_q.values, polar_coverage=polar.polar_coverage.values
    )


# the table -------------------------------------------------------------------------------------------------

_HEADS = ("case", "error", "halo, all", "strong", "medium", "weak", "non-diffuse", "scored", "structure", "s a hit")


def _write_line(
    case: Case,
    error: float,
    halo: np.ndarray,
    structure: np.ndarray,
    is_diffuse: np.ndarray,
    strength: np.ndarray,
    seconds: float,
) -> str:
    ranked, negative = np.where(np.isfinite(halo), halo, -np.inf), halo[~is_diffuse]
    tiers = [
        area_under_roc(ranked[is_diffuse & (strength == tier)], ranked[~is_diffuse])
        for tier in sorted(set(strength.tolist()), reverse=True)
    ]
    middle, spread = np.nanmean(negative), np.nanstd(negative)
    areas = [area_under_roc(ranked[is_diffuse], ranked[~is_diffuse]), *tiers]
    return _line(
        [
            case.name,
            f"{error:g} deg",
            *(f"{area:.3f}" for area in areas),
            f"{middle:+.2f} +- {spread:.2f}",
            f"{np.isfinite(halo).mean():.0%}",
            f"{area_under_roc(structure[is_diffuse], structure[~is_diffuse]):.3f}",
            f"{seconds:.2f}",
        ]
    )


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure the cases and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hits", type=int, default=60, help="hits of a case, %(default)s")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="cases whose names begin so, if not all")
    parser.add_argument("--workers", type=int, default=2, help="cases at once, of one thread each")
    chosen = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    cases = [case for case in plan_cases() if not chosen.only or case.name.startswith(tuple(chosen.only))]
    sys.stdout.write(f"{_line(list(_HEADS))}\n{_line(['---'] * len(_HEADS))}\n")
    context = multiprocessing.get_context("spawn")  # a fresh interpreter each, which finds the number of threads
    with ProcessPoolExecutor(chosen.workers, mp_context=context) as pool:
        for lines in pool.map(measure_case, cases, [chosen.hits] * len(cases)):
            for line in lines:
                sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
