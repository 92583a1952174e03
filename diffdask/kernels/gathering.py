"""Readings from scattered places to photons side by side, sixteen at a time."""

import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload
from numba.np.arrayobj import make_array

from diffdask.kernels.compilation import compiled
from diffdask.kernels.vectors import COUNT, FLOAT, addresses, constant, gather, load, splat, store, vector_of, walk

_HALF = ir.IntType(16)


def convert_runs(adu, panel_size, run_start, run_panel, place, correction, run, begin, end, offset, gain, photons):
    """Convert the readings of whole runs of listed pixels, (reading - offset) * gain * correction, in float32.

    Arrays come whole, as runs are short: to count references to slices of them would take a tenth of the time.

    Parameters
    ----------
    adu : (p,) integer or float
        One frame, flat; ADU.
    panel_size : int
        Its pixels a panel.
    run_start : (m + 1,) int32
        Where in the list each run begins; all its pixels are of one panel.
    run_panel : (m,) int32
        Its panel.
    place : (n,) uint16 or int32
        Where in the panel each pixel of the list is.
    correction : (n,) float32
    run : int
        The run that begins at ``begin``.
    begin, end : int
        The stretch of the list that is converted.
    offset, gain : (k,) float32
        Of each panel.
    photons : (end - begin,) float32
        Filled.

    Returns
    -------
    int
        The run that begins at ``end``.
    """
    while run < run_panel.size and run_start[run] < end:
        panel = run_panel[run]
        for i in range(run_start[run], run_start[run + 1]):
            reading = np.float32(adu[panel * panel_size + place[i]])
            photons[i - begin] = (reading - offset[panel]) * gain[panel] * correction[i]
        run += 1
    return run


@overload(convert_runs)
def _choose(adu, panel_size, run_start, run_panel, place, correction, run, begin, end, offset, gain, photons):
    """Sixteen at a time where readings have 16 bits, as most detectors' have: three times as fast, the same bits."""
    if adu.dtype not in (types.int16, types.uint16) or adu.layout != "C" or sys.byteorder != "little":
        return convert_runs

    def convert(adu, panel_size, run_start, run_panel, place, correction, run, begin, end, offset, gain, photons):
        if adu.size < 2:
            return _convert_any(
                adu, panel_size, run_start, run_panel, place, correction, run, begin, end, offset, gain, photons
            )
        while run < run_panel.size and run_start[run] < end:
            first, last, panel = np.int64(run_start[run]), run_start[run + 1], run_panel[run]
            _convert_16_bits(
                adu, np.int64(panel * panel_size), place, correction, first, np.int32(last - first), offset[panel],
                gain[panel], photons, first - begin,
            )  # fmt: skip
            run += 1
        return run

    return convert


_convert_any: Any = compiled(convert_runs)


def _type_conversion(typing_context, adu, first, place, correction, begin, length, offset, gain, photons, target):
    """A stretch of ``length`` listed pixels of the panel that begins at ``first``, into ``photons`` from ``target`` on.

    For frames of two readings and more.
    """
    here, many, number = types.int64, types.int32, types.float32
    signature = types.void(adu, here, place, correction, here, many, number, number, photons, here)
    return signature, _write_conversion


_convert_16_bits: Any = intrinsic(_type_conversion)


def _write_conversion(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Processors gather 32 bits: a reading and the one after it, or, for the frame's last, the one before it."""
    adu, place, correction, photons = (
        make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2, 3, 8)
    )
    first, begin, length, offset, gain, target = (arguments[i] for i in (1, 4, 5, 6, 7, 9))
    left = builder.sub(builder.extract_value(adu.shape, 0), first)  # from the panel's first reading on
    last = splat(builder, builder.trunc(builder.sub(left, ir.Constant(left.type, 2)), COUNT))
    panel = builder.bitcast(builder.gep(adu.data, [first]), _HALF.as_pointer())
    places, corrections = (builder.gep(array.data, [begin]) for array in (place, correction))
    filled = builder.gep(photons.data, [target])
    place_kind = place.data.type.pointee
    offset, gain = splat(builder, offset), splat(builder, gain)
    is_signed = signature.args[0].dtype.signed
    spread = builder.ashr if is_signed else builder.lshr
    convert = builder.sitofp if is_signed else builder.uitofp

    def body(start: Any, is_there: Any) -> None:
        here = load(builder, place_kind, builder.gep(places, [start]), is_there)
        here = builder.zext(here, vector_of(COUNT)) if place_kind != COUNT else here
        is_last = builder.icmp_signed(">", here, last)
        pair = builder.select(is_last, last, here)
        both = gather(builder, COUNT, addresses(builder, panel, pair), 2, is_there)
        both = builder.select(is_last, both, builder.shl(both, constant(COUNT, 16)))  # little-endian
        reading = convert(spread(both, constant(COUNT, 16)), vector_of(FLOAT))
        factor = load(builder, FLOAT, builder.gep(corrections, [start]), is_there)
        value = builder.fmul(builder.fmul(builder.fsub(reading, offset), gain), factor)
        store(builder, value, builder.gep(filled, [start]), is_there)

    walk(builder, length, body)
    return context.get_dummy_value()
