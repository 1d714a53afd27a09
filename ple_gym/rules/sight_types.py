"""The sight of a rule as numba types, so that a compiled rule reads `see.vcpu[v].queued_since` straight from the lane.

Every number becomes an int64, so that rules need no casts; an index is checked; nothing that is seen can be written.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import NumbaTypeError
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_getattr, infer_global, signature
from numba.extending import (
    intrinsic,
    lower_builtin,
    lower_getattr_generic,
    lower_setattr_generic,
    models,
    register_model,
)
from numba.np.numpy_support import as_dtype

from ple_gym.rules.sight import COUNTS, NUMBERS, SIGHT, TABLES, PlainSight, visible_fields
from ple_gym.sim.jit import JIT_ENABLED


class SightType(types.Type):
    """Pointer to a SIGHT; `whole`: with its addresses, for rules that are not a hypervisor's."""

    def __init__(self, whole: bool = False) -> None:
        self.whole = whole
        super().__init__(name="WholeSight" if whole else "Sight")


class RowType(types.Type):
    """Pointer to one record, whose fields are read as int64 (or float64)."""

    def __init__(self, dtype: np.dtype[Any], writable: bool = False) -> None:
        self.dtype, self.writable = dtype, writable
        super().__init__(name=f"Row({dtype}, {writable})")


class RowsType(types.Type):
    """Pointer to records, and their number."""

    def __init__(self, dtype: np.dtype[Any], writable: bool = False) -> None:
        self.row = RowType(dtype, writable)
        super().__init__(name=f"Rows({dtype}, {writable})")


class QueueType(types.Type):
    """Pointer to the runqueues, their number, and the places of each."""

    def __init__(self) -> None:
        super().__init__(name="Queue")


class PartsType(types.Type):
    """Rows that a sight points to by the fields `at.format("vm")`, ...: what a rule remembers, or a scheduler keeps."""

    def __init__(self, at: str, rows: dict[str, RowsType]) -> None:
        self.at, self.rows = at, rows
        super().__init__(name=f"Parts({at}, {rows})")


register_model(SightType)(models.OpaqueModel)
register_model(RowType)(models.OpaqueModel)
register_model(PartsType)(models.OpaqueModel)  # at run time it is the sight


@register_model(RowsType)
class _RowsModel(models.StructModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, [("data", types.voidptr), ("count", types.int64)])


@register_model(QueueType)
class _QueueModel(models.StructModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, [("data", types.voidptr), ("rows", types.int64), ("columns", types.int64)])


def _number(kind: np.dtype[Any]) -> Any:
    return types.float64 if kind.kind == "f" else types.uint64 if kind == np.uint64 else types.int64


@infer_getattr
class _SightAttributes(AttributeTemplate):
    key = SightType

    def generic_resolve(self, typ: Any, attr: str) -> Any:
        if attr in TABLES:
            return RowsType(TABLES[attr])
        if attr == "queue":
            return QueueType()
        return _number(SIGHT[attr]) if attr in NUMBERS or (typ.whole and attr in (SIGHT.names or ())) else None


@infer_getattr
class _RowAttributes(AttributeTemplate):
    key = RowType

    def generic_resolve(self, typ: Any, attr: str) -> Any:
        return _number(typ.dtype[attr]) if attr in visible_fields(typ.dtype) else None


@infer_getattr
class _PartsAttributes(AttributeTemplate):
    key = PartsType

    def generic_resolve(self, typ: Any, attr: str) -> Any:
        return typ.rows.get(attr)


@infer_global(operator.getitem)
class _GetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        target, index = args
        if isinstance(target, RowsType) and isinstance(index, types.Integer):
            return signature(target.row, target, index)
        if isinstance(target, QueueType) and isinstance(index, types.BaseTuple) and len(index) == 2:
            return signature(types.int64, target, types.UniTuple(types.int64, 2))
        return None


def _word(builder: Any, sight: Any, name: str) -> Any:
    return _load(builder, sight, SIGHT, name)


def _place(builder: Any, row: Any, dtype: np.dtype[Any], name: str) -> Any:
    kind, offset = (dtype.fields or {})[name][:2]
    number = ir.DoubleType() if kind.kind == "f" else ir.IntType(8 * kind.itemsize)
    return builder.bitcast(builder.gep(row, [ir.Constant(ir.IntType(64), offset)]), number.as_pointer())


def _load(builder: Any, row: Any, dtype: np.dtype[Any], name: str) -> Any:
    """A field, as int64: unsigned bytes are flags and small codes, unsigned words numbers of something or -1."""
    value = builder.load(_place(builder, row, dtype, name))
    kind = dtype[name]
    if kind.kind == "f" or kind.itemsize == 8:
        return value
    extend = builder.zext if kind.kind == "u" and kind.itemsize < 4 else builder.sext
    return extend(value, ir.IntType(64))


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, cgutils.voidptr_t)


