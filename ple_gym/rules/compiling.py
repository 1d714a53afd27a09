"""How a rule's function becomes code that the simulator calls by its address."""

from __future__ import annotations

import ctypes
import dis
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ple_gym.rules.sight import PlainMemory, PlainScheduler, PlainSight, plain_parameters
from ple_gym.rules.sight_types import memory_of, parameters_of, scheduler_of, sight_at, whole_sight_at
from ple_gym.sim.jit import JIT_ENABLED, inlined
from ple_gym.sim.seam import NO_HOST, Host, host_of
from ple_gym.sim.state import open_lane
from ple_gym.sim.units import PACKAGE, Unit, sources

if TYPE_CHECKING:
    from ple_gym.rules.registry import Rule

#: Exceptions come out of compiled rules as Python has them: dividing by zero is one.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "python"}

#: Decorator of functions that rules call.
helper = numba.njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)


def rule_unit(made: Rule) -> Unit:
    """The compile unit of a rule. A built-in rule is kept on disk; a user's compiles in a moment, and is not."""
    file = Path(inspect.getfile(made.function)).resolve()
    built_in = file.is_relative_to(PACKAGE)
    common = sources(
        "rules/compiling.py", "rules/helpers.py", "rules/sight*.py", "sim/state.py", "sim/rng.py", "sim/decisions.py"
    )
    own = sorted(_files(made.function, set()))
    made_of = [*own, *common, *sources("sim/memory.py", *(("sim/**/*.py",) if made.privileged else ()))]
    made_of += host_of(made.scheduler).sources if made.scheduler else []
    entry = entry_of(made, plain=not JIT_ENABLED)
    return Unit(f"rules.{made.name}", entry, 1, made_of if built_in else None, error_model="python")


def _files(function: Callable[..., object], seen: set[Callable[..., object]]) -> set[Path]:
    """The files of a rule's function and of the helpers that it calls."""
    seen.add(function)
    found = {Path(inspect.getfile(function)).resolve()}
    for value in inspect.getclosurevars(function).globals.values():
        called = getattr(value, "py_func", None)
        if called is not None and called not in seen:
            found |= _files(called, seen)
    return found


def parameter_dtype(parameters: Mapping[str, Any]) -> np.dtype[Any]:
    """The record in which a compiled rule finds its parameters: int64, or float64 where they are numbers."""
    return np.dtype([(name, "f8" if isinstance(p.default, float) else "i8") for name, p in parameters.items()])


def memory_dtype(names: tuple[str, ...]) -> np.dtype[Any]:
    """The record of what a rule remembers of one VM or vCPU."""
    return np.dtype([(name, "i8") for name in names])


def entry_of(made: Rule, plain: bool) -> Callable[[int], int]:
    """A function of the address of a sight that asks a rule; `plain`: one that is not compiled."""
    takes = tuple(inspect.signature(made.function).parameters)[2:]
    vm, vcpu = (memory_dtype(made.memory.get(key, ())) for key in ("vm", "vcpu"))
    own = parameter_dtype(made.parameters)
    if made.privileged:
        return _privileged(made.function if plain else inlined(made.function), plain)
    host = host_of(made.scheduler) if made.scheduler else NO_HOST
    if plain:
        return _plain(made.function, takes, vm, vcpu, own, host)
    body = helper(made.function)
    host_vm, host_pcpu, host_vcpu = host.VM, host.PCPU, host.VCPU
    #: Each thing that a rule may take beside what it sees, made of what it sees.
    makers = {
        "memory": helper(lambda see: memory_of(see, vm, vcpu)),
        "k": helper(lambda see: parameters_of(see, own)),
        "scheduler": helper(lambda see: scheduler_of(see, host_vm, host_pcpu, host_vcpu)),
    }
    first, second, third = [*(makers[name] for name in takes), None, None, None][:3]

    def none(address):  # type: ignore[no-untyped-def]
        see = sight_at(address)
        return np.int64(body(see, see.asker))

    def one(address):  # type: ignore[no-untyped-def]
        see = sight_at(address)
        return np.int64(body(see, see.asker, first(see)))

    def two(address):  # type: ignore[no-untyped-def]
        see = sight_at(address)
        return np.int64(body(see, see.asker, first(see), second(see)))

    def three(address):  # type: ignore[no-untyped-def]
        see = sight_at(address)
        return np.int64(body(see, see.asker, first(see), second(see), third(see)))

    return (none, one, two, three)[len(takes)]


