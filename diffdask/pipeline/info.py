"""The verb ``info``: what a store holds and what made it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from diffdask.errors import BadStore
from diffdask.io import frames_store, ranker_store, results_store, volume_store
from diffdask.io.storage import storage_at
from diffdask.pipeline.counts import ROWS_AT_ONCE, count_texts

#: Groups that every analysis makes, and those that some do.
_GROUPS = ("layout", "screen", "hits", "features", "scores")
_OTHER_GROUPS = (
    "crystals",
    "common-arc",
    "correlation",
    "euclidean",
    "consistency",
    "orientations",
    "haloes",
    "images",
    "vgg16",
)


def info(store: str | Path) -> dict[str, Any]:
    """Describe a frames store, a results store, a ranker or a map.

    Parameters
    ----------
    store
        The Zarr store.

    Returns
    -------
    dict
        Kind, version, counts and parameters; JSON-able.

    Raises
    ------
    BadStore
        If ``store`` is none of these.
    """
    storage = storage_at(store)
    if not storage.exists("zarr.json"):
        raise BadStore(f"no Zarr store at '{store}'")
    try:
        attributes: dict[str, Any] = dict(zarr.open_group(storage.zarr_store(), mode="r", use_consolidated=False).attrs)
    except (ValueError, KeyError) as error:  # an array, or metadata that are no JSON
        raise BadStore(f"'{store}' is no Zarr group that can be read: {error}") from error
    kind = attributes.get("kind")
    describe = {
        frames_store.KIND: _describe_frames,
        results_store.KIND: _describe_results,
        ranker_store.KIND: _describe_ranker,
        volume_store.KIND: _describe_map,
    }.get(str(kind))
    if describe is None:
        raise BadStore(f"'{store}' is a Zarr store of kind {kind!r}, and none of diffdask's")
    return {"store": str(store), "kind": kind, "version": attributes.get("version"), **describe(store, attributes)}


def _describe_map(store: str | Path, attributes: dict[str, Any]) -> dict[str, Any]:
    volume = volume_store.open_volume(store)
    shells = zip(volume.map_shell_q.values, volume.half_map_correlation.values, strict=True)
    return {
        "hits": attributes["hit_count"],
        "voxels": " x ".join(str(length) for length in volume.map_intensity.shape),
        "step, 1/angstrom": attributes["step"],
        "Laue group": attributes["laue"],
        "half-map correlation at q, 1/angstrom": {f"{q:.2f}": round(float(cc), 3) for q, cc in shells if cc == cc},
        "parameters": attributes["parameters"],
    }


def _describe_frames(store: str | Path, attributes: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "complete": attributes["complete"],
        "codec": attributes["codec"],
        "frames in a shard": attributes["block_frames"],
        "sources": [source["path"] for source in attributes["sources"]],
    }
    if not attributes["complete"]:
        return described
    frames = frames_store.open_frames(store, columns=("run", "photon_energy", "camera_length"))
    indexed, status = _count_indexed(store, frames.sizes["frame"])
    return {
        **described,
        "frames": frames.sizes["frame"],
        "runs": {str(run): int(count) for run, count in zip(*np.unique(frames.run, return_counts=True), strict=True)},
        "panels": f"{frames.sizes['panel']} of {frames.sizes['ss']} x {frames.sizes['fs']} pixels",
        "type": str(frames.adu.dtype),
        "good pixels": int(frames.pixel_is_good.values.sum()),
        "photon energy, eV": _range(frames.photon_energy.values),
        "camera length, m": _range(frames.camera_length.values),
        "indexed frames": indexed,
        "status": status,
    }


def _count_indexed(store: str | Path, count: int) -> tuple[int, dict[str, int]]:
    """Count frames with an orientation, and frames by status; some at a time, for of millions they take gigabytes."""
    indexed, statuses = 0, Counter[str]()
    for start in range(0, count, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, count)
        part = frames_store.read_frame_columns(store, start, stop, columns=("orientation", "frame_status"))
        indexed += int(np.isfinite(part.orientation.values).all(axis=(1, 2)).sum())
        statuses.update(part.frame_status.values.tolist())
    return indexed, dict(sorted(statuses.items()))


def _describe_results(store: str | Path, attributes: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"frames store": str(results_store.frames_path(store))}
    for group in (*_GROUPS, *_OTHER_GROUPS):
        made = results_store.open_group(store, group)
        if made is None:
            if group in _GROUPS:
                described[group] = "not made yet, or not finished"
            continue
        described[group] = {"sizes": {str(k): v for k, v in made.sizes.items()}, "parameters": made.attrs["parameters"]}
        if group == "screen":
            described[group]["hits"] = int(made.frame_is_hit.values.sum())
            described[group]["status"] = count_texts(made.frame_status)
        if group == "scores":
            for name in ("method", "picked_count", "expected_wrong_share", "picks_without_promise", "existence"):
                if name in made.attrs:
                    described[group][name] = made.attrs[name]
        if group == "orientations":
            described[group]["source"] = count_texts(made.frame_orientation_source)
            for name in ("judged_count", "right_share", "right_angle"):
                described[group][name] = made.attrs[name]
    return described


def _describe_ranker(store: str | Path, attributes: dict[str, Any]) -> dict[str, Any]:
    trained = ranker_store.load_ranker(store)
    return {
        "trained on": int(trained.frame_id.size),
        "components": int(trained.ranker.components_.shape[0]),
        "parameters": trained.parameters,
        "features": trained.features,
    }


def _range(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    return f"{known.min():.6g} to {known.max():.6g}" if known.size else "unknown"
