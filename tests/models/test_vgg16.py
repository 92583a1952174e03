"""VGG16 beside Keras's own, with the same random weights."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from diffdask.errors import BadParameter, BadWeights
from diffdask.kernels.images import to_vgg_input
from diffdask.models import vgg16_network
from diffdask.models.vgg16 import (
    VGG16Features,
    check_images,
    check_layers,
    digest_layers,
    random_layers,
)
from diffdask.models.vgg16_network import NETWORK

SEED, COUNT, BATCH = 0, 7, 4


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return some_images()


@pytest.fixture(scope="module")
def network() -> VGG16Features:
    return VGG16Features(random_layers(SEED), batch=BATCH)


@pytest.fixture(scope="module")
def features(network: VGG16Features, images: np.ndarray) -> np.ndarray:
    return network.extract(images)


@pytest.fixture(scope="module")
def small_features(images: np.ndarray) -> np.ndarray:
    return VGG16Features(random_layers(SEED), batch=BATCH, precision="mixed_bfloat16").extract(images)


def some_images() -> np.ndarray:
    """Spots and streaks on noise, each picture of its own strength: (n, 224, 224, 3)."""
    rng = np.random.default_rng(1)
    images = rng.normal(0.0, 20.0, (COUNT, 224, 224, 3)).astype(np.float32)
    for number, image in enumerate(images):
        for row, column in rng.integers(0, 200, (5 * number + 1, 2)):
            image[row : row + 20, column : column + 4 + number] += rng.normal(0.0, 60.0, 3)
    return images.astype(np.float32)


def keras_features(images: np.ndarray, policy: str) -> np.ndarray:
    """What Keras's own VGG16 gives."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.applications.VGG16(weights=None)
    finally:
        keras.config.set_dtype_policy(before)
    for name, kernel, bias in random_layers(SEED):
        model.get_layer(name).set_weights([kernel, bias])
    wide = keras.Model(model.input, [model.get_layer(name).output for name in ("fc1", "fc2")])
    return np.concatenate([np.asarray(one, dtype=np.float32) for one in wide.predict_on_batch(images)], axis=1)


def test_features_are_those_of_keras_own_vgg16(features: np.ndarray, images: np.ndarray) -> None:
    expected = keras_features(images, "float32")
    assert features.shape == (COUNT, 8192)
    assert features.dtype == np.float32
    assert 0.2 < (expected > 0).mean() < 0.8  # neither dead nor linear
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6 * expected.max())


def test_bfloat16_changes_neither_direction_nor_rank(features: np.ndarray, small_features: np.ndarray) -> None:
    for columns in (slice(4096), slice(4096, None)):
        full, small = features[:, columns].astype(float), small_features[:, columns].astype(float)
        cosine = (full * small).sum(axis=1) / np.linalg.norm(full, axis=1) / np.linalg.norm(small, axis=1)
        assert (1.0 - cosine).max() < 1e-4
        assert spearmanr(pdist(full), pdist(small)).statistic > 0.999
        assert min(spearmanr(one, other).statistic for one, other in zip(full, small, strict=True)) > 0.998
    assert (features != small_features).any()


def test_weights_held_in_bfloat16_give_what_keras_mixed_bfloat16_gives(
    small_features: np.ndarray, images: np.ndarray
) -> None:
    expected = keras_features(images[:BATCH], "mixed_bfloat16")
    np.testing.assert_allclose(small_features[:BATCH], expected, rtol=2.0**-7, atol=2.0**-9 * expected.max())


def test_the_batch_in_which_a_picture_comes_does_not_matter(
    network: VGG16Features, features: np.ndarray, images: np.ndarray
) -> None:
    turned = network.extract(images[::-1])[::-1]
    alone = network.extract(images[3:4])
    np.testing.assert_allclose(turned, features, rtol=1e-5, atol=1e-6 * features.max())
    np.testing.assert_allclose(alone, features[3:4], rtol=1e-5, atol=1e-6 * features.max())


def test_no_pictures_have_no_features(network: VGG16Features, images: np.ndarray) -> None:
    assert network.extract(images[:0]).shape == (0, 8192)


def test_another_process_gives_the_same_weights_and_features(network: VGG16Features, features: np.ndarray) -> None:
    """With one layer only, which is its part of what both give, and batches of one."""
    script = (
        "import sys, numpy as np\n"
        "from diffdask.models.vgg16 import VGG16Features, random_layers\n"
        "images = np.frombuffer(sys.stdin.buffer.read(), np.float32).reshape(-1, 224, 224, 3)\n"
        f"network = VGG16Features(random_layers({SEED}), batch=1, layers=['fc2'])\n"
        "sys.stdout.buffer.write(network.digest.encode() + network.extract(images).tobytes())"
    )
    sent = some_images()[:1].tobytes()
    done = subprocess.run([sys.executable, "-c", script], input=sent, capture_output=True, check=True)
    assert done.stdout[:64].decode() == network.digest
    there = np.frombuffer(done.stdout[64:], np.float32).reshape(1, 4096)
    # a batch of one goes through other code of the backend, which rounds otherwise
    np.testing.assert_allclose(there, features[:1, 4096:], rtol=1e-5, atol=1e-5 * features.max())


