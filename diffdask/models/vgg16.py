"""VGG16 without its last layer: features of pictures, computed through Keras.

Where weights come from is no matter of this module: they arrive layer by layer
(:mod:`diffdask.io.vgg16_weights` reads them), so that beside the network never
more than one layer is in memory.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from diffdask.errors import BadParameter, BadWeights, nearest
from diffdask.models.vgg16_network import CHANNELS, FEATURE_LAYERS, NETWORK, SIDE, build_network, import_keras

#: Keras's dtype policy behind each precision. Weights are held in bfloat16 where they are used so: Keras's own
#: mixed_bfloat16 holds them in float32 and casts all 134 million for every batch, to the same numbers.
_POLICIES = {"float32": "float32", "mixed_bfloat16": "bfloat16"}


class LayerWeights(NamedTuple):
    """Weights of one layer."""

    name: str  #: as in ``NETWORK``
    kernel: np.ndarray  #: of the shape that ``NETWORK`` says
    bias: np.ndarray  #: (out,)


class VGG16Features:
    """Outputs of VGG16's wide layers, for pictures.

    Parameters
    ----------
    weights
        Layers of ``NETWORK``, in its order, each taken only when it is needed.
    layers
        Whose outputs (after their ReLU) become features, side by side: "fc1", "fc2".
    batch
        Pictures computed at once. Smaller batches are filled up with blanks, so that
        there is one compiled function.
    precision
        "float32", or "mixed_bfloat16": products of bfloat16 numbers summed in float32, six times as
        fast on processors with AMX. Features are float32 either way.
    threads
        Threads of TensorFlow in this process; only the first network built has a say.
    source
        What to call the weights wherever a result is shown.

    Attributes
    ----------
    weights : str
        The ``source`` given.
    digest : str
        SHA-256 of the weights; see :func:`digest_layers`.
    feature_count : int
        Numbers a picture.

    Raises
    ------
    BadParameter
        If a parameter is not known.
    BadWeights
        If the weights are not those of a VGG16.

    Notes
    -----
    One picture is computed at a time by one thread of Python, whoever calls: TensorFlow has its own
    threads, and two batches at once would take twice the memory.

    References
    ----------
    Simonyan and Zisserman, arXiv:1409.1556, configuration D.
    """

    def __init__(
        self,
        weights: Iterable[LayerWeights],
        *,
        layers: Sequence[str] = FEATURE_LAYERS,
        batch: int = 32,
        precision: str = "float32",
        threads: int = 1,
        source: str = "arrays of the caller",
    ):
        self.layers = check_layers(layers)
        self.batch = _check_count("batch", batch)
        self.precision = check_precision(precision)
        self.weights = source
        self.feature_count = count_features(layers)
        self._lock = threading.Lock()
        keras = import_keras(_check_count("threads", threads))
        self._model = build_network(keras, self.layers, _POLICIES[precision])
        self.digest = _fill(self._model, weights)

    def extract(self, images: np.ndarray) -> np.ndarray:
        """Compute the features of pictures.

        Parameters
        ----------
        images
            (n, 224, 224, 3) float32, rows from the top, as :func:`diffdask.kernels.images.to_vgg_input` gives
            it: channels blue, green, red, each less ImageNet's mean.

        Returns
        -------
        ndarray
            (n, feature_count) float32.

        Raises
        ------
        BadParameter
            If the pictures have another shape or type, or pixels that are not finite.
        """
        check_images(images)
        found = np.empty((len(images), self.feature_count), dtype=np.float32)
        with self._lock:
            for start in range(0, len(images), self.batch):
                part = images[start : start + self.batch]
                outputs = self._model.predict_on_batch(_fill_up(part, self.batch))
                found[start : start + len(part)] = outputs[: len(part)]
        return found


def random_layers(seed: int) -> Iterator[LayerWeights]:
    """Give He's uniform random weights, layer by layer, and no biases: for tests.

    The same numbers in every process and on every machine.

    References
    ----------
    He et al., arXiv:1502.01852.
    """
    for number, (name, shape) in enumerate(NETWORK.items()):
        limit = np.float32(np.sqrt(6.0 / np.prod(shape[:-1])))
        kernel = np.random.default_rng([seed, number]).random(shape, dtype=np.float32)
        kernel -= np.float32(0.5)
        kernel *= np.float32(2.0) * limit
        yield LayerWeights(name, kernel, np.zeros(shape[-1], dtype=np.float32))


def digest_layers(weights: Iterable[LayerWeights]) -> str:
    """SHA-256 of weights: of each layer's name, kernel and bias as little-endian float32, in the network's order.

    The last layer, which names ImageNet's classes, has no part in it: no feature depends on it.

    Raises
    ------
    BadWeights
        If the weights are not those of a VGG16.
    """
    digest = hashlib.sha256()
    for layer in _checked(weights):
        _absorb(digest, layer)
    return digest.hexdigest()


def check_layer(name: str, kernel: tuple[int, ...], bias: tuple[int, ...]) -> None:
    """Check that shapes are those of a layer of VGG16.

    Raises
    ------
    BadWeights
        If they are not.
    """
    expected = NETWORK[name]
    if tuple(kernel) != expected or tuple(bias) != expected[-1:]:
        raise BadWeights(
            f"layer '{name}' has a kernel of {tuple(kernel)} and a bias of {tuple(bias)}, expected {expected} and "
            f"{expected[-1:]}: these are not weights of VGG16 with its fully connected layers"
        )


def check_images(images: np.ndarray) -> None:
    """Check that pictures are what VGG16 takes.

    Raises
    ------
    BadParameter
        If they are not.
    """
    shape, dtype = getattr(images, "shape", None), getattr(images, "dtype", None)
    if shape is None or len(shape) != 4 or shape[1:] != (SIDE, SIDE, CHANNELS):
        raise BadParameter(f"VGG16 takes pictures of (n, {SIDE}, {SIDE}, {CHANNELS}), got {shape}")
    if dtype != np.float32:
        raise BadParameter(
            f"VGG16 takes pictures of float32, less ImageNet's mean of each channel; got {dtype}: if they are "
            "bytes, put them through diffdask.kernels.images.to_vgg_input"
        )
    spoilt = [number for number, image in enumerate(images) if not np.isfinite(image).all()]
    if spoilt:
        raise BadParameter(
            f"{len(spoilt)} of {len(images)} pictures have pixels that are not finite, the first is picture "
            f"{spoilt[0]}; fill their gaps first"
        )


def check_layers(layers: Sequence[str]) -> tuple[str, ...]:
    """Check names of feature layers; :class:`BadParameter` if one is not known, there twice, or there is none."""
    layers = (layers,) if isinstance(layers, str) else tuple(layers)
    for name in layers:
        if name not in FEATURE_LAYERS:
            raise BadParameter(f"layer '{name}' of VGG16 cannot be features; {nearest(name, FEATURE_LAYERS)}")
    if not layers or len(set(layers)) < len(layers):
        raise BadParameter(f"layers = {layers}: name at least one of {', '.join(FEATURE_LAYERS)}, each once")
    return layers


def check_precision(precision: str) -> str:
    """Check a precision; :class:`BadParameter` if it is not known."""
    if precision not in _POLICIES:
        raise BadParameter(f"precision '{precision}' is not known; {nearest(str(precision), _POLICIES)}")
    return precision


def count_features(layers: Sequence[str]) -> int:
    """Count the features that these layers give."""
    return sum(NETWORK[name][-1] for name in check_layers(layers))


def _check_count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise BadParameter(f"{name} = {value!r} must be a whole number of at least 1")
    return int(value)


def _fill_up(part: np.ndarray, batch: int) -> np.ndarray:
    """The pictures, and blanks after them up to the size of a batch."""
    if len(part) == batch:
        return part
    filled = np.zeros((batch, *part.shape[1:]), dtype=part.dtype)
    filled[: len(part)] = part
    return filled


# weights ---------------------------------------------------------------------------------------------------


def _fill(model: Any, weights: Iterable[LayerWeights]) -> str:
    """Put weights into the network; give their digest."""
    digest = hashlib.sha256()
    used = {layer.name for layer in model.layers}
    for layer in _checked(weights):
        _absorb(digest, layer)
        if layer.name in used:
            model.get_layer(layer.name).set_weights([layer.kernel, layer.bias])
    return digest.hexdigest()


def _checked(weights: Iterable[LayerWeights]) -> Iterator[LayerWeights]:
    """The layers as float32, each of them looked at, none missing."""
    expected = iter(NETWORK)
    for name, kernel, bias in weights:
        wanted = next(expected, None)
        if name != wanted:
            raise BadWeights(f"layer '{name}' came where '{wanted}' belongs; VGG16 has: {', '.join(NETWORK)}")
        check_layer(name, kernel.shape, bias.shape)
        kernel, bias = np.ascontiguousarray(kernel, dtype="<f4"), np.ascontiguousarray(bias, dtype="<f4")
        if not all(np.isfinite(one) for one in (kernel.min(), kernel.max(), bias.min(), bias.max())):
            raise BadWeights(f"weights of layer '{name}' are not all finite; the file is damaged, fetch it again")
        if not kernel.any():
            raise BadWeights(f"weights of layer '{name}' are all zero; the file is damaged, fetch it again")
        yield LayerWeights(name, kernel, bias)
    missing = list(expected)
    if missing:
        raise BadWeights(f"weights of {', '.join(missing)} are missing; VGG16 has: {', '.join(NETWORK)}")


def _absorb(digest: Any, layer: LayerWeights) -> None:
    digest.update(f"{layer.name}{layer.kernel.shape}".encode())
    digest.update(layer.kernel.data)
    digest.update(layer.bias.data)
