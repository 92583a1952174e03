"""Time and memory of pairs among some hits, of map consistency, and of the orientation search beside matrix products.

Usage: python benchmarks/search_scaling.py [--hits 20000] [--most 4000] [--orientations 30000] [--threads 1]
       [--keep FILE.npz]

Polar residuals are simulated directly, nuisances and all; simulating and cleaning them is not timed, and is done in
another process, so that its memory does not count. The table goes to standard output. Times hold for the machine alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

#: Edge of the matrices whose product is the machine's peak, and products timed.
_EDGE, _PRODUCTS = 2048, 5


def main() -> None:
    """Simulate hits, grow their map, search all of them in it, and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hits", type=int, default=20_000)
    parser.add_argument("--most", type=int, default=4000, help="hits compared in pairs")
    parser.add_argument("--orientations", type=int, default=30_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="file of the cleaned hits: read, or made if there is none")
    given = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        path = given.keep or Path(folder) / "hits.npz"
        if not path.exists():
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                pool.submit(make_hits, path, given.hits, given.threads).result()
        for line in measure(path, given.most, given.orientations, given.threads):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


def make_hits(path: Path, count: int, threads: int) -> None:
    """Simulate and clean hits, and write what consistency and search take."""
    import numpy as np
    from campaign_evidence import Campaign, clean_hits, prepare_campaign, simulate_campaign

    from diffdask.models.chance import standardise_scores
    from diffdask.steps.structure import find_structure

    campaign = Campaign("scaling", 101, "liquid-like", "mmm", 0.15, hits=count)
    simulated = simulate_campaign(campaign, threads=threads)
    cleaned, _ = clean_hits(simulated, "auto")
    prepared, symmetry, _ = prepare_campaign(simulated, cleaned)
    structure = standardise_scores(find_structure(cleaned).hit_structure.values)
    columns: dict[str, Any] = {str(name): variable.values for name, variable in prepared.variables.items()}
    np.savez(path, structure=structure, is_diffuse=simulated.is_diffuse.values, **symmetry._asdict(), **columns)


def measure(path: Path, most: int, orientations: int, threads: int) -> list[str]:
    """Lines of the table."""
    import numpy as np
    from campaign_evidence import find_pairs, fit_search, grow_map
    from sklearn.metrics import roc_auc_score

    from diffdask.models.consistency import MapConsistency
    from diffdask.models.orientation_search import OrientationSearch
    from diffdask.pipeline.crystals import choose_compared, is_oriented
    from diffdask.pipeline.oriented_hits import Symmetry
    from diffdask.variables import wrap

    columns = dict(np.load(path))
    structure, is_diffuse = columns.pop("structure"), columns.pop("is_diffuse")
    symmetry = Symmetry(*(columns.pop(name) for name in Symmetry._fields))
    prepared = wrap(**columns)
    values, wavelength = prepared.standardised_residual.values, prepared.hit_wavelength.values
    few = prepared.isel(hit=slice(200))  # so that nothing is compiled while it is timed
    grow_map(MapConsistency(), few, symmetry, np.ones(200))
    find_pairs(few, symmetry, structure[:200])
    fit_search(OrientationSearch(), few, symmetry, np.ones(200)).search(values[:2], wavelength[:2])

    before = _peak_gigabytes()
    indexed = is_oriented(prepared.crystal_rotation.values)
    chosen = choose_compared(structure, indexed, most, seed=0)
    (group, _), *paired = _time(lambda: find_pairs(prepared.isel(hit=chosen), symmetry, structure[chosen]))
    start = np.zeros(len(values))
    start[chosen] = group.weight_
    model, *grown = _time(lambda: grow_map(MapConsistency(threads=threads), prepared, symmetry, start))
    rates = [measure_matrix_rate(threads)]
    search, *cut = _time(lambda: fit_search(OrientationSearch(orientations), prepared, symmetry, model.weight_))

    def search_all() -> None:
        parts = np.array_split(np.arange(len(values)), threads)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda rows: search.search(values[rows], wavelength[rows]), parts))

    _, *searched = _time(search_all)
    search.set_params(candidates=1, last_angle=0.0)
    _, *on_grid = _time(search_all)
    rates.append(measure_matrix_rate(threads))
    rate = float(np.mean(rates))
    work = count_operations(len(values), len(search.grid_.directions), *values.shape[1:])
    rows = {
        f"pairs among {chosen.size} hits, one thread": paired,
        f"map consistency, {model.round_count_} rounds and {model.fold_count} folds": grown,
        "slices of the map": cut,
        "orientation search, refined": searched,
        "of that, on the grid": on_grid,
    }
    shares = {"orientation search, refined": searched, "of that, on the grid": on_grid}
    return [
        f"{len(values)} hits, {values.shape[1]} rings x {values.shape[2]} azimuths, {len(search.grid_)} orientations, "
        f"{threads} threads. Memory before {before:.1f} GB, {values.nbytes / 1e9:.1f} GB of it hits.",
        "",
        "| what | seconds | core-seconds | peak memory, GB | matrix products, share of the peak |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {wall:.0f} | {spent:.0f} | {peak:.1f} | "
            f"{f'{work / spent / 1e9:.1f} GFLOP/s a core, {work / spent / rate:.0%}' if name in shares else ''} |"
            for name, (wall, spent, peak) in rows.items()
        ),
        "",
        f"Hits in the group of pairs: {int((group.weight_ > 0).sum())}; diffuse hits: {int(is_diffuse.sum())}.",
        f"Area under the curve over all hits that are indexed: structure "
        f"{roc_auc_score(is_diffuse[indexed], structure[indexed]):.4f}, "
        f"consistency {roc_auc_score(is_diffuse[indexed], model.score_[indexed]):.4f}.",
        "",
        f"Peak: {rate / 1e9:.0f} GFLOP/s a core, {_EDGE} x {_EDGE} float32, mean of two measurements of this run.",
    ]


def count_operations(hits: int, directions: int, rings: int, azimuths: int) -> float:
    """Floating-point operations of the search's matrix products, all else left out.

    For the fit and for its norm: one of real and imaginary parts for each frequency, and the one back into turns.
    """
    frequencies = azimuths // 2 + 1
    return 2.0 * hits * directions * frequencies * (8.0 * rings + 4.0 * azimuths)


def measure_matrix_rate(threads: int) -> float:
    """Floating-point operations per core-second of products of large float32 matrices, one at once for each thread."""
    import numpy as np

    matrix = np.random.default_rng(0).normal(size=(_EDGE, _EDGE)).astype(np.float32)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: matrix @ matrix, range(threads)))
        _, _, spent, _ = _time(lambda: list(pool.map(lambda _: matrix @ matrix, range(threads * _PRODUCTS))))
    return 2.0 * _EDGE**3 * threads * _PRODUCTS / spent


def _time(function: Callable[[], Any]) -> tuple[Any, float, float, float]:
    """What a function gives, the seconds and core-seconds it took, and the peak memory of the process so far, GB."""
    wall, spent = time.perf_counter(), time.process_time()
    given = function()
    return given, time.perf_counter() - wall, time.process_time() - spent, _peak_gigabytes()


def _peak_gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


if __name__ == "__main__":
    main()