def _rows(context: Any, builder: Any, typ: Any, address: Any, count: Any) -> Any:
    rows = cgutils.create_struct_proxy(typ)(context, builder)
    rows.data, rows.count = _pointer(builder, address), count
    return rows._getvalue()


@lower_getattr_generic(SightType)
def _sight_attribute(context: Any, builder: Any, typ: Any, value: Any, attr: str) -> Any:
    if attr in TABLES:
        count = _word(builder, value, COUNTS[attr])
        return _rows(context, builder, RowsType(TABLES[attr]), _word(builder, value, attr), count)
    if attr == "queue":
        queue = cgutils.create_struct_proxy(QueueType())(context, builder)
        queue.data = _pointer(builder, _word(builder, value, "queue"))
        queue.rows, queue.columns = _word(builder, value, "pcpus"), _word(builder, value, "vcpus")
        return queue._getvalue()
    return _word(builder, value, attr)


@lower_getattr_generic(PartsType)
def _part(context: Any, builder: Any, typ: Any, value: Any, attr: str) -> Any:
    address, count = _word(builder, value, typ.at.format(attr)), _word(builder, value, COUNTS[attr])
    return _rows(context, builder, typ.rows[attr], address, count)


@lower_getattr_generic(RowType)
def _row_attribute(context: Any, builder: Any, typ: Any, value: Any, attr: str) -> Any:
    return _load(builder, value, typ.dtype, attr)


@lower_setattr_generic(RowType)
def _set_row_attribute(context: Any, builder: Any, sig: Any, args: Any, attr: str) -> None:
    typ = sig.args[0]
    if not typ.writable:
        raise NumbaTypeError(f"{attr}: what a rule sees cannot be changed")
    value = context.cast(builder, args[1], sig.args[1], types.int64)
    builder.store(value, _place(builder, args[0], typ.dtype, attr))


def _check(context: Any, builder: Any, index: Any, count: Any) -> None:
    with cgutils.if_unlikely(builder, builder.icmp_unsigned(">=", index, count)):
        context.call_conv.return_user_exc(builder, IndexError, ("a rule's index is out of range",))


@lower_builtin(operator.getitem, RowsType, types.Integer)
def _get_row(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    rows = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0])
    index = context.cast(builder, args[1], sig.args[1], types.int64)
    _check(context, builder, index, rows.count)
    size = ir.Constant(ir.IntType(64), sig.args[0].row.dtype.itemsize)
    return builder.gep(rows.data, [builder.mul(index, size)])


@lower_builtin(operator.getitem, QueueType, types.UniTuple)
def _get_queued(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    queue = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0])
    row, column = cgutils.unpack_tuple(builder, args[1], 2)
    _check(context, builder, row, queue.rows)
    _check(context, builder, column, queue.columns)
    data = builder.bitcast(queue.data, ir.IntType(16).as_pointer())
    return builder.zext(
        builder.load(builder.gep(data, [builder.add(builder.mul(row, queue.columns), column)])), ir.IntType(64)
    )


@intrinsic
def sight_at(typing_context: Any, address: Any) -> Any:
    """The sight at an address."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _pointer(builder, args[0])

    return SightType()(types.int64), generate


@intrinsic
def whole_sight_at(typing_context: Any, address: Any) -> Any:
    """The sight at an address, and the addresses in it."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _pointer(builder, args[0])

    return SightType(whole=True)(types.int64), generate


@intrinsic
def memory_of(typing_context: Any, see: Any, vm: Any, vcpu: Any) -> Any:
    """What the rule of a sight remembers; `vm` and `vcpu` are the dtypes of its rows."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[0]

    rows = {"vm": RowsType(np_dtype(vm), True), "vcpu": RowsType(np_dtype(vcpu), True)}
    return PartsType("{}_memory", rows)(see, vm, vcpu), generate


@intrinsic
def scheduler_of(typing_context: Any, see: Any, vm: Any, pcpu: Any, vcpu: Any) -> Any:
    """What the host's scheduler keeps of VMs, pCPUs and vCPUs; the dtypes of its records."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[0]

    rows = {"vm": RowsType(np_dtype(vm)), "pcpu": RowsType(np_dtype(pcpu)), "vcpu": RowsType(np_dtype(vcpu))}
    return PartsType("host_{}", rows)(see, vm, pcpu, vcpu), generate


@intrinsic
def parameters_of(typing_context: Any, see: Any, dtype: Any) -> Any:
    """The parameters of the rule of a sight, of this dtype."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _pointer(builder, _word(builder, args[0], "parameters"))

    return RowType(np_dtype(dtype))(see, dtype), generate


def np_dtype(dtype: Any) -> np.dtype[Any]:
    """The NumPy dtype that a numba dtype stands for."""
    return as_dtype(dtype.dtype)


if not JIT_ENABLED:

    def whole_sight_at(address):
        """The sight at an address, and the addresses in it."""
        return PlainSight(address, whole=True)
