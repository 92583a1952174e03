"""A CSPAD of our own: 32 modules of 2x1 sensors in four quadrants around a hole, as a CrystFEL geometry."""

from __future__ import annotations

import math

import numpy as np

#: Pixels per metre: 109.92 micrometre.
RESOLUTION = 1 / 109.92e-6

#: Offset of the encoder: the camera length is the encoder's value (m) plus this.
COFFSET = 0.578

#: Modules of the quadrant at the lower right, seen from the sample with y up: corner x, y in pixels from the beam,
#: and quarter turns of fast-scan from +x. Slow-scan is a quarter turn on. Modules come in parallel pairs.
_QUADRANT = (
    (-32.0, -458.0, 0),
    (-32.0, -253.0, 0),
    (360.0, -885.0, 1),
    (155.0, -885.0, 1),
    (784.0, -493.0, 2),
    (784.0, -699.0, 2),
    (769.0, -460.0, 1),
    (555.0, -460.0, 1),
)

#: Each quadrant is the next one turned back by a right angle; the last is as above.
_QUARTER_TURNS = (1, 2, 3, 0)

_HALF_SS, _HALF_FS = 185, 194

#: From one half of a module to the other: 194 pixels, and 3 more that the two wide columns take between them.
_HALF_SPACING = 197.0


def cspad_geometry_text(*, adu_per_ev: float = 0.00338, seed: int = 11) -> str:
    """Write the geometry of a CSPAD on Cheetah's slab of 1480 x 1552 pixels.

    Parameters
    ----------
    adu_per_ev
        Gain.
    seed
        Of the small turns and shifts of modules and quadrants; the default is the detector that we always use.
    """
    random = np.random.default_rng(seed)
    lines = [
        "; CSPAD, made up; Cheetah's layout",
        "photon_energy = /LCLS/photon_energy_eV",
        "clen = /LCLS/detector_1/EncoderValue",
        f"coffset = {COFFSET:.6f}",
        f"adu_per_eV = {adu_per_ev:.8g}",
        f"res = {RESOLUTION:.6f}",
        "dim0 = %",
        "dim1 = ss",
        "dim2 = fs",
        "data = /entry_1/data_1/data",
        "mask = /entry_1/data_1/mask",
        "mask_good = 0x0000",
        "mask_bad = 0xffff",
        "",
        *_rigid_groups(),
    ]
    for quadrant, turns in enumerate(_QUARTER_TURNS):
        turn = turns * math.pi / 2 + random.normal(scale=math.radians(0.1))
        shift = random.normal(scale=4.0, size=2)
        for module, (x, y, quarter) in enumerate(_QUADRANT):
            corner = _turned(np.array([x, y]) + random.normal(scale=0.5, size=2), turn) + shift
            along = turn + quarter * math.pi / 2 + random.normal(scale=math.radians(0.15))
            for half in range(2):
                lines += _half_panel(quadrant, module, half, corner, along)
    return "\n".join(lines) + "\n"


def _half_panel(quadrant: int, module: int, half: int, corner: np.ndarray, along: float) -> list[str]:
    name = f"q{quadrant}a{2 * module + half}"
    cosine, sine = math.cos(along), math.sin(along)
    x, y = corner + half * _HALF_SPACING * np.array([cosine, sine])
    first_fs = quadrant * 2 * _HALF_FS + half * _HALF_FS
    first_ss = module * _HALF_SS
    return [
        "",
        f"{name}/min_fs = {first_fs}",
        f"{name}/min_ss = {first_ss}",
        f"{name}/max_fs = {first_fs + _HALF_FS - 1}",
        f"{name}/max_ss = {first_ss + _HALF_SS - 1}",
        f"{name}/fs = {cosine:+.9f}x {sine:+.9f}y",
        f"{name}/ss = {-sine:+.9f}x {cosine:+.9f}y",
        f"{name}/corner_x = {x:.4f}",
        f"{name}/corner_y = {y:.4f}",
    ]


def _rigid_groups() -> list[str]:
    quadrants = [f"rigid_group_q{q} = " + ",".join(f"q{q}a{a}" for a in range(16)) for q in range(4)]
    modules = [f"rigid_group_m{8 * q + m} = q{q}a{2 * m},q{q}a{2 * m + 1}" for q in range(4) for m in range(8)]
    return [
        *quadrants,
        *modules,
        "rigid_group_collection_quadrants = " + ",".join(f"q{q}" for q in range(4)),
        "rigid_group_collection_modules = " + ",".join(f"m{m}" for m in range(32)),
    ]


def _turned(point: np.ndarray, turn: float) -> np.ndarray:
    cosine, sine = math.cos(turn), math.sin(turn)
    return np.array([cosine * point[0] - sine * point[1], sine * point[0] + cosine * point[1]])
