"""Weights of VGG16 as Keras and the TensorFlow ports write them, really written and then spoilt."""

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array
import h5py
import numpy as np
import pytest

from diffdask.errors import BadParameter, BadWeights
from diffdask.io.vgg16_files import _PORT_NAMES, read_weights_file
from diffdask.io.vgg16_weights import (
    IMAGENET_FILE,
    IMAGENET_MD5,
    IMAGENET_URL,
    describe_weights,
    digest_weights,
    extract_block,
    find_weights,
    load_vgg16,
)
from diffdask.models.vgg16 import random_layers
from diffdask.models.vgg16_network import NETWORK

#: Of the seed 0, in every process and on every machine.
DIGEST = "ea092b74476ef8b6f2b2c4dcc06767e51faee98c7a1fbe406e451f6383d038eb"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The same random weights in all kinds of files, written by Keras and by NumPy; half a gigabyte each."""
    import keras

    folder = tmp_path_factory.mktemp("weights")
    model = keras.applications.VGG16(weights=None)
    content = {}
    for name, kernel, bias in random_layers(0):
        model.get_layer(name).set_weights([kernel, bias])
        content[_PORT_NAMES[name]] = [kernel, bias]
    paths = {kind: str(folder / f"vgg16{kind}") for kind in (".weights.h5", ".h5", ".npy")}
    with warnings.catch_warnings():  # Keras's own: NumPy 2 wants another signature of its arrays
        warnings.simplefilter("ignore", DeprecationWarning)
        model.save_weights(paths[".weights.h5"])
        model.save(paths[".h5"])
    np.save(paths[".npy"], content, allow_pickle=True)
    yield paths
    for path in paths.values():
        Path(path).unlink()


@pytest.mark.parametrize("kind", [".weights.h5", ".h5", ".npy"])
def test_every_kind_of_file_gives_the_weights_that_were_written(written: dict[str, str], kind: str) -> None:
    assert digest_weights(find_weights(written[kind])) == DIGEST


def test_a_seed_gives_the_same_weights_for_ever() -> None:
    assert digest_weights("seed:0") == DIGEST


# files spoilt one way at a time ----------------------------------------------------------------------------


def write_old(path: Path, layers: dict[str, tuple[int, ...]]) -> Path:
    """A file in the layout of Keras's releases; its kernels are holes, its biases count the layers."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in ("input_1", *layers)]
        file.create_group("input_1").attrs["weight_names"] = np.array([], "S1")
        for number, (name, shape) in enumerate(layers.items()):
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}_W_1:0".encode(), f"{name}_b_1:0".encode()]
            group.create_dataset(f"{name}_W_1:0", shape, "f4")
            group[f"{name}_b_1:0"] = np.full(shape[-1], number, "f4")
    return path


def test_the_layout_of_keras_releases_is_read_by_name(tmp_path: Path) -> None:
    shuffled = dict(sorted({"predictions": (4096, 1000), **NETWORK}.items(), reverse=True))
    path = write_old(tmp_path / "old.h5", shuffled)
    numbers = {name: number for number, name in enumerate(shuffled)}
    for layer in read_weights_file(str(path)):
        assert layer.kernel.shape == NETWORK[layer.name]
        assert (layer.bias == numbers[layer.name]).all()


def test_layers_of_other_names_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write_old(tmp_path / "old.h5", {f"layer_{n}": shape for n, shape in enumerate(NETWORK.values())})
    assert [layer.bias[0] for layer in read_weights_file(str(path))] == list(range(15))


