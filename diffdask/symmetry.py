"""The rotations that a crystal's intensities keep, by the names crystallographers use.

Rotations are integer matrices that act on a column (h, k, l): ``R @ hkl`` is a
mate of ``hkl``. Only proper rotations are listed (determinant 1). Friedel's law
adds -hkl to every mate, wherever it is used; so a Laue group of order 2 g is
given by its g rotations, and a point group by those of its Laue group.

Settings: the unique axis is b in monoclinic groups and c in all others, unless
the name ends as in CrystFEL in ``_uaa``, ``_uab`` or ``_uac``. Trigonal groups
are on hexagonal axes unless the name ends in ``_R`` (or ``:R``): rhombohedral
axes.

The crystal's frame, in which orientations are compared, is Cartesian: a* along
x and b* in the plane of x and y.
"""

from __future__ import annotations

from functools import lru_cache

import gemmi
import numpy as np

from diffdask.errors import BadParameter, nearest

#: Laue group to a space group of it; gemmi knows space groups by name, not point groups.
_LAUE = {
    "-1": "P -1",
    "2/m": "P 1 2/m 1",
    "mmm": "P m m m",
    "4/m": "P 4/m",
    "4/mmm": "P 4/m m m",
    "-3": "P -3",
    "-3m1": "P -3 m 1",
    "-31m": "P -3 1 m",
    "6/m": "P 6/m",
    "6/mmm": "P 6/m m m",
    "m-3": "P m -3",
    "m-3m": "P m -3 m",
}
_RHOMBOHEDRAL = {"-3_R": "R -3:R", "-3m_R": "R -3 m:R"}

#: Names of the Laue groups in their standard settings, and of the two on rhombohedral axes.
LAUE_GROUPS: tuple[str, ...] = (*_LAUE, *_RHOMBOHEDRAL)

#: Point group to its Laue group.
_POINT_GROUPS = {
    **{"1": "-1", "2": "2/m", "m": "2/m", "222": "mmm", "mm2": "mmm", "m2m": "mmm", "2mm": "mmm"},
    **{"4": "4/m", "-4": "4/m", "422": "4/mmm", "4mm": "4/mmm", "-42m": "4/mmm", "-4m2": "4/mmm"},
    **{"3": "-3", "32": "-3m1", "3m": "-3m1", "-3m": "-3m1", "321": "-3m1", "3m1": "-3m1", "312": "-31m"},
    **{"31m": "-31m", "6": "6/m", "-6": "6/m", "622": "6/mmm", "6mm": "6/mmm", "-62m": "6/mmm", "-6m2": "6/mmm"},
    **{"23": "m-3", "432": "m-3m", "-43m": "m-3m", "m3": "m-3", "m3m": "m-3m"},
    **{"3_R": "-3_R", "32_R": "-3m_R", "3m_R": "-3m_R"},
}

#: CrystFEL's lattice types (and two synonyms) to the Laue group of the bare lattice.
_HOLOHEDRY = {
    "triclinic": "-1",
    "monoclinic": "2/m",
    "orthorhombic": "mmm",
    "tetragonal": "4/mmm",
    "rhombohedral": "-3m_R",
    "trigonal": "6/mmm",
    "hexagonal": "6/mmm",
    "cubic": "m-3m",
}


@lru_cache(maxsize=64)
def laue_rotations(group: str) -> np.ndarray:
    """Rotations of the Laue group of a Laue, point or space group.

    Parameters
    ----------
    group
        Laue group ("mmm", "4/mmm"), point group ("622", "2_uac") or space group
        in any setting gemmi knows ("P 61", "P212121", "R 3:R").

    Returns
    -------
    numpy.ndarray
        (g, 3, 3) int64, read-only, acting on columns (h, k, l); the identity
        first, without Friedel's law.

    Raises
    ------
    BadParameter
        If the name is not known; it says the nearest one.

    Examples
    --------
    >>> laue_rotations("P 21").tolist()
    [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[-1, 0, 0], [0, 1, 0], [0, 0, -1]]]
    """
    name, axis = _split_axis(group.strip())
    name = name.removesuffix("_H")
    laue = _POINT_GROUPS.get(name, name)
    known = {**_LAUE, **_RHOMBOHEDRAL}
    space_group = gemmi.find_spacegroup_by_name(known.get(laue, name))
    if space_group is None:
        raise BadParameter(f"symmetry group '{group}' is not known; {nearest(name, [*known, *_POINT_GROUPS])}")
    rotations = _proper_rotations(space_group)
    if axis is not None:
        native = "b" if laue == "2/m" else "c"
        turn = np.roll(np.eye(3, dtype=np.int64), "abc".index(axis) - "abc".index(native), axis=0)
        rotations = turn @ rotations @ turn.T
    return _sorted(rotations)


