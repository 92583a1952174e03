"""Expected photons of one frame: diffuse map on the Ewald sphere, isotropic profiles, ice, streaks, shadow, spots.

Letters: n pixels, flattened (panel, ss, fs); h, k, l grid steps of the diffuse map; r reflections.
``scattering`` is, pixel by pixel, the unit vector to the pixel less the beam's: divided by the wavelength it is
the point of reciprocal space (without 2 pi) that the pixel records. All lengths in reciprocal space are 1/angstrom.
"""

from __future__ import annotations

import math

import numpy as np

from diffdask.kernels.compilation import kernel


@kernel
def transmission(x: float, y: float, shadow: np.ndarray) -> float:
    """Share of the light that a soft-edged finger lets through.

    ``x``, ``y`` are scattering components; ``shadow`` holds (cosine and sine of the finger's direction, where it
    starts, its half width, its softness, its depth), lengths in the units of ``x``.
    """
    along = x * shadow[0] + y * shadow[1] - shadow[2]
    inside = shadow[3] - abs(y * shadow[0] - x * shadow[1])
    softness = shadow[4]
    # Six softnesses outside, the sigmoid is below 0.003: nothing is left to compute for most of the detector.
    if along < -6.0 * softness or inside < -6.0 * softness:
        return 1.0
    return 1.0 - shadow[5] / ((1.0 + math.exp(-along / softness)) * (1.0 + math.exp(-inside / softness)))


@kernel
def sample_map(values: np.ndarray, h: float, k: float, l: float, outside: float) -> float:  # noqa: E741
    """Interpolate, trilinearly, a centrosymmetric map of which the half l >= 0 is stored.

    ``values`` is (2 H + 1, 2 K + 1, L + 1); (h, k, l) are grid steps from the origin, which lies at (H, K, 0).
    ``outside`` is returned where the map does not reach.
    """
    if l < 0.0:
        h, k, l = -h, -k, -l  # noqa: E741
    h += values.shape[0] // 2
    k += values.shape[1] // 2
    i, j, m = math.floor(h), math.floor(k), int(l)
    if i < 0 or j < 0 or i > values.shape[0] - 2 or j > values.shape[1] - 2 or m > values.shape[2] - 2:
        return outside
    u, v, w = h - i, k - j, l - m
    near = (1.0 - w) * values[i, j, m] + w * values[i, j, m + 1]
    right = (1.0 - w) * values[i, j + 1, m] + w * values[i, j + 1, m + 1]
    below = (1.0 - w) * values[i + 1, j, m] + w * values[i + 1, j, m + 1]
    across = (1.0 - w) * values[i + 1, j + 1, m] + w * values[i + 1, j + 1, m + 1]
    return (1.0 - u) * ((1.0 - v) * near + v * right) + u * ((1.0 - v) * below + v * across)


@kernel
def sample_haloes(
    values: np.ndarray,
    h: float,
    k: float,
    l: float,  # noqa: E741
    metric: np.ndarray,
    halo: float,
    outside: float,
) -> float:
    """Sum, at (h, k, l), the haloes about the lattice points: ``value / (1 + halo^2 distance^2)^2``.

    Parameters
    ----------
    values
        (2 H + 1, 2 K + 1, L + 1) crests of the haloes at whole h, k, l, as in :func:`sample_map`.
    h, k, l
        Miller indices of the point.
    metric
        (3, 3) of the reciprocal lattice: products of a*, b*, c*, 1/angstrom^2.
    halo
        angstrom, 2 pi times the correlation length: the transform of exp(-r / length) falls off like this.
    outside
        Returned where the crests do not reach.

    Notes
    -----
    The eight points about (h, k, l) count. Further ones give less than a thousandth of a crest where the
    correlation length is above the cell's.
    """
    if l < 0.0:
        h, k, l = -h, -k, -l  # noqa: E741
    h += values.shape[0] // 2
    k += values.shape[1] // 2
    i, j, m = math.floor(h), math.floor(k), int(l)
    if i < 0 or j < 0 or i > values.shape[0] - 2 or j > values.shape[1] - 2 or m > values.shape[2] - 2:
        return outside
    total = 0.0
    for p in range(2):
        for q in range(2):
            for r in range(2):
                u, v, w = h - i - p, k - j - q, l - m - r
                distance2 = metric[0, 0] * u * u + metric[1, 1] * v * v + metric[2, 2] * w * w
                distance2 += 2.0 * (metric[0, 1] * u * v + metric[0, 2] * u * w + metric[1, 2] * v * w)
                total += values[i + p, j + q, m + r] / (1.0 + halo * halo * distance2) ** 2
    return total


