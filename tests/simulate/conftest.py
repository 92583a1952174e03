"""A small detector: four panels of 60 x 62 large pixels around the beam, out to about 2 angstrom."""

from pathlib import Path

import pytest

from diffdask.simulate import Experiment, make_experiment

_HEAD = """
photon_energy = /LCLS/photon_energy_eV
clen = /LCLS/detector_1/EncoderValue
coffset = 0.5
adu_per_eV = 0.00338
res = 1250
dim0 = %
dim1 = ss
dim2 = fs
data = /entry_1/data_1/data
mask = /entry_1/data_1/mask
mask_good = 0x0000
mask_bad = 0xffff
"""

_PANELS = {"ne": (4, 5, 1, 0), "nw": (-5, 4, 0, 1), "sw": (-4, -5, -1, 0), "se": (5, -4, 0, -1)}


def small_geometry_text() -> str:
    """Text of the geometry; each panel is the one before, turned by a right angle."""
    lines = [_HEAD]
    for number, (name, (x, y, cosine, sine)) in enumerate(_PANELS.items()):
        lines += [
            f"{name}/min_fs = 0",
            f"{name}/max_fs = 61",
            f"{name}/min_ss = {60 * number}",
            f"{name}/max_ss = {60 * number + 59}",
            f"{name}/fs = {cosine:+d}x {sine:+d}y",
            f"{name}/ss = {-sine:+d}x {cosine:+d}y",
            f"{name}/corner_x = {x}",
            f"{name}/corner_y = {y}",
        ]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def small_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the small detector's geometry."""
    path = tmp_path_factory.mktemp("geometry") / "small.geom"
    path.write_text(small_geometry_text())
    return path


@pytest.fixture(scope="session")
def small_experiment() -> Experiment:
    """An orthorhombic crystal in a beam without streaks and ice."""
    return make_experiment(
        5,
        lattice="orthorhombic",
        cell=(60.0, 70.0, 80.0, 90.0, 90.0, 90.0),
        centring="P",
        disorder="liquid-like",
        camera_length=0.1,
        photon_energy=9500.0,
        molecule_radius=12.0,
        streak_fraction=0.0,
        ice_fraction=0.0,
        polarisation_angle=0.0,
    )
