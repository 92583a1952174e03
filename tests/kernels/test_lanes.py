"""Sums in lanes: right, and in one order that is written down."""

import numba
import numpy as np
import pytest

from diffdask.kernels.lanes import sum_between, sum_run

LANES, RUN = 16, 1024


def sum_in_written_order(values, lowest, highest, shift):
    """Value i of a run into lane i % 16, lanes added in pairs, then runs one by one; float32 within a run."""
    total = np.zeros(3)
    for start in range(0, values.size, RUN):
        lanes = np.zeros((3, LANES), np.float32)
        for i, value in enumerate(values[start : start + RUN]):
            if lowest <= value <= highest:
                off = value - shift
                lanes[:, i % LANES] += np.array([off, off * off, 1], np.float32)
        while lanes.shape[1] > 1:
            half = lanes.shape[1] // 2
            lanes = lanes[:, :half] + lanes[:, half:]
        total += lanes[:, 0].astype(float)
    return tuple(total)


def some(size, seed=0):
    return np.random.default_rng(seed).normal(5.0, 3.0, size=size).astype(np.float32)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1023, 1024, 1025, 3000])
def test_sums_are_taken_in_the_order_that_is_written_bit_for_bit(size):
    values = some(size)
    limits = (np.float32(2.0), np.float32(9.0), np.float32(4.5))
    assert sum_between(values, *limits) == sum_in_written_order(values, *limits)


def test_a_read_only_array_gives_the_same_bits_as_a_writable_one():
    values = some(5000)
    locked = values.copy()
    locked.flags.writeable = False
    limits = (np.float32(-1e15), np.float32(1e15), np.float32(5.1))
    assert sum_between(values, *limits) == sum_between(locked, *limits)


def test_a_loop_around_gives_the_same_bits_as_a_call():
    @numba.njit
    def around(values, cuts, found):
        for i in range(cuts.size - 1):
            found[i] = sum_between(values[cuts[i] : cuts[i + 1]], np.float32(0), np.float32(9), np.float32(5))[1]

    values, cuts = some(2000), np.array([0, 3, 70, 71, 500, 2000])
    found = np.empty(5)
    around(values, cuts, found)
    alone = [sum_between(part, np.float32(0), np.float32(9), np.float32(5))[1] for part in np.split(values, cuts[1:-1])]
    assert found.tolist() == alone


def test_nothing_past_the_end_is_read():
    values = some(64)
    values[20:] = np.float32(7.0)
    alone = sum_between(values[:20].copy(), np.float32(-99), np.float32(99), np.float32(0))
    assert sum_between(values[:20], np.float32(-99), np.float32(99), np.float32(0)) == alone


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_no_number_between_the_limits_counts_for_nothing(spoilt):
    values = some(100)
    limits = (np.float32(-1e15), np.float32(1e15), np.float32(5))
    kept = np.where(np.arange(100) % 7 == 3, np.float32(5), values)  # at the shift: adds nothing to either sum
    values[3::7] = spoilt
    first, second, count = sum_between(values, *limits)
    assert (first, second) == sum_between(kept.astype(np.float32), *limits)[:2]
    assert count == 100 - len(range(3, 100, 7))


@numba.njit
def run_of(values, lowest, highest, shift):
    return sum_run(values, lowest, highest, shift)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 500, 1024])
def test_the_least_and_greatest_of_a_run_are_those_between_the_limits(size):
    values = some(size)
    values[3::7] = np.nan
    kept = values[(values >= 2) & (values <= 9)]
    first, second, number, least, greatest = run_of(values, np.float32(2), np.float32(9), np.float32(4.5))
    assert (first, second, number) == sum_in_written_order(values, np.float32(2), np.float32(9), np.float32(4.5))
    assert least == kept.min(initial=np.inf)
    assert greatest == kept.max(initial=-np.inf)
