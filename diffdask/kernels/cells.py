"""Sums over the polar cells of a ring: short stretches of many lengths, sixteen of them reduced at once.

A cell has some tens of pixels, so that adding the sixteen lanes of its sums to one number costs more than filling
them. Here the lanes of sixteen cells wait in a table, and each step of the reduction joins those of two cells in one
vector: the very additions of :func:`~diffdask.kernels.lanes.sum_between`, a quarter of the steps.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from diffdask.kernels.compilation import compiled
from diffdask.kernels.lanes import RUN, sum_between
from diffdask.kernels.vectors import COUNT, DOUBLE, FLOAT, LANES, constant, load, splat, store, vector_of


@compiled
def sum_cells(photons, start, lowest, highest, level, first, second, count):
    """Sum each cell of a ring as :func:`sum_between` does, to the same bits.

    Parameters
    ----------
    photons : (n,) float32
        The ring, cell by cell.
    start : (a + 1,) int32
        Where cells begin, counted from the ring's first pixel at ``start[0]``.
    lowest, highest, level : float32
        Readings that count, and what is taken off them.
    first, second : (a,) float64
        Filled with the sums of (x - level) and (x - level)^2.
    count : (a,) int64
        Filled with the number of readings that count.
    """
    longest = np.int32(0)
    for azimuth in range(first.size):
        longest = max(longest, np.int32(start[azimuth + 1] - start[azimuth]))
    if longest <= RUN:
        _sum_short_cells(photons, start, longest, lowest, highest, level, first, second, count)
        return
    for azimuth in range(first.size):
        values = photons[start[azimuth] - start[0] : start[azimuth + 1] - start[0]]
        first[azimuth], second[azimuth], count[azimuth] = sum_between(values, lowest, highest, level)


def _type_cells(typing_context, photons, start, longest, lowest, highest, level, first, second, count):
    """As above, for cells of at most ``longest`` pixels, and that at most ``RUN``."""
    scalars = (types.float32,) * 3
    return types.void(photons, start, types.int32, *scalars, first, second, count), _write_cells


_sum_short_cells: Any = intrinsic(_type_cells)


def _write_cells(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    arrays = [make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 1, 6, 7, 8)]
    photons, start, *sums = (array.data for array in arrays)
    limits = [splat(builder, value) for value in arguments[3:6]]
    cells = builder.trunc(builder.extract_value(arrays[2].shape, 0), COUNT)
    rounded = builder.and_(builder.add(arguments[2], ir.Constant(COUNT, LANES - 1)), ir.Constant(COUNT, -LANES))
    origin = builder.load(start)
    tables = [cgutils.alloca_once(builder, vector_of(FLOAT), size=LANES) for _ in range(2)]
    number = cgutils.alloca_once(builder, vector_of(COUNT))
    zero, one, most = (ir.Constant(COUNT, value) for value in (0, 1, LANES))
    with cgutils.for_range_slice(builder, zero, cells, most, intp=COUNT) as (group, _):
        left = builder.sub(cells, group)
        here = builder.select(builder.icmp_signed("<", left, most), left, most)
        with cgutils.for_range_slice(builder, zero, here, one, intp=COUNT) as (row, _):
            cell = builder.add(group, row)
            begin, end = (builder.load(builder.gep(start, [place])) for place in (cell, builder.add(cell, one)))
            values = builder.gep(photons, [builder.sub(begin, origin)])
            *lanes, inside = _fill_lanes(builder, values, builder.sub(end, begin), rounded, limits)
            for table, value in zip(tables, lanes, strict=True):
                builder.store(value, builder.gep(table, [row]))
            builder.store(inside, builder.gep(builder.bitcast(number, COUNT.as_pointer()), [row]))
        is_there = builder.icmp_signed("<", constant(COUNT, range(LANES)), splat(builder, here))
        for table, target in zip(tables, sums[:2], strict=True):
            total = _reduce_table(builder, table)
            store(builder, builder.fpext(total, vector_of(DOUBLE)), builder.gep(target, [group]), is_there)
        wide = builder.zext(builder.load(number), vector_of(ir.IntType(64)))
        store(builder, wide, builder.gep(sums[2], [group]), is_there)
    return context.get_dummy_value()


def _fill_lanes(builder: Any, values: Any, length: Any, rounded: Any, limits: list[Any]) -> list[Any]:
    """Sum a cell in sixteen lanes: value i goes to lane i % 16; gives the two sums and the number of values.

    As many steps for a short cell as for the longest: a processor foresees the end of a loop that is always as long.
    """
    lowest, highest, level = limits
    zero = constant(FLOAT, 0.0)
    lanes = [cgutils.alloca_once(builder, vector_of(FLOAT)) for _ in range(2)]
    number = cgutils.alloca_once(builder, COUNT)
    for lane in lanes:
        builder.store(zero, lane)
    builder.store(ir.Constant(COUNT, 0), number)
    many = splat(builder, length)
    step = ir.Constant(COUNT, LANES)
    with cgutils.for_range_slice(builder, ir.Constant(COUNT, 0), rounded, step, intp=COUNT) as (at, _):
        is_there = builder.icmp_signed("<", builder.add(splat(builder, at), constant(COUNT, range(LANES))), many)
        value = load(builder, FLOAT, builder.gep(values, [at]), is_there)
        is_inside = builder.and_(
            is_there,
            builder.and_(builder.fcmp_ordered(">=", value, lowest), builder.fcmp_ordered("<=", value, highest)),
        )
        off = builder.select(is_inside, builder.fsub(value, level), zero)
        first, second = (builder.load(lane) for lane in lanes)
        builder.store(builder.fadd(first, off), lanes[0])
        builder.store(builder.fadd(second, builder.fmul(off, off)), lanes[1])
        inside = builder.ctpop(builder.bitcast(is_inside, ir.IntType(LANES)))
        builder.store(builder.add(builder.load(number), builder.zext(inside, COUNT)), number)
    return [builder.load(lanes[0]), builder.load(lanes[1]), builder.load(number)]


def _reduce_table(builder: Any, table: Any) -> Any:
    """Reduce sixteen rows of lanes to one vector, a number each: halves are added, as ``vectors.reduce`` adds them.

    After a step, a vector holds what is left of twice as many rows.
    """
    rows = [builder.load(builder.gep(table, [ir.Constant(COUNT, row)])) for row in range(LANES)]
    width = LANES
    while len(rows) > 1:
        width //= 2
        # rows far apart are joined, so that in the end row i is in lane i
        pairs = zip(rows[: len(rows) // 2], rows[len(rows) // 2 :], strict=True)
        rows = [_join_halves(builder, a, b, width) for a, b in pairs]
    return rows[0]


def _join_halves(builder: Any, a: Any, b: Any, width: int) -> Any:
    """Add the upper halves of each part of ``2 * width`` lanes to the lower ones, of two vectors at once."""
    parts = range(0, LANES, 2 * width)
    halves = [
        [source + part + half + i for part in parts for source in (0, LANES) for i in range(width)]
        for half in (0, width)
    ]
    lower, upper = (builder.shuffle_vector(a, b, constant(COUNT, half)) for half in halves)
    return builder.fadd(lower, upper)
