"""Bytes seen as records, `records(...)[i].field`, and as grids of numbers, `grid(...)[i, j]`.

The kernel hands its state to some eighty small functions. As numpy arrays that state would be about a hundred words
and as many reference counts per call, which takes LLVM 60 s to clean up; as the typed pointers defined here it is a
dozen words and 20 s. Compiled with bounds checks (`NUMBA_BOUNDSCHECK=1`) or not compiled at all
(`NUMBA_DISABLE_JIT=1`), the same expressions work on ordinary arrays over the same bytes, which do check.

Memory is named by its address, in all three ways of running: a word to hand over, where an array costs 0.1 us a call.
"""

from __future__ import annotations

import hashlib
import operator
from ctypes import addressof, c_char
from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from ple_gym.sim.jit import JIT_ENABLED, inlined

_Bytes = c_char * 0
POINTERS = JIT_ENABLED and not numba.config.BOUNDSCHECK


class RecordsType(types.Type):
    """Pointer to records of one dtype."""

    def __init__(self, record: Any) -> None:
        self.record = record
        # numba puts names into those of all functions: with every field in it, half of a compiled file were names.
        super().__init__(name=f"Records({hashlib.blake2b(str(record).encode(), digest_size=6).hexdigest()})")


class GridType(types.Type):
    """Pointer to a C-contiguous matrix of numbers, and its number of columns."""

    def __init__(self, number: Any) -> None:
        self.number = number
        super().__init__(name=f"Grid({number})")


register_model(RecordsType)(models.OpaqueModel)


@register_model(GridType)
class _GridModel(models.StructModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, [("data", types.voidptr), ("columns", types.int64)])


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, cgutils.voidptr_t)


