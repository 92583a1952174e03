"""Time and memory of the verb ``compare`` against the number of hits.

Usage: python benchmarks/compare_scaling.py [--hits 500 1000 2000 5000] [--most 4000] [--workers 2]

Polar residuals are simulated directly; the frames they belong to are one pixel
large, so that the store is real and nothing but ``compare`` takes time. The
table goes to standard output. Times hold for the machine alone.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from diffdask.cluster import connect
from diffdask.io.results_store import create_results, open_group, replace_group
from diffdask.simulate import make_experiment, simulate_polar_hits
from diffdask.steps.structure import find_structure
from diffdask.variables import wrap
from diffdask.verbs import compare, ingest

_GEOMETRY = """\
photon_energy = /energy
clen = 0.1
adu_per_eV = 0.001
res = 10000
dim0 = %
dim1 = ss
dim2 = fs
data = /data
p/min_fs = 0
p/max_fs = 0
p/min_ss = 0
p/max_ss = 0
p/fs = x
p/ss = y
p/corner_x = 1
p/corner_y = 1
"""


#: Laue groups that are timed, and their lattices: neither is ambiguous.
LATTICES = {"-1": "triclinic", "mmm": "orthorhombic"}


def main() -> None:
    """Make stores, compare their hits, and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hits", type=int, nargs="+", default=[500, 1000, 2000, 5000])
    parser.add_argument("--most", type=int, default=0, help="most hits that are compared; 0 for all")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    sys.stdout.write(f"{given.workers} workers of one thread, 64 rings x 72 azimuths\n\n")
    sys.stdout.write(
        "| hits | compared | Laue group | seconds | CPU us a pair | largest worker, MB | matrix, MB |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "place.toml"
        place.write_text(f'where = "laptop"\nworkers = {given.workers}\nthreads = 1\n')
        for hits in given.hits:
            for laue, lattice in LATTICES.items():
                results = make_store(Path(folder) / f"{hits}-{lattice}", hits, laue, lattice)
                sys.stdout.write(measure(results, laue, place, most=given.most) + "\n")
                sys.stdout.flush()


def measure(results: Path, laue: str, place: Path, *, most: int) -> str:
    """Compare pairs along common arcs once, after a warm-up on the same workers; one row of the table."""
    options: dict[str, Any] = {"laue": laue, "most": most, "overwrite": True, "progress": False}
    with connect(place) as client:
        client.run(_compile)
        before = sum(client.run(_cpu_seconds).values())
        started = time.perf_counter()
        compare(results, on=client, **options)
        seconds = time.perf_counter() - started
        spent = sum(client.run(_cpu_seconds).values()) - before
        largest = max(client.run(_peak_megabytes).values())
    stored = sum(path.stat().st_size for path in (results / "common-arc").rglob("*") if path.is_file()) / 1e6
    hits, compared = (open_group(results, group).sizes["hit"] for group in ("crystals", "common-arc"))
    pairs = compared * (compared - 1) / 2
    return (
        f"| {hits} | {compared} | {laue} | {seconds:.1f} | {1e6 * spent / pairs:.1f} | {largest:.0f} | {stored:.0f} |"
    )


def make_store(folder: Path, hits: int, laue: str, lattice: str) -> Path:
    """A results store of simulated hits, cleaned by no more than their noise."""
    folder.mkdir()
    experiment = make_experiment(3, laue_group=laue, disorder="liquid-like")
    made = simulate_polar_hits(experiment, hits=hits, q_max=2.6)
    write_frames(folder, made, lattice)
    frames = ingest(
        str(folder / "r0001.h5"),
        geometry=folder / "d.geom",
        stream=folder / "d.stream",
        to=folder / "frames.zarr",
        on="threads",
        progress=False,
    )
    results = folder / "results.zarr"
    create_results(results, frames=frames)
    noise = made.polar_noise.values
    significance = np.divide(made.polar_residual.values, noise, out=np.full(noise.shape, np.nan), where=noise > 0)
    polar = wrap(polar_residual=made.polar_residual.values, polar_noise=noise, polar_ring_q=made.polar_ring_q.values)
    replace_group(results, "hits", polar, {"parameters": {}})
    cleaned = wrap(
        cleaned_residual=significance.astype(np.float32),
        polar_ring_q=made.polar_ring_q.values,
        polar_coverage=made.polar_coverage.values,
    )
    found = wrap(
        hit_frame=np.arange(hits),
        cleaned_residual=cleaned.cleaned_residual.values,
        hit_structure=find_structure(cleaned).hit_structure.values,
    )
    replace_group(results, "features", found, {"parameters": {}}, block=128)
    return results


def write_frames(folder: Path, made: Any, lattice: str) -> None:
    """Frames of one pixel, and a stream with the orientations of the hits."""
    (folder / "d.geom").write_text(_GEOMETRY)
    with h5py.File(folder / "r0001.h5", "w") as file:
        file["data"] = np.ones((made.sizes["hit"], 1, 1), np.int16)
        file["energy"] = made.photon_energy.values
    lines = ["CrystFEL stream format 2.3"]
    for number, axes in enumerate(10 * made.orientation.values):
        lines += ["----- Begin chunk -----", f"Image filename: {folder / 'r0001.h5'}", f"Event: //{number}", "hit = 1"]
        if np.isfinite(axes).all():
            named = zip(("astar", "bstar", "cstar"), axes, strict=True)
            lines += [
                "--- Begin crystal",
                "Cell parameters 7.0 8.0 9.0 nm, 90.0 90.0 90.0 deg",
                *(f"{name} = {x:+.7f} {y:+.7f} {z:+.7f} nm^-1" for name, (x, y, z) in named),
                f"lattice_type = {lattice}",
                "centering = P",
                "unique_axis = *",
                "--- End crystal",
            ]
        lines.append("----- End chunk -----")
    (folder / "d.stream").write_text("\n".join(lines) + "\n")


def _compile() -> None:
    import diffdask.pipeline.compare  # noqa: F401 - so that no import is timed


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