@kernel
def render_scattering(
    scattering: np.ndarray,
    collected: np.ndarray,
    wavelength: float,
    profiles: np.ndarray,
    bins_per_s: float,
    sampling: np.ndarray,
    values: np.ndarray,
    metric: np.ndarray,
    halo: float,
    strength: float,
    shadow: np.ndarray,
    background: np.ndarray,
    diffuse: np.ndarray,
) -> None:
    """Fill in the background and the diffuse scattering of every pixel.

    Parameters
    ----------
    scattering, collected
        (n, 3) and (n,): where the pixel looks, and the share of the intensity it collects.
    wavelength
        angstrom.
    profiles, bins_per_s
        (2, bins) photons against s: the background, and the isotropic mean of the diffuse scattering.
    sampling
        (3, 3) rows: a point of reciprocal space times them gives steps of the map's grid.
    values, metric, halo
        (2 H + 1, 2 K + 1, L + 1) the map, interpolated; or crests, if ``halo`` is not 0, see :func:`sample_haloes`.
    strength
        What the map is multiplied with; 0 puts the isotropic mean in its place.
    shadow
        (6,), see :func:`transmission`.
    background, diffuse
        (n,) photons, written.
    """
    last = profiles.shape[1] - 2
    per_wavelength = 1.0 / wavelength
    for i in range(scattering.shape[0]):
        share = collected[i]
        if share == 0.0:
            background[i] = 0.0
            diffuse[i] = 0.0
            continue
        x = scattering[i, 0] * per_wavelength
        y = scattering[i, 1] * per_wavelength
        z = scattering[i, 2] * per_wavelength
        at = math.sqrt(x * x + y * y + z * z) * bins_per_s
        bin_ = min(int(at), last)
        part = min(at - bin_, 1.0)
        isotropic = profiles[1, bin_] + part * (profiles[1, bin_ + 1] - profiles[1, bin_])
        if strength > 0.0:
            h = sampling[0, 0] * x + sampling[0, 1] * y + sampling[0, 2] * z
            k = sampling[1, 0] * x + sampling[1, 1] * y + sampling[1, 2] * z
            l = sampling[2, 0] * x + sampling[2, 1] * y + sampling[2, 2] * z  # noqa: E741
            if halo > 0.0:
                extra = sample_haloes(values, h, k, l, metric, halo, -1.0)
            else:
                extra = sample_map(values, h, k, l, -1.0)
            # Beyond the map, where there is next to nothing, what is left is isotropic.
            extra = strength * extra if extra >= 0.0 else isotropic
        else:
            extra = isotropic
        share *= transmission(scattering[i, 0], scattering[i, 1], shadow)
        background[i] = share * (profiles[0, bin_] + part * (profiles[0, bin_ + 1] - profiles[0, bin_]))
        diffuse[i] = share * extra


@kernel
def add_ice(
    scattering: np.ndarray,
    collected: np.ndarray,
    wavelength: float,
    ring_s: np.ndarray,
    ring_photons: np.ndarray,
    width: float,
    waves: np.ndarray,
    shadow: np.ndarray,
    background: np.ndarray,
) -> None:
    """Add powder rings, azimuthally uneven, to the background.

    ``ring_s`` (rings,) 1/angstrom, ``ring_photons`` (rings,) at the crest, ``width`` 1/angstrom; ``waves`` (orders,
    2) amplitude and phase of the unevenness cos((order + 1) azimuth + phase); ``background`` (n,) is added to.
    """
    for i in range(scattering.shape[0]):
        x, y, z = scattering[i, 0], scattering[i, 1], scattering[i, 2]
        s = math.sqrt(x * x + y * y + z * z) / wavelength
        for ring in range(ring_s.size):
            off = (s - ring_s[ring]) / width
            if abs(off) < 4.0:
                azimuth = math.atan2(y, x)
                uneven = 1.0
                for order in range(waves.shape[0]):
                    uneven += waves[order, 0] * math.cos((order + 1) * azimuth + waves[order, 1] + ring)
                crest = ring_photons[ring] * max(uneven, 0.0) * math.exp(-0.5 * off * off)
                background[i] += collected[i] * transmission(x, y, shadow) * crest


