"""The lattice of one hit as its Bragg peaks show it: where its axes really lie, how far from the sphere spots reach.

Indexing leaves orientations that are off by tenths of a degree: at high angles that is further than a halo reaches.
The peaks of a hit, a hundred or more, tell the orientation to a hundredth of a degree.
"""

import numpy as np

#: Part of the reciprocal spacing within which a peak belongs to its nearest lattice point, ...
_REACHES = (0.35, 0.3, 0.25, 0.2, 0.2, 0.2)

#: ... and the part of the peaks, nearest the beam first, that is looked at: a wrong turn moves outer peaks furthest.
_PARTS = (0.4, 0.7, 1.0, 1.0, 1.0, 1.0)

#: Rows of the primitive axes of a lattice in terms of its conventional ones.
_PRIMITIVE = {
    "P": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "A": ((1.0, 0.0, 0.0), (0.0, 0.5, 0.5), (0.0, -0.5, 0.5)),
    "B": ((0.5, 0.0, 0.5), (0.0, 1.0, 0.0), (-0.5, 0.0, 0.5)),
    "C": ((0.5, 0.5, 0.0), (-0.5, 0.5, 0.0), (0.0, 0.0, 1.0)),
    "I": ((-0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.5, 0.5, -0.5)),
    "F": ((0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0)),
    "R": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "H": ((2 / 3, 1 / 3, 1 / 3), (-1 / 3, 1 / 3, 1 / 3), (-1 / 3, -2 / 3, 1 / 3)),
}

CENTRINGS = tuple(_PRIMITIVE)


def find_primitive_axes(axes, centring):
    """Reciprocal axes of the primitive lattice: whole multiples of them are the points that the centring leaves.

    Parameters
    ----------
    axes : (3, 3) float
        Rows a*, b*, c*, 1/angstrom.
    centring : str
        P, A, B, C, I, F, R (rhombohedral axes) or H (hexagonal axes of a rhombohedral lattice).

    Returns
    -------
    (3, 3) float
        Rows, 1/angstrom.

    Raises
    ------
    KeyError
        If the centring is not known.
    """
    direct = np.array(_PRIMITIVE[centring]) @ np.linalg.inv(axes).T
    return np.linalg.inv(direct).T


def refine_axes(points, axes):
    """Turn the axes of a lattice so that Bragg peaks lie on its points.

    Parameters
    ----------
    points : (n, 3) float
        Points of reciprocal space that the peaks record, in the laboratory, 1/angstrom.
    axes : (3, 3) float
        Rows: primitive reciprocal axes, 1/angstrom.

    Returns
    -------
    axes : (3, 3) float
        Turned; as they were where fewer than eight peaks are near a point.
    near : (n,) bool
        Whether the peak lies within a fifth of the shortest spacing of a point of the turned lattice.

    Notes
    -----
    Least squares of the small turn w in w x g = p - g, p a peak and g its lattice point, taken six times; what is
    nearer the beam comes first, because there a wrong turn leaves peaks with their own points.
    """
    lengths = np.linalg.norm(points, axis=1)
    spacing = _find_spacing(axes)
    for reach, part in zip(_REACHES, _PARTS, strict=True):
        nearest = find_nearest_points(points, axes)
        off = points - nearest
        near = np.linalg.norm(off, axis=1) < reach * spacing
        used = near & (lengths <= np.quantile(lengths, part)) if part < 1.0 and lengths.size else near
        if used.sum() >= 8:
            axes = axes @ _rotation_about(_find_turn(nearest[used], off[used])).T
    off = points - find_nearest_points(points, axes)
    return axes, np.linalg.norm(off, axis=1) < find_reach(axes)


def find_reach(axes):
    """Distance, 1/angstrom, within which a peak is said to lie on a point of the lattice; ``axes`` as above."""
    return _REACHES[-1] * _find_spacing(axes)


def find_nearest_points(points, axes):
    """Lattice points, (n, 3) 1/angstrom, next to points (n, 3); ``axes`` (3, 3) primitive reciprocal axes."""
    return np.rint(points @ np.linalg.inv(axes)) @ axes


def measure_widths(points, wavelength, reach):
    """How far from the Ewald sphere the lattice points of a hit's peaks lie.

    Parameters
    ----------
    points : (n, 3) float
        Lattice points of the peaks, 1/angstrom.
    wavelength : float
        Angstrom.
    reach : float
        1/angstrom: no peak can be further from its lattice point.

    Returns
    -------
    size_width, mosaicity : float
        1/angstrom and rad: standard deviation sqrt(size_width^2 + (mosaicity s)^2) of the distance at s from the
        origin.

    Notes
    -----
    Maximum likelihood on a grid; one peak in twenty may be anywhere within reach. Strong reflections are seen
    further from the sphere and weak ones are not seen at all, so that this is the width of what is seen.
    """
    s2 = (points**2).sum(axis=1)
    offset2 = (points[:, 2] + 0.5 * wavelength * s2) ** 2
    sizes, mosaicities = np.geomspace(5e-5, 8e-4, 13), np.geomspace(2e-4, 1e-2, 29)
    width2 = sizes[:, None, None] ** 2 + (mosaicities[:, None] ** 2) * s2
    density = 0.95 * np.exp(-0.5 * offset2 / width2) / np.sqrt(2.0 * np.pi * width2) + 0.05 * 0.5 / reach
    likelihood = np.log(density).sum(axis=2)
    best = np.unravel_index(np.argmax(likelihood), likelihood.shape)
    return sizes[best[0]], mosaicities[best[1]]


def _find_spacing(axes):
    """Shortest distance between planes of lattice points, 1/angstrom."""
    return 1.0 / np.linalg.norm(np.linalg.inv(axes), axis=0).max()


def _find_turn(points, off):
    """Rotation vector w, (3,) rad, with w x point close to off, (n, 3) both, by least squares."""
    cross = np.zeros((len(points), 3, 3))
    for one, other, third in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        cross[:, one, other] = points[:, third]
        cross[:, other, one] = -points[:, third]
    return np.linalg.lstsq(cross.reshape(-1, 3), off.ravel(), rcond=None)[0]


def _rotation_about(axis):
    """Rotation matrix, (3, 3), about ``axis`` (3,) by its length in rad (Rodrigues)."""
    angle = np.linalg.norm(axis)
    if angle == 0.0:
        return np.eye(3)
    x, y, z = axis / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross
