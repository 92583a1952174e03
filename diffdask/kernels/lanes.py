"""Sums in sixteen lanes: as fast as the processor adds, and the same bits everywhere.

Additions of floating numbers do not associate. A loop that adds one number
after the other is bound to that order and runs at a tenth of the speed; leave
to reorder it (``fastmath``) lets LLVM choose, and it chooses differently in
read-only arrays and writable ones, so that two workers differ in the last bit.
Here the order is written down: value i goes to lane i % 16, and at the end
lanes are added in pairs. LLVM turns that into whatever the processor has.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import impl_ret_untracked
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from diffdask.kernels.compilation import compiled

_LANES = 16

#: Values summed at a time: few enough for float32 lanes.
_RUN = 1024

_FLOAT, _COUNT, _BIT = ir.FloatType(), ir.IntType(32), ir.IntType(1)


@compiled
def sum_between(photons, lowest, highest, shift):
    """Sums of (x - shift) and (x - shift)^2 over ``lowest`` <= x <= ``highest``, and how many there are.

    Parameters
    ----------
    photons : (n,) float32
    lowest, highest, shift : float32
    """
    first, second, pixels = 0.0, 0.0, 0
    for start in range(0, photons.size, _RUN):
        s, q, n = _sum_lanes(photons[start : start + _RUN], lowest, highest, shift)
        first += s
        second += q
        pixels += int(n)
    return first, second, pixels


def _type_sums(typing_context, values, lowest, highest, shift):
    """The same of few values; all three as floating numbers."""
    result = types.UniTuple(types.float64, 3)
    return result(values, types.float32, types.float32, types.float32), _write_sums


_sum_lanes: Any = intrinsic(_type_sums)


def _write_sums(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = make_array(signature.args[0])(context, builder, arguments[0])
    length = builder.trunc(builder.extract_value(array.shape, 0), _COUNT)
    lowest, highest, shift = (_splat(builder, _FLOAT, value) for value in arguments[1:])
    floats, counts = ir.VectorType(_FLOAT, _LANES), ir.VectorType(_COUNT, _LANES)
    first, second = (cgutils.alloca_once_value(builder, ir.Constant(floats, [0.0] * _LANES)) for _ in range(2))
    number = cgutils.alloca_once_value(builder, ir.Constant(counts, [0] * _LANES))
    numbering = ir.Constant(counts, list(range(_LANES)))
    with cgutils.for_range_slice(builder, ir.Constant(_COUNT, 0), length, ir.Constant(_COUNT, _LANES), intp=_COUNT) as (
        start,
        _,
    ):
        here = builder.add(_splat(builder, _COUNT, start), numbering)
        is_there = builder.icmp_signed("<", here, _splat(builder, _COUNT, length))
        value = _load(builder, builder.gep(array.data, [start]), is_there)
        is_inside = builder.and_(
            is_there,
            builder.and_(builder.fcmp_ordered(">=", value, lowest), builder.fcmp_ordered("<=", value, highest)),
        )
        off = builder.select(is_inside, builder.fsub(value, shift), ir.Constant(floats, [0.0] * _LANES))
        builder.store(builder.fadd(builder.load(first), off), first)
        builder.store(builder.fadd(builder.load(second), builder.fmul(off, off)), second)
        builder.store(builder.add(builder.load(number), builder.zext(is_inside, counts)), number)
    sums = [
        builder.fpext(_add_lanes(builder, builder.load(first), builder.fadd), ir.DoubleType()),
        builder.fpext(_add_lanes(builder, builder.load(second), builder.fadd), ir.DoubleType()),
        builder.sitofp(_add_lanes(builder, builder.load(number), builder.add), ir.DoubleType()),
    ]
    found = context.make_tuple(builder, signature.return_type, sums)
    return impl_ret_untracked(context, builder, signature.return_type, found)


def _splat(builder: Any, kind: Any, value: Any) -> Any:
    """The same value in all lanes."""
    empty = ir.Constant(ir.VectorType(kind, _LANES), ir.Undefined)
    one = builder.insert_element(empty, value, ir.Constant(_COUNT, 0))
    return builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(_COUNT, _LANES), [0] * _LANES))


def _load(builder: Any, pointer: Any, is_there: Any) -> Any:
    """Sixteen values, 0 past the end."""
    floats = ir.VectorType(_FLOAT, _LANES)
    kind = ir.FunctionType(floats, [pointer.type, _COUNT, ir.VectorType(_BIT, _LANES), floats])
    load = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.load.v{_LANES}f32.p0")
    return builder.call(load, [pointer, ir.Constant(_COUNT, 4), is_there, ir.Constant(floats, [0.0] * _LANES)])


def _add_lanes(builder: Any, vector: Any, add: Any) -> Any:
    """Add lanes in pairs, and the pairs again, down to one number."""
    width = _LANES
    while width > 1:
        width //= 2
        halves = [
            builder.shuffle_vector(
                vector, vector, ir.Constant(ir.VectorType(_COUNT, width), list(range(start, start + width)))
            )
            for start in (0, width)
        ]
        vector = add(*halves)
    return builder.extract_element(vector, ir.Constant(_COUNT, 0))
