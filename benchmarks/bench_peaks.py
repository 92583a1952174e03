"""Peak finding beside OM's peakfinder8 on the same simulated hits: time, planted peaks found, false peaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from bench_kernels import AZIMUTHS, PEAKS, RINGS
from conftest import Campaign

from diffdask.geometry import pixel_positions
from diffdask.io.crystfel_geometry import GeometryFile, file_frame_shape, put_panels
from diffdask.io.frames_store import open_frames, read_layout, take_frames
from diffdask.io.labels import read_labels
from diffdask.pipeline.layout import load_layout
from diffdask.pixels import photons_per_adu
from diffdask.simulate import SimulatedFrame, make_experiment, plan_campaign, plan_run, simulate_frame
from diffdask.steps import peaks
from diffdask.steps.screening import screening_parameters

GROUP = "Peaks of {} simulated hits, one frame after the other, one thread"

HITS = 6

#: A peak found this near to a spot, in pixels, is that spot.
_NEAR = 2.0

#: Spots that stand out by so much may be found and are not false; only ``is_peak`` ones (seven times) are asked for.
_SEEN = 3.0


class Hits(NamedTuple):
    """Simulated hits, with their spots."""

    truth: list[SimulatedFrame]
    adu: np.ndarray  #: (hit, panel, ss, fs)
    gain: np.ndarray  #: (hit, panel)
    setting: np.ndarray  #: (hit,)
    results: Any  #: path
    layout: GeometryFile
    camera_length: float


@pytest.fixture(scope="module")
def hits(campaign: Campaign) -> Hits:
    labels = read_labels(campaign.simulated / "labels.csv", open_frames(campaign.frames).frame_id.values)
    numbers = [int(number) for number in labels.index[labels != "blank"][:HITS]]
    planned = plan_campaign(make_experiment(5), frames=len(labels), runs=2)
    plans = [plan for run in (1, 2) for plan in plan_run(planned, run)]
    ds = take_frames(campaign.frames, numbers)
    truth = [simulate_frame(planned, plans[number]) for number in numbers]
    for position, frame in enumerate(truth):
        if not np.array_equal(frame.adu, ds.adu.values[position]):
            pytest.fail(f"frame {numbers[position]} of the store is not the one simulated anew")
    layout, _ = load_layout(campaign.results)
    file = read_layout(campaign.frames)
    return Hits(
        truth=truth,
        adu=ds.adu.values,
        gain=photons_per_adu(file.geometry, ds.photon_energy.values),
        setting=layout.frame_setting.values[numbers],
        results=campaign.results,
        layout=file,
        camera_length=float(ds.camera_length[0]),
    )


Found = list[tuple[np.ndarray, np.ndarray]]  #: of each hit: where in the file's array, (n,) fs and ss


def bench_peakfinder8(beside: Any, hits: Hits) -> None:
    peakfinder = om_peakfinder(hits, snr=PEAKS["snr"])
    if peakfinder is None:
        pytest.skip("ondamonitor is not installed: pip install 'diffdask[bench]'")
    measure(beside, hits, peakfinder, None, "OM peakfinder8, snr 6")


def bench_peakfinder8_lower(beside: Any, hits: Hits) -> None:
    peakfinder = om_peakfinder(hits, snr=5.0)
    if peakfinder is None:
        pytest.skip("ondamonitor is not installed: pip install 'diffdask[bench]'")
    measure(beside, hits, peakfinder, om_peakfinder(hits, snr=PEAKS["snr"]), "OM peakfinder8, snr 5")


def bench_ours(beside: Any, hits: Hits) -> None:
    _, pixels = load_layout(hits.results)
    how = screening_parameters(common_mode="zero-peak", clip_low=5.0, clip_high=5.0, clip_passes=3, **PEAKS)

    def find() -> Found:
        count, panel, ss, fs, *_ = peaks._peaks_block(
            hits.adu, hits.setting, hits.gain, pixels=pixels, cells=(RINGS, AZIMUTHS), how=how
        )
        listed = [np.arange(panel.shape[1]) < n for n in count]
        first_fs, first_ss = hits.layout.first_fs, hits.layout.first_ss
        return [
            (fs[k, use] + first_fs[panel[k, use]], ss[k, use] + first_ss[panel[k, use]]) for k, use in enumerate(listed)
        ]

    measure(beside, hits, find, om_peakfinder(hits, snr=PEAKS["snr"]), "diffdask, snr 6, with all of the screen")


def measure(
    beside: Any, hits: Hits, find: Callable[[], Found], reference: Callable[[], Found] | None, name: str
) -> None:
    recall, false = score(hits, find())
    found = {"planted peaks found": f"{recall:.3f}", "false peaks a frame": f"{false:.1f}"}
    beside(find, reference, group=GROUP.format(HITS), name=name, rounds=7, frames_per_call=HITS, **found)


def om_peakfinder(hits: Hits, *, snr: float) -> Callable[[], Found] | None:
    """OM's compiled peakfinder8 with our mask, radii and thresholds; None where it is not installed."""
    try:
        from om.algorithms._crystallography import peakfinder_8
    except ImportError:
        return None
    maps, _ = load_layout(hits.results)
    shape = file_frame_shape(hits.layout)
    position = pixel_positions(hits.layout.geometry, camera_length=hits.camera_length)
    step = np.linalg.norm(hits.layout.geometry.fs_step[0])
    radius = in_file(hits, (np.hypot(position[..., 0], position[..., 1]) / step).astype(np.float32))
    masks = [in_file(hits, (maps.pixel_ring.values[k] >= 0).astype(np.int8)) for k in hits.setting]
    frames = [in_file(hits, adu.astype(np.float32)) for adu in hits.adu]
    height, width = hits.layout.geometry.shape
    tiles = shape[1] // width, shape[0] // height
    none = np.zeros(1, np.int32)
    sizes = PEAKS["min_pixels"], PEAKS["max_pixels"], PEAKS["radius"]

    def find() -> Found:
        found = []
        for frame, mask, gain in zip(frames, masks, hits.gain, strict=True):
            threshold = float(PEAKS["threshold"] / gain.mean())
            given = peakfinder_8(
                2048, frame, mask, radius, 0, none, none, 0, width, height, *tiles, threshold, snr, *sizes
            )
            found.append((np.asarray(given[0]) + 0.5, np.asarray(given[1]) + 0.5))
        return found

    return find


def in_file(hits: Hits, panels: np.ndarray) -> np.ndarray:
    """Panels in the array of the file."""
    array = np.zeros(file_frame_shape(hits.layout), panels.dtype)
    put_panels(panels, hits.layout, array)
    return array


def score(hits: Hits, found: Found) -> tuple[float, float]:
    """Share of the planted peaks that were found, over all frames, and false peaks a frame."""
    planted, caught, false = 0, 0, 0
    for frame, (fs, ss) in zip(hits.truth, found, strict=True):
        spots = frame.spots
        spot_fs = spots.fs + hits.layout.first_fs[spots.panel]
        spot_ss = spots.ss + hits.layout.first_ss[spots.panel]
        is_near = np.hypot(spot_fs[:, None] - fs, spot_ss[:, None] - ss) < _NEAR
        planted += int(spots.is_peak.sum())
        caught += int(is_near[spots.is_peak].any(axis=1).sum())
        is_seen = spots.photons > _SEEN * spots.noise
        false += int((~is_near[is_seen].any(axis=0)).sum())
    return caught / max(planted, 1), false / len(found)
