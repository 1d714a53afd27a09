"""Compile units: what is compiled together, kept on disk together, and called from outside by its address.

The simulator, the view, the networks and each rule are units of their own, so that an edit of one compiles that one
alone. A unit is one entry point that takes some int64 words and returns one; `invoke` calls it through its address, at
the cost of a few nanoseconds. An exception in it comes out of whoever invoked it, with file and line, as if it had been
called directly.

numba keys its cache on the file of the entry point, so that an edited helper in another file would go unnoticed. Here
the key is a digest of every source file that a unit names; `cache.py` keeps the files.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.targetconfig import ConfigStack
from numba.extending import intrinsic

from ple_gym.sim.cache import CompiledCache
from ple_gym.sim.jit import JIT_ENABLED, OPTIONS

PACKAGE = Path(__file__).resolve().parent.parent
#: Without the JIT an address is a number in this table.
_functions: dict[int, Callable[..., Any]] = {}
_numbers = itertools.count(1)
#: A helper with so many functions in it, itself and those that it calls, is optimised by itself, too.
SMALL = 4
#: What numba calls the steps from LLVM code to machine code that are done otherwise here.
_STEPS = (
    "_optimize_final_module",
    "_finalize_final_module",
    "_finalize_dynamic_globals",
    "serialize_using_object_code",
)


def sources(*patterns: str) -> list[Path]:
    """The files of the package that match these patterns (`sim/**/*.py`)."""
    # How compiled code is kept does not change it.
    found = {
        path for pattern in patterns for path in PACKAGE.glob(pattern) if path.name not in ("cache.py", "units.py")
    }
    return sorted(found)


def fingerprint(paths: Iterable[Path]) -> str:
    """Digest of some source files, and of whether indices are checked."""
    digest = hashlib.blake2b(str(numba.config.BOUNDSCHECK).encode(), digest_size=16)
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _defined(symbols: Iterable[Any]) -> Iterator[Any]:
    return (symbol for symbol in symbols if not symbol.is_declaration)


def _symbols(module: Any) -> bytes:
    """An LLVM module that defines the same symbols and does nothing: numba asks it what the machine code defines.

    It would keep all LLVM code, which is more than the machine code, for others to link; nobody links a unit.
    """
    lines = [f'define void @"{function.name}"() {{ ret void }}' for function in _defined(module.functions)]
    lines += [f'@"{variable.name}" = global i8 0' for variable in _defined(module.global_variables)]
    return bytes(llvm.parse_assembly("\n".join(lines)).as_bitcode())


@contextlib.contextmanager
def _as_one(function: Callable[..., Any]) -> Iterator[None]:
    """Let LLVM make machine code of this function together with all that it calls, and of nothing else.

    numba optimises every helper by itself, too, with all that it calls, and makes machine code of it. But a caller
    links the helper's LLVM code and optimises it again; the machine code of a helper without a wrapper is out of
    anybody's reach. Only small helpers are optimised here before they become part of larger ones: that makes the
    simulator as fast as if all were, to one or two per cent, and compiling it takes 15 s, where it takes 22. (None: 14
    s, and 3 % slower code.)

    What is kept on disk is the machine code alone. Where numba has none of the names used here, it compiles as ever.
    """
    target = cpu_target.target_context
    target.refresh()  # that may compile some of numba's own code
    codegen = target.codegen()
    plain = getattr(codegen, "_library_class", None)
    if not all(hasattr(plain, step) for step in _STEPS):
        yield
        return
    environments: list[tuple[str, Any]] = []

    class Library(plain):  # type: ignore[misc, valid-type]
        """LLVM code, and machine code where somebody needs its address."""

        def __init__(self, codegen: Any, name: str) -> None:
            super().__init__(codegen, name)
            flags = ConfigStack.top_or_none()
            self.is_helper = flags and flags.no_cpython_wrapper and name != function.__qualname__

        def _optimize_final_module(self) -> None:
            if not self.is_helper:  # nobody else calls its helpers: arguments that one does not use can be dropped
                for helper in _defined(self._final_module.functions):
                    if helper.linkage == llvm.Linkage.linkonce_odr:
                        helper.linkage = llvm.Linkage.internal
                        if b"alwaysinline" not in b" ".join(helper.attributes):  # `called`, by whomever, is not inlined
                            helper.add_function_attribute("noinline")
            if not self.is_helper or sum(1 for _ in _defined(self._final_module.functions)) <= SMALL:
                super()._optimize_final_module()

        def _finalize_final_module(self) -> None:
            if self.is_helper:
                self._finalize_dynamic_globals()
                self._finalized = True
            else:
                super()._finalize_final_module()

        def serialize_using_object_code(self) -> tuple[str, str, tuple[bytes, bytes]]:
            name, kind, (machine_code, _) = super().serialize_using_object_code()
            return name, kind, (machine_code, _symbols(self._final_module))

    set_env = codegen.set_env
    codegen._library_class = Library
    codegen.set_env = lambda *environment: environments.append(environment)  # they have no address yet
    try:
        yield
    finally:
        codegen._library_class, codegen.set_env = plain, set_env
    for name, environment in environments:
        if codegen._engine.is_symbol_defined(name):
            codegen.set_env(name, environment)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Leave numba's garbage, which is much, for later: to look through it takes a twentieth of the compile time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Unit:
    """One compiled entry point.

    Args:
        name: of the unit, and of its files: `view`, `rules.kvm`.
        function: takes so many int64 words, and returns one.
        words: their number.
        made_of: every source file that takes part in the compilation; None: nothing is kept on disk.
        boxed: whether Python calls it; `entry` is what it calls then.
        options: of `numba.njit`, beside those of all units.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        words: int,
        made_of: list[Path] | None,
        boxed: bool = False,
        **options: Any,
    ) -> None:
        self.name, self.function, self.boxed, self.made_of = name, function, boxed, made_of
        self._signature = (types.int64,) * words
        self._entry: Callable[..., Any] | None = None
        self._address = 0
        settings = {**OPTIONS, "no_cfunc_wrapper": True, "no_cpython_wrapper": not boxed, **options}
        self.dispatcher = numba.njit(**settings)(function)
        # Not with checked indices: numba cannot cache what raises IndexError.
        if JIT_ENABLED and made_of is not None and not numba.config.BOUNDSCHECK:
            with contextlib.suppress(RuntimeError):  # not even a place to look in: compiled in every process
                self.dispatcher._cache = CompiledCache(function, name, fingerprint(made_of))

    @property
    def is_ready(self) -> bool:
        """Whether it is compiled or loaded in this process."""
        return self._entry is not None or not JIT_ENABLED

    @property
    def cache(self) -> CompiledCache | None:
        """Where its compiled code is kept, and whether it came from there; None where nothing is kept."""
        cache = getattr(self.dispatcher, "_cache", None)
        return cache if isinstance(cache, CompiledCache) else None

    @property
    def must_be_compiled(self) -> bool:
        """Whether it is neither ready nor kept on disk."""
        return not self.is_ready and not (self.cache and self.cache.holds(self._signature, self.dispatcher.targetctx))

    @property
    def entry(self) -> Callable[..., Any]:
        """Its machine code, for Python: that spares numba's look-up of types, which takes longer than a step."""
        if self._entry is None:
            self.prepare()
        assert self._entry is not None
        return self._entry

    @property
    def address(self) -> int:
        """What `invoke` calls."""
        if self._entry is None:
            self.prepare()
        return self._address

    def prepare(self) -> None:
        """Compile it, or load what was compiled before."""
        with global_compiler_lock:
            if self._entry is not None:
                return
            if not JIT_ENABLED:
                number = next(_numbers)
                _functions[number] = self.function
                self._address = number
                self._entry = np.errstate(over="ignore")(self.function)  # hashing overflows on purpose
                return
            with _uncollected(), _as_one(self.function):
                entry = self.dispatcher.compile(self._signature)
            compiled = self.dispatcher.overloads[self._signature]
            self._address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
            self._entry = entry


@intrinsic
def _invoke(typing_context: Any, address: Any, words: Any) -> Any:
    """Call the entry point at `address` with a tuple of int64 words."""
    arguments = tuple(words)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        convention = context.call_conv
        function_type = convention.get_function_type(types.int64, arguments)
        function = builder.inttoptr(args[0], function_type.as_pointer())
        result = cgutils.alloca_once(builder, ir.IntType(64))
        problem = cgutils.alloca_once(builder, function_type.args[1].pointee)
        code = builder.call(function, [result, problem, *cgutils.unpack_tuple(builder, args[1], len(arguments))])
        status = convention._get_return_status(builder, code, builder.load(problem))
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        return builder.load(result)

    return types.int64(types.int64, words), generate


if JIT_ENABLED:
    invoke = _invoke
else:

    def invoke(address, words):
        """Call the entry point number `address` with a tuple of words."""
        return _functions[int(address)](*words)