@intrinsic
def _records(typing_context: Any, address: Any, dtype: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _pointer(builder, args[0])

    return RecordsType(dtype.dtype)(types.int64, dtype), generate


@intrinsic
def _grid(typing_context: Any, address: Any, dtype: Any, columns: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = cgutils.create_struct_proxy(sig.return_type)(context, builder)
        value.data = _pointer(builder, args[0])
        value.columns = args[2]
        return value._getvalue()

    return GridType(dtype.dtype)(types.int64, dtype, types.int64), generate


@intrinsic
def _scratch(typing_context: Any, dtype: Any, columns: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = cgutils.create_struct_proxy(sig.return_type)(context, builder)
        data = builder.alloca(context.get_value_type(dtype.dtype), size=args[1])
        data.align = 64
        value.data = builder.bitcast(data, cgutils.voidptr_t)
        value.columns = args[1]
        return value._getvalue()

    return GridType(dtype.dtype)(dtype, types.int64), generate


@intrinsic
def _prefetch(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        to_read, soon, data = ir.Constant(number, 0), ir.Constant(number, 3), ir.Constant(number, 1)
        builder.call(fetch, [_pointer(builder, args[0]), to_read, soon, data])
        return context.get_dummy_value()

    return types.none(types.int64), generate


@infer_global(operator.getitem)
class _GetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        target, index = args
        if isinstance(target, RecordsType) and isinstance(index, types.Integer):
            return signature(target.record, target, index)
        if isinstance(target, GridType) and isinstance(index, types.BaseTuple):
            return signature(target.number, target, types.UniTuple(types.int64, 2))
        return None


@infer_global(operator.setitem)
class _SetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        target, _, _ = args
        if isinstance(target, GridType):
            return signature(types.none, target, types.UniTuple(types.int64, 2), target.number)
        return None


@lower_builtin(operator.getitem, RecordsType, types.Integer)
def _get_record(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    index = context.cast(builder, args[1], sig.args[1], types.int64)
    size = ir.Constant(ir.IntType(64), sig.args[0].record.size)
    address = builder.gep(args[0], [builder.mul(index, size)])
    return builder.bitcast(address, context.get_value_type(sig.return_type))


def _element(context: Any, builder: Any, grid_type: Any, grid: Any, index: Any) -> Any:
    value = cgutils.create_struct_proxy(grid_type)(context, builder, value=grid)
    row, column = cgutils.unpack_tuple(builder, index, 2)
    data = builder.bitcast(value.data, context.get_value_type(grid_type.number).as_pointer())
    return builder.gep(data, [builder.add(builder.mul(row, value.columns), column)])


@lower_builtin(operator.getitem, GridType, types.UniTuple)
def _get_number(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.load(_element(context, builder, sig.args[0], args[0], args[1]))


@lower_builtin(operator.setitem, GridType, types.UniTuple, types.Any)
def _set_number(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    builder.store(args[2], _element(context, builder, sig.args[0], args[0], args[1]))
    return context.get_dummy_value()


LINE_BYTES = 64  # of a cache line; where it is another, more or less than all is asked for

if JIT_ENABLED:

    @inlined
    def prefetch(raw, size):
        """Let the processor fetch `size` bytes from address `raw` on, while it does something else."""
        for at in range(0, size, LINE_BYTES):
            _prefetch(raw + at)

else:

    def prefetch(raw, size):
        """Nothing: where nothing is compiled, nothing is fast."""


def handle(array: np.ndarray) -> int:
    """Address of a C-contiguous array, for compiled code. The caller keeps the array alive."""
    return addressof(_Bytes.from_buffer(array))  # four times as fast as asking numpy


if POINTERS:

    @inlined
    def records(raw, at, until, dtype):
        """Bytes at..until-1 after address `raw` as records."""
        return _records(raw + at, dtype)

    @inlined
    def grid(raw, at, dtype, size, rows, columns):
        """`rows` x `columns` numbers of `size` bytes, from byte `at` after address `raw`."""
        return _grid(raw + at, dtype, columns)

    #: scratch(dtype, columns): one row of numbers, without values, on the stack of the very function that calls it.
    scratch = _scratch

elif JIT_ENABLED:

    @intrinsic
    def _to(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _pointer(builder, args[0])

        return types.voidptr(types.int64), generate

    @inlined
    def records(raw, at, until, dtype):
        """Bytes at..until-1 after address `raw` as records."""
        return carray(_to(raw + at), (until - at,), np.uint8).view(dtype)

    @inlined
    def grid(raw, at, dtype, size, rows, columns):
        """`rows` x `columns` numbers of `size` bytes, from byte `at` after address `raw`."""
        return carray(_to(raw + at), (size * rows * columns,), np.uint8).view(dtype).reshape((rows, columns))

    @inlined
    def scratch(dtype, columns):
        """One row of numbers, without values."""
        return np.empty((1, columns), dtype)

else:

    def _bytes(address: int, size: int) -> np.ndarray:
        return np.frombuffer((c_char * size).from_address(address), np.uint8) if size else np.zeros(0, np.uint8)

    def _field(name: str) -> property:
        def write(record: Any, value: Any) -> None:
            record[name] = value

        return property(operator.itemgetter(name), write)

    @cache
    def _named(dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype, with the fields of its records as attributes; `numpy.record` looks each one up in Python."""
        fields = dtype.fields or {}
        if not fields:
            return dtype
        record = type("Record", (np.void,), {name: _field(name) for name in fields})
        formats, offsets = [_named(of) for of, *_ in fields.values()], [at for _, at, *_ in fields.values()]
        layout = {"names": [*fields], "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize}
        return np.dtype((record, np.dtype(layout)))

    def records(raw, at, until, dtype):
        """Bytes at..until-1 after address `raw` as records whose fields are attributes."""
        return _bytes(int(raw) + int(at), int(until) - int(at)).view(_named(dtype))

    def grid(raw, at, dtype, size, rows, columns):
        """`rows` x `columns` numbers of `size` bytes, from byte `at` after address `raw`."""
        return _bytes(int(raw) + int(at), int(size * rows * columns)).view(dtype).reshape((int(rows), int(columns)))

    def scratch(dtype, columns):
        """One row of numbers, without values."""
        return np.empty((1, columns), dtype)
