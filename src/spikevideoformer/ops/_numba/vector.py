# mypy: disable-error-code="untyped-decorator"
"""Sixteen numbers at once inside numba functions.

Loops over numba arrays are vectorised only after run-time checks that no two arrays overlap,
paid again for every short row; kernels over time have nothing but short rows. Written with these
vectors, the same source gives straight vector code on every processor (two AVX2 registers, one
AVX-512 register, four NEON registers), and, with ``width`` 1, plain scalar code for the rest of
a row. Rounding is that of IEEE single precision; a fused multiply-add is made only by ``fma``.

Memory is addressed by the integer address of an array plus an element index.
"""

import operator
from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import models, overload, register_model

intrinsic: Any = numba.extending.intrinsic  # its types would not let the functions be called
LANES = 16
FLOAT32, BFLOAT16, UINT8 = range(3)  # kinds of numbers in memory; `load` makes them float32
INT32 = 3  # `load_int` and `store_int` take it
ITEM_BYTES = (4, 2, 1)

_f32, _i1, _i8, _i16, _i32 = (
    ir.FloatType(),
    ir.IntType(1),
    ir.IntType(8),
    ir.IntType(16),
    ir.IntType(32),
)


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
            types.float64: ir.DoubleType(),
            types.int32: _i32,
            types.boolean: _i1,
        }
        item = known[fe_type.item]
        super().__init__(manager, fe_type, ir.VectorType(item, LANES))


_floats, _truths = _Lanes(types.float32), _Lanes(types.boolean)
_ints = _Lanes(types.int32)
_doubles = _Lanes(types.float64)


def _wide(item: ir.Type, width: int) -> ir.Type:
    return item if width == 1 else ir.VectorType(item, width)


def _splat(item: ir.Type, value: float | int, width: int) -> ir.Constant:
    return ir.Constant(_wide(item, width), value if width == 1 else [value] * width)


def _everywhere(builder: Any, value: Any, item: ir.Type, width: int) -> Any:
    """A vector whose every lane is ``value``."""
    undefined = ir.Constant(_wide(item, width), ir.Undefined)
    first = builder.insert_element(undefined, value, _i32(0))
    return builder.shuffle_vector(first, undefined, _splat(_i32, 0, width))


def _width(numba_type: types.Type) -> int:
    return LANES if isinstance(numba_type, _Lanes) else 1


def _pointer(builder: Any, address: Any, index: Any, item: ir.Type) -> Any:
    base = builder.inttoptr(address, ir.PointerType())
    return builder.gep(base, [index], source_etype=item)


def _llvm(builder: Any, name: str, value_type: ir.Type, arguments: list[Any]) -> Any:
    """Call the LLVM intrinsic ``name`` of ``value_type``, whose arguments are of that type."""
    short = "v16f32" if isinstance(value_type, ir.VectorType) else "f32"
    kind = ir.FunctionType(value_type, [value_type] * len(arguments))
    function = numba.core.cgutils.get_or_insert_function(builder.module, kind, f"{name}.{short}")
    return builder.call(function, arguments)


@intrinsic(prefer_literal=True)
def load(typing: Any, address: Any, index: Any, kind: Any, width: Any) -> Any:
    """``width`` numbers of ``kind`` at ``address[index]`` as float32."""
    returned = types.float32 if width.literal_value == 1 else _floats
    # literals stay in the signature: the same types with another width are another function
    signature = returned(types.int64, types.int64, kind, width)
    kind, width = kind.literal_value, width.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        item = (_f32, _i16, _i8)[kind]
        place = _pointer(builder, args[0], args[1], item)
        value = builder.load(place, typ=_wide(item, width), align=ITEM_BYTES[kind])
        if kind == BFLOAT16:
            value = builder.zext(value, _wide(_i32, width))
            value = builder.shl(value, _splat(_i32, 16, width))
            value = builder.bitcast(value, _wide(_f32, width))
        elif kind == UINT8:
            value = builder.uitofp(value, _wide(_f32, width))
        return value

    return signature, generate


