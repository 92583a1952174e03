"""Common arcs: how well two frames agree where their Ewald spheres meet.

With n the unit vector along the beam in the crystal's frame, a point q of a
frame obeys q.n = -|q| sin(theta), sin(theta) = |q| wavelength / 4 pi. On the
ring |q| two frames share the points that obey this for both n: at most two,
mirror images in the plane of the two beams. Each rotation of the Laue group,
applied to the second frame, gives such a pair of points on every ring, and
Friedel's law another: there -q is a point of the second frame.

``docs/similarity.md`` has the derivation.
"""

import math

import numpy as np

from diffdask.kernels.compilation import compiled, kernel

#: Packed values are sixteenths of a standard deviation, so that sums are whole numbers and no order of adding matters.
STEPS = 16

#: Packed value of a bin that is missing.
MISSING = -128


def locate_shared_points(row, column, sines, is_friedel=False):
    """Azimuths, in two frames, of the two points they share on a ring: the formulae, for one ring.

    Parameters
    ----------
    row, column
        (3, 3) rotations from the laboratory to the crystal's frame, of two frames.
    sines
        sin(theta) of the ring in the first frame and in the second; they
        differ where the wavelengths do.
    is_friedel
        Give the points q of the first frame of which -q is in the second.

    Returns
    -------
    numpy.ndarray
        (branch, frame) rad; NaN where the frames share no point of the ring.
    """
    relative = row.T @ column
    angle = math.acos(max(-1.0, min(1.0, relative[2, 2])))
    toward = math.atan2(relative[1, 2], relative[0, 2]), math.atan2(relative[2, 1], relative[2, 0])
    sign = -1.0 if is_friedel else 1.0
    points = np.full((2, 2), np.nan)
    for frame, (own, other) in enumerate(((sines[0], sines[1]), (sines[1], sines[0]))):
        cosine = (own * math.cos(angle) - sign * other) / (math.sqrt(1.0 - own * own) * math.sin(angle))
        if abs(cosine) > 1.0:
            return np.full((2, 2), np.nan)
        # The point is to the left of the other beam in one frame and to the right in the other; -q changes sides.
        side = 1.0 if frame == 0 else -sign
        points[:, frame] = toward[frame] + side * math.acos(cosine) * np.array([1.0, -1.0])
    return points


def pack_frames(values, oversampling):
    """Pack frames for :func:`sum_arcs`: finer in azimuth by linear interpolation, rounded to whole numbers.

    Parameters
    ----------
    values
        (n, r, a) ring-normalised significance, about -7.9 to 7.9 (it is cut
        there); NaN where missing.
    oversampling
        Fine bins a bin. 1 takes the nearest bin.

    Returns
    -------
    numpy.ndarray
        (n, r * a * oversampling + 1) int8 in ``STEPS`` a unit. A bin without
        its neighbour is taken as constant towards it. The last cell is
        ``MISSING``: it stands for points that two frames do not share.
    """
    hits, rings, azimuths = values.shape
    packed = np.full((hits, rings * azimuths * oversampling + 1), MISSING, dtype=np.int8)
    offsets = (np.arange(oversampling) + 0.5) / oversampling - 0.5
    _interpolate(values, offsets, packed[:, :-1].reshape(hits, rings, azimuths, oversampling))
    return packed


@kernel
def sum_arcs(
    row_values, column_values, row_axes, column_axes, row_sines, column_sines, rotations, friedel, limits, skip, sums
):  # fmt: skip
    """Add up products of two frames along their common arcs, for all pairs of rows and columns.

    Letters: n rows, m columns, r rings, g rotations, f fine azimuths.

    Parameters
    ----------
    row_values, column_values
        (n, r * f + 1) and (m, r * f + 1) int8, from :func:`pack_frames`.
    row_axes, column_axes
        (n, 3, 3) and (m, 3, 3) rotations from the laboratory to the crystal's frame.
    row_sines, column_sines
        (n, r) and (m, r) sin(theta) of the rings.
    rotations
        (g, 3, 3) rotations in the crystal's frame, applied to the columns.
    friedel
        Whether -q has the intensity of q.
    limits
        Sine of the smallest angle between two beams; largest cosine of the
        angle between a point and the plane of the two beams.
    skip
        Column j is left out of row i where j < i + skip: 1 above the diagonal
        of a square tile, -n for all.
    sums
        (n, m, 4) int64, written: sums of xy, xx and yy, in ``STEPS`` squared,
        and the number of samples.
    """
    rings = row_sines.shape[1]
    bins = (row_values.shape[1] - 1) // rings
    row_places, column_places = np.empty((2, rings), np.int32), np.empty((2, rings), np.int32)
    row_slopes, column_slopes = _slopes(row_sines), _slopes(column_sines)
    turned = _turn(rotations, column_axes)
    sums[:] = 0
    for i in range(row_values.shape[0]):
        for j in range(max(0, i + skip), column_values.shape[0]):
            for g in range(rotations.shape[0]):
                cosine, sine, row_toward, column_toward = _relate(row_axes[i], turned[j, g], bins)
                if not sine >= limits[0]:  # nor where a frame is not indexed: NaN
                    continue
                for law in range(2 if friedel else 1):
                    sign = 1.0 - 2.0 * law
                    angle = (cosine, sine, sign)
                    _place(row_slopes[i], column_sines[j], angle, row_toward, limits[1], bins, row_places)
                    _place(column_slopes[j], row_sines[i], angle, column_toward, limits[1], bins, column_places)
                    # A point left of the other beam in one frame is right of it in the other; -q changes sides.
                    _add_products(row_values[i], column_values[j], row_places[0], column_places[1 - law], sums[i, j])
                    _add_products(row_values[i], column_values[j], row_places[1], column_places[law], sums[i, j])


