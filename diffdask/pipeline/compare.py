"""The verb ``compare``: how much every pair of hits agrees.

The matrix is made tile by tile, those on and above the diagonal only; a tile
writes itself and its mirror image, and is marked. Beside the matrix lies the
same for orientations exchanged at random among the hits: what chance gives.
Of many hits some are compared along their arcs; how the crystals of all lie is
kept beside them, for the map that is grown over all.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from diffdask.cluster import connect
from diffdask.errors import BadParameter, BadStore, nearest
from diffdask.io.marks import mark_block, marked_blocks
from diffdask.io.paths import absolute, as_store
from diffdask.io.results_store import (
    check_made,
    finish_group,
    open_features,
    open_group,
    open_unfinished,
    remove_group,
    replace_group,
    stamp_of,
    start_group,
    write_tile,
)
from diffdask.pipeline.blocks import Marks, run_marked
from diffdask.pipeline.crystals import (
    GROUP,
    borrow_orientations,
    choose_compared,
    find_crystals,
    find_lattice,
    is_oriented,
    open_crystals,
)
from diffdask.pipeline.labellings import choose_labellings
from diffdask.pipeline.oriented_hits import Symmetry, find_symmetry, load_prepared_hits
from diffdask.planning import Block, tiles_of
from diffdask.steps.similarity import (
    find_ambiguity_agreement,
    find_arc_agreement,
    find_correlation_agreement,
    find_euclidean_agreement,
    find_squared_distance,
)
from diffdask.symmetry import ambiguity_rotations, laue_group_of
from diffdask.variables import SIMILARITIES, wrap

#: Most tiles along a side: the scheduler sees at most about two thousand tasks, however many hits there are.
_MOST_TILES = 60

_SMALLEST_TILE = 256

#: Hits whose distances give the scale of the Euclidean similarity.
_SCALE_HITS = 500

#: What a worker writes: rows and columns of a tile, and its variables.
_Tiles = Iterator[tuple[tuple[Block, Block], xr.Dataset]]


def compare(
    results: str | Path,
    *,
    similarity: str = "common-arc",
    laue: str = "",
    compare_q_min: float = 0.5,
    compare_q_max: float = 0.0,
    min_angle: float = 5.0,
    min_samples: int = 64,
    friedel: bool = True,
    most: int = 4000,
    seed: int = 0,
    overwrite: bool = False,
    on: Any = None,
    progress: bool = True,
) -> str | Path:
    """Compare hits in pairs.

    Running it again goes on where it stopped.

    Parameters
    ----------
    results
        The results store, screened.
    similarity
        "common-arc": correlation along the arcs where the Ewald spheres of two hits meet; needs orientations.
        "correlation": of the residuals as they lie on the detector. "euclidean": minus their squared distance there,
        over its median. The last two were tried before and are kept to compare with.
    laue
        Laue, point or space group of the crystal ("mmm", "P 61"); empty for the highest that its lattice allows.
        Where it is lower than the lattice's, each hit's indexing ambiguity is resolved.
    compare_q_min, compare_q_max
        Polar rings that are compared, 1/angstrom; 0 for no upper limit.
    min_angle
        Hits whose beams lie closer than this in the crystal are not compared, degrees.
    min_samples
        Fewest samples behind an agreement.
    friedel
        Whether -q has the intensity of q.
    most
        Most hits that are compared along common arcs, since time grows with the square of their number; 0 for all. Of
        more hits, half are those of the most structure, and half are drawn at random: enough to start the map that
        ``orient`` and ``rank`` grow over all. A diffusion map needs all.
    seed
        Of the exchange of orientations, and of the hits drawn at random.
    overwrite
        Throw away a matrix that was made with other parameters.
    on
        Where to run: "laptop", a scheduler's address, or a file of deploy/.
    progress
        Show a bar on the terminal.

    Returns
    -------
    pathlib.Path or str
        The results store: a path, or a URL.

    Raises
    ------
    BadParameter
        If the similarity or the group is not known, or a number makes no sense.
    BadStore
        If there are no features yet, no orientations, or a matrix made with other parameters.
    """
    if similarity not in SIMILARITIES:
        raise BadParameter(f"similarity '{similarity}' is not known; {nearest(similarity, SIMILARITIES)}")
    if most < 0 or most == 1:
        raise BadParameter(f"most = {most} must be a number of hits of which there are pairs, or 0 for all")
    results = as_store(results)
    count = open_features(results).sizes["hit"]
    how: dict[str, Any] = {"compare_q_min": compare_q_min, "compare_q_max": compare_q_max}
    if similarity == "common-arc":
        lattice = find_lattice(results)
        how |= {"laue": laue or laue_group_of(lattice), "lattice": lattice, "seed": seed}
        how |= {"min_angle": min_angle, "min_samples": min_samples, "friedel": friedel}
        how["most"] = most if most < count else 0
    if overwrite and not _is_stamped(results, similarity, how):
        remove_group(results, similarity)
    _start(results, similarity, how)
    if open_group(results, similarity) is not None:
        return results
    started = open_unfinished(results, similarity)
    tiles = tiles_of(count := started.sizes["hit"], tile_side(count))
    given = {"results": absolute(results), "made": started.attrs["made"], "similarity": similarity, "how": how}
    task = functools.partial(_compare_tile, tiles=tiles, **given)
    numbers, done = [(number, number + 1) for number in range(len(tiles))], marked_blocks(results, similarity)
    with connect(on) as client:
        marks = Marks(absolute(results), similarity)
        run_marked(client, task, numbers, done, what="compare", unit="tile", progress=progress, marks=marks)
    if "ambiguity_agreement" in open_unfinished(results, similarity):
        choose_labellings(results, how)
    finish_group(results, similarity)
    return results


def ensure_compared(results: str | Path, *, on: Any = None, progress: bool = True) -> None:
    """Compare the hits along their common arcs if they are not."""
    try:
        open_crystals(results)
    except BadStore:
        compare(results, on=on, progress=progress)


def tile_side(count: int) -> int:
    """Hits along the side of a tile.

    Examples
    --------
    >>> tile_side(1000), tile_side(20_000)
    (256, 334)
    """
    return max(_SMALLEST_TILE, -(-count // _MOST_TILES))


# before the tiles ------------------------------------------------------------------------------------------


def _is_stamped(results: str | Path, group: str, how: dict[str, Any]) -> bool:
    try:
        stamp_of(results, group, how)
    except BadStore:
        return False
    return True


def _start(results: str | Path, similarity: str, how: dict[str, Any]) -> None:
    """Make the group's arrays; a group of other hits than there are now is thrown away."""
    stamp_of(results, similarity, how)
    numbers = open_features(results).hit_frame.values
    if _is_of_hits(results, similarity, numbers):
        return
    remove_group(results, similarity)
    names: tuple[str, ...] = ("pair_agreement", "pair_samples")
    sizes: dict[str, int] = {}
    if similarity == "common-arc":
        constants = _start_arcs(results, how)
        names += ("exchanged_agreement", "exchanged_samples")
        sizes["ambiguity"] = len(ambiguity_rotations(how["laue"], how["lattice"]))
        if sizes["ambiguity"] > 1:
            names += ("ambiguity_agreement", "ambiguity_samples")
            names += ("exchanged_ambiguity_agreement", "exchanged_ambiguity_samples")
    else:
        constants = wrap(hit_frame=numbers)
        if similarity == "euclidean":
            constants = constants.merge(wrap(distance_scale=_find_scale(results, how)))
    sizes |= dict.fromkeys(("hit", "other_hit"), constants.sizes["hit"])
    side = tile_side(sizes["hit"])
    start_group(results, similarity, sizes=sizes, names=names, block=side, parameters=how, constants=constants)


