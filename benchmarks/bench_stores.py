"""From Zarr: screening all blocks of a store beside only decoding them, on one worker and on two."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from conftest import FRAMES, Campaign

from diffdask.cluster import run_blocks
from diffdask.io.results_store import open_unfinished
from diffdask.pipeline import screen as pipeline
from diffdask.planning import blocks_of

GROUP = "From Zarr, 64 CSPAD frames in blocks of 16, one thread a worker process"

BLOCK_FRAMES = 16

#: The store is gone through so often in one round: sixteen blocks, so that beginning and ending count for little.
_TURNS = 4


def bench_decode(beside: Any, campaign: Campaign, clients: dict[int, Any]) -> None:
    beside(decode(campaign, clients[1]), **described("decode only, one worker"))


def bench_decode_frame_by_frame(beside: Any, campaign: Campaign, clients: dict[int, Any]) -> None:
    call, reference = decode(campaign, clients[1], at_a_time=1), decode(campaign, clients[1])
    beside(call, reference, **described("decode only, a frame at a time, one worker"))


def bench_screen(beside: Any, campaign: Campaign, clients: dict[int, Any]) -> None:
    words = "at least half the frame rate of decoding"
    call, reference = screen(campaign, clients[1]), decode(campaign, clients[1])
    beside(call, reference, asked=2.0, words=words, **described("screen, one worker"))


def bench_decode_on_two(beside: Any, campaign: Campaign, clients: dict[int, Any]) -> None:
    call, reference = decode(campaign, clients[2]), decode(campaign, clients[1])
    beside(call, reference, **described("decode only, two workers"))


def bench_screen_on_two(beside: Any, campaign: Campaign, clients: dict[int, Any]) -> None:
    words = "at least 1.8 times the frame rate of one worker"
    call, reference = screen(campaign, clients[2]), screen(campaign, clients[1])
    name = "screen, two workers (ratio to screen on one)"
    beside(call, reference, asked=1 / 1.8, words=words, **described(name))


def described(name: str) -> dict[str, Any]:
    return {"group": GROUP, "name": name, "rounds": 11, "frames_per_call": FRAMES * _TURNS}


def decode(campaign: Campaign, client: Any, *, at_a_time: int = BLOCK_FRAMES) -> Callable[[], None]:
    """Only read and decompress the blocks, with nothing of ours around it.

    A whole block comes in memory that is new each time; a few frames at a time cost less.
    """

    def read(block: tuple[int, int], *, frames: str) -> None:  # local: it is sent to workers by value
        import zarr

        adu = zarr.open_array(f"{frames}/adu", mode="r")
        for start in range(block[0], block[1], at_a_time):
            adu[start : start + at_a_time]

    return _over_all_blocks(client, functools.partial(read, frames=str(campaign.frames)))


def screen(campaign: Campaign, client: Any) -> Callable[[], None]:
    """What workers do in the verb ``screen``: read, screen, write and mark."""
    paths = {"frames": str(campaign.frames), "results": str(campaign.results)}
    of_group = open_unfinished(campaign.results, "screen").attrs
    given = {"made": of_group["made"], "how": of_group["parameters"], "min_peaks": 5}
    return _over_all_blocks(client, functools.partial(pipeline._screen_block, **paths, **given))


def _over_all_blocks(client: Any, task: Callable[[Any], None]) -> Callable[[], None]:
    blocks = list(blocks_of(FRAMES, BLOCK_FRAMES)) * _TURNS

    def run() -> None:
        for _ in run_blocks(client, task, blocks):
            pass

    return run
