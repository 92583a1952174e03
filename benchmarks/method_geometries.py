"""Detectors that differ from the CSPAD of ``simulate``: one turned and off centre, and one of other panels."""

from __future__ import annotations

import math
import re

from diffdask.simulate import cspad_geometry_text

_NUMBER = r"[+-]?[\d.]+"
_DIRECTION = re.compile(rf"^(?P<name>.*/[fs]s) = (?P<x>{_NUMBER})x (?P<y>{_NUMBER})y$")
_CORNER = re.compile(rf"^(?P<name>.*)/corner_x = (?P<x>{_NUMBER})\n.*/corner_y = (?P<y>{_NUMBER})$", re.MULTILINE)

#: Eight modules of 512 x 1024 pixels of 75 micrometre, two beside each other and four above: modules a gap apart.
_MODULE_SS, _MODULE_FS, _GAP, _HOLE = 512, 1024, 36, 60

_HEAD = """; eight modules, made up
photon_energy = /LCLS/photon_energy_eV
clen = /LCLS/detector_1/EncoderValue
coffset = 0.1
adu_per_eV = 0.0033
res = 13333.333
dim0 = %
dim1 = ss
dim2 = fs
data = /entry_1/data_1/data
mask = /entry_1/data_1/mask
mask_good = 0x0000
mask_bad = 0xffff
"""


def turned_cspad_text(degrees: float = 37.0, shift: tuple[float, float] = (110.0, -70.0)) -> str:
    """Write a CSPAD of other small misalignments, turned about the beam and off centre by this many pixels."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def turn(x: str, y: str) -> tuple[float, float]:
        return cosine * float(x) - sine * float(y), sine * float(x) + cosine * float(y)

    def turn_direction(line: str) -> str:
        found = _DIRECTION.match(line)
        if not found:
            return line
        x, y = turn(found["x"], found["y"])
        return f"{found['name']} = {x:+.9f}x {y:+.9f}y"

    def turn_corner(found: re.Match[str]) -> str:
        x, y = turn(found["x"], found["y"])
        return f"{found['name']}/corner_x = {x + shift[0]:.4f}\n{found['name']}/corner_y = {y + shift[1]:.4f}"

    lines = cspad_geometry_text(seed=12).splitlines()
    return _CORNER.sub(turn_corner, "\n".join(map(turn_direction, lines))) + "\n"


def eight_modules_text() -> str:
    """Write eight large modules about the beam, each pair pushed aside as vanes of a windmill to leave a hole."""
    lines = [_HEAD]
    for number in range(8):
        row, column = divmod(number, 2)
        y = (2 - row) * (_MODULE_SS + _GAP) - _GAP / 2
        x = (column - 1) * (_MODULE_FS + _GAP) + _GAP / 2 + (_HOLE if row < 2 else -_HOLE)
        lines += [
            f"m{number}/min_fs = 0",
            f"m{number}/max_fs = {_MODULE_FS - 1}",
            f"m{number}/min_ss = {number * _MODULE_SS}",
            f"m{number}/max_ss = {(number + 1) * _MODULE_SS - 1}",
            f"m{number}/fs = +1.000000x +0.000000y",
            f"m{number}/ss = +0.000000x -1.000000y",
            f"m{number}/corner_x = {x:.2f}",
            f"m{number}/corner_y = {y:.2f}",
            "",
        ]
    return "\n".join(lines)
