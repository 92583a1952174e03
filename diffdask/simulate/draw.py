"""What chance decides about one frame, each thing by a generator that the frame's plan seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffdask.simulate.campaign import Campaign, FramePlan
from diffdask.simulate.crystal import Crystal, draw_crystal
from diffdask.simulate.experiment import Experiment
from diffdask.simulate.indexing import Indexing, index_crystal
from diffdask.simulate.scene import FrameScene, RunScene, draw_frame_scene, draw_run_scene


@dataclass(frozen=True)
class DrawnFrame:
    """One frame before anything is rendered. What reads it out goes on with ``random``, common mode first."""

    experiment: Experiment
    run_scene: RunScene
    scene: FrameScene
    crystal: Crystal | None  #: None in a blank
    indexing: Indexing | None  #: None where the stream holds no crystal
    random: np.random.Generator
    seeds: np.random.SeedSequence

    def draw_common_mode(self, panels: int) -> np.ndarray:
        """Draw what each panel reads too much, (panels,) photons; once a frame."""
        return self.random.normal(scale=self.experiment.common_mode, size=panels)


def draw_frame(campaign: Campaign, plan: FramePlan) -> DrawnFrame:
    """Draw a frame's scene, crystal and indexing; a pure function of its arguments."""
    experiment = campaign.experiment
    run_scene = draw_run(campaign, plan.run)
    seeds = np.random.SeedSequence([campaign.seed, plan.run, 3, plan.index])
    random = np.random.default_rng(seeds)
    scene = draw_frame_scene(experiment, run_scene, random, has_jet=plan.has_jet)
    crystal = None if plan.kind == "blank" else draw_crystal(experiment, random)
    indexing = None
    if crystal is not None and plan.is_indexed:
        # A generator of its own: errors of indexing leave the frames as they are.
        indexing = index_crystal(experiment, crystal, np.random.default_rng([campaign.seed, plan.run, 5, plan.index]))
    return DrawnFrame(experiment, run_scene, scene, crystal, indexing, random, seeds)


def draw_run(campaign: Campaign, run: int) -> RunScene:
    """Draw what stays the same through a run; a pure function of its arguments."""
    return draw_run_scene(campaign.experiment, np.random.default_rng([campaign.seed, run, 2]))
