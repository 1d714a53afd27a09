"""The seam between the machine and the host's scheduler: a table of hooks, resolved when the simulator is compiled.

`s.host.pick_next(s, p, t)` calls the hook of the scheduler that the simulator is compiled for, at no cost; each
scheduler has a simulator of its own, compiled when a scenario first needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_constant
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import lower_getattr_generic, models, register_model, typeof_impl

from ple_gym.scenario.schedulers import SCHEDULERS
from ple_gym.sim.jit import inlined

#: Where a scheduler keeps nothing.
NOTHING = np.dtype([("nothing", "i8")])


def _missing(*_: Any) -> Any:
    raise NotImplementedError("this host has no scheduler")


def _none(_: Any) -> int:
    return 0


@inlined
def _nothing(s, p, t):
    """Nothing is left to do."""


@inlined
def _never(s, p, v, t):
    """Who sleeps leaves; who has kicked goes on."""
    return False


@inlined
def _own(s, p):
    """Each pCPU has a queue of its own."""
    return p


@dataclass(frozen=True, eq=False)
class Host:
    """A host's scheduler: its own records, and its hooks (`host/__init__.py` says what each of them must do).

    Attributes:
        name: what `host.scheduler` calls it.
        describe: scenario -> the values of its parameters, by name.
        PARAMETERS, WORLD, VM, PCPU, VCPU: dtypes of its records: one of all lanes; one per lane, VM, pCPU, vCPU.
        further: scenario -> how many records of the kind VCPU it needs beside those of the vCPUs, which come first.
        sources: its source files.
    """

    name: str
    describe: Callable[[Any], dict[str, Any]] = _missing
    sources: tuple[Path, ...] = ()
    start: Callable[..., Any] = _missing
    charge: Callable[..., Any] = _missing
    holds: Callable[..., Any] = _missing
    polls: Callable[..., Any] = _never
    put_prev: Callable[..., Any] = _missing
    switched: Callable[..., Any] = _nothing
    pick_next: Callable[..., Any] = _missing
    set_next: Callable[..., Any] = _missing
    dequeue: Callable[..., Any] = _missing
    yield_now: Callable[..., Any] = _missing
    yield_to: Callable[..., Any] = _missing
    kick_yields: Callable[..., Any] = _never
    wake: Callable[..., Any] = _missing
    migrate: Callable[..., Any] = _missing
    tick: Callable[..., Any] = _missing
    period: Callable[..., Any] = _missing
    protected_until: Callable[..., Any] = _missing
    queue_of: Callable[..., Any] = _own
    sound: Callable[..., Any] = _missing
    PARAMETERS: np.dtype[Any] = field(default=NOTHING)
    WORLD: np.dtype[Any] = field(default=NOTHING)
    VM: np.dtype[Any] = field(default=NOTHING)
    PCPU: np.dtype[Any] = field(default=NOTHING)
    VCPU: np.dtype[Any] = field(default=NOTHING)
    further: Callable[[Any], int] = _none


#: For compiled code that is not concerned with the scheduler.
NO_HOST = Host("none")


@cache
def host_of(scheduler: str) -> Host:
    """The scheduler of that name."""
    host: Host = import_module(SCHEDULERS[scheduler]).HOST
    return host


class HostType(types.Type):
    """A host, to numba: nothing at run time; its attributes are functions and dtypes."""

    def __init__(self, host: Host) -> None:
        self.host = host
        super().__init__(name=f"Host({host.name}, {id(host)})")


@register_model(HostType)
class _NothingModel(models.StructModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, [])


@typeof_impl.register(Host)
def _type_of_host(value: Host, context: Any) -> HostType:
    return HostType(value)


@lower_constant(HostType)
def _constant_host(context: Any, builder: Any, typ: Any, value: Any) -> Any:
    return cgutils.create_struct_proxy(typ)(context, builder)._getvalue()


@infer_getattr
class _HostAttributes(AttributeTemplate):
    key = HostType

    def generic_resolve(self, typ: Any, attr: str) -> Any:
        return self.context.resolve_value_type(getattr(typ.host, attr))


@lower_getattr_generic(HostType)
def _host_attribute(context: Any, builder: Any, typ: Any, value: Any, attr: str) -> Any:
    return context.get_dummy_value()