def spoil_by_cutting(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def spoil_link(path: Path) -> None:
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other.create_dataset("secret", NETWORK["block1_conv1"], "f4")
    with h5py.File(path, "a") as file:
        del file["block1_conv1/block1_conv1_W_1:0"]
        file["block1_conv1/block1_conv1_W_1:0"] = h5py.ExternalLink("other.h5", "secret")


def spoil_by_emptying(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["entry_1"] = 1


VGG19 = {
    **{name: shape for name, shape in NETWORK.items() if len(shape) == 4},
    **{f"block{block}_conv4": (3, 3, channels, channels) for block, channels in ((3, 256), (4, 512), (5, 512))},
    "fc1": NETWORK["fc1"],
    "fc2": NETWORK["fc2"],
    "predictions": (4096, 1000),
}
NO_TOP = {name: shape for name, shape in NETWORK.items() if len(shape) == 4}
SMALL = {**NETWORK, "fc1": (512, 4096)}
RESNET = {f"conv{n}": (1, 1, 64, 64) for n in range(50)}


@pytest.mark.parametrize(
    ("layers", "spoil", "says"),
    [
        (NO_TOP, None, "has 13 layers with weights, expected 16.*notop"),
        (RESNET, None, "has 50 layers with weights"),
        (SMALL, None, r"'fc1' has a kernel of \(512, 4096\).*expected \(25088, 4096\)"),
        (NETWORK, None, "'block1_conv1' are all zero"),
        (NETWORK, spoil_by_cutting, "truncated"),
        (NETWORK, spoil_link, "'/block1_conv1/block1_conv1_W_1:0' lies in another file"),
        (NETWORK, spoil_by_emptying, "no layers in it; there are: entry_1"),
        (NETWORK, lambda path: path.write_text("<html>404"), "neither HDF5 .* begins with b'<html>40'"),
        (NETWORK, lambda path: path.write_bytes(b""), "neither HDF5"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(
    tmp_path: Path, layers: dict[str, tuple[int, ...]], spoil: Callable[[Path], None] | None, says: str
) -> None:
    path = write_old(tmp_path / "vgg16.h5", layers)
    if spoil:
        spoil(path)
    with pytest.raises(BadWeights, match=says) as caught:
        digest_weights(str(path))
    assert str(path) in str(caught.value)


def test_vgg19_is_not_taken_for_vgg16(tmp_path: Path) -> None:
    renamed = {f"layer_{number}": shape for number, shape in enumerate(VGG19.values())}
    with pytest.raises(BadWeights, match="has 19 layers"):
        digest_weights(str(write_old(tmp_path / "vgg19.h5", renamed)))
    with pytest.raises(BadWeights, match="has 19 layers"):
        digest_weights(str(write_old(tmp_path / "vgg19.h5", VGG19)))


def test_a_port_without_a_layer_says_which(tmp_path: Path) -> None:
    layer = next(random_layers(0))
    np.save(tmp_path / "vgg16.npy", {"conv1_1": [layer.kernel, layer.bias], "fc8": [1.0]}, allow_pickle=True)
    with pytest.raises(BadWeights, match="no layer 'conv1_2'; it has: fc8"):
        digest_weights(str(tmp_path / "vgg16.npy"))


# where weights are -----------------------------------------------------------------------------------------


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way out leads to a port where nobody listens."""
    for name in ("no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")


@pytest.mark.usefixtures("_no_network")
def test_without_a_network_imagenet_says_what_to_fetch_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(BadWeights, match="cannot be reached") as caught:
        find_weights("imagenet")
    for part in (IMAGENET_URL, IMAGENET_MD5, str(tmp_path / "models" / IMAGENET_FILE)):
        assert part in str(caught.value)


@pytest.mark.usefixtures("_no_network")
def test_a_damaged_file_in_keras_cache_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / IMAGENET_FILE).write_bytes(b"\x89HDF\r\n\x1a\nhalf")
    with pytest.raises(BadWeights, match=r"has the MD5 [0-9a-f]{32}: it is damaged"):
        find_weights("imagenet")


def test_the_file_of_imagenet_is_the_one_that_keras_fetches() -> None:
    import inspect

    from keras.src.applications import vgg16

    assert vgg16.WEIGHTS_PATH == IMAGENET_URL
    assert f'file_hash="{IMAGENET_MD5}"' in inspect.getsource(vgg16)


def test_weights_that_are_not_there_say_what_may_be_given(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match=r"no weights at .*gone.h5.*seed:0"):
        find_weights(tmp_path / "gone.h5")
    with pytest.raises(BadParameter, match="write seed:0"):
        find_weights("seed=0")
    with pytest.raises(BadWeights, match="cannot be read on"):
        digest_weights(str(tmp_path / "gone.h5"))


def test_a_path_means_the_same_in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.h5").touch()
    monkeypatch.chdir(tmp_path)
    assert find_weights("w.h5") == str(tmp_path / "w.h5")
    assert find_weights("seed:12") == "seed:12"


def test_weights_are_called_what_they_are() -> None:
    assert describe_weights("seed:0") == "random, seed 0 (for tests only)"
    assert describe_weights("/some/where/vgg16.npy") == "file vgg16.npy"
    assert describe_weights(f"/cache/{IMAGENET_FILE}").startswith("ImageNet")


# the network of a process ----------------------------------------------------------------------------------

HOW: dict[str, Any] = {"precision": "mixed_bfloat16", "batch": 4}


def test_a_process_builds_its_network_once_and_says_that_weights_are_random(caplog: pytest.LogCaptureFixture) -> None:
    found = []
    ask = [threading.Thread(target=lambda: found.append(load_vgg16("seed:0", **HOW))) for _ in range(4)]
    with caplog.at_level(logging.WARNING, logger="diffdask"):
        for thread in ask:
            thread.start()
        for thread in ask:
            thread.join()
    assert len(found) == 4
    assert all(network is found[0] for network in found)
    assert found[0].digest == DIGEST
    assert found[0].weights == "random, seed 0 (for tests only)"
    assert [record.message for record in caplog.records if "random, seed 0 (for tests only)" in record.message]


def test_blocks_of_pictures_become_blocks_of_features_in_dask() -> None:
    images = np.random.default_rng(0).normal(0.0, 50.0, (7, 224, 224, 3)).astype(np.float32)
    blocks = dask.array.from_array(images, chunks=(3, -1, -1, -1))
    features = blocks.map_blocks(
        extract_block,
        weights=find_weights("seed:0"),
        digest=DIGEST,
        **HOW,
        chunks=(blocks.chunks[0], (8192,)),
        drop_axis=(2, 3),
        meta=np.empty((0, 8192), dtype=np.float32),
    )
    assert features.shape == (7, 8192)
    assert features.dtype == np.float32
    found = features.compute(scheduler="threads", num_workers=3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, load_vgg16("seed:0", **HOW).extract(images), rtol=2.0**-7, atol=1.0)


def test_no_pictures_need_no_network(tmp_path: Path) -> None:
    empty = np.empty((0, 0, 0, 0), dtype=np.float32)
    assert extract_block(empty, weights=str(tmp_path / "gone.h5"), layers=("fc2",)).shape == (0, 4096)


def test_other_weights_than_those_expected_are_refused() -> None:
    with pytest.raises(BadWeights, match="have the digest ea092b74476ef8b6, expected 0000"):
        load_vgg16("seed:0", digest="0" * 64, **HOW)
