"""Features and scores of the hits of a store, by all methods; what costs time is kept beside the store.

Imported by ``methods.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from method_experiments import Store

from diffdask.catalogue import catalogue_table
from diffdask.io.results_store import open_features, open_hits
from diffdask.models.chance import standardise_scores
from diffdask.models.nuisance import NuisanceComponents
from diffdask.pipeline.extract import extract
from diffdask.pipeline.features import FEATURES, take_features
from diffdask.pipeline.rank import rank
from diffdask.pipeline.scores import EVEN, SIGNIFICANT
from diffdask.steps.azimuthal import find_azimuthal_features
from diffdask.steps.structure import find_structure
from diffdask.variables import wrap

#: Weights of VGG16: ImageNet's are a download that a benchmark cannot count on.
WEIGHTS = "seed:0"

#: Pictures that VGG16 is shown: what they show, and whether what the run shares is taken out.
PICTURES = {
    "VGG16, residual": ("residual", False),
    "VGG16, residual, cleaned": ("residual", True),
    "VGG16, three channels, cleaned": ("three-channels", True),
}

#: Those that are carried over to other experiments.
CARRIED_PICTURES = ("VGG16, residual", "VGG16, three channels, cleaned")

#: Sets that are joined, each scaled to a total variance of one.
UNIONS = {
    "azimuthal + structure, cleaned": ("azimuthal, cleaned", "structure, cleaned"),
    "azimuthal + VGG16 three channels, cleaned": ("azimuthal, cleaned", "VGG16, three channels, cleaned"),
}

#: Columns of a catalogue that need no label, and where predicted diffuse begins.
LABEL_FREE = {
    "anisotropy, no label": ("frame_anisotropy", SIGNIFICANT),
    "structure, no label": ("frame_structure", SIGNIFICANT),
    "pairs, no label": ("frame_pairs", SIGNIFICANT),
    "map consistency, no label": ("frame_consistency", SIGNIFICANT),
    "search in the map, no label": ("frame_search", SIGNIFICANT),
    "label-free score": ("frame_score", EVEN),
}


def gather_features(store: Store, *, pictures: Iterable[str] = PICTURES, on: str) -> dict[str, np.ndarray]:
    """Features (n, f) of the hits that count, by the name of the method."""
    found = {**_find_azimuthal(store), **find_pictures(store, pictures, on=on)}
    if "anisotropy" in FEATURES:
        found["anisotropy"] = take_features(store.results, features="anisotropy").values[store.rows]
    for name, parts in UNIONS.items():
        found[name] = join_sets([found[part] for part in parts])
    return found


def join_sets(sets: list[np.ndarray]) -> np.ndarray:
    """Join sets of features, each over the root of its total variance, as ``train --features A+B`` does."""
    return np.concatenate([one / (np.sqrt(one.var(axis=0).sum()) or 1.0) for one in sets], axis=1)


def find_pictures(store: Store, names: Iterable[str], *, on: str) -> dict[str, np.ndarray]:
    """Features of VGG16 from some of the kinds of ``PICTURES``, (n, 8192)."""
    found = {}
    for name in names:
        content, cleaned = PICTURES[name]
        kept = store.results.parent / f"vgg16-{content}-{'cleaned' if cleaned else 'plain'}.npz"
        if not _is_of_hits(kept, store):
            extract(
                store.results,
                weights=WEIGHTS,
                content=content,
                cleaned=cleaned,
                precision="mixed_bfloat16",
                overwrite=True,
                on=on,
                progress=False,
            )
            values = take_features(store.results, features="vgg16").values[store.rows].astype(np.float32)
            np.savez(kept, hit_frame=store.hit_frame, values=values)
        with np.load(kept) as file:
            found[name] = file["values"]
    return found


def find_label_free(store: Store, *, on: str) -> dict[str, tuple[np.ndarray, float]]:
    """Scores (n,) without labels, and their thresholds; of a store of one crystal."""
    rank(store.results, method="label-free", on=on, progress=False)
    table = catalogue_table(store.results).loc[store.hit_frame]
    table["frame_anisotropy"] = standardise_scores(table["frame_anisotropy"].to_numpy(dtype=float))
    return {name: (table[column].to_numpy(dtype=float), limit) for name, (column, limit) in LABEL_FREE.items()}


def find_coordinates(store: Store) -> np.ndarray:
    """Diffusion coordinates (n, k) of the common arcs, which ``find_label_free`` has compared."""
    return take_features(store.results, features="diffusion-map").values[store.rows]


def _find_azimuthal(store: Store) -> dict[str, np.ndarray]:
    """Azimuthal features and structure: of the residual as it is, of that less the run's median, and cleaned."""
    hits, features = open_hits(store.results), open_features(store.results)
    noise = hits.polar_noise.values
    nothing = np.full(noise.shape, np.nan, dtype=noise.dtype)
    plain = np.divide(hits.polar_residual.values, noise, out=nothing, where=noise > 0)[store.rows]
    median_out = NuisanceComponents(component_count=0).fit_transform(plain, store.run)
    cleaned = features.cleaned_residual.values[store.rows]
    rings = {name: hits[name].values for name in ("polar_ring_q", "polar_coverage")}
    found = {}
    for how, values in {"as it is": plain, "median out": median_out, "cleaned": cleaned}.items():
        ds = wrap(cleaned_residual=values, **rings)
        found[f"azimuthal, {how}"] = find_azimuthal_features(ds).azimuthal_features.values
        found[f"structure, {how}"] = _structure_of(ds)
    return found


def _structure_of(ds: xr.Dataset) -> np.ndarray:
    return find_structure(ds).hit_structure.values[:, None]


def _is_of_hits(path: Path, store: Store) -> bool:
    if not path.exists():
        return False
    with np.load(path) as file:
        return np.array_equal(file["hit_frame"], store.hit_frame)


def stack_features(of_stores: list[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Features of several stores, one below the other; only methods that all have."""
    shared = [name for name in of_stores[0] if all(name in one for one in of_stores)]
    return {name: np.concatenate([one[name] for one in of_stores]) for name in shared}