def test_the_digest_is_that_of_the_weights_alone(network: VGG16Features) -> None:
    assert network.digest == digest_layers(random_layers(SEED))
    assert network.weights == "arrays of the caller"


def test_random_layers_keep_the_spread_of_what_goes_through_them() -> None:
    name, kernel, bias = next(random_layers(3))
    assert name == "block1_conv1"
    assert kernel.var() == pytest.approx(2.0 / 27.0, rel=0.1)  # He: 2 over the inputs
    assert not bias.any()
    assert not np.array_equal(kernel, next(random_layers(4)).kernel)


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        (np.zeros((2, 224, 224), np.float32), r"\(n, 224, 224, 3\), got \(2, 224, 224\)"),
        (np.zeros((2, 3, 224, 224), np.float32), r"got \(2, 3, 224, 224\)"),
        (np.zeros((2, 224, 224, 3), np.uint8), "float32.*uint8.*to_vgg_input"),
        (np.zeros((2, 224, 224, 3), np.float64), "float32.*float64"),
        ([[1.0]], "got None"),
    ],
)
def test_pictures_of_another_shape_or_type_are_refused(spoilt: Any, says: str) -> None:
    with pytest.raises(BadParameter, match=says):
        check_images(spoilt)


def test_pictures_with_gaps_are_refused(network: VGG16Features) -> None:
    images = some_images()
    images[2, 5, 5, 0] = np.nan
    images[4, 0, 0, 2] = np.inf
    with pytest.raises(BadParameter, match=r"2 of 7 pictures .* first is picture 2"):
        network.extract(images)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": ("fc3",)}, "layer 'fc3'.*did you mean 'fc"),
        ({"layers": ()}, "at least one"),
        ({"layers": ("fc1", "fc1")}, "each once"),
        ({"precision": "bfloat16"}, "precision 'bfloat16' is not known; did you mean 'mixed_bfloat16'"),
        ({"batch": 0}, "batch = 0"),
        ({"batch": 2.5}, "batch = 2.5"),
        ({"threads": 0}, "threads = 0"),
    ],
)
def test_a_parameter_that_is_not_known_is_told_before_any_weight_is_read(options: dict[str, Any], says: str) -> None:
    def read() -> Iterator[Any]:
        raise AssertionError("a weight was read")
        yield

    with pytest.raises(BadParameter, match=says):
        VGG16Features(read(), **options)


def test_pictures_are_prepared_as_keras_prepares_them() -> None:
    import keras

    pictures = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    prepared = to_vgg_input(pictures)
    check_images(prepared)
    expected = keras.applications.vgg16.preprocess_input(pictures.astype(np.float32))
    np.testing.assert_array_equal(prepared, expected)
    grey = to_vgg_input(pictures[..., :1])
    np.testing.assert_array_equal(grey, to_vgg_input(np.repeat(pictures[..., :1], 3, axis=3)))


def test_one_layer_may_be_given_by_its_name() -> None:
    assert check_layers("fc2") == ("fc2",)


def first_layers(count: int) -> list[Any]:
    return [layer for layer, _ in zip(random_layers(SEED), range(count), strict=False)]


def test_weights_of_another_shape_are_refused() -> None:
    layers = first_layers(2)
    with pytest.raises(BadWeights, match=r"'block1_conv2' has a kernel of .*expected"):
        digest_layers([layers[0], layers[1]._replace(kernel=layers[1].kernel[..., :32])])


def test_weights_that_end_early_or_come_in_another_order_are_refused() -> None:
    layers = first_layers(3)
    with pytest.raises(BadWeights, match=r"weights of block2_conv2, .*fc2 are missing"):
        digest_layers(layers)
    with pytest.raises(BadWeights, match="'block2_conv1' came where 'block1_conv2' belongs"):
        digest_layers([layers[0], layers[2]])


@pytest.mark.parametrize(("value", "says"), [(np.nan, "not all finite"), (np.inf, "not all finite"), (0.0, "all zero")])
def test_damaged_weights_are_refused(value: float, says: str) -> None:
    (layer,) = first_layers(1)
    layer.kernel[...] = value
    with pytest.raises(BadWeights, match=says):
        digest_layers([layer])


def test_the_network_has_as_many_weights_as_the_paper_says() -> None:
    assert sum(np.prod(shape) + shape[-1] for shape in NETWORK.values()) == 138_357_544 - 4_097_000  # less the classes


def test_tensorflow_is_named_where_its_threads_are_set_and_nowhere_else() -> None:
    package = Path(vgg16_network.__file__).parents[1]
    users = {
        (path.name, function.name)
        for path in package.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef) and "tensorflow" in imported(function)
    }
    assert users == {("vgg16_network.py", "_set_tensorflow_threads")}


def imported(node: ast.AST) -> set[str]:
    found = {a.name.split(".")[0] for one in ast.walk(node) if isinstance(one, ast.Import) for a in one.names}
    return found | {(one.module or "").split(".")[0] for one in ast.walk(node) if isinstance(one, ast.ImportFrom)}