def highest_laue_group(lattice: str, *, centring: str = "P", unique_axis: str = "*") -> str:
    """Name the Laue group of a bare lattice, the highest its crystals can have.

    Parameters
    ----------
    lattice
        CrystFEL's lattice type: triclinic, monoclinic, orthorhombic,
        tetragonal, rhombohedral (or trigonal), hexagonal, cubic.
    centring
        CrystFEL's centring; "H" is a rhombohedral lattice on hexagonal axes,
        and "R" one on rhombohedral axes.
    unique_axis
        "a", "b" or "c"; "*" or "?" for the standard one (b in a monoclinic
        lattice, c in others).

    Returns
    -------
    str
        A name that :func:`laue_rotations` takes. A crystal may well have less:
        P61 has the lattice of 6/mmm and the Laue group 6/m.

    Raises
    ------
    BadParameter
        If lattice, centring or axis is not known.

    Examples
    --------
    >>> highest_laue_group("monoclinic", unique_axis="c")
    '2/m_uac'
    """
    if lattice not in _HOLOHEDRY:
        raise BadParameter(f"lattice '{lattice}' is not known; {nearest(lattice, _HOLOHEDRY)}")
    if centring not in "PABCIFRH?" or len(centring) != 1:
        raise BadParameter(f"centring '{centring}' is not known; known: P, A, B, C, I, F, R, H")
    if unique_axis not in ("a", "b", "c", "*", "?"):
        raise BadParameter(f"unique axis '{unique_axis}' is not known; known: a, b, c, *")
    group = _HOLOHEDRY[lattice]
    if lattice in ("trigonal", "hexagonal", "rhombohedral") and centring in "RH":
        group = "-3m1" if centring == "H" else "-3m_R"
    standard = {"monoclinic": "b", "tetragonal": "c", "hexagonal": "c", "trigonal": "c"}.get(lattice)
    is_turned = standard is not None and group != "-3m_R" and unique_axis not in (standard, "*", "?")
    return f"{group}_ua{unique_axis}" if is_turned else group


def laue_group_of(lattice: str) -> str:
    """Name the highest Laue group of a lattice as the frames store writes it.

    Parameters
    ----------
    lattice
        Lattice type, centring and unique axis, as in ``orthorhombic P *``.

    Raises
    ------
    BadParameter
        If the stream did not say the lattice, or says one that is not known.

    Examples
    --------
    >>> laue_group_of("tetragonal P c")
    '4/mmm'
    """
    words = lattice.split()
    if len(words) != 3 or words[0] == "?":
        raise BadParameter(
            f"the lattice of an indexed frame reads '{lattice}': expected type, centring and unique axis as in "
            "'orthorhombic P *'; name the Laue group yourself"
        )
    return highest_laue_group(words[0], centring=words[1], unique_axis=words[2])


def ambiguity_rotations(group: str, lattice: str) -> np.ndarray:
    """Ways in which indexing may have labelled the axes of a crystal.

    Indexing sees the lattice only. Where the crystal has less symmetry, several
    labellings fit its spots alike, and they differ by rotations of the lattice
    that the crystal does not have.

    Parameters
    ----------
    group
        The crystal's Laue, point or space group.
    lattice
        The group of its lattice: a Laue group, or the text of the frames store
        ("hexagonal P c").

    Returns
    -------
    numpy.ndarray
        (m, 3, 3) int64 acting on columns (h, k, l), the identity first: one
        rotation of each coset ``group @ R`` in the lattice's group. m is 1
        where indexing is not ambiguous.

    Raises
    ------
    BadParameter
        If a name is not known, or the group is not one of this lattice.

    Notes
    -----
    In each crystal family the group is a normal subgroup of the lattice's, so
    that left and right cosets are the same and a relative labelling of two
    frames is again one of these.
    """
    whole = laue_rotations(laue_group_of(lattice) if len(lattice.split()) == 3 else lattice)
    part = laue_rotations(group)
    seen: set[bytes] = set()
    if not {r.tobytes() for r in part} <= {r.tobytes() for r in whole}:
        raise BadParameter(f"group '{group}' is no subgroup of the lattice '{lattice}': check the setting of both")
    chosen = []
    for rotation in whole:
        if rotation.tobytes() not in seen:
            chosen.append(rotation)
            seen |= {(member @ rotation).tobytes() for member in part}
    return np.array(chosen)


