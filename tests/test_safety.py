"""What is loaded cannot run code: each file here would make a folder if it did."""

import json
import os
import pickle

import numpy as np
import pytest
import zarr
from zarr.errors import UnknownCodecError

from diffdask.errors import BadJob, BadLabels, BadWeights, DiffdaskError
from diffdask.io.crystfel_geometry import read_geometry
from diffdask.io.labels import read_labels
from diffdask.io.results_store import open_group
from diffdask.io.vgg16_files import read_weights_file
from diffdask.pipeline.run import read_job


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture
def sprung(tmp_path):
    """Folder that is made if code runs."""
    folder = tmp_path / "sprung"
    yield folder
    assert not folder.exists(), "code ran"


def make_results(path):
    """A results store with one array in the group 'screen'."""
    root = zarr.open_group(str(path), mode="w-", zarr_format=3, attributes={"kind": "diffdask results"})
    group = root.create_group("screen", attributes={"complete": True, "parameters": {}})
    group.create_array("frame_is_hit", shape=(2,), chunks=(2,), dtype="bool", dimension_names=["frame"])
    return path / "screen" / "frame_is_hit"


def test_the_trap_works(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "made")))
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("codec", ["pickle", "numcodecs.pickle"])
def test_a_store_whose_array_is_a_pickle_is_refused(tmp_path, sprung, codec):
    array = make_results(tmp_path / "results.zarr")
    described = json.loads((array / "zarr.json").read_text())
    described["codecs"] = [{"name": codec, "configuration": {}}]
    (array / "zarr.json").write_text(json.dumps(described))
    (array / "c").mkdir(exist_ok=True)
    (array / "c" / "0").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(UnknownCodecError):
        open_group(tmp_path / "results.zarr", "screen")


@pytest.mark.filterwarnings("ignore:Object at frame_is_hit")
def test_an_array_of_objects_of_an_older_zarr_is_not_seen(tmp_path, sprung):
    array = make_results(tmp_path / "results.zarr")
    (array / "zarr.json").unlink()
    described = {"shape": [2], "chunks": [2], "dtype": "|O", "filters": [{"id": "pickle"}], "order": "C"}
    (array / ".zarray").write_text(json.dumps({**described, "zarr_format": 2, "compressor": None, "fill_value": None}))
    (array / "0").write_bytes(pickle.dumps(Trap(sprung)))
    assert not open_group(tmp_path / "results.zarr", "screen")


def test_weights_that_are_a_strangers_pickle_are_refused(tmp_path, sprung):
    path = tmp_path / "vgg16.npy"
    np.save(path, np.array({"conv1_1": Trap(sprung)}, dtype=object), allow_pickle=True)
    with pytest.raises(BadWeights):
        list(read_weights_file(str(path)))


def test_jobs_labels_and_geometries_are_read_and_never_evaluated(tmp_path, sprung):
    code = f'__import__("os").mkdir("{sprung}")'
    (tmp_path / "job.toml").write_text(f"[screen]\nsnr = '{code}'\n")
    with pytest.raises(BadJob):
        read_job(tmp_path / "job.toml")
    (tmp_path / "labels.csv").write_text(f"frame,label\n'{code}',diffuse\n")
    with pytest.raises(BadLabels):
        read_labels(tmp_path / "labels.csv", ["r0001-a-000000"])
    (tmp_path / "detector.geom").write_text(f"photon_energy = {code}\nres = {code}\n")
    with pytest.raises(DiffdaskError):
        read_geometry(tmp_path / "detector.geom")
