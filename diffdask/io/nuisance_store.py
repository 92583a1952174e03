"""Fitted nuisance components as a Zarr group: arrays and JSON, nothing that could run.

All that a fit knows is kept, so that a model that is read can clean hits and
can go on learning from more of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffdask.errors import BadStore, LostStorage
from diffdask.io.whole_store import open_whole, replace_whole
from diffdask.models.nuisance import NuisanceComponents

KIND = "diffdask nuisance components"

_ARRAYS = ("overall_median_", "components_", "held_out_variance_", "lost_", "hit_count_")


def save_nuisance(path: str | Path, model: NuisanceComponents) -> None:
    """Write fitted components; those that are there already are replaced once the new ones are whole.

    Raises
    ------
    BadStore
        If something else lies at ``path``.
    """
    with replace_whole(path, KIND, absent=_absent(path)) as group:
        for name, values in _to_arrays(model).items():
            group.create_array(name, data=values)
        group.attrs.update(parameters=model.get_params(), component_count=model.component_count_)


def load_nuisance(path: str | Path) -> NuisanceComponents:
    """Read fitted components.

    Raises
    ------
    BadStore
        If there are none at ``path``, or its arrays do not fit together.
    """
    group = open_whole(path, KIND, absent=_absent(path))
    try:
        model = NuisanceComponents(**group.attrs["parameters"])  # type: ignore[arg-type]
        model.component_count_ = int(group.attrs["component_count"])  # type: ignore[arg-type]
        _from_arrays(model, {name: np.asarray(array[...]) for name, array in group.arrays()})
        _check(model)
    except LostStorage:
        raise
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError, OSError) as error:
        raise BadStore(f"the nuisance components at '{path}' are damaged ({error}); fit them again") from error
    return model


def _to_arrays(model: NuisanceComponents) -> dict[str, np.ndarray]:
    """Arrays of a fitted model; dicts and lists of arrays become one array, and one of what each row belongs to."""
    runs = sorted(model.run_median_)
    empty = np.empty((0, *model.overall_median_.shape), model.overall_median_.dtype)
    waiting = [model.waiting_[run] for run in sorted(model.waiting_)]
    return {
        **{name: np.asarray(getattr(model, name)) for name in _ARRAYS},
        "run": np.array(runs, dtype=np.int64),
        "run_hits": np.array([model.run_hits_[run] for run in runs], dtype=np.int64),
        "run_median": np.concatenate([empty, *(model.run_median_[run][None] for run in runs)]),
        "waiting": np.concatenate([empty, *waiting]),
        "waiting_run": np.repeat(np.array(sorted(model.waiting_), dtype=np.int64), [len(hits) for hits in waiting]),
        "sketch": np.concatenate(model.sketches_),
        "sketch_rows": np.array([len(sketch) for sketch in model.sketches_], dtype=np.int64),
        "fold_component": np.concatenate(model.fold_components_),
        "fold_component_rows": np.array([len(rows) for rows in model.fold_components_], dtype=np.int64),
    }


def _from_arrays(model: NuisanceComponents, arrays: dict[str, np.ndarray]) -> None:
    for name in _ARRAYS:
        setattr(model, name, arrays[name])
    runs = arrays["run"].tolist()
    model.run_median_ = dict(zip(runs, arrays["run_median"], strict=True))
    model.run_hits_ = dict(zip(runs, arrays["run_hits"].tolist(), strict=True))
    waiting = arrays["waiting_run"]
    if len(waiting) != len(arrays["waiting"]):
        raise ValueError("not every waiting hit has a run")
    model.waiting_ = {run: arrays["waiting"][waiting == run] for run in np.unique(waiting).tolist()}
    model.sketches_ = _split(arrays["sketch"], arrays["sketch_rows"])
    model.fold_components_ = _split(arrays["fold_component"], arrays["fold_component_rows"])


def _split(rows: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    if counts.sum() != len(rows):
        raise ValueError("the folds have more or fewer rows than there are")
    return np.split(rows, np.cumsum(counts)[:-1])


def _check(model: NuisanceComponents) -> None:
    bins = int(np.prod(model.overall_median_.shape))
    maps = [*model.run_median_.values(), *(hits[0] for hits in model.waiting_.values())]
    if model.overall_median_.ndim != 2 or any(one.shape != model.overall_median_.shape for one in maps):
        raise ValueError("its medians do not fit together")
    rows = [model.components_, *model.sketches_, *model.fold_components_]
    if any(one.ndim != 2 or one.shape[1] != bins for one in rows):
        raise ValueError("its components have other polar bins than its medians")
    folds = {len(model.sketches_), len(model.fold_components_), len(model.lost_), len(model.hit_count_)}
    if folds != {model.fold_count}:
        raise ValueError("it has not as many folds as its parameters say")
    if not all(np.isfinite(one).all() for one in (*rows, model.lost_, model.held_out_variance_)):
        raise ValueError("some of its numbers are not finite")
    lengths = np.concatenate(
        [(one.astype(float) ** 2).sum(axis=1) for one in (model.components_, *model.fold_components_)]
    )
    if np.abs(lengths - 1.0).max(initial=0.0) > 1e-2:  # a chunk that is lost reads as zeros
        raise ValueError("some of its components are not of unit length")


def _absent(path: str | Path) -> str:
    return f"no nuisance components at '{path}'; screening hits finds them: diffdask screen FRAMES"
