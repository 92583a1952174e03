"""A map of reciprocal space on a cube of voxels, stored reduced: one voxel for all mates of a point.

The cube has ``size`` voxels a side, of edge ``step`` in 1/angstrom (q with
2 pi), the origin at the centre of voxel ``size // 2`` of each axis, and the axes
of the crystal's Cartesian frame. The flat index of voxel (x, y, z) is
``(x * size + y) * size + z``, so that ``map.reshape(size, size, size)[x, y, z]``.

A point and its mates (the Laue group's rotations, and Friedel's law) are rounded
to voxels, and of these voxels the last in the cube's order stands for all: mates
land in the same voxel, exactly. :func:`expand_map` unfolds a map to the whole cube.

A map is two flat arrays, ``sums`` of weight times value and ``weights``: the
merged value is their ratio. Where values and weights are multiples of small
powers of two, as 1/1024, double precision holds both without rounding: then no order of
adding matters, and what was added can be taken out without a trace.
"""

import math

import numpy as np

from diffdask.kernels.compilation import compiled, kernel

#: Weight left in a voxel, as a share of what was taken out, that is rounding: nobody else was there.
_ROUNDING = 1e-9


@kernel
def locate_voxels(rotation, wavelength, ring_q, azimuths, rotations, friedel, step, size, voxels):
    """Find the voxel of every polar bin's centre.

    Letters: r rings, a azimuths, g rotations.

    Parameters
    ----------
    rotation
        (3, 3) from the laboratory to the crystal's frame; NaN where not indexed.
    wavelength
        Angstrom.
    ring_q
        (r,) 1/angstrom.
    azimuths
        Number of bins about the beam; the first begins at +x, the next lies towards +y.
    rotations
        (g, 3, 3) of the Laue group in the crystal's frame.
    friedel
        Whether -q has the intensity of q.
    step, size
        Edge of a voxel, 1/angstrom, and voxels a side.
    voxels
        (r, a) int32, written: flat index, -1 outside of the cube and of what the beam can reach.
    """
    turned = _turn(rotations, rotation, 1.0 / step)
    cosines, sines = np.empty(azimuths), np.empty(azimuths)
    for azimuth in range(azimuths):
        angle = (azimuth + 0.5) * 2.0 * math.pi / azimuths
        cosines[azimuth], sines[azimuth] = math.cos(angle), math.sin(angle)
    is_known = np.isfinite(rotation).all() and math.isfinite(wavelength)
    for ring in range(ring_q.shape[0]):
        sine = ring_q[ring] * wavelength / (4.0 * math.pi)
        if not (is_known and sine < 1.0):
            voxels[ring] = -1
            continue
        # |q| (cos theta cos azimuth, cos theta sin azimuth, -sin theta): the diffracted ray less the incident one.
        across, along = ring_q[ring] * math.sqrt(1.0 - sine * sine), -ring_q[ring] * sine
        for azimuth in range(azimuths):
            x, y = across * cosines[azimuth], across * sines[azimuth]
            voxels[ring, azimuth] = _represent(turned, x, y, along, friedel, size)


@kernel
def add_frame(values, voxels, weight, sums, weights):
    """Add a frame to a map.

    Parameters
    ----------
    values
        (r, a) float32, NaN where missing.
    voxels
        (r, a) int32 from :func:`locate_voxels`.
    weight
        Of the frame.
    sums, weights
        (size**3,) float64, changed.
    """
    for ring in range(values.shape[0]):
        for azimuth in range(values.shape[1]):
            voxel = voxels[ring, azimuth]
            value = np.float64(values[ring, azimuth])
            if voxel >= 0 and not math.isnan(value):
                sums[voxel] += weight * value
                weights[voxel] += weight


@kernel
def remove_frame(values, voxels, weight, sums, weights):
    """Take a frame out of a map to which it was added with this weight; parameters as in :func:`add_frame`."""
    add_frame(values, voxels, -weight, sums, weights)


