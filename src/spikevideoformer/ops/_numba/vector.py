# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Sixteen numbers at once inside numba functions.

Loops over numba arrays are vectorised only after run-time checks that no two arrays overlap,
paid again for every short row; kernels over time have nothing but short rows. Written with these
vectors, the same source gives straight vector code on every processor (two AVX2 registers, one
AVX-512 register, four NEON registers), and, with ``width`` 1, plain scalar code for the rest of
a row. Rounding is that of IEEE single precision; a fused multiply-add is made only by ``fma``.

Memory is addressed by the integer address of an array plus an element index.
"""

import operator
from functools import wraps
from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.extending import lower_builtin, models, register_model

intrinsic: Any = numba.extending.intrinsic  # its types would not let the functions be called
LANES = 16
FLOAT32, BFLOAT16, UINT8 = range(3)  # kinds of numbers in memory; `load` makes them float32
INT32 = 3  # `load_int` and `store_int` take it
ITEM_BYTES = (4, 2, 1)

_f32, _f64 = ir.FloatType(), ir.DoubleType()
_i1, _i8, _i16, _i32, _i64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_BYTES = {_i8: 1, _i16: 2, _i32: 4, _f32: 4, _f64: 8}


class _Lanes(types.Type):
    """LANES float32, float64 or int32 numbers or truth values."""

    def __init__(self, item: types.Type) -> None:
        self.item = item
        super().__init__(name=f"Lanes({item})")


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: _Lanes) -> None:
        known: dict[Any, ir.Type] = {
            types.float32: _f32,
            types.float64: _f64,
            types.int32: _i32,
            types.boolean: _i1,
        }
        item = known[fe_type.item]
        super().__init__(manager, fe_type, ir.VectorType(item, LANES))


_floats, _doubles = _Lanes(types.float32), _Lanes(types.float64)
_ints, _truths = _Lanes(types.int32), _Lanes(types.boolean)
_int, _double, _void = types.int64, types.float64, types.void


def _wide(item: ir.Type, width: int) -> ir.Type:
    return item if width == 1 else ir.VectorType(item, width)


def _splat(item: ir.Type, value: float | int, width: int) -> ir.Constant:
    return ir.Constant(_wide(item, width), value if width == 1 else [value] * width)


def _everywhere(builder: Any, value: Any, item: ir.Type, width: int) -> Any:
    """A vector whose every lane is ``value``."""
    undefined = ir.Constant(_wide(item, width), ir.Undefined)
    first = builder.insert_element(undefined, value, _i32(0))
    return builder.shuffle_vector(first, undefined, _splat(_i32, 0, width))


def _lanes(value: Any) -> int:
    return LANES if isinstance(value.type, ir.VectorType) else 1


def _pointer(builder: Any, address: Any, index: Any, item: ir.Type) -> Any:
    base = builder.inttoptr(address, ir.PointerType())
    return builder.gep(base, [index], source_etype=item)


def _load(builder: Any, address: Any, index: Any, item: ir.Type, width: int = 1) -> Any:
    place = _pointer(builder, address, index, item)
    return builder.load(place, typ=_wide(item, width), align=_BYTES[item])


def _store(builder: Any, value: Any, address: Any, index: Any, item: ir.Type) -> None:
    builder.store(value, _pointer(builder, address, index, item), align=_BYTES[item])


def _call(builder: Any, name: str, returned: ir.Type, arguments: list[Any]) -> Any:
    """Call an LLVM intrinsic, whose name ends with the type it is for."""
    kind = ir.FunctionType(returned, [argument.type for argument in arguments])
    function = numba.core.cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, arguments)


def _llvm(builder: Any, name: str, *arguments: Any) -> Any:
    """Call the LLVM intrinsic ``name`` of the type that all its arguments have."""
    kind = arguments[0].type
    item = "f64" if _f64 in (kind, getattr(kind, "element", None)) else "f32"
    short = f"v{LANES}{item}" if _lanes(arguments[0]) > 1 else item
    return _call(builder, f"{name}.{short}", kind, list(arguments))


def _operation(signature: Any, literals: int = 0) -> Any:
    """An intrinsic from a function of the builder and its values that has LLVM compute it.

    Args:
        signature: in numba's types, or a function from the types that are given to one.
        literals: how many of the last values are numbers known when a call is compiled. They stay
            in the signature: the same types with another number are another function.
    """

    def make(emit: Any) -> Any:
        @wraps(emit)  # numba reads the names of its arguments
        def typed(typing: Any, *given: Any) -> Any:
            computed = len(given) - literals
            numbers = [kind.literal_value for kind in given[computed:]]

            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                value = emit(builder, *args[:computed], *numbers)
                return context.get_dummy_value() if value is None else value

            return signature(*given) if callable(signature) else signature, generate

        return intrinsic(prefer_literal=True)(typed) if literals else intrinsic(typed)

    return make


def _of_width(width: Any, one: types.Type, lanes: types.Type) -> types.Type:
    return one if width.literal_value == 1 else lanes


@_operation(lambda a, i, kind, w: _of_width(w, types.float32, _floats)(_int, _int, kind, w), 2)
def load(builder, address, index, kind, width):
    """``width`` numbers of ``kind`` at ``address[index]`` as float32."""
    value = _load(builder, address, index, (_f32, _i16, _i8)[kind], width)
    if kind == BFLOAT16:
        value = builder.zext(value, _wide(_i32, width))
        value = builder.shl(value, _splat(_i32, 16, width))
        value = builder.bitcast(value, _wide(_f32, width))
    elif kind == UINT8:
        value = builder.uitofp(value, _wide(_f32, width))
    return value


@_operation(lambda address, index, value, kind: _void(_int, _int, value, kind), 1)
def store(builder, address, index, value, kind):
    """Write ``value`` to ``address[index]``, rounded to ``kind`` (to nearest, ties to even)."""
    width = _lanes(value)
    if kind == UINT8:
        value = builder.fptoui(value, _wide(_i8, width))
    elif kind == BFLOAT16:
        nan = builder.fcmp_unordered("uno", value, value)
        bits = builder.bitcast(value, _wide(_i32, width))
        upper = builder.lshr(bits, _splat(_i32, 16, width))
        odd = builder.and_(upper, _splat(_i32, 1, width))
        bits = builder.add(bits, builder.add(odd, _splat(_i32, 0x7FFF, width)))
        bits = builder.lshr(bits, _splat(_i32, 16, width))
        bits = builder.select(nan, _splat(_i32, 0x7FC0, width), bits)
        value = builder.trunc(bits, _wide(_i16, width))
    _store(builder, value, address, index, (_f32, _i16, _i8)[kind])


@_operation(lambda address, index, truth, kind: _void(_int, _int, truth, kind), 1)
def store_truth(builder, address, index, truth, kind):
    """Write 1 where ``truth`` and 0 elsewhere as ``kind``."""
    width = _lanes(truth)
    item, one = ((_f32, 1.0), (_i16, 0x3F80), (_i8, 1))[kind]
    number = builder.select(truth, _splat(item, one, width), _splat(item, 0, width))
    _store(builder, number, address, index, item)


@_operation(_truths(_int, _int))
def load_bits(builder, address, index):
    """LANES truth values from bits, the lowest first, at uint16 ``address[index]``."""
    bits = builder.load(_pointer(builder, address, index, _i16), typ=_i16, align=1)
    # one lane for each bit by comparison: a bitcast would order them by endianness
    everywhere = _everywhere(builder, bits, _i16, LANES)
    mask = ir.Constant(everywhere.type, [1 << i for i in range(LANES)])
    return builder.icmp_unsigned("!=", builder.and_(everywhere, mask), _splat(_i16, 0, LANES))


@_operation(_void(_int, _int, _truths))
def store_bits(builder, address, index, truth):
    """Write LANES truth values as bits, the lowest first (on little-endian machines)."""
    bits = builder.bitcast(truth, _i16)
    builder.store(bits, _pointer(builder, address, index, _i16), align=1)


def _prefetch(builder: Any, address: Any, write: int) -> None:
    pointer = builder.inttoptr(address, ir.PointerType())
    _call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, _i32(write), _i32(3), _i32(1)])


@_operation(_void(_int))
def prefetch_to_read(builder, address):
    """Fetch the cache line at ``address`` for reading; no effect on what is computed."""
    _prefetch(builder, address, 0)


@_operation(_void(_int))
def prefetch_to_write(builder, address):
    """Fetch the cache line at ``address`` for writing; no effect on what is computed."""
    _prefetch(builder, address, 1)


@_operation(_int(types.CPointer(_int)))
def take_part(builder, arguments):
    """Atomic ``old = arguments[0]; arguments[0] += 1``."""
    return builder.atomic_rmw("add", arguments, _i64(1), "monotonic")


@_operation(lambda address, i, w: _of_width(w, types.float32, _floats)(_int, _int, w), 1)
def splat_double_at(builder, address, index, width):
    """The float64 at ``address[index]``, rounded to float32, in every lane."""
    value = builder.fptrunc(_load(builder, address, index, _f64), _f32)
    return value if width == 1 else _everywhere(builder, value, _f32, width)


@_operation(_void(_int, _int, _double))
def add_to_float64(builder, address, index, value):
    """``address[index] += value`` in float64."""
    total = builder.fadd(_load(builder, address, index, _f64), value)
    _store(builder, total, address, index, _f64)


# Whole numbers: int32 in lanes, which wrap around, and numba's own int64 where width is 1.


@_operation(lambda address, i, kind, w: _of_width(w, _int, _ints)(_int, _int, kind, w), 2)
def load_int(builder, address, index, kind, width):
    """``width`` whole numbers at ``address[index]``, which holds bytes (UINT8) or int32 (INT32)."""
    value = _load(builder, address, index, _i8 if kind == UINT8 else _i32, width)
    wanted = _i64 if width == 1 else _wide(_i32, width)
    if kind == UINT8:
        return builder.zext(value, wanted)
    return builder.sext(value, wanted) if width == 1 else value


@_operation(lambda address, index, value: _void(_int, _int, value))
def store_int(builder, address, index, value):
    """Write whole numbers to ``address[index]`` as int32."""
    number = builder.trunc(value, _i32) if _lanes(value) == 1 else value
    _store(builder, number, address, index, _i32)


@_operation(lambda value, width: _of_width(width, _int, _ints)(_int, width), 1)
def splat_int(builder, value, width):
    """A whole number in every lane."""
    return value if width == 1 else _everywhere(builder, builder.trunc(value, _i32), _i32, width)


@_operation(lambda value: (_floats if value == _ints else types.float32)(value))
def to_float(builder, value):
    """Whole numbers as float32, rounded to nearest."""
    return builder.sitofp(value, _wide(_f32, _lanes(value)))


@_operation(_int(_int, _int))
def nonzero_bits(builder, address, index):
    """An int64 whose bit i says whether byte i of the LANES at ``address[index]`` is not 0."""
    value = _load(builder, address, index, _i8, LANES)
    fired = builder.icmp_unsigned("!=", value, _splat(_i8, 0, LANES))
    # as in store_bits, the lowest first on little-endian machines
    return builder.zext(builder.bitcast(fired, _i16), _i64)


@_operation(_int(_int))
def lowest_bit(builder, bits):
    """Place of the lowest bit that is set in an int64 other than 0."""
    return builder.cttz(bits, _i1(1))


@_operation(lambda value, w: _of_width(w, types.float32, _floats)(types.float32, w), 1)
def splat(builder, value, width):
    """A float32 in every lane."""
    return value if width == 1 else _everywhere(builder, value, _f32, width)


@_operation(lambda a, b, c: a(a, a, a))
def fma(builder, a, b, c):
    """``a * b + c``, rounded once."""
    return _llvm(builder, "llvm.fma", a, b, c)


@_operation(lambda a: a(a))
def round_to_even(builder, a):
    """To the nearest integer, ties to even, as torch.round."""
    return _llvm(builder, "llvm.nearbyint", a)


@_operation(lambda truth, a, b: a(truth, a, a))
def where(builder, truth, a, b):
    """``a`` where ``truth``, else ``b``."""
    return builder.select(truth, a, b)


@_operation(lambda a, b: a(a, a))
def both(builder, a, b):
    """Truth of ``a`` and ``b``."""
    return builder.and_(a, b)


@_operation(lambda a: a(a))
def magnitude(builder, a):
    """Absolute value."""
    return _llvm(builder, "llvm.fabs", a)


@_operation(lambda a: a(a))
def two_to_the(builder, a):
    """2**a for whole numbers -126 <= a <= 127, by the bits of the exponent."""
    width = _lanes(a)
    whole = builder.fptosi(a, _wide(_i32, width))
    bits = builder.shl(builder.add(whole, _splat(_i32, 127, width)), _splat(_i32, 23, width))
    return builder.bitcast(bits, a.type)


def _give_operator(
    symbol: Any, instruction: str, comparison: str | None = None, lanes: Any = _floats
) -> None:
    """Give vectors an operator; scalars keep numba's own."""
    returned = _truths if comparison else lanes

    class Typed(ConcreteTemplate):
        key = symbol
        cases = (returned(lanes, lanes),)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if comparison:
            return builder.fcmp_ordered(comparison, *args)
        return getattr(builder, instruction)(*args)

    infer_global(symbol)(Typed)
    lower_builtin(symbol, lanes, lanes)(generate)


