"""From expected photons to a readout: counting, gain, common mode and noise, pixel by pixel.

Counting is exact and fast because a Poisson variate is the sum of two: one of a tabulated mean (a multiple of
``MEAN_STEP``; Walker's alias method: one look-up whatever the mean) and one of the small remainder, which is
nearly always 0. Random numbers are a function of the frame's seed and the pixel's number (splitmix64), so that
neither order nor threads matter.

References
----------
Walker, ACM Trans. Math. Softw. 3, 253 (1977); Steele, Lea & Flood, OOPSLA '14, 453 (splitmix64).
"""

from __future__ import annotations

import math

import numpy as np

from diffdask.kernels.compilation import kernel

#: Distance of tabulated means, photons.
MEAN_STEP = 0.125

#: Number of tabulated means: 0 to just under 64 photons. Above, variates are added up.
MEANS = 512

#: Tabulated counts of each mean: at 64 photons, 128 is eight standard deviations away.
COUNTS = 128

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)


@kernel
def random_bits(state: np.uint64) -> np.uint64:
    """64 random bits of a state: splitmix64."""
    state = (state ^ (state >> _S30)) * _MIX_1
    state = (state ^ (state >> _S27)) * _MIX_2
    return state ^ (state >> _S31)


@kernel
def tabulate_poisson() -> tuple[np.ndarray, np.ndarray]:
    """Alias tables, (MEANS, COUNTS), of Poisson's distribution: thresholds (32 bits) and aliases."""
    thresholds = np.empty((MEANS, COUNTS), np.uint64)
    aliases = np.empty((MEANS, COUNTS), np.uint64)
    scaled = np.empty(COUNTS)
    for row in range(MEANS):
        mean = row * MEAN_STEP
        for count in range(COUNTS):
            log_mean = math.log(mean) if mean > 0.0 else -1e4
            scaled[count] = COUNTS * math.exp(count * log_mean - mean - math.lgamma(count + 1.0))
        _fill_alias_row(scaled, thresholds[row], aliases[row])
    return thresholds, aliases


@kernel
def _fill_alias_row(scaled: np.ndarray, thresholds: np.ndarray, aliases: np.ndarray) -> None:
    """Vose's construction: each column below 1 is filled up from one above 1. ``scaled`` (COUNTS,) sums to COUNTS."""
    small = [0 for _ in range(0)]
    large = [0 for _ in range(0)]
    for column in range(scaled.size):
        thresholds[column] = np.uint64(0xFFFFFFFF)
        aliases[column] = np.uint64(column)
        if scaled[column] < 1.0:
            small.append(column)
        else:
            large.append(column)
    while len(small) > 0 and len(large) > 0:
        low, high = small.pop(), large[-1]
        thresholds[low] = np.uint64(scaled[low] * 4294967295.0)
        aliases[low] = np.uint64(high)
        scaled[high] -= 1.0 - scaled[low]
        if scaled[high] < 1.0:
            small.append(large.pop())


@kernel
def count_photons(mean: float, state: np.uint64, thresholds: np.ndarray, aliases: np.ndarray) -> int:
    """Draw a Poisson count of ``mean`` photons; ``state`` is the random state of this pixel."""
    bits = random_bits(state)
    count = 0
    while mean >= MEANS * MEAN_STEP:
        count += _look_up(bits, MEANS - 1, thresholds, aliases)
        mean -= (MEANS - 1) * MEAN_STEP
        state += _GOLDEN
        bits = random_bits(bits ^ state)
    row = int(mean / MEAN_STEP)
    count += _look_up(bits, row, thresholds, aliases)
    rest = mean - row * MEAN_STEP
    # exp(-rest) for rest < 1/8: the next term is below 1e-8.
    term = 1.0 - rest * (1.0 - rest * (0.5 - rest * (1 / 6 - rest * (1 / 24 - rest / 120))))
    uniform = (bits >> np.uint64(39)) * 2.0**-25
    more = 0
    while uniform >= term and more < 8:
        uniform -= term
        more += 1
        term *= rest / more
    return count + more


@kernel
def _look_up(bits: np.uint64, row: int, thresholds: np.ndarray, aliases: np.ndarray) -> int:
    column = np.int64(bits & np.uint64(COUNTS - 1))
    if ((bits >> np.uint64(7)) & np.uint64(0xFFFFFFFF)) < thresholds[row, column]:
        return int(column)
    return int(aliases[row, column])


@kernel
def read_out(
    expected: np.ndarray,
    gain: np.ndarray,
    amplification: float,
    offset: np.ndarray,
    noise: float,
    normals: np.ndarray,
    thresholds: np.ndarray,
    aliases: np.ndarray,
    seed: np.uint64,
    saturation: float,
    adu: np.ndarray,
) -> None:
    """Count, amplify, digitise.

    Parameters
    ----------
    expected, gain
        (panel, pixels) mean photons, and ADU per photon.
    amplification
        What the whole gain is multiplied with in this frame.
    offset
        (panel,) common mode, ADU.
    noise, normals
        Readout noise in ADU; (65536,) quantiles of the normal distribution.
    thresholds, aliases
        From :func:`tabulate_poisson`.
    seed
        Of the frame.
    saturation
        Largest value, ADU.
    adu
        (panel, pixels) integers, written.
    """
    for panel in range(expected.shape[0]):
        for pixel in range(expected.shape[1]):
            state = seed + np.uint64(2 * (panel * expected.shape[1] + pixel)) * _GOLDEN
            # No need to count further than the digitiser does.
            slope = gain[panel, pixel] * amplification
            mean = min(expected[panel, pixel], 4.0 * saturation / slope) if slope > 0.0 else 0.0
            count = count_photons(mean, state, thresholds, aliases)
            bits = random_bits(state + _GOLDEN)
            value = count * slope + offset[panel] + noise * normals[bits & np.uint64(0xFFFF)]
            adu[panel, pixel] = math.floor(min(value, saturation) + 0.5)