def _is_of_hits(results: str | Path, similarity: str, numbers: np.ndarray) -> bool:
    """Whether a group was started for the hits of these frames, and wholly: its id comes last."""
    group = GROUP if similarity == "common-arc" else similarity
    try:
        started, matrix = open_unfinished(results, group), open_unfinished(results, similarity)
    except (FileNotFoundError, KeyError):
        return False
    is_whole = "hit_frame" in started and "made" in matrix.attrs
    return is_whole and np.array_equal(started.hit_frame.values, numbers)


def _start_arcs(results: str | Path, how: dict[str, Any]) -> xr.Dataset:
    """Write how all crystals lie, and give which hits are compared, and whose orientation each of those borrows."""
    crystals = find_crystals(results, how["lattice"])
    replace_group(results, GROUP, crystals, {"parameters": how})
    is_indexed = is_oriented(crystals.crystal_rotation.values)
    rows = choose_compared(open_features(results).hit_structure.values, is_indexed, how["most"], how["seed"])
    borrowed_from = borrow_orientations(is_indexed[rows], how["seed"])
    return wrap(hit_frame=crystals.hit_frame.values[rows], borrowed_from=borrowed_from)


def _find_scale(results: str | Path, how: dict[str, Any]) -> float:
    """Median squared distance between some hits, spread evenly over the campaign."""
    count = open_features(results).sizes["hit"]
    some = np.unique(np.linspace(0, count - 1, min(count, _SCALE_HITS)).astype(int))
    hits = load_prepared_hits(results, some, how)
    return float(np.nanmedian(find_squared_distance(hits, hits)[np.triu_indices(some.size, 1)]))