_give_operator(operator.add, "fadd")
_give_operator(operator.sub, "fsub")
_give_operator(operator.mul, "fmul")
_give_operator(operator.ge, "", ">=")
_give_operator(operator.le, "", "<=")
_give_operator(operator.lt, "", "<")
_give_operator(operator.add, "add", lanes=_ints)
_give_operator(operator.sub, "sub", lanes=_ints)
_give_operator(operator.mul, "mul", lanes=_ints)


@_operation(lambda a, b: a(a, a))
def divide(builder, a, b):
    """``a / b``, of scalars too without Python's check for zero."""
    return builder.fdiv(a, b)


@_operation(lambda a, b: _truths(a, b))
def differ(builder, a, b):
    """Truth of ``a != b``, lane by lane."""
    return builder.fcmp_unordered("!=", a, b)


# What adding up rows of weights takes: lists of rows, and int16 numbers two to a lane.


@_operation(_int(_int, _int))
def load_index(builder, address, index):
    """The uint16 at ``address[index]``."""
    return builder.zext(_load(builder, address, index, _i16), _i64)


@_operation(_int(_int, _int))
def load_short(builder, address, index):
    """The int16 at ``address[index]``."""
    return builder.sext(_load(builder, address, index, _i16), _i64)


@_operation(_int(*[_int] * 6))
def list_bytes(builder, target, place, source, index, least, first):
    """Write ``first + i`` for each of LANES bytes ``source[index + i] >= least``; how many.

    They go one after the other to the bytes from ``target[place]`` on.
    """
    value = _load(builder, source, index, _i8, LANES)
    least, first = (_everywhere(builder, builder.trunc(z, _i8), _i8, LANES) for z in (least, first))
    fired = builder.icmp_unsigned(">=", value, least)
    names = builder.add(first, ir.Constant(value.type, list(range(LANES))))
    arguments = [names, _pointer(builder, target, place, _i8), fired]
    _call(builder, f"llvm.masked.compressstore.v{LANES}i8", ir.VoidType(), arguments)
    return builder.ctpop(builder.zext(builder.bitcast(fired, _i16), _i64))