@kernel
def compare_with_map(values, voxels, weight, sums, weights, prior, own):
    """Compare a frame with the map of the others.

    Parameters
    ----------
    values, voxels
        As in :func:`add_frame`.
    weight
        With which the frame is in the map: all that it contributed is taken
        out, of all its bins that share a voxel. 0 if it is not.
    sums, weights
        (size**3,) float64; only read.
    prior
        Weight of a zero with which the map is merged, y = sum / (weight + prior): voxels that few
        frames saw count less. 0 for the mean.
    own
        (2, size**3) float64 zeros, and zeros again afterwards; of each thread its own.
        What it holds is taken out of the map.

    Returns
    -------
    tuple
        Sums of x y, x x and y y, x being the frame and y the map, over the bins where others
        contributed, and the number of these.
    """
    own_sums, own_weights = own[0], own[1]
    if weight != 0.0:
        add_frame(values, voxels, weight, own_sums, own_weights)
    xy, xx, yy, samples = 0.0, 0.0, 0.0, 0
    for ring in range(values.shape[0]):
        for azimuth in range(values.shape[1]):
            voxel, x = voxels[ring, azimuth], np.float64(values[ring, azimuth])
            if voxel < 0 or math.isnan(x):
                continue
            others = weights[voxel] - own_weights[voxel]
            if others <= _ROUNDING * own_weights[voxel]:
                continue
            y = (sums[voxel] - own_sums[voxel]) / (others + prior)
            xy += x * y
            xx += x * x
            yy += y * y
            samples += 1
    if weight != 0.0:
        _clear(voxels, own_sums, own_weights)
    return xy, xx, yy, samples


@kernel
def locate_frames(rotation, wavelength, ring_q, rotations, friedel, step, size, voxels):
    """Find the voxels of many frames: (n, 3, 3), (n,), and (n, r, a) written; see :func:`locate_voxels`."""
    for n in range(voxels.shape[0]):
        locate_voxels(
            rotation[n], wavelength[n], ring_q, voxels.shape[2], rotations, friedel, step, size, voxels[n]
        )  # fmt: skip


@kernel
def add_frames(values, voxels, weight, sums, weights):
    """Add many frames, (n, r, a) each with its weight (n,), to a map; see :func:`add_frame`."""
    for n in range(values.shape[0]):
        if weight[n] != 0.0:
            add_frame(values[n], voxels[n], weight[n], sums, weights)


@kernel
def compare_frames(values, voxels, weight, chosen, sums, weights, prior, own, found):
    """Compare frames with the map of the others.

    Parameters
    ----------
    values, voxels, weight
        (n, r, a), (n, r, a) and (n,), of all frames.
    chosen
        (m,) numbers of the frames that are compared.
    sums, weights, prior, own
        As in :func:`compare_with_map`.
    found
        (m, 4) float64, written: what :func:`compare_with_map` returns.
    """
    for m in range(chosen.shape[0]):
        n = chosen[m]
        xy, xx, yy, samples = compare_with_map(values[n], voxels[n], weight[n], sums, weights, prior, own)
        found[m, 0], found[m, 1], found[m, 2], found[m, 3] = xy, xx, yy, samples


@kernel
def compare_borrowed(
    values, voxels, weight, chosen, lender, borrowed_voxels, sums, weights, prior, own, found
):  # fmt: skip
    """Compare frames with the map of the others at orientations borrowed from other frames.

    The lender is taken out of the map as well: what the detector leaves in
    both frames lies, at its orientation, in the same voxels.

    Parameters
    ----------
    values, voxels, weight, chosen, sums, weights, prior, own, found
        As in :func:`compare_frames`.
    lender
        (m,) numbers of the frames that lend their orientations.
    borrowed_voxels
        (m, r, a) voxels of the chosen frames there.
    """
    for m in range(chosen.shape[0]):
        n, other = chosen[m], lender[m]
        add_frame(values[n], voxels[n], weight[n], own[0], own[1])
        add_frame(values[other], voxels[other], weight[other], own[0], own[1])
        xy, xx, yy, samples = compare_with_map(values[n], borrowed_voxels[m], 0.0, sums, weights, prior, own)
        found[m, 0], found[m, 1], found[m, 2], found[m, 3] = xy, xx, yy, samples
        _clear(voxels[n], own[0], own[1])
        _clear(voxels[other], own[0], own[1])