@kernel
def _interpolate(values, offsets, fine):
    """Fill (n, r, a, oversampling) with packed values at offsets, in bins, from the centres of (n, r, a) bins."""
    azimuths = values.shape[2]
    for hit in range(values.shape[0]):
        for ring in range(values.shape[1]):
            for azimuth in range(azimuths):
                own = np.float64(values[hit, ring, azimuth])
                for part in range(offsets.shape[0]):
                    step = 1 if offsets[part] > 0.0 else -1
                    other = np.float64(values[hit, ring, (azimuth + step) % azimuths])
                    share = 0.0 if math.isnan(other) else abs(offsets[part])
                    mixed = own + share * (other - own) if share > 0.0 else own
                    if math.isnan(mixed):
                        fine[hit, ring, azimuth, part] = MISSING
                    else:
                        fine[hit, ring, azimuth, part] = np.int8(min(max(np.rint(mixed * STEPS), -127.0), 127.0))


@compiled
def _slopes(sines):
    """Tangent and secant of each ring's theta: (n, 2, r)."""
    slopes = np.empty((sines.shape[0], 2, sines.shape[1]))
    for n in range(sines.shape[0]):
        for ring in range(sines.shape[1]):
            secant = 1.0 / math.sqrt(1.0 - sines[n, ring] ** 2)
            slopes[n, 0, ring] = sines[n, ring] * secant
            slopes[n, 1, ring] = secant
    return slopes


@compiled
def _turn(rotations, axes):
    """Apply every rotation to every frame's axes: (m, g, 3, 3)."""
    turned = np.zeros((axes.shape[0], rotations.shape[0], 3, 3))
    for m in range(axes.shape[0]):
        for g in range(rotations.shape[0]):
            for a in range(3):
                for b in range(3):
                    for c in range(3):
                        turned[m, g, a, b] += rotations[g, a, c] * axes[m, c, b]
    return turned


@compiled
def _relate(row, column, bins):
    """Cosine and sine of the angle between two beams; azimuth of each in the other's frame, in fine bins, [0, bins)."""
    row_x = row_y = column_x = column_y = cosine = 0.0
    for c in range(3):
        row_x += row[c, 0] * column[c, 2]
        row_y += row[c, 1] * column[c, 2]
        column_x += row[c, 2] * column[c, 0]
        column_y += row[c, 2] * column[c, 1]
        cosine += row[c, 2] * column[c, 2]
    unit = bins / (2.0 * math.pi)
    row_toward, column_toward = math.atan2(row_y, row_x) * unit, math.atan2(column_y, column_x) * unit
    row_toward += bins if row_toward < 0.0 else 0.0
    column_toward += bins if column_toward < 0.0 else 0.0
    return cosine, math.sqrt(row_x * row_x + row_y * row_y), row_toward, column_toward


@compiled
def _place(slopes, other_sines, angle, toward, limit, bins, places):
    """Write the cells of both points on every ring, (2, r); the last cell of a packed frame where there are none."""
    rings = slopes.shape[1]
    unit, beyond = bins / (2.0 * math.pi), rings * bins
    cosine, sine, sign = angle
    along, across = cosine / sine, sign / sine
    for ring in range(rings):
        c = slopes[0, ring] * along - other_sines[ring] * slopes[1, ring] * across
        d = _arccos(c) * unit
        left, right = int(toward + d), int(toward - d + bins)
        left -= bins if left >= bins else 0
        right -= bins if right >= bins else 0
        is_shared = abs(c) < limit
        places[0, ring] = ring * bins + left if is_shared else beyond
        places[1, ring] = ring * bins + right if is_shared else beyond


@compiled
def _arccos(x):
    """Arc cosine to 2e-8 rad (Abramowitz and Stegun 4.4.46), of x cut to [-1, 1]; compiles to vector instructions."""
    a = min(abs(x), 1.0)
    p = -0.0012624911
    p = p * a + 0.0066700901
    p = p * a - 0.0170881256
    p = p * a + 0.0308918810
    p = p * a - 0.0501743046
    p = p * a + 0.0889789874
    p = p * a - 0.2145988016
    p = p * a + 1.5707963050
    angle = math.sqrt(1.0 - a) * p
    return angle if x >= 0.0 else math.pi - angle


@compiled
def _add_products(x_values, y_values, x_places, y_places, sums):
    xy, xx, yy, count = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for ring in range(x_places.shape[0]):
        x, y = np.int64(x_values[x_places[ring]]), np.int64(y_values[y_places[ring]])
        is_there = np.int64(x != MISSING and y != MISSING)
        x *= is_there
        y *= is_there
        xy += x * y
        xx += x * x
        yy += y * y
        count += is_there
    sums[0] += xy
    sums[1] += xx
    sums[2] += yy
    sums[3] += count
