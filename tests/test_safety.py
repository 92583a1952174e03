"""What is loaded cannot run code: each file here would make a folder if it did."""

import json
import os
import pickle

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.errors import UnknownCodecError

from diffdask.errors import BadGeometry, BadJob, BadLabels, BadStore, BadWeights, DiffdaskError
from diffdask.io.crystfel_geometry import read_geometry
from diffdask.io.crystfel_stream import read_stream
from diffdask.io.frames_store import open_frames, open_root
from diffdask.io.labels import read_labels
from diffdask.io.ranker_store import TrainedRanker, load_ranker, save_ranker
from diffdask.io.results_store import open_group
from diffdask.io.vgg16_files import read_weights_file
from diffdask.models.ranker import Ranker
from diffdask.pipeline.ingest import ingest
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


@pytest.fixture
def live(monkeypatch):
    """Let numcodecs read pickles, as it did for long: our own guard is to hold."""
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True)


def call_older(group):
    """Let a group say that it is of Zarr 2; Zarr takes it at its word, and finds its arrays as that wrote them."""
    described = json.loads((group / "zarr.json").read_text())
    (group / "zarr.json").write_text(json.dumps({**described, "zarr_format": 2}))


def make_pickle(array, trap):
    """Make a pickle of an array of Zarr 3, as Zarr 2 would have it; all that is read of it is the trap."""
    shape = json.loads((array / "zarr.json").read_text())["shape"]
    codecs = {"filters": [{"id": "vlen-utf8"}, {"id": "pickle"}], "compressor": None, "fill_value": 0}
    described = {"zarr_format": 2, "shape": shape, "chunks": shape, "dtype": "|O", "order": "C", **codecs}
    (array / "zarr.json").unlink()
    (array / ".zarray").write_text(json.dumps(described))
    (array / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": [f"d{axis}" for axis in range(len(shape))]}))
    (array / ".".join("0" * len(shape))).write_bytes(pickle.dumps(trap))


def make_ranker(path):
    """A trained ranker; gives its array of means."""
    X, y = np.random.default_rng(0).normal(size=(40, 9)), np.arange(40) % 2
    ranker = Ranker(component_count=3, iterations=3).fit(X, y)
    ids = np.array([f"r0001-a-{number:06d}" for number in range(40)], dtype=object)
    save_ranker(path, TrainedRanker(ranker, ids, "abc", np.zeros(40), {}, {}, {}))
    return path / "mean_"


def make_frames(path):
    """A frames store without frames; gives its array of good pixels."""
    root = zarr.open_group(str(path), mode="w-", zarr_format=3, attributes={"kind": "diffdask frames"})
    root.create_array("pixel_is_good", shape=(2,), chunks=(2,), dtype="bool")
    return path / "pixel_is_good"


@pytest.mark.filterwarnings("ignore:Object at")
def test_the_trap_of_an_older_zarr_works(tmp_path, live):
    array = make_ranker(tmp_path / "ranker.zarr")
    make_pickle(array, Trap(tmp_path / "made"))
    call_older(tmp_path / "ranker.zarr")
    with pytest.raises(TypeError):  # what comes out is no array
        zarr.open_group(tmp_path / "ranker.zarr", mode="r")["mean_"][...]
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("make", "read"),
    [
        (make_ranker, load_ranker),
        (make_frames, lambda path: open_root(path)["pixel_is_good"][...]),
        (make_results, lambda path: open_group(path, "screen").compute()),
    ],
    ids=["ranker", "frames", "results"],
)
def test_a_store_that_says_it_is_of_an_older_zarr_is_refused(tmp_path, sprung, live, make, read):
    array = make(tmp_path / "store.zarr")
    make_pickle(array, Trap(sprung))
    call_older(array.parent)
    with pytest.raises(BadStore, match="of Zarr 2, expected 3"):
        read(tmp_path / "store.zarr")