@kernel
def expand_map(sums, weights, rotations, friedel, size):
    """Unfold a reduced map to the whole cube.

    Parameters
    ----------
    sums, weights
        (size**3,) of the reduced map.
    rotations, friedel, size
        As in :func:`locate_voxels`.

    Returns
    -------
    tuple
        Sums and weights, (size, size, size) float64 each. A voxel collects
        what lies in the voxels of its mates: one of them, where rotations take
        voxels to voxels, or a few next to each other, as in hexagonal groups.
    """
    all_sums, all_weights = np.zeros((size, size, size)), np.zeros((size, size, size))
    turned = _turn(rotations, np.eye(3), 1.0)
    mates = np.empty(2 * rotations.shape[0], np.int64)
    middle = size // 2
    for x in range(size):
        for y in range(size):
            for z in range(size):
                count = _list_mates(turned, x - middle, y - middle, z - middle, friedel, size, mates)
                for mate in mates[:count]:
                    all_sums[x, y, z] += sums[mate]
                    all_weights[x, y, z] += weights[mate]
    return all_sums, all_weights


@compiled
def _turn(rotations, rotation, scale):
    """Apply every rotation to a frame's axes, and a scale: (g, 3, 3)."""
    turned = np.zeros((rotations.shape[0], 3, 3))
    for g in range(rotations.shape[0]):
        for a in range(3):
            for b in range(3):
                for c in range(3):
                    turned[g, a, b] += rotations[g, a, c] * rotation[c, b] * scale
    return turned


@compiled
def _round_mate(turn, x, y, z):
    """Voxel, counted from the origin, of a point turned."""
    return (
        int(np.rint(turn[0, 0] * x + turn[0, 1] * y + turn[0, 2] * z)),
        int(np.rint(turn[1, 0] * x + turn[1, 1] * y + turn[1, 2] * z)),
        int(np.rint(turn[2, 0] * x + turn[2, 1] * y + turn[2, 2] * z)),
    )


@compiled
def _index(i, j, k, size):
    """Flat index of a voxel counted from the origin; -1 outside of the cube, or where its mirror image is."""
    reach = (size - 1) // 2
    if max(abs(i), abs(j), abs(k)) > reach:
        return -1
    middle = size // 2
    return ((i + middle) * size + j + middle) * size + k + middle


@compiled
def _represent(turned, x, y, z, friedel, size):
    """Largest flat index among the voxels of all mates; -1 where all are outside."""
    largest = -1
    for g in range(turned.shape[0]):
        i, j, k = _round_mate(turned[g], x, y, z)
        largest = max(largest, _index(i, j, k, size))
        if friedel:
            largest = max(largest, _index(-i, -j, -k, size))
    return largest


@compiled
def _list_mates(turned, x, y, z, friedel, size, mates):
    """Write the flat indices of a voxel's mates, each once, and return how many."""
    count = 0
    for g in range(turned.shape[0]):
        i, j, k = _round_mate(turned[g], x, y, z)
        for sign in range(2 if friedel else 1):
            mate = _index(i, j, k, size) if sign == 0 else _index(-i, -j, -k, size)
            is_new = mate >= 0
            for other in mates[:count]:
                is_new = is_new and other != mate
            if is_new:
                mates[count] = mate
                count += 1
    return count


@compiled
def _clear(voxels, own_sums, own_weights):
    for ring in range(voxels.shape[0]):
        for azimuth in range(voxels.shape[1]):
            voxel = voxels[ring, azimuth]
            if voxel >= 0:
                own_sums[voxel] = 0.0
                own_weights[voxel] = 0.0