@intrinsic(prefer_literal=True)
def store(typing: Any, address: Any, index: Any, value: Any, kind: Any) -> Any:
    """Write ``value`` to ``address[index]``, rounded to ``kind`` (to nearest, ties to even)."""
    signature = types.void(types.int64, types.int64, value, kind)
    kind, width = kind.literal_value, _width(value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        item = (_f32, _i16, _i8)[kind]
        number = args[2]
        if kind == UINT8:
            number = builder.fptoui(number, _wide(_i8, width))
        elif kind == BFLOAT16:
            nan = builder.fcmp_unordered("uno", number, number)
            bits = builder.bitcast(number, _wide(_i32, width))
            upper = builder.lshr(bits, _splat(_i32, 16, width))
            odd = builder.and_(upper, _splat(_i32, 1, width))
            bits = builder.add(bits, builder.add(odd, _splat(_i32, 0x7FFF, width)))
            bits = builder.lshr(bits, _splat(_i32, 16, width))
            bits = builder.select(nan, _splat(_i32, 0x7FC0, width), bits)
            number = builder.trunc(bits, _wide(_i16, width))
        builder.store(number, _pointer(builder, args[0], args[1], item), align=ITEM_BYTES[kind])
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def store_truth(typing: Any, address: Any, index: Any, truth: Any, kind: Any) -> Any:
    """Write 1 where ``truth`` and 0 elsewhere as ``kind``."""
    signature = types.void(types.int64, types.int64, truth, kind)
    kind, width = kind.literal_value, _width(truth)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        item, one = ((_f32, 1.0), (_i16, 0x3F80), (_i8, 1))[kind]
        number = builder.select(args[2], _splat(item, one, width), _splat(item, 0, width))
        builder.store(number, _pointer(builder, args[0], args[1], item), align=ITEM_BYTES[kind])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def load_bits(typing: Any, address: Any, index: Any) -> Any:
    """LANES truth values from bits, the lowest first, at uint16 ``address[index]``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.load(_pointer(builder, args[0], args[1], _i16), typ=_i16, align=1)
        return _turned(builder, bits)

    def _turned(builder: Any, bits: Any) -> Any:
        # one lane for each bit by comparison: a bitcast would order them by endianness
        everywhere = _everywhere(builder, bits, _i16, LANES)
        mask = ir.Constant(everywhere.type, [1 << i for i in range(LANES)])
        none = ir.Constant(everywhere.type, [0] * LANES)
        return builder.icmp_unsigned("!=", builder.and_(everywhere, mask), none)

    return _truths(types.int64, types.int64), generate


@intrinsic
def store_bits(typing: Any, address: Any, index: Any, truth: Any) -> Any:
    """Write LANES truth values as bits, the lowest first (on little-endian machines)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[2], _i16)
        builder.store(bits, _pointer(builder, args[0], args[1], _i16), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, _truths), generate


def _prefetch(write: int) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.PointerType())
        kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(), _i32, _i32, _i32])
        function = numba.core.cgutils.get_or_insert_function(
            builder.module, kind, "llvm.prefetch.p0"
        )
        builder.call(function, [pointer, _i32(write), _i32(3), _i32(1)])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def prefetch_to_read(typing: Any, address: Any) -> Any:
    """Fetch the cache line at ``address`` for reading; no effect on what is computed."""
    return _prefetch(0)


@intrinsic
def prefetch_to_write(typing: Any, address: Any) -> Any:
    """Fetch the cache line at ``address`` for writing; no effect on what is computed."""
    return _prefetch(1)


@intrinsic
def add_and_get_old(typing: Any, address: Any, value: Any) -> Any:
    """Atomic ``old = address[0]; address[0] += value`` on an int64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, args[1], "monotonic")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def float64_at(typing: Any, address: Any, index: Any) -> Any:
    """The float64 at ``address[index]``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        item = ir.DoubleType()
        return builder.load(_pointer(builder, args[0], args[1], item), typ=item)

    return types.float64(types.int64, types.int64), generate


