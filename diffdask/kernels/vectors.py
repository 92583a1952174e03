"""Sixteen values at a time, written in LLVM's own words: what sums and gathering are made of."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils

LANES = 16

FLOAT, DOUBLE, COUNT, BIT = ir.FloatType(), ir.DoubleType(), ir.IntType(32), ir.IntType(1)


def vector_of(kind: Any) -> Any:
    """Type of sixteen values of a type."""
    return ir.VectorType(kind, LANES)


def constant(kind: Any, values: Any) -> Any:
    """Sixteen constants, or the same one in all lanes."""
    return ir.Constant(vector_of(kind), list(values) if hasattr(values, "__iter__") else [values] * LANES)


def splat(builder: Any, value: Any) -> Any:
    """The same value in all lanes."""
    empty = ir.Constant(vector_of(value.type), ir.Undefined)
    one = builder.insert_element(empty, value, ir.Constant(COUNT, 0))
    return builder.shuffle_vector(one, empty, constant(COUNT, 0))


def load(builder: Any, kind: Any, pointer: Any, is_there: Any = None) -> Any:
    """Sixteen values from a place in memory on; 0 in lanes that are not there."""
    is_there = constant(BIT, 1) if is_there is None else is_there
    return _masked(builder, "load", kind, [pointer, _size(kind), is_there, constant(kind, 0)])


def gather(builder: Any, kind: Any, pointers: Any, align: int, is_there: Any) -> Any:
    """Sixteen values from sixteen places in memory; 0 in lanes that are not there."""
    return _masked(builder, "gather", kind, [pointers, ir.Constant(COUNT, align), is_there, constant(kind, 0)])


def addresses(builder: Any, base: Any, places: Any) -> Any:
    """Sixteen addresses from one base on, so that a processor may add the base by itself."""
    found = builder.gep(base, [places], source_etype=base.type.pointee)
    found.type = vector_of(base.type)  # llvmlite knows of one address only
    return found


def store(builder: Any, values: Any, pointer: Any, is_there: Any) -> None:
    """Write sixteen values from a place in memory on, those only that are there."""
    _masked(builder, "store", values.type.element, [values, pointer, _size(values.type.element), is_there])


def walk(builder: Any, length: Any, body: Any) -> None:
    """Write ``body(start, is_there)`` for all whole vectors of a length, and once more for the rest.

    ``is_there`` tells the lanes of the rest; for whole vectors all are.
    """
    whole = builder.and_(length, ir.Constant(COUNT, -LANES))
    step = ir.Constant(COUNT, LANES)
    with cgutils.for_range_slice(builder, ir.Constant(COUNT, 0), whole, step, intp=COUNT) as (start, _):
        body(start, constant(BIT, 1))
    with builder.if_then(builder.icmp_signed("<", whole, length)):
        here = builder.add(splat(builder, whole), constant(COUNT, range(LANES)))
        body(whole, builder.icmp_signed("<", here, splat(builder, length)))


def reduce(builder: Any, vector: Any, join: Any) -> Any:
    """Join lanes in pairs, and the pairs again, down to one number."""
    width = LANES
    while width > 1:
        width //= 2
        halves = [
            builder.shuffle_vector(
                vector, vector, ir.Constant(ir.VectorType(COUNT, width), list(range(start, start + width)))
            )
            for start in (0, width)
        ]
        vector = join(*halves)
    return builder.extract_element(vector, ir.Constant(COUNT, 0))


def _size(kind: Any) -> Any:
    return ir.Constant(COUNT, {FLOAT: 4, DOUBLE: 8}[kind] if kind in (FLOAT, DOUBLE) else kind.width // 8)


def _masked(builder: Any, what: str, kind: Any, arguments: list[Any]) -> Any:
    """Call one of LLVM's masked intrinsics: lanes that are not there touch no memory."""
    vectors, pointer = vector_of(kind), "v16p0" if what == "gather" else "p0"
    code = {FLOAT: "f32", DOUBLE: "f64"}[kind] if kind in (FLOAT, DOUBLE) else f"i{kind.width}"
    name = f"llvm.masked.{what}.v{LANES}{code}.{pointer}"
    given = ir.VoidType() if what == "store" else vectors
    function = ir.FunctionType(given, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)
