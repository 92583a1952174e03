"""VGG16 features from our path on a cluster beside a bare Keras loop, taken in turns: images a second, memory.

    python benchmarks/vgg16_throughput.py [--workers 1] [--threads 1] [--batch 32] [--precisions float32]

Each worker process of a LocalCluster has a Dask thread; the bare loop runs in as many
processes of its own, alone, with the same number of TensorFlow's threads, and the
two have the processor in turns. Weights are random: how fast they are multiplied does
not depend on them.
"""

from __future__ import annotations

import argparse
import sys
import time
from multiprocessing import get_context
from typing import Any

import numpy as np

#: Blocks a worker in one round, and rounds; an even number, so that each of the two is first as often as the other.
_SIZES = {"float32": (1, 2), "mixed_bfloat16": (4, 4)}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in {"workers": 1, "threads": 1, "batch": 32}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--precisions", nargs="*", default=list(_SIZES), choices=list(_SIZES), help="[both]")
    how = vars(parser.parse_args(arguments))
    found = {precision: measure(precision, **how) for precision in how.pop("precisions")}
    show(found, how)


def measure(precision: str, *, workers: int, threads: int, batch: int) -> dict[str, Any]:
    """Seconds an image of both, a pair a round, and what a worker's memory came to."""
    import dask.array
    import distributed

    blocks, rounds = _SIZES[precision]
    context = get_context("spawn")
    bare = [BareLoop(context, precision, threads, batch, blocks) for _ in range(workers)]
    size = {"n_workers": workers, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None}
    how = {"batch": batch, "precision": precision, "threads": threads}
    shape, chunks = (workers * blocks * batch, 224, 224, 3), (batch, -1, -1, -1)
    with distributed.LocalCluster(**size) as cluster, distributed.Client(cluster) as client:
        pictures = dask.array.random.default_rng(0).normal(0.0, 50.0, shape, chunks=chunks).astype(np.float32)
        pictures = pictures.persist()
        turn(bare)  # both are warm before the first round
        ours(client, pictures, how)
        calls = (lambda: turn(bare), lambda: ours(client, pictures, how))
        pairs = [in_turns(number, *calls) for number in range(rounds)]
        memory = list(client.run(memory_of_process).values())
    for loop in bare:
        loop.stop()
    return {"seconds": np.array(pairs) / shape[0], "memory": memory}


def in_turns(number: int, one: Any, other: Any) -> tuple[Any, Any]:
    """What both took; who is first changes from round to round."""
    if number % 2:
        second = other()
        return one(), second
    return one(), other()


def ours(client: Any, pictures: Any, how: dict[str, Any]) -> tuple[float, float]:
    """Seconds, and the workers' seconds of processor, for all blocks; features stay there, as if written there."""
    import distributed

    from diffdask.io.vgg16_weights import extract_block

    features = pictures.map_blocks(
        extract_block,
        weights="seed:0",
        **how,
        chunks=(pictures.chunks[0], (8192,)),
        drop_axis=(2, 3),
        meta=np.empty((0, 8192), dtype=np.float32),
        token=f"turn-{time.perf_counter_ns()}",  # of another name each time: else Dask knows the answer already
    )
    before = sum(client.run(time.process_time).values())
    start = time.perf_counter()
    features = features.persist(scheduler=client)
    distributed.wait(features)
    seconds = time.perf_counter() - start
    return seconds, sum(client.run(time.process_time).values()) - before


def turn(loops: list[BareLoop]) -> tuple[float, float]:
    start = time.perf_counter()
    for loop in loops:
        loop.pipe.send("go")
    used = sum(loop.pipe.recv() for loop in loops)
    return time.perf_counter() - start, used


class BareLoop:
    """A process with Keras's own VGG16, which predicts its batches when told to."""

    def __init__(self, context: Any, precision: str, threads: int, batch: int, blocks: int):
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=keras_loop, args=(there, precision, threads, batch, blocks), daemon=True)
        self.process.start()

    def stop(self) -> None:
        self.pipe.send("stop")
        self.process.join()


def keras_loop(pipe: Any, policy: str, threads: int, batch: int, blocks: int) -> None:
    """Nothing but Keras: no code of ours."""
    import keras
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    keras.config.set_dtype_policy(policy)
    model = keras.applications.VGG16(weights=None)
    wide = keras.Model(model.input, [model.get_layer(name).output for name in ("fc1", "fc2")])
    pictures = np.random.default_rng(0).normal(0.0, 50.0, (blocks, batch, 224, 224, 3)).astype(np.float32)
    while pipe.recv() == "go":
        before = time.process_time()
        for block in pictures:
            wide.predict_on_batch(block)
        pipe.send(time.process_time() - before)


def memory_of_process() -> tuple[float, float]:
    """(now, at most) GB of this process."""
    import resource

    import psutil

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return psutil.Process().memory_info().rss / 1e9, most / 1e9


def show(found: dict[str, dict[str, Any]], how: dict[str, int]) -> None:
    write = sys.stdout.write
    write(f"{', '.join(f'{name} {value}' for name, value in how.items())}; medians of rounds taken in turns; ")
    write("on a machine that others use, trust the ratio in processor time\n\n")
    write("| precision | bare Keras, images/s | ours, images/s | ours / bare | in processor time | ")
    write("GB a worker, now | at most |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n")
    for precision, one in found.items():
        (bare, _), (our, _) = np.median(one["seconds"], axis=0)
        ratio, used = np.median(one["seconds"][:, 0] / one["seconds"][:, 1], axis=0)
        now, most = (max(values) for values in zip(*one["memory"], strict=True))
        write(f"| {precision} | {1 / bare:.1f} | {1 / our:.1f} | {ratio:.2f} | {used:.2f} | {now:.2f} | {most:.2f} |\n")
    if len(found) < len(_SIZES):
        return
    slow, fast = (np.median(found[precision]["seconds"][:, 1], axis=0) for precision in _SIZES)
    write(f"\nbfloat16 against float32, ours: {slow[0] / fast[0]:.1f} times, in processor time ")
    write(f"{slow[1] / fast[1]:.1f} times\n")


if __name__ == "__main__":
    main(sys.argv[1:])
