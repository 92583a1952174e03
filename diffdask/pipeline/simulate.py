"""The verb ``simulate``: a campaign of made-up frames in real file formats."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdask.cluster import connect, run_blocks
from diffdask.io.paths import local_path
from diffdask.pipeline.progress import progress_bar

if TYPE_CHECKING:
    from diffdask.simulate import Campaign


def simulate(
    to: str | Path,
    *,
    frames: int = 300,
    runs: int = 4,
    hits: float = 0.7,
    diffuse: float = 0.3,
    crystal: int = 1,
    seed: int = 0,
    detector: str = "cspad",
    laue: str = "",
    disorder: str = "",
    streaks: float | None = None,
    ice: float | None = None,
    indexed: float | None = None,
    misindexed: float = 0.0,
    orientation_error: float = 0.0,
    on: Any = None,
    progress: bool = True,
) -> Path:
    """Simulate a campaign and write it as CXI files, geometry, stream and labels.

    Parameters
    ----------
    to
        Folder for ``r0001.cxi`` and so on, ``campaign.geom``,
        ``campaign.stream`` and ``labels.csv``. If the same campaign is there
        already, whole, nothing is done.
    frames, runs
        How many.
    hits
        Share of the frames that are hits.
    diffuse
        Share of the hits that are diffuse.
    crystal
        Seed of the experiment: crystal, disorder, photon energy, distance, background, polarisation.
    seed
        Seed of the frames.
    detector
        "cspad", or a CrystFEL geometry file.
    laue
        The crystal's Laue, point or space group, as "6/m" or "P 61", on the lowest lattice that has it; without,
        the highest Laue group of the lattice that the experiment draws. Of the labellings of the axes that fit
        the lattice alike, the stream has any.
    disorder
        "liquid-like", "rigid-body" or "long-correlation" (haloes about the Bragg spots); without, drawn.
    streaks, ice
        Shares of the frames with a streak of the jet, and with ice rings; without, drawn.
    indexed
        Share of the hits that the stream holds a crystal for; without, 0.95.
    misindexed
        Share of those crystals whose orientation in the stream is any.
    orientation_error
        Rms angle by which the others are off, degrees.
    on
        Where to run: "laptop", a scheduler's address, or a file of deploy/.
    progress
        Show a bar on the terminal.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    BadParameter, BadGeometry
        If a number makes no sense, or the geometry cannot be used.
    BadFrames
        If the folder holds another campaign.
    """
    from diffdask.simulate import is_written, make_experiment, plan_campaign, plan_run, write_tables

    folder = local_path(to, what="simulated files")
    chosen = {
        "laue_group": laue or None,
        "disorder": disorder or None,
        "streak_fraction": streaks,
        "ice_fraction": ice,
        "indexed_fraction": indexed,
        "misindexed_fraction": misindexed,
        "orientation_error": orientation_error,
    }
    experiment = make_experiment(crystal, **{name: value for name, value in chosen.items() if value is not None})
    campaign = plan_campaign(
        experiment, frames=frames, runs=runs, hits=hits, diffuse=diffuse, seed=seed, detector=detector
    )
    if is_written(campaign, folder):
        return folder
    task = functools.partial(_write_run, campaign=campaign, folder=str(folder.absolute()))
    with connect(on) as client, progress_bar(frames, what="simulate", unit="frame", shown=progress) as bar:
        for run, _ in run_blocks(client, task, range(1, runs + 1)):
            bar.update(len(plan_run(campaign, run)))
    write_tables(campaign, folder)
    return folder


def _write_run(run: int, *, campaign: Campaign, folder: str) -> None:
    from diffdask.simulate import write_run

    write_run(campaign, run, folder)
