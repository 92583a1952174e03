"""A fitted ranker as a Zarr group: arrays and JSON, nothing that could run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffdask.errors import BadStore
from diffdask.io.whole_store import open_whole, replace_whole
from diffdask.models.ranker import Ranker

KIND = "diffdask ranker"

_ARRAYS = ("mean_", "column_scale_", "components_", "scale_", "coefficient_", "calibration_", "log_likelihood_")

#: Single numbers of a ranker, kept as attributes.
_NUMBERS = {"intercept": "intercept_", "share": "share_", "C": "C_"}


@dataclass(frozen=True)
class TrainedRanker:
    """A ranker, and what it was trained on."""

    ranker: Ranker
    frame_id: np.ndarray  #: (n,) text, the hits it was trained on
    frames_identity: str  #: of the frames store they belong to
    score: np.ndarray  #: (n,) their scores by rankers that did not see their labels
    learning_curve: dict[str, list[float]]
    parameters: dict[str, Any]  #: of the training
    features: dict[str, Any]  #: parameters that the features were made with


def save_ranker(path: str | Path, trained: TrainedRanker) -> None:
    """Write a trained ranker; one that is there already is replaced once the new one is whole.

    Raises
    ------
    BadStore
        If something else lies at ``path``.
    """
    with replace_whole(path, KIND, absent=_absent(path)) as group:
        for name in _ARRAYS:
            group.create_array(name, data=np.asarray(getattr(trained.ranker, name)))
        group.create_array("score", data=trained.score)
        ids = group.create_array("frame_id", shape=trained.frame_id.shape, dtype=str)
        ids[...] = trained.frame_id.astype(object)
        group.attrs.update(
            **{name: float(getattr(trained.ranker, learned)) for name, learned in _NUMBERS.items()},
            ranker=trained.ranker.get_params(),
            frames_identity=trained.frames_identity,
            learning_curve=trained.learning_curve,
            parameters=trained.parameters,
            features=trained.features,
            digest=_digest(trained),
        )


def load_ranker(path: str | Path) -> TrainedRanker:
    """Read a trained ranker.

    Raises
    ------
    BadStore
        If there is none at ``path``, or its arrays do not fit together.
    """
    group = open_whole(path, KIND, absent=_absent(path))
    attributes: dict[str, Any] = dict(group.attrs)
    try:
        ranker = Ranker(**attributes["ranker"])
        for name in _ARRAYS:
            setattr(ranker, name, np.asarray(group[name][...], dtype=float))  # type: ignore[index]
        for name, learned in _NUMBERS.items():
            setattr(ranker, learned, float(attributes[name]))
        ranker.classes_ = np.array([0, 1])
        trained = TrainedRanker(
            ranker=ranker,
            frame_id=np.asarray(group["frame_id"][...]).astype(object),  # type: ignore[index]
            frames_identity=str(attributes["frames_identity"]),
            score=np.asarray(group["score"][...], dtype=float),  # type: ignore[index]
            learning_curve=attributes["learning_curve"],
            parameters=attributes["parameters"],
            features=attributes["features"],
        )
        _check(trained)
        if attributes["digest"] != _digest(trained):
            raise ValueError("its numbers are not those that were written")
    except (KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise BadStore(f"the ranker at '{path}' is damaged ({error}); train it again") from error
    return trained


def _digest(trained: TrainedRanker) -> str:
    """Of all numbers: a chunk that is lost reads as zeros."""
    learned = (*_ARRAYS, *_NUMBERS.values())
    numbers = [np.asarray(getattr(trained.ranker, name), dtype=float) for name in learned]
    everything = b"".join(np.ascontiguousarray(one).tobytes() for one in (*numbers, trained.score.astype(float)))
    return hashlib.sha256(everything).hexdigest()


def _check(trained: TrainedRanker) -> None:
    ranker = trained.ranker
    count, width = ranker.components_.shape
    told = {"mean_": (width,), "column_scale_": (width,), "scale_": (count,), "coefficient_": (count,)}
    if any(getattr(ranker, name).shape != shape for name, shape in {**told, "calibration_": (2,)}.items()):
        raise ValueError("its arrays do not fit together")
    if ranker.log_likelihood_.ndim != 1:
        raise ValueError("its arrays do not fit together")
    if trained.score.ndim != 1 or trained.score.shape != trained.frame_id.shape:
        raise ValueError("it has not one score for each frame it was trained on")
    numbers = [getattr(ranker, name) for name in (*_ARRAYS, *_NUMBERS.values())]
    scales = [ranker.scale_, ranker.column_scale_]
    if not all(np.isfinite(values).all() for values in numbers) or not all((scale > 0).all() for scale in scales):
        raise ValueError("some of its numbers are not finite, or a scale is not positive")
    if not 0 < ranker.share_ < 1:
        raise ValueError("its share of diffuse is none")


def _absent(path: str | Path) -> str:
    return f"no ranker at '{path}'; make one with: diffdask train RESULTS --labels LABELS.csv --to {path}"
