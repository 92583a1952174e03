"""Files of VGG16's weights: Keras's .h5 and .weights.h5, and the vgg16.npy of the TensorFlow ports.

They are read here rather than by Keras, so that one digest serves all of them,
a wrong file is told before the network is built, and no more than a layer is in
memory (but for ``vgg16.npy``, which is one pickle). All have kernels of (height,
width, in, out), channels blue, green, red, and pixels flattened rows first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from diffdask.errors import BadWeights
from diffdask.io.pickled_arrays import read_pickled_arrays
from diffdask.models.vgg16 import LayerWeights, check_layer
from diffdask.models.vgg16_network import NETWORK

#: Name of a layer in a file of Keras 3: kind, and number from the second on.
_KERAS_3_LAYER = re.compile(r"^(conv2d|dense)(?:_(\d+))?$")

#: Names of the layers in the TensorFlow ports.
_PORT_NAMES = {
    name: {"fc1": "fc6", "fc2": "fc7"}.get(name, name.replace("block", "conv").replace("_conv", "_"))
    for name in NETWORK
}


def read_weights_file(path: str) -> Iterator[LayerWeights]:
    """Read weights layer by layer; what kind of file it is, its first bytes say.

    Raises
    ------
    BadWeights
        If the file is truncated, of another network, or of no kind that is known.
    """
    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(b"\x93NUMPY"):
        return _read_port(path)
    if start == b"\x89HDF\r\n\x1a\n":
        return _read_hdf5(path)
    raise BadWeights(f"'{path}' is neither HDF5 (.h5, .weights.h5) nor NumPy's (vgg16.npy); it begins with {start!r}")


def _read_port(path: str) -> Iterator[LayerWeights]:
    """Layers of a ``vgg16.npy``: names to [kernel, bias], or to {"weights": kernel, "biases": bias}."""
    content = read_pickled_arrays(path)
    for name, port in _PORT_NAMES.items():
        if port not in content:
            raise BadWeights(f"'{path}' has no layer '{port}'; it has: {', '.join(content) or 'none'}")
        pair = content.pop(port)
        if isinstance(pair, dict):
            pair = [pair.get("weights"), pair.get("biases")]
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(one, np.ndarray) for one in pair):
            raise BadWeights(f"'{path}': layer '{port}' is no pair of arrays, kernel and bias")
        check_layer(name, pair[0].shape, pair[1].shape)
        yield LayerWeights(name, *pair)


def _read_hdf5(path: str) -> Iterator[LayerWeights]:
    """Layers of a Keras file, of the old layout (.h5) or the new one (.weights.h5)."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)  # a whole model, or its weights alone
            layers = _old_layers(root) if "layer_names" in root.attrs else _new_layers(root)
            pairs = dict(zip(NETWORK, _in_order(layers), strict=False))
            for name, (kernel, bias) in pairs.items():  # all of them before any is read
                check_layer(name, kernel.shape, bias.shape)
            for name, (kernel, bias) in pairs.items():
                yield LayerWeights(name, kernel[...], bias[...])
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise BadWeights(f"'{path}' is truncated, damaged or no file of Keras ({error}); fetch it again") from error


def _old_layers(root: Any) -> dict[str, list[Any]]:
    """Datasets by layer: attributes list the layers, and the weights of each."""
    found = {}
    for name in _texts(root.attrs["layer_names"]):
        names = _texts(root[name].attrs["weight_names"])
        if names:
            found[name] = [_dataset(root[name], one) for one in names]
    return found


def _new_layers(root: Any) -> dict[str, list[Any]]:
    """Datasets by layer: the layers are numbered within their kind, convolutions first."""
    if "layers" not in root:
        raise BadWeights(f"there are no layers in it; there are: {', '.join(root) or 'no groups at all'}")
    layers = {}
    for name in root["layers"]:
        if match := _KERAS_3_LAYER.match(name):
            layers[match[1], int(match[2] or 0)] = root["layers"][name]["vars"]
    return {
        f"{kind} {number}": [_dataset(layers[kind, number], one) for one in sorted(layers[kind, number])]
        for kind, number in sorted(layers)
    }


def _in_order(layers: dict[str, list[Any]]) -> list[list[Any]]:
    """Pairs of kernel and bias: by their names, or if these are others in the order of the file."""
    if len(layers) not in (len(NETWORK), len(NETWORK) + 1):  # without or with the classes
        raise BadWeights(
            f"it has {len(layers)} layers with weights, expected {len(NETWORK) + 1}: it is of another network than "
            "VGG16 with its fully connected layers ('notop' files lack them)"
        )
    pairs = [layers[name] for name in NETWORK] if set(NETWORK) <= set(layers) else list(layers.values())
    if any(len(pair) != 2 for pair in pairs):
        raise BadWeights("some of its layers have not one kernel and one bias, as those of VGG16")
    return pairs


def _dataset(group: Any, name: str) -> Any:
    """A dataset that lies in this file itself: links could show any file that the user may read."""
    import h5py

    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset):
        raise BadWeights(f"'{group.name}/{name}' is no dataset")
    if dataset.file.filename != group.file.filename or dataset.is_virtual or dataset.external:
        raise BadWeights(f"'{group.name}/{name}' lies in another file")
    return dataset


def _texts(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
