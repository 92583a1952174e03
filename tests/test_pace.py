import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffdask.pace
from diffdask.pace import pause_of, recent_rate, tell_time, time_left


def test_the_examples_hold():
    assert doctest.testmod(diffdask.pace).failed == 0


@given(st.integers(2, 300), st.floats(0.01, 50.0), st.integers(1, 64))
def test_a_steady_run_has_the_rate_that_it_has(count, step, size):
    assert recent_rate([number * step for number in range(count)], [size] * count) == pytest.approx(size / step)


@given(st.lists(st.floats(0.1, 10.0), min_size=3, max_size=50), st.floats(1000.0, 1e6))
def test_what_was_before_a_pause_does_not_count(steps, pause):
    late = [sum(steps[:number]) for number in range(len(steps))]
    before = [-pause - number for number in range(9, -1, -1)]
    sizes = [3] * len(late)
    assert recent_rate([*before, *late], [1000] * 10 + sizes) == pytest.approx(recent_rate(late, sizes))


def test_of_nothing_and_of_one_block_no_rate_is_known():
    assert recent_rate([], []) is None
    assert recent_rate([5.0], [8]) is None
    assert recent_rate([5.0, 5.0], [8, 8]) is None
    assert time_left(10, None) is None
    assert time_left(0, None) == 0.0


def test_slow_blocks_are_no_pause():
    times = [400.0 * number for number in range(5)]
    assert pause_of(times) > 400.0
    assert recent_rate(times, [8] * 5) == pytest.approx(8 / 400)


@pytest.mark.parametrize(("seconds", "told"), [(None, "?"), (0.2, "0 s"), (59.7, "1 min 0 s"), (90_000, "1 d 1 h")])
def test_times_are_told_in_two_units(seconds, told):
    assert tell_time(seconds) == told
