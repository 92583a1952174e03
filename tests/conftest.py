"""Fixtures that every test may use."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import dask
import h5py
import numpy as np
import pytest

from .s3_here import environment, serve_s3


@pytest.fixture(autouse=True)
def _no_client_is_left_as_the_default():
    """A client left as Dask's default would run the computations of later tests, or break them."""
    yield
    assert dask.config.get("scheduler", None) is None


#: Two panels of 4 x 6 pixels on a slab of 8 x 6, in the layout of Cheetah.
TINY_GEOMETRY = """
photon_energy = /LCLS/photon_energy_eV
clen = /LCLS/detector_1/EncoderValue
coffset = 0.5
adu_per_eV = 0.001
res = 10000
dim0 = %
dim1 = ss
dim2 = fs
data = /entry_1/data_1/data
mask = /entry_1/data_1/mask
mask_good = 0x0000
mask_bad = 0xffff
p0/min_fs = 0
p0/max_fs = 5
p0/min_ss = 0
p0/max_ss = 3
p0/fs = +1.0x
p0/ss = +1.0y
p0/corner_x = -3.0
p0/corner_y = 1.0
p1/min_fs = 0
p1/max_fs = 5
p1/min_ss = 4
p1/max_ss = 7
p1/fs = -1.0x
p1/ss = -1.0y
p1/corner_x = 3.0
p1/corner_y = -1.0
"""


class TinyFiles:
    """Writes small CXI files in Cheetah's layout, and the geometry that fits them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.geometry = folder / "tiny.geom"
        self.geometry.write_text(TINY_GEOMETRY)

    def write(self, name: str, count: int, *, seed: int = 0, dtype: str = "int16", run: int = 1, **options) -> Path:
        """Write ``count`` random frames, run number and all; give the path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            where = "/entry_1/instrument_1/detector_1/data"
            file.create_dataset(where, data=self.slab(count, seed=seed, dtype=dtype), chunks=(1, 8, 6), **options)
            file["/entry_1/data_1/data"] = h5py.SoftLink(where)
            file["/entry_1/data_1/mask"] = np.zeros((8, 6), np.uint16)
            file["/LCLS/photon_energy_eV"] = 9000.0 + np.arange(count)
            file["/LCLS/detector_1/EncoderValue"] = np.full(count, -400.0)
            file["/entry_1/experiment_identifier"] = np.array([f"tiny_run{run:04d}"] * count, dtype="S")
        return path

    @staticmethod
    def slab(count: int, *, seed: int = 0, dtype: str = "int16") -> np.ndarray:
        """Frames as the file has them: (frame, 8, 6)."""
        return np.random.default_rng(seed).integers(0, 1000, (count, 8, 6)).astype(dtype)

    @classmethod
    def panels(cls, count: int, *, seed: int = 0, dtype: str = "int16") -> np.ndarray:
        """Frames as the store has them: (frame, panel, ss, fs)."""
        return cls.slab(count, seed=seed, dtype=dtype).reshape(count, 2, 4, 6)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyFiles:
    """Small CXI files in a folder of the test's own."""
    return TinyFiles(tmp_path)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the shared test data; the test is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the shared test data beside the checkout (../shared/data), which is absent")
    return folder


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Endpoint of an S3 of the tests' own."""
    with serve_s3("tests") as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3, monkeypatch) -> str:
    """A place in a bucket of a real S3 over HTTP, of the test's own, and the environment set for it."""
    for name, value in environment(s3).items():
        monkeypatch.setenv(name, value)
    return f"s3://tests/{uuid.uuid4().hex}"
