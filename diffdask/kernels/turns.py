"""Frames against slices at every turn about the beam at once.

A turn by a whole bin moves bins in a circle. So the sums of frame times slice
at all turns are a correlation, and over frequencies of azimuth a product: summed
over rings it is a matrix product, one a frequency, for many frames and slices.
Turning frequencies back into turns is one more.

Letters: n frames, m slices, r rings, a azimuths (and turns), f frequencies.
"""

import math

import numpy as np

from diffdask.kernels.compilation import kernel


def transform_slices(slices):
    """Slices, and their squares, over frequencies of azimuth: (f, 2 r, m) float32, real parts before imaginary."""
    filled = np.nan_to_num(slices)
    return _stack_slices(np.fft.rfft(filled)), _stack_slices(np.fft.rfft(filled**2))


def transform_frames(values):
    """Frames, and which bins they have, over frequencies of azimuth: (f, 2 n, 2 r) float32.

    conj(X) T = (X' T' + X'' T'') + i (X' T'' - X'' T'), for X = X' + i X'': rows that give
    the real part of all frames' products come first, then those for the imaginary part.
    """
    is_there = np.isfinite(values)
    stacked = []
    for part in (np.where(is_there, values, 0.0), is_there.astype(np.float32)):
        spectrum = np.fft.rfft(part).transpose(2, 0, 1)
        for_real = np.concatenate([spectrum.real, spectrum.imag], axis=2)
        for_imaginary = np.concatenate([-spectrum.imag, spectrum.real], axis=2)
        stacked.append(np.ascontiguousarray(np.concatenate([for_real, for_imaginary], axis=1), np.float32))
    return stacked[0], stacked[1]


def turns_of_frequencies(turns):
    """Matrix (a, 2 f) float32 of the inverse transform, real and imaginary part of a frequency side by side."""
    frequency = np.arange(turns // 2 + 1)
    phase = 2.0 * math.pi * np.arange(turns)[:, None] * frequency / turns
    share = np.where((frequency == 0) | (2 * frequency == turns), 1.0, 2.0) / turns
    both = np.stack([share * np.cos(phase), -share * np.sin(phase)], axis=2)
    return both.reshape(turns, -1).astype(np.float32)


def multiply_turned(frames, slices, back):
    """Sum over bins of frame times slice at every turn: (a, n m) of (f, 2 n, 2 r), (f, 2 r, m) and (a, 2 f)."""
    products = frames @ np.ascontiguousarray(slices)
    return np.asarray(back @ products.reshape(back.shape[1], -1))


@kernel
def pick_turns(products, norms, least, best, turn, total, squares):
    """Take, of all turns about the beam, the one under which a slice fits a frame best.

    Letters: a turns, p pairs of a frame and a slice.

    Parameters
    ----------
    products, norms
        (a, p) float32: sum of frame times slice, and sum of the slice squared over the frame's bins.
    least
        (p,) float32: where a norm is smaller, the two have too little in common and it is no fit.
    best, turn
        (p,) float32, int16, written: the largest product / sqrt(norm) and where it is; -inf, -1 without one.
    total, squares
        (p,) float32, written: sum over turns of product / sqrt(norm), and of its square; 0 where no fit.
    """
    best[:], turn[:], total[:], squares[:] = -np.inf, -1, 0.0, 0.0
    for k in range(products.shape[0]):
        for p in range(products.shape[1]):
            norm = norms[k, p]
            fit = products[k, p] / math.sqrt(max(norm, least[p]))
            fit = fit if norm >= least[p] else np.float32(0.0)
            total[p] += fit
            squares[p] += fit * fit
            if fit > best[p] and norm >= least[p]:
                best[p] = fit
                turn[p] = k


def _stack_slices(spectrum):
    return np.ascontiguousarray(np.concatenate([spectrum.real, spectrum.imag], axis=1).transpose(2, 1, 0), np.float32)