@_operation(_void(_int, _int, _int))
def store_byte(builder, address, index, value):
    """Write a whole number to byte ``address[index]``."""
    _store(builder, builder.trunc(value, _i8), address, index, _i8)


@_operation(_void(*[_int] * 5))
def copy_indices(builder, target, place, source, first, offset):
    """``target[place + i] = source[first + i] + offset`` of LANES bytes, to uint16."""
    value = builder.zext(_load(builder, source, first, _i8, LANES), _wide(_i16, LANES))
    offset = _everywhere(builder, builder.trunc(offset, _i16), _i16, LANES)
    _store(builder, builder.add(value, offset), target, place, _i16)


@_operation(_ints(_ints, _ints))
def add_shorts(builder, a, b):
    """Sums of int16 numbers, two in each lane."""
    a, b = (builder.bitcast(z, _wide(_i16, 2 * LANES)) for z in (a, b))
    return builder.bitcast(builder.add(a, b), _wide(_i32, LANES))


@_operation(_ints(_ints))
def lower_shorts(builder, a):
    """The int16 numbers in the lower half of each lane."""
    by = _splat(_i32, 16, LANES)
    return builder.ashr(builder.shl(a, by), by)


@_operation(_ints(_ints))
def upper_shorts(builder, a):
    """The int16 numbers in the upper half of each lane."""
    return builder.ashr(a, _splat(_i32, 16, LANES))