def mean_cell(orientation: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Reciprocal axes, in the crystal's frame, of the cell that frames have in common.

    Parameters
    ----------
    orientation
        (n, 3, 3) rows a*, b*, c* in the laboratory, 1/angstrom; NaN where not indexed.
    rotations
        (g, 3, 3) from :func:`laue_rotations`, of the crystal or its lattice.

    Returns
    -------
    numpy.ndarray
        (3, 3) rows a*, b*, c*, 1/angstrom: from the median metric, made to obey
        the rotations exactly.

    Raises
    ------
    BadParameter
        If no frame is indexed.
    """
    is_indexed = np.isfinite(orientation).all(axis=(1, 2))
    if not is_indexed.any():
        raise BadParameter("no frame has an orientation: there is no cell to take the crystal's frame from")
    axes = orientation[is_indexed]
    metric = np.median(axes @ axes.transpose(0, 2, 1), axis=0)
    # The length of h is h^T metric h; the mean over mates is the metric for which no rotation changes it.
    return np.linalg.cholesky((rotations.transpose(0, 2, 1) @ metric @ rotations).mean(axis=0))


def crystal_rotations(orientation: np.ndarray, cell: np.ndarray, *, tolerance: float = 0.1) -> np.ndarray:
    """Rotations from the laboratory into the crystal's frame.

    Parameters
    ----------
    orientation
        (n, 3, 3) rows a*, b*, c* in the laboratory, 1/angstrom; NaN where not indexed.
    cell
        (3, 3) rows a*, b*, c* in the crystal's frame, from :func:`mean_cell`.
    tolerance
        Largest strain, as a share, between a frame's cell and ``cell``.

    Returns
    -------
    numpy.ndarray
        (n, 3, 3), R of ``v_crystal = R @ v_laboratory``: the rotation nearest to
        what takes the axes there, which is not exactly one (polar
        decomposition). NaN where not indexed, where the axes are left-handed and
        where the cell is another one.
    """
    rotations = np.full(orientation.shape, np.nan)
    indexed = np.flatnonzero(np.isfinite(orientation).all(axis=(1, 2)))
    # Indices h are a point h^T orientation in the laboratory and h^T cell in the crystal's frame.
    left, strain, right = np.linalg.svd(np.linalg.solve(cell, orientation[indexed]))
    nearest_rotations = left @ right
    fits = (np.abs(strain - 1.0) <= tolerance).all(axis=1) & (np.linalg.det(nearest_rotations) > 0)
    rotations[indexed[fits]] = nearest_rotations[fits]
    return rotations


def cartesian_rotations(rotations: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Rotations of indices as rotations of vectors in the crystal's frame.

    Parameters
    ----------
    rotations
        (g, 3, 3) acting on columns (h, k, l).
    cell
        (3, 3) rows a*, b*, c* in the crystal's frame, from :func:`mean_cell`.

    Returns
    -------
    numpy.ndarray
        (g, 3, 3); rotations to rounding, whatever the cell (polar decomposition).
    """
    left, _, right = np.linalg.svd(cell.T @ rotations @ np.linalg.inv(cell.T))
    return np.asarray(left @ right)


def _split_axis(name: str) -> tuple[str, str | None]:
    stem, mark, axis = name.rpartition("_ua")
    return (stem, axis) if mark and axis in ("a", "b", "c") else (name, None)


def _proper_rotations(space_group: gemmi.SpaceGroup) -> np.ndarray:
    matrices = np.array([operation.rot for operation in space_group.operations().sym_ops], dtype=np.int64)
    # gemmi's rotations act on coordinates: h' = h R, so that a column of indices takes the transpose.
    rotations = matrices.transpose(0, 2, 1) // gemmi.Op.DEN
    return rotations * np.rint(np.linalg.det(rotations)).astype(np.int64)[:, None, None]


def _sorted(rotations: np.ndarray) -> np.ndarray:
    unique = np.unique(rotations, axis=0)
    is_identity = (unique == np.eye(3, dtype=np.int64)).all(axis=(1, 2))
    ordered = np.concatenate([unique[is_identity], unique[~is_identity]])
    ordered.flags.writeable = False
    return ordered
