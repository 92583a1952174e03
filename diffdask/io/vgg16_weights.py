"""Weights of VGG16: where they are, how they are read, and the network of a process.

Weights are named by a word: "imagenet" (Keras's own file), the path of a file,
or "seed:0" (random ones, for tests). :func:`find_weights` turns the word into
one that means the same on every worker; :func:`extract_block` is what a worker
runs, with that word and never with the weights themselves.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffdask.errors import BadParameter, BadWeights
from diffdask.io.vgg16_files import read_weights_file
from diffdask.models.vgg16 import (
    FEATURE_LAYERS,
    LayerWeights,
    VGG16Features,
    check_layers,
    check_precision,
    count_features,
    digest_layers,
    random_layers,
)

_log = logging.getLogger(__name__)

#: Keras's file of ImageNet's weights, 553 MB, as keras/src/applications/vgg16.py says.
IMAGENET_FILE = "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
IMAGENET_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg16/{IMAGENET_FILE}"
IMAGENET_MD5 = "64373286793e3c8b2b4e3219cbf3544b"

#: Seconds to wait for the server before saying that there is no network.
_PATIENCE = 10.0

_SEED = re.compile(r"^seed:(\d+)$")


def find_weights(weights: str | Path) -> str:
    """Find weights, downloading ImageNet's if need be, and name them so that every worker understands.

    Parameters
    ----------
    weights
        "imagenet", the path of a file, or "seed:" and a number.

    Returns
    -------
    str
        An absolute path, or "seed:" and the number: what the other functions of this module take.

    Raises
    ------
    BadWeights
        If there is no such file; if ImageNet's are not in Keras's cache and cannot be fetched.
    """
    weights = str(weights)
    if _SEED.match(weights):
        return weights
    if weights == "imagenet":
        return str(_find_imagenet())
    if weights.startswith("seed"):
        raise BadParameter(f"weights '{weights}' are no seed; write seed:0")
    path = Path(weights).expanduser()
    if not path.is_file():
        raise BadWeights(
            f"no weights at '{weights}' on {socket.gethostname()}; give 'imagenet', a file (.h5 or .weights.h5 of "
            "Keras, vgg16.npy of the TensorFlow ports) or, for tests, seed:0"
        )
    return str(path.absolute())


def describe_weights(found: str) -> str:
    """Say what weights are, for wherever a result is shown."""
    if seed := _SEED.match(found):
        return f"random, seed {seed[1]} (for tests only)"
    return f"ImageNet, {IMAGENET_FILE}" if Path(found).name == IMAGENET_FILE else f"file {Path(found).name}"


def digest_weights(found: str) -> str:
    """SHA-256 of weights that were found, to stamp features with; takes about a second and no Keras.

    Raises
    ------
    BadWeights
        If the file is not one of VGG16's weights.
    """
    with _naming(found):
        return digest_layers(read_weights(found))


def read_weights(found: str) -> Iterator[LayerWeights]:
    """Read weights layer by layer.

    Parameters
    ----------
    found
        From :func:`find_weights`.

    Raises
    ------
    BadWeights
        If the file is truncated, of another network, or of no kind that is known.
    """
    if seed := _SEED.match(found):
        return random_layers(int(seed[1]))
    _state_of(found)  # says so if it is not there
    return read_weights_file(found)


# the network of a process ----------------------------------------------------------------------------------

_building = threading.Lock()
_built: dict[tuple[Any, ...], VGG16Features] = {}


def load_vgg16(
    found: str,
    *,
    layers: Sequence[str] = FEATURE_LAYERS,
    batch: int = 32,
    precision: str = "float32",
    threads: int = 1,
    digest: str | None = None,
) -> VGG16Features:
    """Give this process's network, built when it is first asked for.

    Only the last network built is kept, so that what a worker needs is known: see :class:`VGG16Features` for the
    parameters.

    Parameters
    ----------
    found
        From :func:`find_weights`.
    digest
        What :func:`digest_weights` said elsewhere: another machine may have another file at the same path.

    Raises
    ------
    BadParameter
        If a parameter is not known.
    BadWeights
        If the weights cannot be used, or have another digest.
    """
    layers, precision = check_layers(layers), check_precision(precision)
    key = (found, _state_of(found), layers, batch, precision, threads)
    with _building:
        if key not in _built:
            source = describe_weights(found)
            if source.startswith("random"):
                _log.warning("VGG16 has weights that are %s: its features mean nothing about pictures", source)
            _built.clear()  # before the next is built: two would not fit
            with _naming(found):
                _built[key] = VGG16Features(
                    read_weights(found), layers=layers, batch=batch, precision=precision, threads=threads, source=source
                )
        network = _built[key]
    if digest is not None and digest != network.digest:
        raise BadWeights(
            f"weights '{found}' on {socket.gethostname()} have the digest {network.digest[:16]}, expected "
            f"{digest[:16]}: put the same file on every machine"
        )
    return network


def extract_block(
    images: np.ndarray,
    *,
    weights: str,
    layers: Sequence[str] = FEATURE_LAYERS,
    batch: int = 32,
    precision: str = "float32",
    threads: int = 1,
    digest: str | None = None,
) -> np.ndarray:
    """Features of a block of pictures, by this process's network: for ``dask.array.map_blocks``.

    Parameters
    ----------
    images
        (b, 224, 224, 3) float32; see :meth:`VGG16Features.extract`.
    weights
        From :func:`find_weights`; the others as in :func:`load_vgg16`.

    Returns
    -------
    ndarray
        (b, features) float32.

    Examples
    --------
    >>> import dask.array
    >>> images = dask.array.zeros((100, 224, 224, 3), dtype="float32", chunks=(32, -1, -1, -1))
    >>> features = images.map_blocks(
    ...     extract_block,
    ...     weights=find_weights("seed:0"),
    ...     chunks=(images.chunks[0], (8192,)),
    ...     drop_axis=(2, 3),
    ...     meta=np.empty((0, 8192), dtype=np.float32),
    ... )
    >>> features
    dask.array<extract_block, shape=(100, 8192), dtype=float32, chunksize=(32, 8192), chunktype=numpy.ndarray>
    """
    if len(images) == 0:  # Dask asks for the features of nothing to learn their type
        return np.empty((0, count_features(layers)), dtype=np.float32)
    how: dict[str, Any] = {"layers": layers, "batch": batch, "precision": precision, "threads": threads}
    return load_vgg16(weights, digest=digest, **how).extract(images)


@contextlib.contextmanager
def _naming(found: str) -> Iterator[None]:
    """Say which weights an error is about."""
    try:
        yield
    except BadWeights as error:
        if found in str(error):
            raise
        raise BadWeights(f"weights '{found}': {error}") from error


def _state_of(found: str) -> tuple[int, int]:
    """What changes when a file is replaced."""
    if _SEED.match(found):
        return 0, 0
    try:
        status = os.stat(found)
    except OSError as error:
        raise BadWeights(f"weights '{found}' cannot be read on {socket.gethostname()}: {error}") from error
    return status.st_mtime_ns, status.st_size


# ImageNet's ------------------------------------------------------------------------------------------------


def _find_imagenet() -> Path:
    """Keras's file in its cache, downloaded by Keras if it is not there."""
    cached = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models" / IMAGENET_FILE
    if cached.is_file():
        md5 = _md5_of(cached)
        if md5 == IMAGENET_MD5:
            return cached
        problem = f"the file at '{cached}' has the MD5 {md5}: it is damaged or of another network"
    else:
        problem = f"there is nothing at '{cached}'"
    try:  # before Keras is imported, which takes seconds
        with urllib.request.urlopen(urllib.request.Request(IMAGENET_URL, method="HEAD"), timeout=_PATIENCE):
            pass
    except OSError as error:
        raise BadWeights(
            f"ImageNet's weights of VGG16 cannot be had: {problem}, and the server cannot be reached from here "
            f"({error}). Where there is a network, fetch {IMAGENET_URL} (553 MB, MD5 {IMAGENET_MD5}) and put it at "
            f"'{cached}', or give its path as the weights"
        ) from error
    import keras

    how = {"cache_subdir": "models", "file_hash": IMAGENET_MD5}
    return Path(keras.utils.get_file(IMAGENET_FILE, IMAGENET_URL, **how))


def _md5_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