# a tile ----------------------------------------------------------------------------------------------------


def _compare_tile(
    number: Block, *, tiles: list[tuple[Block, Block]], results: str, made: str, similarity: str, how: dict[str, Any]
) -> None:
    """Compare, write and mark one tile of pairs and its mirror image: what a worker does."""
    rows, columns = tiles[number[0]]
    find = {"common-arc": _compare_arcs, "correlation": _compare_pictures, "euclidean": _compare_distances}
    for place, found in find[similarity](results, rows, columns, how):
        write_tile(results, similarity, *place, found, made=made)
    check_made(results, similarity, made)
    mark_block(results, similarity, number)


def _compare_pictures(results: str, rows: Block, columns: Block, how: dict[str, Any]) -> _Tiles:
    found = find_correlation_agreement(*(load_prepared_hits(results, slice(*block), how) for block in (rows, columns)))
    yield (rows, columns), found
    yield (columns, rows), _mirror(found)


def _compare_distances(results: str, rows: Block, columns: Block, how: dict[str, Any]) -> _Tiles:
    sigma = float(open_unfinished(results, "euclidean").distance_scale.values)
    one, other = (load_prepared_hits(results, slice(*block), how) for block in (rows, columns))
    found = find_euclidean_agreement(one, other, sigma=sigma)
    yield (rows, columns), found
    yield (columns, rows), _mirror(found)


def _compare_arcs(results: str, rows: Block, columns: Block, how: dict[str, Any]) -> _Tiles:
    """Hits as they are, and hits of the rows at borrowed orientations with those of the columns as they are."""
    stored, crystals = open_unfinished(results, "common-arc"), open_unfinished(results, GROUP)
    symmetry = find_symmetry(how["laue"], how["lattice"], crystals.crystal_cell.values)
    lying = crystals[["crystal_rotation", "hit_wavelength"]].load()
    compared = np.searchsorted(crystals.hit_frame.values, stored.hit_frame.values)  # rows among all hits
    borrowed = compared[stored.borrowed_from.values]
    blocks = [slice(*rows), slice(*columns)]
    own = [load_prepared_hits(results, (some := compared[b]), how).merge(lying.isel(hit=some)) for b in blocks]
    turned = [
        ds.assign(wrap(crystal_rotation=lying.crystal_rotation.values[borrowed[block]]))  # wavelengths are their own
        for ds, block in zip(own, blocks, strict=True)
    ]
    options = {name: how[name] for name in ("friedel", "min_angle", "min_samples")}
    compare_blocks = functools.partial(_compare_oriented, symmetry=symmetry, options=options)
    found = compare_blocks(*own, is_diagonal=rows == columns)
    yield (rows, columns), found
    yield (rows, columns), _exchanged(compare_blocks(turned[0], own[1], is_diagonal=False))
    if rows != columns:
        yield (columns, rows), _mirror(found, symmetry.relative[:, 0])
        yield (columns, rows), _exchanged(compare_blocks(turned[1], own[0], is_diagonal=False))


def _compare_oriented(
    one: xr.Dataset, other: xr.Dataset, *, symmetry: Symmetry, options: dict[str, Any], is_diagonal: bool
) -> xr.Dataset:
    options = {**options, "rotations": symmetry.rotations, "is_diagonal": is_diagonal}
    if len(symmetry.labellings) == 1:
        return find_arc_agreement(one, other, **options)
    return find_ambiguity_agreement(one, other, ambiguities=symmetry.labellings, **options)


def _exchanged(found: xr.Dataset) -> xr.Dataset:
    """The same under the names of what chance gives."""
    names = {
        "pair_agreement": "exchanged_agreement",
        "pair_samples": "exchanged_samples",
        "ambiguity_agreement": "exchanged_ambiguity_agreement",
        "ambiguity_samples": "exchanged_ambiguity_samples",
    }
    return wrap(**{names[str(name)]: values.values for name, values in found.items()})


def _mirror(found: xr.Dataset, inverse: np.ndarray | None = None) -> xr.Dataset:
    """Rows and columns exchanged; labellings become their inverses."""
    mirrored = {str(name): values.values.swapaxes(-1, -2) for name, values in found.items()}
    return wrap(**{name: values if values.ndim == 2 else values[inverse] for name, values in mirrored.items()})