@intrinsic
def add_to_float64(typing: Any, address: Any, index: Any, value: Any) -> Any:
    """``address[index] += value`` in float64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        item = ir.DoubleType()
        place = _pointer(builder, args[0], args[1], item)
        builder.store(builder.fadd(builder.load(place, typ=item), args[2]), place)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float64), generate


# Whole numbers: int32 in lanes, which wrap around, and numba's own int64 where width is 1.


@intrinsic(prefer_literal=True)
def load_int(typing: Any, address: Any, index: Any, kind: Any, width: Any) -> Any:
    """``width`` whole numbers at ``address[index]``, which holds bytes (UINT8) or int32 (INT32)."""
    returned = types.int64 if width.literal_value == 1 else _ints
    signature = returned(types.int64, types.int64, kind, width)
    item, width = _i8 if kind.literal_value == UINT8 else _i32, width.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _pointer(builder, args[0], args[1], item)
        value = builder.load(place, typ=_wide(item, width), align=item.width // 8)
        wanted = ir.IntType(64) if width == 1 else _wide(_i32, width)
        if item is _i8:
            return builder.zext(value, wanted)
        return builder.sext(value, wanted) if width == 1 else value

    return signature, generate


@intrinsic
def store_int(typing: Any, address: Any, index: Any, value: Any) -> Any:
    """Write whole numbers to ``address[index]`` as int32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = args[2] if value == _ints else builder.trunc(args[2], _i32)
        builder.store(number, _pointer(builder, args[0], args[1], _i32), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, value), generate


@intrinsic(prefer_literal=True)
def splat_int(typing: Any, value: Any, width: Any) -> Any:
    """A whole number in every lane."""
    signature = (types.int64 if width.literal_value == 1 else _ints)(types.int64, width)
    width = width.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if width == 1:
            return args[0]
        return _everywhere(builder, builder.trunc(args[0], _i32), _i32, width)

    return signature, generate


@intrinsic
def to_float(typing: Any, value: Any) -> Any:
    """Whole numbers as float32, rounded to nearest."""
    width = _width(value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sitofp(args[0], _wide(_f32, width))

    return (types.float32 if width == 1 else _floats)(value), generate


@intrinsic
def nonzero_bits(typing: Any, address: Any, index: Any) -> Any:
    """An int64 whose bit i says whether byte i of the LANES at ``address[index]`` is not 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _pointer(builder, args[0], args[1], _i8)
        value = builder.load(place, typ=_wide(_i8, LANES), align=1)
        fired = builder.icmp_unsigned("!=", value, _splat(_i8, 0, LANES))
        # as in store_bits, the lowest first on little-endian machines
        return builder.zext(builder.bitcast(fired, _i16), ir.IntType(64))

    return types.int64(types.int64, types.int64), generate


@intrinsic
def lowest_bit(typing: Any, bits: Any) -> Any:
    """Place of the lowest bit that is set in an int64 other than 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], _i1(1))

    return types.int64(types.int64), generate


@intrinsic(prefer_literal=True)
def splat(typing: Any, value: Any, width: Any) -> Any:
    """A float32 in every lane."""
    signature = (types.float32 if width.literal_value == 1 else _floats)(types.float32, width)
    width = width.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return args[0] if width == 1 else _everywhere(builder, args[0], _f32, width)

    return signature, generate


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _llvm(builder, "llvm.fma", args[0].type, list(args))

    return a(a, a, a), generate


@intrinsic
def round_to_even(typing: Any, a: Any) -> Any:
    """To the nearest integer, ties to even, as torch.round."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _llvm(builder, "llvm.nearbyint", args[0].type, list(args))

    return a(a), generate


@intrinsic
def where(typing: Any, truth: Any, a: Any, b: Any) -> Any:
    """``a`` where ``truth``, else ``b``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return a(truth, a, a), generate


@intrinsic
def both(typing: Any, a: Any, b: Any) -> Any:
    """Truth of ``a`` and ``b``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.and_(*args)

    return a(a, a), generate


@intrinsic
def magnitude(typing: Any, a: Any) -> Any:
    """Absolute value."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _llvm(builder, "llvm.fabs", args[0].type, list(args))

    return a(a), generate


