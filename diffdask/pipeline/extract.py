"""The verb ``extract``: pictures of hits, and what VGG16 sees in them.

Two groups of the results store are made: ``images`` (pictures, in bytes) and
``vgg16`` (features). Both are written block by block before anything is fitted.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffdask.cluster import connect
from diffdask.errors import BadParameter, BadStore
from diffdask.io.marks import mark_block
from diffdask.io.paths import absolute, as_store
from diffdask.io.results_store import (
    check_made,
    finish_group,
    open_features,
    open_unfinished,
    remove_group,
    stamp_of,
    start_group,
    write_rows,
)
from diffdask.io.vgg16_weights import describe_weights, digest_weights, extract_block, find_weights
from diffdask.kernels.images import to_vgg_input
from diffdask.models.vgg16 import check_layers, check_precision, count_features
from diffdask.models.vgg16_network import FEATURE_LAYERS, SIDE
from diffdask.pipeline import hit_images
from diffdask.pipeline.blocks import Marks, run_marked
from diffdask.planning import Block, blocks_of
from diffdask.variables import wrap

GROUP = "vgg16"

#: In place of weights: draw only.
_NO_WEIGHTS = "none"

_log = logging.getLogger(__name__)


def extract(
    results: str | Path,
    *,
    weights: str = "imagenet",
    content: str = "residual",
    cleaned: bool = False,
    normalise: str = "ring",
    size: int = SIDE,
    layers: Sequence[str] = FEATURE_LAYERS,
    batch: int = 32,
    precision: str = "float32",
    overwrite: bool = False,
    on: Any = None,
    progress: bool = True,
) -> str | Path:
    """Draw a picture of every hit, background and Bragg peaks left out, and find its features by VGG16.

    ``train --features vgg16`` learns from them. Running it again goes on where it stopped, and adds new hits.

    Parameters
    ----------
    results
        The results store, screened.
    weights
        "imagenet" (fetched by Keras, 553 MB, if they are not in its cache), a file (.h5 or .weights.h5 of Keras,
        vgg16.npy of the TensorFlow ports), or "seed:0" for random ones, for tests only. "none" draws pictures only.
    content
        What pictures show: "residual", "significance" (the residual over its counting noise), "polar" (the polar
        residual, azimuth to the right), "three-channels" (red the residual, green the significance of 5 x 5 cells,
        blue the agreement of neighbouring polar bins).
    cleaned
        Take out what the run shares: shadows, gain, ice that stays.
    normalise
        What has its median taken off and is put to unit spread: each "ring", the whole "frame", or "none".
    size
        Rows and columns; VGG16 takes 224.
    layers
        Whose outputs are the features: "fc1", "fc2".
    batch
        Pictures that a worker computes at once. With 32 it needs 2.5 GB, TensorFlow itself included.
    precision
        "float32" or "mixed_bfloat16", which is much faster on processors with AMX.
    overwrite
        Throw away pictures and features that were made with other parameters.
    on
        Where to run: "laptop", a scheduler's address, or a file of deploy/.
    progress
        Show bars on the terminal.

    Returns
    -------
    pathlib.Path or str
        The results store: a path, or a URL.

    Raises
    ------
    BadParameter
        If a parameter is not known or makes no sense.
    BadWeights
        If there are no such weights; says what to fetch, and where to put it.
    BadStore
        If there are no features of hits yet, or pictures were made with other parameters.
    """
    results = as_store(results)
    numbers = open_features(results).hit_frame.values
    drawing = {"content": content, "cleaned": cleaned, "normalise": normalise, "size": size}
    network = {"layers": list(check_layers(layers)), "batch": batch, "precision": precision}
    found = _find_network(weights, size, network)
    hit_images.check_drawing(results, drawing)
    how = {**drawing, **network, **_describe(found)} if found else None
    _check_stamps(results, drawing, how, overwrite=overwrite)
    with connect(on) as client:
        hit_images.draw_images(client, results, numbers, drawing, progress=progress)
        if how:
            _find_features(client, results, numbers, found, how, progress=progress)
    return results


def _find_network(weights: str, size: int, network: dict[str, Any]) -> str:
    """Check what the network is to be and find its weights; "" for none."""
    check_precision(network["precision"])
    if network["batch"] < 1:
        raise BadParameter(f"batch = {network['batch']} must be at least 1")
    if weights == _NO_WEIGHTS:
        return ""
    if size != SIDE:
        raise BadParameter(
            f"size = {size}: VGG16 takes pictures of {SIDE} x {SIDE}; others can only be drawn, with weights 'none'"
        )
    return find_weights(weights)


def _describe(found: str) -> dict[str, str]:
    told = describe_weights(found)
    if told.startswith("random"):
        _log.warning("VGG16 has weights that are %s: results from its features say nothing of VGG16", told)
    return {"weights": told, "digest": digest_weights(found)}


def _check_stamps(results: str | Path, drawing: dict[str, Any], how: dict[str, Any] | None, *, overwrite: bool) -> None:
    """Refuse groups of other parameters before any work, or remove them; features go with their pictures."""
    for group, wanted in ((hit_images.GROUP, drawing), (GROUP, how)):
        if wanted is None:
            continue
        try:
            stamp_of(results, group, wanted)
        except BadStore:
            if not overwrite:
                raise
            remove_group(results, group)
            remove_group(results, GROUP)


def _find_features(
    client: Any, results: str | Path, numbers: Any, found: str, how: dict[str, Any], *, progress: bool
) -> None:
    made = start_group(
        results,
        GROUP,
        sizes={"hit": numbers.size, "vgg16_feature": count_features(how["layers"])},
        names=("hit_frame", "vgg16_features"),
        block=how["batch"],
        parameters=how,
    )
    threads = max(client.nthreads().values())  # all of a worker's: a process computes one batch at a time
    taken_out = hit_images.digest_taken_out(results, how)
    task = functools.partial(
        _find_block, results=absolute(results), made=made, found=found, how=how, threads=threads, taken_out=taken_out
    )
    blocks, done = blocks_of(numbers.size, how["batch"]), hit_images.still_true(results, GROUP, numbers, taken_out)
    marks = Marks(absolute(results), GROUP)
    run_marked(client, task, blocks, done, what="VGG16", unit="hit", progress=progress, marks=marks)
    finish_group(results, GROUP, weights=how["weights"])


def _find_block(
    block: Block, *, results: str, made: str, found: str, how: dict[str, Any], threads: int, taken_out: str
) -> None:
    """Read, put through the network, write and mark one block of pictures: what a worker does."""
    drawn = open_unfinished(results, hit_images.GROUP).isel(hit=slice(*block)).load()
    features = extract_block(
        to_vgg_input(drawn.hit_image.values),
        weights=found,
        threads=threads,
        **{name: how[name] for name in ("digest", "layers", "batch", "precision")},
    )
    numbers = drawn.hit_frame.values
    write_rows(results, GROUP, block[0], wrap(vgg16_features=features, hit_frame=numbers), made=made)
    check_made(results, GROUP, made)
    mark_block(results, GROUP, block, note=hit_images.note_of(numbers, taken_out))