@_operation(_ints(_ints, _int, _int))
def times_bytes(builder, a, address, index):
    """Whole numbers times LANES bytes at ``address[index]``."""
    value = _load(builder, address, index, _i8, LANES)
    return builder.mul(a, builder.zext(value, _wide(_i32, LANES)))


@_operation(_ints(_ints, _int, _int))
def where_bytes(builder, a, address, index):
    """Whole numbers where one of LANES bytes at ``address[index]`` is not 0, else 0."""
    value = _load(builder, address, index, _i8, LANES)
    fired = builder.icmp_unsigned("!=", value, _splat(_i8, 0, LANES))
    return builder.select(fired, a, _splat(_i32, 0, LANES))


# Sums in float64.


@_operation(lambda address, index, value: _void(_int, _int, value))
def store_int_as_double(builder, address, index, value):
    """Write whole numbers to ``address[index]`` as float64."""
    _store(builder, builder.sitofp(value, _wide(_f64, _lanes(value))), address, index, _f64)


@_operation(_doubles(_int, _int))
def load_doubles(builder, address, index):
    """LANES float64 numbers at ``address[index]``."""
    return _load(builder, address, index, _f64, LANES)


@_operation(_doubles())
def double_zeros(builder):
    """LANES zeros, float64."""
    return _splat(_f64, 0.0, LANES)


@_operation(_doubles(_int, _int))
def splat_double(builder, address, index):
    """The float64 at ``address[index]`` in every lane."""
    return _everywhere(builder, _load(builder, address, index, _f64), _f64, LANES)


@_operation(_doubles(_doubles, _doubles, _doubles))
def fma_doubles(builder, a, b, c):
    """``a * b + c``, rounded once."""
    return _llvm(builder, "llvm.fma", a, b, c)


@_operation(_void(_int, _int, _doubles))
def store_rounded(builder, address, index, value):
    """Write float64 numbers to ``address[index]`` as float32."""
    _store(builder, builder.fptrunc(value, _wide(_f32, LANES)), address, index, _f32)
