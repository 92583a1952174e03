"""A small campaign that the tests of the verbs share: simulated, ingested, screened and trained on once."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diffdask.io.results_store import open_group
from diffdask.pipeline.ingest import ingest
from diffdask.pipeline.screen import screen
from diffdask.pipeline.simulate import simulate
from diffdask.pipeline.train import train

#: Two panels of 64 x 128 large pixels, above and below the beam.
GEOMETRY = """
photon_energy = /LCLS/photon_energy_eV
clen = /LCLS/detector_1/EncoderValue
coffset = 0.5
adu_per_eV = 0.00338
res = 1250
dim0 = %
dim1 = ss
dim2 = fs
data = /entry_1/data_1/data
mask = /entry_1/data_1/mask
mask_good = 0x0000
mask_bad = 0xffff
""" + "".join(
    f"{name}/min_fs = 0\n{name}/max_fs = 127\n{name}/min_ss = {first}\n{name}/max_ss = {first + 63}\n"
    f"{name}/fs = +1.0x\n{name}/ss = +1.0y\n{name}/corner_x = -64\n{name}/corner_y = {corner}\n"
    for name, first, corner in (("low", 0, -66), ("high", 64, 2))
)

#: For a small detector; the defaults are for a large one.
PARAMETERS = {
    "ring_count": 60,
    "polar_ring_count": 20,
    "azimuth_count": 36,
    "ring_groups": 2,
    "feature_q_min": 0.1,
    "component_count": 4,
}

GROUPS = ("layout", "screen", "hits", "features")


class SmallCampaign:
    """46 frames of 3 runs, in blocks of 8, and what the verbs make of them."""

    parameters = PARAMETERS

    def __init__(self, folder: Path):
        self.folder = folder
        self.geometry = folder / "small.geom"
        self.geometry.write_text(GEOMETRY)
        self.simulated = self.simulate("simulated", frames=46, runs=3, hits=0.7, diffuse=0.5)
        self.labels = self.simulated / "labels.csv"
        self.frames = self.ingest("frames.zarr")
        self.results = self.screen(folder / "results.zarr")
        self.ranker = train(self.results, labels=self.labels, to=folder / "ranker.zarr", iterations=8, fold_count=4)

    def simulate(self, name: str, **options) -> Path:
        options = {"crystal": 5, "runs": 1, "detector": str(self.geometry), **options}
        return simulate(self.folder / name, on="threads", progress=False, **options)

    def ingest(self, to, sources=None, *, simulated: Path | None = None, with_stream: bool = True, **options) -> Path:
        simulated = simulated or self.simulated
        return ingest(
            str(simulated / "r*.cxi") if sources is None else sources,
            geometry=self.geometry,
            stream=simulated / "campaign.stream" if with_stream else None,
            to=self.folder / to,
            on="threads",
            progress=False,
            **{"block_frames": 8, **options},
        )

    def screen(self, results: Path, *, frames: Path | None = None, **options) -> Path:
        options = {**PARAMETERS, "on": "threads", **options}
        return screen(frames or self.frames, results=results, progress=False, **options)

    def copy(self, to: Path) -> Path:
        """Results and all, to be spoilt."""
        return Path(shutil.copytree(self.results, to))

    def label(self) -> np.ndarray:
        return pd.read_csv(self.labels).set_index("frame")["label"].sort_index().to_numpy()

    @staticmethod
    def read(results: Path, *groups: str) -> dict[str, np.ndarray]:
        """Every array of the groups."""
        found = {}
        for group in groups or GROUPS:
            opened = open_group(results, group)
            assert opened is not None, f"{group} is not finished"
            found |= {f"{group}/{name}": variable.values for name, variable in opened.variables.items()}
        return found

    def assert_same(self, one: Path, other: Path, *groups: str) -> None:
        """Bit for bit."""
        first, second = self.read(one, *groups), self.read(other, *groups)
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name, strict=True)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallCampaign:
    """The campaign; tests write elsewhere."""
    return SmallCampaign(tmp_path_factory.mktemp("small"))
