"""Sums in sixteen lanes: as fast as the processor adds, and the same bits everywhere.

Additions of floating numbers do not associate. A loop that adds one number
after the other is bound to that order and runs at a tenth of the speed; leave
to reorder it (``fastmath``) lets LLVM choose, and it chooses differently in
read-only arrays and writable ones, so that two workers differ in the last bit.
Here the order is written down: value i goes to lane i % 16, and at the end
lanes are added in pairs. LLVM turns that into whatever the processor has.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import impl_ret_untracked
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from diffdask.kernels.compilation import compiled
from diffdask.kernels.vectors import COUNT, FLOAT, LANES, constant, load, reduce, splat, walk

#: Values summed at a time: few enough for float32 lanes.
RUN = 1024

#: What :func:`sum_run` gives, in this order.
FIRST, SECOND, NUMBER, LEAST, GREATEST = range(5)


@compiled
def sum_between(photons, lowest, highest, shift):
    """Sums of (x - shift) and (x - shift)^2 over ``lowest`` <= x <= ``highest``, and how many there are.

    Parameters
    ----------
    photons : (n,) float32
    lowest, highest, shift : float32
    """
    if photons.size <= RUN:  # a polar cell, of which there are many
        first, second, number, _, _ = sum_run(photons, lowest, highest, shift)
        return first, second, int(number)
    first, second, pixels = 0.0, 0.0, 0
    for start in range(0, photons.size, RUN):
        s, q, n, _, _ = sum_run(photons[start : start + RUN], lowest, highest, shift)
        first += s
        second += q
        pixels += int(n)
    return first, second, pixels


def _type_sums(typing_context, values, lowest, highest, shift):
    """The same of at most ``RUN`` values, and the least and greatest of them; all five as floating numbers.

    Where there are none, the least is infinite and the greatest as far below zero.
    """
    result = types.UniTuple(types.float64, 5)
    return result(values, types.float32, types.float32, types.float32), _write_sums


sum_run: Any = intrinsic(_type_sums)


def _write_sums(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = make_array(signature.args[0])(context, builder, arguments[0])
    length = builder.trunc(builder.extract_value(array.shape, 0), COUNT)
    lowest, highest, shift = (splat(builder, value) for value in arguments[1:])
    zero, least, greatest = constant(FLOAT, 0.0), constant(FLOAT, np.inf), constant(FLOAT, -np.inf)
    lanes = [cgutils.alloca_once_value(builder, value) for value in (zero, zero, least, greatest)]
    number = cgutils.alloca_once_value(builder, ir.Constant(COUNT, 0))

    def add(start: Any, is_there: Any) -> None:
        value = load(builder, FLOAT, builder.gep(array.data, [start]), is_there)
        is_inside = builder.and_(
            is_there,
            builder.and_(builder.fcmp_ordered(">=", value, lowest), builder.fcmp_ordered("<=", value, highest)),
        )
        off = builder.select(is_inside, builder.fsub(value, shift), zero)
        first, second, least, greatest = (builder.load(lane) for lane in lanes)
        is_less, is_greater = builder.fcmp_ordered("<", value, least), builder.fcmp_ordered(">", value, greatest)
        builder.store(builder.fadd(first, off), lanes[0])
        builder.store(builder.fadd(second, builder.fmul(off, off)), lanes[1])
        builder.store(builder.select(is_inside, builder.select(is_less, value, least), least), lanes[2])
        builder.store(builder.select(is_inside, builder.select(is_greater, value, greatest), greatest), lanes[3])
        inside = builder.ctpop(builder.bitcast(is_inside, ir.IntType(LANES)))
        builder.store(builder.add(builder.load(number), builder.zext(inside, COUNT)), number)

    walk(builder, length, add)

    def pick(way: str) -> Any:
        return lambda a, b: builder.select(builder.fcmp_ordered(way, a, b), a, b)

    first, second, least, greatest = (
        builder.fpext(reduce(builder, builder.load(lane), join), ir.DoubleType())
        for lane, join in zip(lanes, (builder.fadd, builder.fadd, pick("<"), pick(">")), strict=True)
    )
    sums = [first, second, builder.sitofp(builder.load(number), ir.DoubleType()), least, greatest]
    found = context.make_tuple(builder, signature.return_type, sums)
    return impl_ret_untracked(context, builder, signature.return_type, found)
