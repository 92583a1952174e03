"""What a hit or a pair costs here: a few are done as a verb does them, and nothing is written."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from diffdask.errors import BadParameter, BadStore
from diffdask.pipeline.sample import Sample, cpu_seconds, options_of

if TYPE_CHECKING:
    import numpy as np

Arguments = Mapping[str, Any]

_log = logging.getLogger(__name__)

#: Hits of a sample, at most: along each side of a square of pairs; of a map; of haloes; searched for.
_SIDE, _MERGED, _LOOKED_AT, _SEARCHED = 64, 16, 4, 2

#: Times that a pair is compared: as it is, and with the orientation of one hit, then of the other, borrowed.
_COMPARISONS = 3

#: Hits that ``orient`` searches again, twisted.
_TWISTED = 2000

#: Pictures that VGG16 is measured on, and how long it may take, s.
_PICTURES, _PATIENCE = 2, 120.0

#: In a process of its own, which gives back the 2 GB of the network. Weights are random: all are multiplied alike.
_VGG16 = """
import sys, numpy
from diffdask.io.vgg16_weights import extract_block
from diffdask.pipeline.sample import cpu_seconds
how = {"weights": "seed:0", "batch": %(count)d, "precision": %(precision)r, "layers": %(layers)r}
pictures = numpy.random.default_rng(0).normal(0.0, 50.0, (%(count)d, 224, 224, 3)).astype(numpy.float32)
extract_block(pictures, **how)  # loads and compiles
print("\\n", cpu_seconds(lambda: extract_block(pictures, **how)) / %(count)d)
"""


def sample_hits(name: str, arguments: Arguments) -> Sample | None:
    """Do a few hits or pairs, spread over the campaign.

    Parameters
    ----------
    name
        Of the verb.
    arguments
        All of them.

    Returns
    -------
    Sample or None
        None where the verb cannot be sampled yet, or not cheaply.
    """
    samples: dict[str, Callable[[Arguments], Sample | None]] = {
        "compare": _sample_pairs,
        "haloes": _sample_haloes,
        "extract": _sample_pictures,
        "orient": _sample_search,
        "merge": _sample_map,
    }
    if name not in samples:
        return None
    _log.info("measuring: '%s' is done for a few hits, nothing is written", name)
    try:
        return samples[name](arguments)
    except (BadStore, BadParameter) as error:  # not there yet; or a mistake, which the verb itself tells
        _log.info("'%s' cannot be measured: %s", name, error)
        return None


def _spread(count: int, most: int) -> np.ndarray:
    import numpy as np

    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def _sample_pairs(given: Arguments) -> Sample | None:
    from diffdask.pipeline.crystals import find_crystals, find_lattice
    from diffdask.pipeline.oriented_hits import find_symmetry, load_prepared_hits
    from diffdask.steps.similarity import find_ambiguity_agreement, find_arc_agreement
    from diffdask.symmetry import laue_group_of

    if given["similarity"] != "common-arc":
        return None
    lattice = find_lattice(given["results"])
    crystals = find_crystals(given["results"], lattice)
    symmetry = find_symmetry(given["laue"] or laue_group_of(lattice), lattice, crystals.crystal_cell.values)
    rows = _spread(crystals.sizes["hit"], _SIDE)
    lying = crystals[["crystal_rotation", "hit_wavelength"]].isel(hit=rows)
    hits = load_prepared_hits(given["results"], rows, dict(given)).merge(lying)
    options = {key: given[key] for key in ("friedel", "min_angle", "min_samples")}
    options |= {"rotations": symmetry.rotations, "is_diagonal": False}
    compare: Callable[..., Any] = find_arc_agreement
    if len(symmetry.labellings) > 1:
        compare, options["ambiguities"] = find_ambiguity_agreement, symmetry.labellings
    compare(hits, hits, **options)  # compiles
    seconds = cpu_seconds(lambda: compare(hits, hits, **options))
    return Sample(rows.size**2, _COMPARISONS * seconds / rows.size**2)


def _sample_haloes(given: Arguments) -> Sample:
    from diffdask.geometry import Geometry
    from diffdask.io.frames_store import take_frames
    from diffdask.io.results_store import frames_path, open_screen
    from diffdask.pipeline.layout import load_layout, with_layout
    from diffdask.pipeline.work import find_hits
    from diffdask.steps.haloes import find_directions, find_haloes
    from diffdask.steps.screening import screening_parameters

    results = given["results"]
    numbers = find_hits(results)
    numbers = numbers[_spread(numbers.size, _LOOKED_AT)]
    layout, pixels = load_layout(results)
    settings = layout.attrs["settings"]
    hits = with_layout(take_frames(frames_path(results), numbers.tolist()), layout, numbers)
    how = screening_parameters(**open_screen(results).attrs["parameters"])
    directions = find_directions(Geometry.from_dataset(hits), pixels, settings)
    options = options_of(find_haloes, dict(given)) | {"pixels": pixels, "directions": directions}

    def look() -> None:
        find_haloes(hits, how=how, settings=settings, **options).load()

    look()  # compiles
    return Sample(numbers.size, cpu_seconds(look) / numbers.size)


def _sample_search(given: Arguments) -> Sample:
    """Search in the map of the hits as they are indexed: which map it is makes no difference to the time."""
    import numpy as np

    from diffdask.models.map_search import search_in_map_of
    from diffdask.models.orientation_search import TWISTS, OrientationSearch
    from diffdask.pipeline.crystals import find_crystals, find_lattice, is_oriented
    from diffdask.pipeline.oriented_hits import find_symmetry, load_prepared_hits
    from diffdask.symmetry import laue_group_of

    lattice = find_lattice(given["results"])
    crystals = find_crystals(given["results"], lattice)
    known = np.flatnonzero(is_oriented(crystals.crystal_rotation.values))
    rows = known[_spread(known.size, _SIDE)]
    hits = load_prepared_hits(given["results"], rows, {"compare_q_min": 0.5, "compare_q_max": 0.0})
    wavelength = crystals.hit_wavelength.values[rows]
    search = search_in_map_of(
        hits.standardised_residual.values,
        rotation=crystals.crystal_rotation.values[rows],
        wavelength=wavelength,
        weight=np.ones(rows.size),
        ring_q=hits.similarity_ring_q.values,
        rotations=find_symmetry(laue_group_of(lattice), lattice, crystals.crystal_cell.values).rotations,
        mean_wavelength=float(wavelength.mean()),
        search=OrientationSearch(count=given["orientation_count"]),
    )
    some = hits.standardised_residual.values[:_SEARCHED], wavelength[:_SEARCHED]
    search.search(*some)  # compiles
    count = crystals.sizes["hit"]
    searches = 1 + len(TWISTS) * min(count, _TWISTED) / count
    return Sample(len(some[1]), searches * cpu_seconds(lambda: search.search(*some)) / len(some[1]))


def _sample_map(given: Arguments) -> Sample:
    from diffdask.io.results_store import open_hits
    from diffdask.pipeline.crystals import open_crystals
    from diffdask.pipeline.merge import choose_hits
    from diffdask.pipeline.oriented_hits import find_symmetry, load_oriented_hits
    from diffdask.steps.merge import embed_hits, plan_grid

    results = given["results"]
    chosen = choose_hits(results, **{name: given[name] for name in ("top", "scale", "orientations", "seed")})
    crystals, ring_q = open_crystals(results), open_hits(results).polar_ring_q.values
    told = crystals.attrs["parameters"]
    hits = load_oriented_hits(results, chosen.rows[:_MERGED], orientations=given["orientations"])
    options = {
        "grid": plan_grid(size=given["size"], q_max=given["q_max"] or float(ring_q[-1])),
        "rotations": find_symmetry(told["laue"], told["lattice"], crystals.crystal_cell.values).rotations,
        "friedel": told["friedel"],
        "q_min": given["q_min"],
    }
    embed_hits(hits, **options)  # compiles
    count = hits.sizes["hit"]
    return Sample(count, cpu_seconds(lambda: embed_hits(hits, **options)) / count)


def _sample_pictures(given: Arguments) -> Sample | None:
    """Put a few pictures through VGG16; drawing them is little beside it."""
    if given["weights"] == "none":
        return None
    told = {"count": _PICTURES, "precision": given["precision"], "layers": list(given["layers"])}
    command = [sys.executable, "-c", _VGG16 % told]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=True)
        return Sample(_PICTURES, float(done.stdout.split()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:  # no TensorFlow, or no room for it
        _log.info("VGG16 cannot be measured: %s", error)
        return None
