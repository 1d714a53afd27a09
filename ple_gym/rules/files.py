"""Rules that users bring: `./mine.py:patient` in Python, `./mine.so:patient` in C (`ple-gym header`: the declarations).

Whatever is wrong with one is told in a line that names file and line.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from ple_gym.errors import PolicyError
from ple_gym.messages import plain, shown_path
from ple_gym.objects import load_object
from ple_gym.rules.compiling import c_unit, calls_itself
from ple_gym.rules.registry import Rule, where
from ple_gym.sim.description import Memory

PATIENCE_S = 60.0  # in which a file must be loaded, and a rule compiled
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # numba writes them where colorama is installed
_NOISE = re.compile(r"Failed in|During:|File |\s*$|- Resolution failure|<source elided>|There are \d+ candidate")

T = TypeVar("T")


def from_file(where: str, name: str) -> object:
    """What a file or module calls `name`: of Python any object, compiled if it is a rule; of a .so file a rule.

    Raises:
        PolicyError: there is no such file, it cannot be loaded, or has nothing of that name; or it does not compile.
    """
    if where.endswith(".so"):
        return _from_library(Path(where), name)
    found = _within(
        PATIENCE_S, f"{shown_path(where)}: was not loaded", lambda: load_object(f"{where}:{name}", PolicyError)
    )
    if isinstance(found, Rule):
        prepare(found)
    return found


def prepare(rule: Rule) -> None:
    """Compile a rule.

    Raises:
        PolicyError: it does not compile.
    """
    if rule.unit.is_ready:
        return
    if endless := calls_itself(rule.function):
        raise PolicyError(f"{where(endless)}: {endless.__name__} calls itself, which nothing that a rule calls may do")
    try:
        _within(PATIENCE_S, f"{rule.where}: rule {rule.name} was not compiled", lambda: rule.address)
    except PolicyError:
        raise
    except Exception as error:  # numba has many of its own, and lets others through
        raise PolicyError(_compile_error(error, rule)) from None


def c_rule(name: str, function: Any, memory: Memory = Memory()) -> Rule:  # noqa: B008  it cannot be changed
    """A rule in C: `int64_t name(const struct ple_sight *see)`.

    Args:
        name: what tables call it.
        function: its address, or a function pointer of ctypes or cffi.
        memory: words that it remembers per VM and per vCPU, at `see->vm_memory` and `see->vcpu_memory`.
    """
    if isinstance(function, int):
        address = function
    elif isinstance(function, ctypes._CFuncPtr):  # type: ignore[attr-defined]
        address = ctypes.cast(function, ctypes.c_void_p).value or 0
    else:
        address = int(import_module("cffi").FFI().cast("intptr_t", function))
    words = {"vm": tuple(f"word{i}" for i in range(memory.per_vm))}
    words["vcpu"] = tuple(f"word{i}" for i in range(memory.per_vcpu))
    return Rule(
        name=name,
        function=_in_c,
        reads="what it likes",
        actuator="pull",
        source="a function in C",
        summary="a rule in C",
        memory=words,
        make_unit=cache(partial(c_unit, name, address)),
    )


def _in_c(see: Any, asker: int) -> int:
    """Stands for a function in C."""
    raise NotImplementedError


def _from_library(path: Path, name: str) -> Rule:
    try:
        library = ctypes.CDLL(str(path.resolve()))
    except OSError as error:
        raise PolicyError(f"{path.name}: it cannot be loaded: {plain(str(error))}") from None
    try:
        function = getattr(library, name)
    except AttributeError:
        raise PolicyError(f"{path.name}: it has no function {plain(name)}") from None
    memory = Memory(*(_exported(library, f"{name}_{what}_words") for what in ("vm", "vcpu")))
    rule = c_rule(name, function, memory)
    object.__setattr__(rule, "library", library)  # which must stay loaded
    return rule


def _exported(library: ctypes.CDLL, name: str) -> int:
    try:
        return ctypes.c_int64.in_dll(library, name).value
    except ValueError:
        return 0


def _compile_error(error: Exception, rule: Rule) -> str:
    text, file = _COLOURS.sub("", str(error)), Path(rule.function.__code__.co_filename)
    numbers = re.findall(rf'{re.escape(file.name)}(?:", line | \()(\d+)', text)
    if unknown := re.search(r"NameError: name '(\w+)' is not defined", text):
        numbers = _lines_with(file, rf"\b{unknown[1]}\b")
    elif changed := re.search(r"lowering \w+\.(\w+) = ", text):
        numbers = _lines_with(file, rf"\.{changed[1]} \S?=")
    at = f"{file.name}:{numbers[-1]}" if numbers else rule.where
    return f"{at}: rule {rule.name} {_fault(text, error)}"


def _fault(text: str, error: Exception) -> str:
    """What the compiler says of a rule, in a line."""
    if answer := re.search(r">>> <unknown function>\((.*)\)$", text, re.MULTILINE):
        nothing = "none" in answer[1] or "Optional" in answer[1]
        return f"must return a vCPU or see.defer, and returns {'nothing' if nothing else plain(answer[1])}"
    if changed := re.search(r"lowering \w+\.(\w+) = ", text):
        return f"does not compile: {changed[1]}: what a rule sees cannot be changed"
    if field := re.search(r"Unknown attribute '(\w+)' of type", text):
        return f"does not compile: there is no field {field[1]!r}"
    if call := re.search(r"^ *>>> (.*)$", text, re.MULTILINE):
        return f"does not compile: there is no {plain(call[1])}"
    told = [line.strip() for line in text.splitlines() if not _NOISE.match(line)]
    return f"does not compile: {plain(told[0] if told else type(error).__name__)}"


def _lines_with(file: Path, pattern: str) -> list[int]:
    """The number of the first line in which something stands."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, 1) if re.search(pattern, line)][:1]


def _within(seconds: float, what: str, work: Callable[[], T]) -> T:
    """The result of some work, which nothing can stop, if it comes in time."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except SystemExit:
            errors.append(PolicyError(f"{what}: it called sys.exit"))
        except BaseException as error:  # told to the caller below
            errors.append(error)

    thread = threading.Thread(target=run, name="user's rule", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise PolicyError(f"{what} within {seconds:g} s")
    return results[0]
