"""The layers of VGG16 in Keras.

Only Keras's own interface is used, so that any of its backends will do; the one
exception is the number of TensorFlow's threads, which must be set before it
starts.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Sequence
from typing import Any

_log = logging.getLogger(__name__)

#: Pixels of a picture's side, and its channels.
SIDE, CHANNELS = 224, 3

#: Shape of each layer's kernel, in the order of the network: (height, width, in, out) or (in, out).
NETWORK: dict[str, tuple[int, ...]] = {
    "block1_conv1": (3, 3, 3, 64),
    "block1_conv2": (3, 3, 64, 64),
    "block2_conv1": (3, 3, 64, 128),
    "block2_conv2": (3, 3, 128, 128),
    "block3_conv1": (3, 3, 128, 256),
    "block3_conv2": (3, 3, 256, 256),
    "block3_conv3": (3, 3, 256, 256),
    "block4_conv1": (3, 3, 256, 512),
    "block4_conv2": (3, 3, 512, 512),
    "block4_conv3": (3, 3, 512, 512),
    "block5_conv1": (3, 3, 512, 512),
    "block5_conv2": (3, 3, 512, 512),
    "block5_conv3": (3, 3, 512, 512),
    "fc1": (25088, 4096),
    "fc2": (4096, 4096),
}

#: Layers that can be features: those after the convolutions.
FEATURE_LAYERS = ("fc1", "fc2")


def import_keras(threads: int) -> Any:
    """Keras, its backend not started yet if this is the first that is asked of it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # else every worker tells its processor's features
    import keras

    if keras.config.backend() == "tensorflow":
        _set_tensorflow_threads(threads)
    return keras


def build_network(keras: Any, layers: Sequence[str], policy: str) -> Any:
    """VGG16 up to its feature layers, whose outputs are given side by side as float32."""
    # zeros: the weights are put in at once, and drawing random ones takes seconds
    how = {"dtype": policy, "activation": "relu", "kernel_initializer": "zeros"}
    pictures = keras.Input((SIDE, SIDE, CHANNELS), dtype="float32")
    flow = _convolve(keras, pictures, how)
    flow = keras.layers.Flatten(data_format="channels_last", dtype=policy)(flow)
    outputs = {}
    for name in FEATURE_LAYERS:
        flow = outputs[name] = keras.layers.Dense(NETWORK[name][-1], name=name, **how)(flow)
    chosen = [outputs[name] for name in layers]
    joined = keras.layers.Concatenate(dtype=policy)(chosen) if len(chosen) > 1 else chosen[0]
    return keras.Model(pictures, keras.layers.Activation("linear", dtype="float32")(joined))


def _set_tensorflow_threads(threads: int) -> None:
    """Let TensorFlow have so many threads, all within an operation; it obeys only before it starts."""
    import tensorflow

    config = tensorflow.config.threading
    wanted = (threads, 1)
    there = (config.get_intra_op_parallelism_threads(), config.get_inter_op_parallelism_threads())
    if there == wanted:
        return
    try:
        config.set_intra_op_parallelism_threads(threads)
        config.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # it runs already
        _log.warning(
            "TensorFlow runs in this process already, with its own %s threads (0: one a core), not the %d asked for; "
            "Dask's threads and TensorFlow's may now hinder each other",
            there[0],
            threads,
        )


def _convolve(keras: Any, flow: Any, how: dict[str, Any]) -> Any:
    """The five blocks of convolutions, each with its pooling."""
    # said here, since a user's keras.json may say otherwise
    arrangement = {"data_format": "channels_last", "padding": "same"}
    convolutions = {name: shape for name, shape in NETWORK.items() if len(shape) == 4}
    for block, names in itertools.groupby(convolutions, key=lambda name: name.partition("_")[0]):
        for name in names:
            *size, _, channels = NETWORK[name]
            flow = keras.layers.Conv2D(channels, size, name=name, **arrangement, **how)(flow)
        pool = {"data_format": "channels_last", "dtype": how["dtype"], "name": f"{block}_pool"}
        flow = keras.layers.MaxPooling2D(2, **pool)(flow)
    return flow