def _plain(
    function: Callable[..., int],
    takes: tuple[str, ...],
    vm: np.dtype[Any],
    vcpu: np.dtype[Any],
    own: np.dtype[Any],
    host: Host,
) -> Callable[[int], int]:
    makers: dict[str, Callable[[PlainSight], Any]] = {
        "memory": lambda see: PlainMemory(see, vm, vcpu),
        "k": lambda see: plain_parameters(see, own),
        "scheduler": lambda see: PlainScheduler(see, host.VM, host.PCPU, host.VCPU),
    }

    function = plainly(function)

    def entry(address: int) -> int:
        see = PlainSight(address)
        return int(function(see, see.asker, *(makers[name](see) for name in takes)))

    return entry


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is not compiled, and calls nothing that is."""
    inner: dict[Any, Any] = {}

    def of(value: Any) -> Any:
        body = getattr(value, "py_func", None)
        if body is None:
            return value
        if body not in inner:
            inner[body] = FunctionType(body.__code__, {}, body.__name__, body.__defaults__, body.__closure__)
            inner[body].__globals__.update({name: of(one) for name, one in body.__globals__.items()})
        return inner[body]

    variables = {name: of(value) for name, value in function.__globals__.items()}
    return FunctionType(function.__code__, variables, function.__name__, function.__defaults__, function.__closure__)


def calls_itself(function: Any, callers: tuple[Any, ...] = ()) -> Any:
    """A function that calls itself, at once or through others, of all that a rule's function calls; None if none does.

    Nothing stops it when it is compiled: it would end the process.
    """
    if function in callers:
        return function
    names = function.__code__.co_names  # of globals, and of attributes
    loaded = {one.argval for one in dis.get_instructions(function) if one.opname == "LOAD_GLOBAL"}
    known = [function.__globals__.get(name) for name in loaded]
    known += [cell.cell_contents for cell in function.__closure__ or ()]
    known += [getattr(module, name, None) for module in known if inspect.ismodule(module) for name in names]
    bodies = dict.fromkeys(value.py_func for value in known if hasattr(value, "py_func"))
    inner = (calls_itself(body, (*callers, function)) for body in bodies)
    return next((found for found in inner if found), None)


@intrinsic
def _call(typing_context: Any, function: Any, sight: Any) -> Any:
    """Call a C function of one pointer by its address."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = ir.IntType(64)
        pointer = builder.inttoptr(args[0], ir.FunctionType(word, [word]).as_pointer())
        return builder.call(pointer, [args[1]])

    return types.int64(types.int64, types.int64), generate


def c_unit(name: str, function: int) -> Unit:
    """The compile unit of a rule in C, by the address of its function."""
    if not JIT_ENABLED:
        return Unit(f"rules.{name}", ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(function), 1, None)

    def entry(address):  # type: ignore[no-untyped-def]
        return _call(function, address)

    return Unit(f"rules.{name}", entry, 1, None)


def _privileged(body: Callable[..., int], plain: bool) -> Callable[[int], int]:
    at = partial(PlainSight, whole=True) if plain else whole_sight_at

    def entry(address):  # type: ignore[no-untyped-def]
        see = at(address)
        return np.int64(body(see, see.asker, open_lane(NO_HOST, see.description, see.row, see.row, see.row, 0)))

    return entry
