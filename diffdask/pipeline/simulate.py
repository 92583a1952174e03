"""The verb ``simulate``: a campaign of made-up frames in real file formats."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdask.cluster import connect, run_blocks
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

    folder = Path(to)
    campaign = plan_campaign(
        make_experiment(crystal), frames=frames, runs=runs, hits=hits, diffuse=diffuse, seed=seed, detector=detector
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
