"""Features of hits under their names, whatever they are made from: what ``train`` and ``rank`` have in common."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from diffdask.errors import BadParameter, BadStore, nearest
from diffdask.io.results_store import open_features, open_group, open_screen
from diffdask.models.diffusion_map import DiffusionMap
from diffdask.steps.anisotropy import find_anisotropy_features

#: Feature sets; several are joined with a plus sign: "azimuthal+structure".
FEATURES = ("azimuthal", "structure", "anisotropy", "diffusion-map", "vgg16")

#: Coordinates of a diffusion map that can enter a ranker.
COORDINATES = 30

#: Hits past which only the largest weights of each are kept: a dense matrix of 5000 hits has 100 MB.
_DENSE_HITS, _NEIGHBOURS = 5000, 200

#: Parameters of earlier groups that decide what a feature means, whatever the experiment.
_SHAPING = {
    "layout": ("ring_count", "azimuth_count", "q_min", "q_max"),
    "hits": ("polar_ring_count", "bin_pixels"),
}


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HitFeatures:
    """Features of all hits of a results store."""

    hit_frame: np.ndarray  #: (n,) frame numbers
    values: np.ndarray  #: (n, f); NaN in rows of hits that have none
    made_with: dict[str, Any]  #: what two sets of features must share to be compared

    @property
    def is_there(self) -> np.ndarray:
        """(n,) whether the hit has these features: without an orientation it has no diffusion coordinates."""
        return np.isfinite(self.values).all(axis=1)


def take_features(
    results: str | Path,
    *,
    features: str,
    similarity: str = "common-arc",
    scales: dict[str, float] | None = None,
) -> HitFeatures:
    """Take features of all hits from a results store.

    Parameters
    ----------
    results
        The results store, screened.
    features
        One of ``FEATURES``, or several with plus signs between.
    similarity
        Of the diffusion map; see the verb ``compare``.
    scales
        What each of several sets is divided by, as ``made_with`` says of features that a ranker was trained on; None
        to give every set a total variance of one, so that sets that share no unit go together.

    Raises
    ------
    BadParameter
        If a feature set is not known.
    BadStore
        If what the features are made from is not there.
    """
    found = open_features(results)
    taken: dict[str, np.ndarray] = {}
    made_with: dict[str, Any] = {"features": features}
    for name in features.split("+"):
        if name not in FEATURES:
            raise BadParameter(f"features '{name}' are not known; {nearest(name, FEATURES)}")
        if name == "diffusion-map":
            values, made = _find_coordinates(results, similarity, found.hit_frame.values)
        elif name == "vgg16":
            values, made = _take_vgg16(results, found)
        else:
            values, made = _take_own(results, found, name)
        taken[name] = values.astype(float)
        made_with |= made
    if len(taken) > 1:
        scales = scales or {name: _find_scale(values) for name, values in taken.items()}
        taken = {name: values / scales[name] for name, values in taken.items()}
        made_with["scales"] = scales
    return HitFeatures(found.hit_frame.values, np.concatenate(list(taken.values()), axis=1), made_with)


def open_compared(results: str | Path, similarity: str) -> xr.Dataset:
    """The matrix of the verb ``compare``, of all the hits that there are now.

    Raises
    ------
    BadStore
        If it is not there, of other hits, or of some only.
    """
    compared = open_group(results, similarity)
    numbers = open_features(results).hit_frame.values
    if compared is not None and compared.attrs["parameters"].get("most") and np.isin(compared.hit_frame, numbers).all():
        raise BadStore(
            f"{compared.sizes['hit']} of the {numbers.size} hits of '{results}' are compared in pairs, and a diffusion "
            f"map needs all; run: diffdask compare {results} --most 0 --overwrite"
        )
    if compared is None or not np.array_equal(compared.hit_frame.values, numbers):
        raise BadStore(
            f"the hits of '{results}' are not compared yet; run: diffdask compare {results} --similarity {similarity}"
        )
    return compared


def _find_coordinates(results: str | Path, similarity: str, hit_frame: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Diffusion coordinates of all hits; they mean something within this very set of hits only."""
    compared = open_compared(results, similarity)
    weights = np.exp(compared.pair_agreement.values)
    count = len(weights)
    model = DiffusionMap(
        component_count=min(COORDINATES, count - 2), neighbour_count=None if count <= _DENSE_HITS else _NEIGHBOURS
    )
    coordinates = model.fit(weights).coordinates_
    digest = hashlib.sha256(np.ascontiguousarray(hit_frame, dtype=np.int64).tobytes()).hexdigest()[:16]
    made = {"similarity": similarity, "hits": digest, **compared.attrs["parameters"]}
    return coordinates * np.sqrt(count), made


def _take_vgg16(results: str | Path, found: xr.Dataset) -> tuple[np.ndarray, dict[str, Any]]:
    """Features of the pictures of the hits that there are now."""
    extracted = open_group(results, "vgg16")
    if extracted is None or not np.array_equal(extracted.hit_frame.values, found.hit_frame.values):
        raise BadStore(f"not all hits of '{results}' have features of VGG16; run: diffdask extract {results}")
    parameters = extracted.attrs["parameters"]
    if parameters["weights"].startswith("random"):
        told = "the features of VGG16 in '%s' are of weights that are %s: results from them say nothing of VGG16"
        _log.warning(told, results, parameters["weights"])
    made = {name: value for name, value in parameters.items() if name != "batch"}
    return extracted.vgg16_features.values, {**_made_with(results, found), **made}


def _take_own(results: str | Path, found: xr.Dataset, name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Features that a hit has by itself."""
    made = _made_with(results, found)
    if name == "azimuthal":
        return found.azimuthal_features.values, made
    if name == "structure":
        return found.hit_structure.values[:, None], made
    screened = open_screen(results).isel(frame=found.hit_frame.values)
    bands = {"band_count": made["polar_ring_count"], "feature_q_min": made["feature_q_min"]}
    return find_anisotropy_features(screened, **bands).anisotropy_features.values, made


def _find_scale(values: np.ndarray) -> float:
    """Root of the total variance of a set of features, (n, f), over the hits that have it; 1 where nothing varies."""
    known = values[np.isfinite(values).all(axis=1)]
    return float(np.sqrt(known.var(axis=0).sum())) or 1.0 if len(known) else 1.0


def _made_with(results: str | Path, found: xr.Dataset) -> dict[str, Any]:
    """Parameters that features must share to be compared."""
    made = dict(found.attrs["parameters"])
    for group, names in _SHAPING.items():
        opened = open_group(results, group)
        if opened is None:
            raise BadStore(f"'{group}' of '{results}' is not finished; run: diffdask screen FRAMES --results {results}")
        made.update({name: opened.attrs["parameters"][name] for name in names})
    return made