@pytest.mark.filterwarnings("ignore:Object at", "ignore:Both zarr.json")
@pytest.mark.parametrize("is_group_older", [False, True], ids=["array", "group"])
def test_a_ranker_with_an_array_of_an_older_zarr_is_damaged(tmp_path, sprung, live, is_group_older):
    array = make_ranker(tmp_path / "ranker.zarr")
    make_pickle(array, Trap(sprung))
    if is_group_older:
        (tmp_path / "ranker.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(BadStore, match="is damaged"):
        load_ranker(tmp_path / "ranker.zarr")


@pytest.mark.parametrize("name", ["pickle", "numcodecs.pickle", "numcodecs.zlib"])
def test_a_ranker_whose_array_is_a_pickle_is_refused(tmp_path, sprung, live, name):
    array = make_ranker(tmp_path / "ranker.zarr")
    described = json.loads((array / "zarr.json").read_text())
    described["codecs"].append({"name": name, "configuration": {"id": "pickle"}})
    (array / "zarr.json").write_text(json.dumps(described))
    (array / "c" / "0").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(BadStore, match="is damaged"):
        load_ranker(tmp_path / "ranker.zarr")


def test_code_in_the_attributes_of_a_ranker_stays_text(tmp_path, sprung):
    make_ranker(tmp_path / "ranker.zarr")
    attributes, code = zarr.open_group(tmp_path / "ranker.zarr", mode="r+").attrs, code_for(sprung)
    attributes.update({"ranker": {"component_count": code}, "features": {"__class__": "os.mkdir", "args": [code]}})
    loaded = load_ranker(tmp_path / "ranker.zarr")
    assert loaded.ranker.component_count == code
    assert loaded.features == {"__class__": "os.mkdir", "args": [code]}
    attributes["ranker"] = {"__class__": "os.mkdir", "args": [code]}
    with pytest.raises(BadStore, match="is damaged"):
        load_ranker(tmp_path / "ranker.zarr")


def code_for(folder):
    """Python that makes a folder where it is evaluated."""
    return f'__import__("os").mkdir("{folder}")'


#: Keys of a geometry whose values are numbers, directions, places or names.
GEOMETRY_KEYS = [
    *["photon_energy", "clen", "coffset", "adu_per_eV", "res", "dim0", "data", "mask", "mask_good", "flag_equal"],
    *["mask_edge_pixels", "max_adu", "detector_shift_x", "rigid_group_a", "rigid_group_collection_a", "bad1/min_x"],
    *["p0/min_fs", "p0/fs", "p0/corner_x", "p0/dim1"],
]


@pytest.mark.parametrize("key", GEOMETRY_KEYS)
def test_no_value_of_a_geometry_is_evaluated(tiny, sprung, key):
    tiny.geometry.write_text(f"{tiny.geometry.read_text()}{key} = {code_for(sprung)}\n")
    with pytest.raises(BadGeometry):
        read_geometry(tiny.geometry)


STREAM = """CrystFEL stream format 2.3
----- Begin chunk -----
Image filename: {image}
Event: {event}
--- Begin crystal
astar = {axis} nm^-1
bstar = +0.0 +0.2 +0.0 nm^-1
cstar = +0.0 +0.0 +0.3 nm^-1
lattice_type = {lattice}
predict_refine/det_shift x = {shift} y = -0.2 mm
num_reflections = {count}
--- End crystal
----- End chunk -----
"""
FIELDS = {"image": "a.cxi", "event": "//0", "axis": "+0.1 +0.0 +0.0", "lattice": "cubic", "shift": "0.1", "count": "5"}


@pytest.mark.parametrize("shell", [False, True], ids=["python", "shell"])
@pytest.mark.parametrize("field", FIELDS)
def test_no_field_of_a_stream_is_evaluated(tmp_path, sprung, field, shell):
    code = f"$(mkdir {sprung})" if shell else code_for(sprung)
    (tmp_path / "a.stream").write_text(STREAM.format(**{**FIELDS, field: code}))
    (chunk,) = read_stream(tmp_path / "a.stream")
    assert (chunk.image, chunk.event) == ({**FIELDS, field: code}["image"], {**FIELDS, field: code}["event"])
    assert [crystal.lattice for crystal in chunk.crystals] == {"axis": [], "lattice": [f"{code} ? ?"]}.get(
        field, ["cubic ? ?"]
    )
    assert [crystal.reflection_count for crystal in chunk.crystals] == {"axis": [], "count": [0]}.get(field, [5])


@pytest.mark.parametrize("image", ["/etc/passwd", "../../secret.cxi", "|mkdir {sprung}", "$(mkdir {sprung})"])
def test_an_image_of_a_stream_is_a_name_to_compare_and_never_opened(tiny, sprung, image):
    tiny.write("a.cxi", 1)
    stream, store = tiny.folder / "a.stream", tiny.folder / "f.zarr"
    stream.write_text(STREAM.format(**{**FIELDS, "image": image.format(sprung=sprung)}))
    ingest(tiny.folder / "a.cxi", geometry=tiny.geometry, stream=stream, to=store, on="threads", progress=False)
    assert np.isnan(open_frames(store).orientation).all()
    assert set(open_frames(store).source.values) == {str(tiny.folder / "a.cxi")}


def test_jobs_labels_and_geometries_are_read_and_never_evaluated(tmp_path, sprung):
    code = code_for(sprung)
    (tmp_path / "job.toml").write_text(f"[screen]\nsnr = '{code}'\n")
    with pytest.raises(BadJob):
        read_job(tmp_path / "job.toml")
    (tmp_path / "labels.csv").write_text(f"frame,label\n'{code}',diffuse\n")
    with pytest.raises(BadLabels):
        read_labels(tmp_path / "labels.csv", ["r0001-a-000000"])
    (tmp_path / "detector.geom").write_text(f"photon_energy = {code}\nres = {code}\n")
    with pytest.raises(DiffdaskError):
        read_geometry(tmp_path / "detector.geom")