@kernel
def add_streak(
    scattering: np.ndarray,
    collected: np.ndarray,
    direction: float,
    photons: float,
    width: float,
    reach: float,
    shadow: np.ndarray,
    background: np.ndarray,
) -> None:
    """Add the streak of a liquid jet's edge: a line through the beam that fades outwards.

    ``direction`` rad from +x; ``photons`` at the beam; ``width`` and ``reach`` in the units of ``scattering``.
    """
    cosine, sine = math.cos(direction), math.sin(direction)
    for i in range(scattering.shape[0]):
        x, y = scattering[i, 0], scattering[i, 1]
        off = (y * cosine - x * sine) / width
        if abs(off) < 5.0:
            fade = math.exp(-abs(x * cosine + y * sine) / reach - 0.5 * off * off)
            background[i] += collected[i] * transmission(x, y, shadow) * photons * fade


@kernel
def meet_panels(
    corner: np.ndarray,
    ss_step: np.ndarray,
    fs_step: np.ndarray,
    shapes: np.ndarray,
    rays: np.ndarray,
    panel: np.ndarray,
    ss: np.ndarray,
    fs: np.ndarray,
) -> None:
    """Find where rays from the sample meet panels.

    ``corner``, ``ss_step``, ``fs_step`` (panel, 3) in m, camera length included; ``shapes`` (panel, 2); ``rays``
    (r, 3). Writes ``panel`` (r,), -1 where none is met, and ``ss``, ``fs`` (r,) from the panel's corner.
    """
    normal = np.cross(fs_step, ss_step)
    for r in range(rays.shape[0]):
        panel[r] = -1
        for p in range(corner.shape[0]):
            slope = normal[p, 0] * rays[r, 0] + normal[p, 1] * rays[r, 1] + normal[p, 2] * rays[r, 2]
            height = normal[p, 0] * corner[p, 0] + normal[p, 1] * corner[p, 1] + normal[p, 2] * corner[p, 2]
            if slope == 0.0 or height / slope <= 0.0:
                continue
            # The meeting point less the corner is u fs_step + v ss_step: two equations from its two dot products.
            ff = fg = gg = pf = pg = 0.0
            for axis in range(3):
                point = rays[r, axis] * height / slope - corner[p, axis]
                f, g = fs_step[p, axis], ss_step[p, axis]
                ff, fg, gg = ff + f * f, fg + f * g, gg + g * g
                pf, pg = pf + point * f, pg + point * g
            area = ff * gg - fg * fg
            u, v = (pf * gg - pg * fg) / area, (pg * ff - pf * fg) / area
            if 0.0 <= u < shapes[p, 1] and 0.0 <= v < shapes[p, 0]:
                panel[r], ss[r], fs[r] = p, v, u
                break


@kernel
def stamp_spots(
    panel: np.ndarray, ss: np.ndarray, fs: np.ndarray, photons: np.ndarray, radius: np.ndarray, expected: np.ndarray
) -> None:
    """Add round Gaussian spots to ``expected`` (panel, ss, fs).

    ``panel``, ``ss``, ``fs`` (r,) where, from the panel's corner; ``photons`` (r,) in all; ``radius`` (r,) the
    standard deviation in pixels. A spot is cut off at four radii and at the panel's edge.
    """
    for r in range(panel.size):
        reach = 4.0 * radius[r]
        crest = photons[r] / (2.0 * math.pi * radius[r] ** 2)
        for i in range(max(int(ss[r] - reach), 0), min(int(ss[r] + reach) + 1, expected.shape[1])):
            for j in range(max(int(fs[r] - reach), 0), min(int(fs[r] + reach) + 1, expected.shape[2])):
                squared = (i + 0.5 - ss[r]) ** 2 + (j + 0.5 - fs[r]) ** 2
                expected[panel[r], i, j] += crest * math.exp(-0.5 * squared / radius[r] ** 2)
