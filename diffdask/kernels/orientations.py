"""Slices of a map of reciprocal space: cut at any orientation, and turned until they fit a frame.

The map is a cube (see :mod:`diffdask.kernels.volume`), unfolded and merged:
float32, NaN in voxels that nobody saw. A slice is what a frame at that
orientation would show on its polar bins.
"""

import math

import numpy as np

from diffdask.kernels.compilation import compiled, kernel

#: Most times a frame is compared while it is turned: a slope that goes on and on ends here.
_MOST_STEPS = 400


@kernel
def cut_slice(density, step, rotation, wavelength, ring_q, cut):
    """Cut the slice that a frame shows, at the centres of its bins, from the nearest voxels.

    Letters: r rings, a azimuths.

    Parameters
    ----------
    density
        (size, size, size) float32, NaN where nobody saw.
    step
        Edge of a voxel, 1/angstrom.
    rotation
        (3, 3) from the laboratory to the crystal's frame.
    wavelength
        Angstrom.
    ring_q
        (r,) 1/angstrom.
    cut
        (r, a) float32, written; NaN outside of the map.
    """
    cosines, sines = _directions(cut.shape[1])
    for ring in range(cut.shape[0]):
        across, along = _place_ring(ring_q[ring], wavelength)
        for azimuth in range(cut.shape[1]):
            x, y = across * cosines[azimuth], across * sines[azimuth]
            cut[ring, azimuth] = _read(density, rotation, 1.0 / step, x, y, along)


@kernel
def refine_rotation(values, density, step, rotation, wavelength, ring_q, first_angle, last_angle):
    """Turn a frame in small steps for as long as it fits the map better.

    Steps about the laboratory's axes are tried in turn and halved when none helps.

    Parameters
    ----------
    values
        (r, a) float32, NaN where missing.
    density, step, wavelength, ring_q
        As in :func:`cut_slice`.
    rotation
        (3, 3) float64 from the laboratory to the crystal's frame; changed.
    first_angle, last_angle
        Largest and smallest step, rad; the first below the last compares and turns nothing.

    Returns
    -------
    tuple
        Fit, correlation over the bins that both have times the root of their number, each ring about its
        mean; and this number. NaN and 0 where they have nothing in common.
    """
    points, end = _list_points(values, wavelength, ring_q, 1.0 / step)
    fit, samples = _compare(points, end, density, rotation)
    angle, steps = first_angle, 0
    while angle >= last_angle and samples > 0 and steps < _MOST_STEPS:
        is_better = False
        for axis in range(3):
            for sign in (1.0, -1.0):
                turned = _turn_about(rotation, axis, sign * angle)
                other, other_samples = _compare(points, end, density, turned)
                steps += 1
                if other > fit:
                    fit, samples, is_better = other, other_samples, True
                    rotation[:] = turned
                    break
        if not is_better:
            angle *= 0.5
    return fit, samples


@compiled
def _directions(azimuths):
    cosines, sines = np.empty(azimuths), np.empty(azimuths)
    for azimuth in range(azimuths):
        angle = (azimuth + 0.5) * 2.0 * math.pi / azimuths
        cosines[azimuth], sines[azimuth] = math.cos(angle), math.sin(angle)
    return cosines, sines


@compiled
def _place_ring(q, wavelength):
    """Scattering vector of a ring, across the beam and along it: the diffracted ray less the incident one; or NaN."""
    sine = q * wavelength / (4.0 * math.pi)
    if not sine < 1.0:
        return np.nan, np.nan
    return q * math.sqrt(1.0 - sine * sine), -q * sine


@compiled
def _list_points(values, wavelength, ring_q, scale):
    """List the bins that are there, ring by ring: (n, 4) float32 x, y, z in voxels and value; (r,) each ring's end."""
    cosines, sines = _directions(values.shape[1])
    points = np.empty((values.size, 4), np.float32)
    end = np.empty(values.shape[0], np.int64)
    count = 0
    for ring in range(values.shape[0]):
        across, along = _place_ring(ring_q[ring], wavelength)
        for azimuth in range(values.shape[1]):
            if not (math.isnan(values[ring, azimuth]) or math.isnan(across)):
                points[count, 0] = scale * across * cosines[azimuth]
                points[count, 1] = scale * across * sines[azimuth]
                points[count, 2] = scale * along
                points[count, 3] = values[ring, azimuth]
                count += 1
        end[ring] = count
    return points[:count], end


@compiled
def _compare(points, end, density, rotation):
    """Correlation times the root of the samples, and the samples; each ring about its mean."""
    turn = rotation.astype(np.float32)
    products, ours, theirs, samples, start = 0.0, 0.0, 0.0, 0, 0
    for stop in end:
        count, x, y, xy, xx, yy = _sum_ring(points[start:stop], density, turn)
        start = stop
        if count > 1:
            products += xy - x * y / count
            ours += xx - x * x / count
            theirs += yy - y * y / count
            samples += count
    if not (ours > 0.0 and theirs > 0.0):
        return np.nan, 0
    return products / math.sqrt(ours * theirs) * math.sqrt(samples), samples


@compiled
def _sum_ring(points, density, turn):
    """Sum values x and densities y over the points of a ring, single precision: n, x, y, x y, x x, y y."""
    zero = np.float32(0.0)
    count, sx, sy, sxy, sxx, syy = 0, zero, zero, zero, zero, zero
    # Read once: the compiler cannot know that nobody else changes them.
    a, b, c = turn[0, 0], turn[0, 1], turn[0, 2]
    d, e, f = turn[1, 0], turn[1, 1], turn[1, 2]
    g, h, m = turn[2, 0], turn[2, 1], turn[2, 2]
    offset, size = np.float32(density.shape[0] // 2 + 0.5), np.float32(density.shape[0])
    for p in range(points.shape[0]):
        px, py, pz = points[p, 0], points[p, 1], points[p, 2]
        i = a * px + b * py + c * pz + offset
        j = d * px + e * py + f * pz + offset
        k = g * px + h * py + m * pz + offset
        if zero <= i < size and zero <= j < size and zero <= k < size:
            y = density[int(i), int(j), int(k)]
            if not math.isnan(y):
                x = points[p, 3]
                sx += x
                sy += y
                sxy += x * y
                sxx += x * x
                syy += y * y
                count += 1
    return count, sx, sy, sxy, sxx, syy


@compiled
def _read(density, rotation, scale, x, y, z):
    """Density of the voxel at a point of the laboratory's frame; NaN outside."""
    size = density.shape[0]
    offset = size // 2 + 0.5
    i = scale * (rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z) + offset
    j = scale * (rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z) + offset
    k = scale * (rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z) + offset
    if 0.0 <= i < size and 0.0 <= j < size and 0.0 <= k < size:
        return density[int(i), int(j), int(k)]
    return np.float32(np.nan)


@compiled
def _turn_about(rotation, axis, angle):
    """Rotation after a turn of the frame about an axis of the laboratory."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    cosine, sine = math.cos(angle), math.sin(angle)
    turned = rotation.copy()
    for row in range(3):
        turned[row, first] = cosine * rotation[row, first] + sine * rotation[row, second]
        turned[row, second] = cosine * rotation[row, second] - sine * rotation[row, first]
    return turned
