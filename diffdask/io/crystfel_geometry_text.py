"""The text of a CrystFEL ``.geom``, brought into the one form that ``cfelpyutils`` reads right.

CrystFEL takes ``key=value`` without spaces, units behind values, wavelengths,
directions with components left out, and top-level lines in any order;
``cfelpyutils`` 2.2 drops or misreads these without a word. So the text is
brought into a standard form first, and what has no place there is kept beside.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from diffdask.errors import BadGeometry
from diffdask.geometry import EV_ANGSTROM

_METRES = {"": None, "m": 1.0, "mm": 1e-3}
_EV = {"": 1.0, "eV": 1.0, "keV": 1e3}
_ANGSTROM = {"A": 1.0, "m": 1e10}
_FLAGS = ("flag_equal", "flag_lessthan", "flag_morethan")
_TERM = re.compile(r"([+-]?\s*(?:\d+\.?\d*|\.\d+)?(?:[eE][+-]?\d+)?)\s*([xyz])")


@dataclass
class GeometryText:
    """A geometry in standard form, and what that form cannot say."""

    lines: list[str] = field(default_factory=list)
    clen_scale: float = 1e-3  #: metres per unit where 'clen' is a path
    energy_scale: float = 1.0  #: eV (or angstrom) per unit where the photon energy is a path
    energy_is_wavelength: bool = False
    shift: list[float] = field(default_factory=lambda: [0.0, 0.0])  #: m, detector_shift_x and _y
    panel_values: list[tuple[str, str, float]] = field(default_factory=list)  #: (panel or '', key, value), in order


def standard_lines(text: str) -> list[str]:
    """Give the lines as ``key = value``, without comments and blanks: equal for equal geometries.

    Examples
    --------
    >>> standard_lines("res=9090 ; pixels per metre")
    ['res = 9090']
    """
    lines = []
    for line in text.replace("\r", "\n").split("\n"):
        key, equals, value = line.partition(";")[0].partition("=")
        if equals:
            lines.append(f"{key.strip()} = {' '.join(value.split())}")
    return lines


def read_geometry_text(text: str) -> GeometryText:
    """Bring a geometry into standard form.

    Raises
    ------
    BadGeometry
        If a unit is not known, or the text asks for something diffdask cannot
        do (electron diffraction, a detector shift that changes from frame to
        frame).
    """
    read = GeometryText()
    first: list[str] = []
    for line in standard_lines(text):
        full_key, _, value = line.partition(" = ")
        panel, _, key = full_key.rpartition("/")
        if panel.startswith("bad"):
            read.lines.append(line)
        elif key == "clen":
            kept = f"{full_key} = {_clen(value, read)}"
            (read.lines if panel else first).append(kept)
        elif key in ("photon_energy", "wavelength"):
            first.append(f"photon_energy = {_energy(key, value, read)}")
        elif key in ("detector_shift_x", "detector_shift_y"):
            read.shift["xy".index(key[-1])] = _literal_metres(key, value)
        elif key == "electron_voltage":
            raise BadGeometry("'electron_voltage': electron diffraction is not supported; give 'photon_energy'")
        elif key in ("fs", "ss") and panel:
            read.lines.append(f"{full_key} = {_direction(full_key, value)}")
        elif key in ("mask_edge_pixels", "no_index", *_FLAGS):
            read.panel_values.append((panel, key, _number(full_key, value)))
        else:
            read.lines.append(line)
    read.lines = first + read.lines
    return read


def values_of(read: GeometryText, panel: str, key: str) -> list[float]:
    """Values of a key that hold for a panel, in the file's order."""
    return [value for name, found, value in read.panel_values if found == key and name in ("", panel)]


def _clen(value: str, read: GeometryText) -> str:
    what, _, unit = value.partition(" ")
    if unit not in _METRES:
        raise BadGeometry(f"'clen = {value}': unit '{unit}' is not known; known: m, mm")
    scale = _METRES[unit]
    if what.startswith("/"):
        # CrystFEL: a value found in a file is in millimetres unless a unit is given.
        read.clen_scale = 1e-3 if scale is None else scale
        return what
    return repr(_number("clen", what) * (1.0 if scale is None else scale))


def _energy(key: str, value: str, read: GeometryText) -> str:
    what, _, unit = value.partition(" ")
    units = _EV if key == "photon_energy" else _ANGSTROM
    if unit not in units:
        raise BadGeometry(f"'{key} = {value}': unit '{unit}' is not known; known: {', '.join(filter(None, units))}")
    read.energy_is_wavelength = key == "wavelength"
    if what.startswith("/"):
        read.energy_scale = units[unit]
        return what
    number = _number(key, what) * units[unit]
    if number <= 0:
        raise BadGeometry(f"'{key} = {value}' must be positive")
    return repr(EV_ANGSTROM / number if read.energy_is_wavelength else number)


def _literal_metres(key: str, value: str) -> float:
    what, _, unit = value.partition(" ")
    if what.startswith("/") or unit not in _METRES:
        raise BadGeometry(f"'{key} = {value}': only a number in m or mm is supported, the same for all frames")
    return _number(key, what) * (_METRES[unit] or 1.0)


def _direction(key: str, value: str) -> str:
    """Write out all three components: what a direction leaves out is zero."""
    compact = value.replace(" ", "")
    components = dict.fromkeys("xyz", 0.0)
    for coefficient, axis in _TERM.findall(compact):
        components[axis] += float(coefficient + "1") if coefficient in ("", "+", "-") else float(coefficient)
    if not compact or _TERM.sub("", compact):
        raise BadGeometry(f"'{key} = {value}' is no direction; expected something like '+0.004806x +0.999989y'")
    # Fixed notation: the reader takes the sign of an exponent for another term.
    return " ".join(f"{number:+.17f}{axis}" for axis, number in components.items())


def _number(key: str, value: str) -> float:
    word = {"true": "1", "false": "0"}.get(value.lower(), value)
    try:
        return float(word)
    except ValueError:
        raise BadGeometry(f"'{key} = {value}' is no number") from None