@intrinsic
def two_to_the(typing: Any, a: Any) -> Any:
    """2**a for whole numbers -126 <= a <= 127, by the bits of the exponent."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        width = _width(signature.args[0])
        whole = builder.fptosi(args[0], _wide(_i32, width))
        bits = builder.shl(builder.add(whole, _splat(_i32, 127, width)), _splat(_i32, 23, width))
        return builder.bitcast(bits, args[0].type)

    return a(a), generate


def _overload_operator(
    symbol: Any, instruction: str, comparison: str | None = None, lanes_of: Any = _floats
) -> None:
    """Give vectors an operator; scalars keep numba's own."""

    @intrinsic
    def lanes(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if comparison:
                return builder.fcmp_ordered(comparison, *args)
            return getattr(builder, instruction)(*args)

        return (_truths if comparison else lanes_of)(lanes_of, lanes_of), generate

    @overload(symbol, jit_options={"forceinline": True})
    def choose(a, b):  # type: ignore[no-untyped-def] # numba compares the two signatures
        if a == lanes_of and b == lanes_of:
            return lambda a, b: lanes(a, b)
        return None


_overload_operator(operator.add, "fadd")
_overload_operator(operator.sub, "fsub")
_overload_operator(operator.mul, "fmul")
_overload_operator(operator.ge, "", ">=")
_overload_operator(operator.le, "", "<=")
_overload_operator(operator.lt, "", "<")
_overload_operator(operator.add, "add", lanes_of=_ints)
_overload_operator(operator.sub, "sub", lanes_of=_ints)
_overload_operator(operator.mul, "mul", lanes_of=_ints)


@intrinsic
def divide(typing: Any, a: Any, b: Any) -> Any:
    """``a / b``, of scalars too without Python's check for zero."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fdiv(*args)

    return a(a, a), generate


@intrinsic
def differ(typing: Any, a: Any, b: Any) -> Any:
    """Truth of ``a != b``, lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fcmp_unordered("!=", *args)

    return _truths(a, b), generate


# What adding up rows of weights takes: lists of rows, and int16 numbers two to a lane.


@intrinsic
def load_index(typing: Any, address: Any, index: Any) -> Any:
    """The uint16 at ``address[index]``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_pointer(builder, args[0], args[1], _i16), typ=_i16, align=2)
        return builder.zext(value, ir.IntType(64))

    return types.int64(types.int64, types.int64), generate


@intrinsic
def list_bytes(
    typing: Any, target: Any, place: Any, source: Any, index: Any, least: Any, first: Any
) -> Any:
    """Write ``first + i`` for each of LANES bytes ``source[index + i] >= least``; how many.

    They go one after the other to the bytes from ``target[place]`` on.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        eight = _wide(_i8, LANES)
        value = builder.load(_pointer(builder, args[2], args[3], _i8), typ=eight, align=1)
        least, first = (_everywhere(builder, builder.trunc(z, _i8), _i8, LANES) for z in args[4:])
        fired = builder.icmp_unsigned(">=", value, least)
        names = builder.add(first, ir.Constant(eight, list(range(LANES))))
        kind = ir.FunctionType(ir.VoidType(), [eight, ir.PointerType(), fired.type])
        function = numba.core.cgutils.get_or_insert_function(
            builder.module, kind, f"llvm.masked.compressstore.v{LANES}i8"
        )
        builder.call(function, [names, _pointer(builder, args[0], args[1], _i8), fired])
        bits = builder.zext(builder.bitcast(fired, _i16), ir.IntType(64))
        return builder.ctpop(bits)

    return types.int64(*[types.int64] * 6), generate


@intrinsic
def store_byte(typing: Any, address: Any, index: Any, value: Any) -> Any:
    """Write a whole number to byte ``address[index]``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = builder.trunc(args[2], _i8)
        builder.store(number, _pointer(builder, args[0], args[1], _i8), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def copy_indices(typing: Any, target: Any, place: Any, source: Any, first: Any, offset: Any) -> Any:
    """``target[place + i] = source[first + i] + offset`` of LANES bytes, to uint16."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _pointer(builder, args[2], args[3], _i8)
        value = builder.load(place, typ=_wide(_i8, LANES), align=1)
        offset = _everywhere(builder, builder.trunc(args[4], _i16), _i16, LANES)
        value = builder.add(builder.zext(value, _wide(_i16, LANES)), offset)
        builder.store(value, _pointer(builder, args[0], args[1], _i16), align=2)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@intrinsic
def add_shorts(typing: Any, a: Any, b: Any) -> Any:
    """Sums of int16 numbers, two in each lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b = (builder.bitcast(z, _wide(_i16, 2 * LANES)) for z in args)
        return builder.bitcast(builder.add(a, b), _wide(_i32, LANES))

    return _ints(_ints, _ints), generate


@intrinsic
def lower_shorts(typing: Any, a: Any) -> Any:
    """The int16 numbers in the lower half of each lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        by = _splat(_i32, 16, LANES)
        return builder.ashr(builder.shl(args[0], by), by)

    return _ints(_ints), generate


@intrinsic
def upper_shorts(typing: Any, a: Any) -> Any:
    """The int16 numbers in the upper half of each lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ashr(args[0], _splat(_i32, 16, LANES))

    return _ints(_ints), generate


@intrinsic
def times_bytes(typing: Any, a: Any, address: Any, index: Any) -> Any:
    """Whole numbers times LANES bytes at ``address[index]``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _pointer(builder, args[1], args[2], _i8)
        value = builder.load(place, typ=_wide(_i8, LANES), align=1)
        return builder.mul(args[0], builder.zext(value, _wide(_i32, LANES)))

    return _ints(_ints, types.int64, types.int64), generate


@intrinsic
def where_bytes(typing: Any, a: Any, address: Any, index: Any) -> Any:
    """Whole numbers where one of LANES bytes at ``address[index]`` is not 0, else 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _pointer(builder, args[1], args[2], _i8)
        value = builder.load(place, typ=_wide(_i8, LANES), align=1)
        fired = builder.icmp_unsigned("!=", value, _splat(_i8, 0, LANES))
        return builder.select(fired, args[0], _splat(_i32, 0, LANES))

    return _ints(_ints, types.int64, types.int64), generate


# Sums in float64.


@intrinsic
def store_int_as_double(typing: Any, address: Any, index: Any, value: Any) -> Any:
    """Write whole numbers to ``address[index]`` as float64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        width = _width(value)
        number = builder.sitofp(args[2], _wide(ir.DoubleType(), width))
        builder.store(number, _pointer(builder, args[0], args[1], ir.DoubleType()), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, value), generate


@intrinsic
def load_doubles(typing: Any, address: Any, index: Any) -> Any:
    """LANES float64 numbers at ``address[index]``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _pointer(builder, args[0], args[1], ir.DoubleType())
        return builder.load(place, typ=_wide(ir.DoubleType(), LANES), align=8)

    return _doubles(types.int64, types.int64), generate


@intrinsic
def splat_double(typing: Any, address: Any, index: Any) -> Any:
    """The float64 at ``address[index]`` in every lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        item = ir.DoubleType()
        value = builder.load(_pointer(builder, args[0], args[1], item), typ=item, align=8)
        return _everywhere(builder, value, item, LANES)

    return _doubles(types.int64, types.int64), generate


@intrinsic
def fma_doubles(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        name = f"llvm.fma.v{LANES}f64"
        function = numba.core.cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind] * 3), name
        )
        return builder.call(function, args)

    return _doubles(_doubles, _doubles, _doubles), generate


@intrinsic
def store_rounded(typing: Any, address: Any, index: Any, value: Any) -> Any:
    """Write float64 numbers to ``address[index]`` as float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = builder.fptrunc(args[2], _wide(_f32, LANES))
        builder.store(number, _pointer(builder, args[0], args[1], _f32), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, _doubles), generate
