"""Readings to photons sixteen at a time: the bits of the plain formula, whatever the type, the length and the end."""

import numba
import numpy as np
import pytest

from diffdask.kernels.gathering import convert_runs

#: Of three panels.
OFFSET, GAIN = np.array([-3.7, 0.0, 250.5], np.float32), np.array([0.031, 1.7, 0.2], np.float32)


@numba.njit
def convert(adu, panel_size, run_start, run_panel, place, correction, run, begin, end, offset, gain, photons):
    return convert_runs(
        adu, panel_size, run_start, run_panel, place, correction, run, begin, end, offset, gain, photons
    )


def formula(adu, place, correction, panel=0):
    """Rounded after each step, as float32 is."""
    return (adu[place].astype(np.float32) - OFFSET[panel]) * GAIN[panel] * correction


def converted(adu, place, correction):
    """Photons of a frame of one panel in one run, and proof that nothing past their end was written."""
    room = np.full(place.size + 40, np.float32(777))
    run_start, run_panel = np.array([0, place.size], np.int32), np.zeros(1, np.int32)
    run = convert(
        adu, adu.size, run_start, run_panel, place, correction, 0, 0, place.size, OFFSET, GAIN, room[: place.size]
    )
    assert run == (1 if place.size else 0)
    assert (room[place.size :] == 777).all()
    return room[: place.size]


def some(dtype, size, seed=0):
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return random.normal(0, 9000, size).astype(dtype)
    limits = np.iinfo(np.int16 if np.dtype(dtype).kind == "i" else np.uint16)
    return random.integers(limits.min, limits.max, size, endpoint=True).astype(dtype)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("place_dtype", ["uint16", "int32"])
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 64, 500])
def test_photons_are_those_of_the_formula_bit_for_bit(dtype, place_dtype, count):
    random = np.random.default_rng(count)
    adu = some(dtype, 901)
    place = random.integers(0, adu.size, count).astype(place_dtype)
    correction = random.uniform(0.5, 3, count).astype(np.float32)
    np.testing.assert_array_equal(converted(adu, place, correction), formula(adu, place, correction))


@pytest.mark.parametrize("dtype", ["int16", "uint16"])
@pytest.mark.parametrize("size", [1, 2, 3, 16, 17])
def test_the_first_and_the_last_reading_of_a_panel_are_read_and_nothing_beside_it(dtype, size):
    around = some(dtype, size + 2)
    place = np.arange(size, dtype=np.uint16)
    ones = np.ones(size, np.float32)
    for begin in (0, 1, 2):  # at an odd place in memory too
        adu = around[begin : begin + size]
        np.testing.assert_array_equal(converted(adu, place, ones), formula(adu, place, ones))


def test_places_in_the_upper_half_of_16_bits_are_no_negative_ones():
    adu = some("int16", 1 << 16)
    place = np.array([0, 32767, 32768, 65534, 65535], np.uint16)
    ones = np.ones(place.size, np.float32)
    np.testing.assert_array_equal(converted(adu, place, ones), formula(adu, place, ones))


def test_a_read_only_and_a_strided_frame_give_the_same_bits():
    wide = some("int16", 2000)
    place = np.random.default_rng(0).integers(0, 1000, 300).astype(np.uint16)
    ones = np.ones(place.size, np.float32)
    strided, locked = wide[::2], wide[::2].copy()
    locked.flags.writeable = False
    np.testing.assert_array_equal(converted(locked, place, ones), converted(strided, place, ones))


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
@pytest.mark.parametrize("seed", range(3))
def test_runs_of_several_panels_taken_ring_by_ring_have_the_offset_and_gain_of_their_panel(dtype, seed):
    random = np.random.default_rng(seed)
    panel_size, lengths = 333, random.integers(1, 40, 30)
    run_start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    run_panel = random.integers(0, 3, lengths.size).astype(np.int32)
    adu = some(dtype, 3 * panel_size, seed)
    place = random.integers(0, panel_size, run_start[-1]).astype(np.uint16)
    correction = random.uniform(0.5, 3, place.size).astype(np.float32)
    photons, run = np.full(place.size, np.float32(777)), 0
    for next_run in (0, 1, 7, 29, 30):  # rings end where runs do
        begin, end = run_start[run], run_start[next_run]
        run = convert(
            adu, panel_size, run_start, run_panel, place, correction, run, begin, end, OFFSET, GAIN, photons[begin:end]
        )
        assert run == next_run
        assert (photons[end:] == 777).all()
    panel = np.repeat(run_panel, lengths)
    np.testing.assert_array_equal(photons, formula(adu, panel * panel_size + place, correction, panel))
