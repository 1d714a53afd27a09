"""Where compiled code is kept, so that no disk can stop the simulator: at worst it is compiled again.

numba's own cache trusts what it finds (numba issue 10434): a file that was cut short raises EOFError in whoever loads
it, one with a flipped bit may run, a full disk throws away what took a minute to compile, and where nothing can be
written it does not read either. Here a file is used only if its checksum is right, and everything else costs one
compilation and one line that names the folder.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import uuid
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, InTreeCacheLocator, UserWideCacheLocator
from numba.core.serialize import dumps

_CHECKSUM_BYTES = 16
_MOST_FILES = 8  # for other processors, or of older versions; each is some megabytes


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECKSUM_BYTES).digest()


class _BesideTheCode(InTreeCacheLocator):
    """The folder beside the code, whether or not it can be written to."""

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _BesideTheCode | None:
        return cls(py_func, py_file) if os.path.exists(py_file) else None


class _Form(CompileResultCacheImpl):
    """How numba writes down what it has compiled, and where it would: in none of its places, then beside the code."""

    _locator_classes = [*CompileResultCacheImpl._locator_classes, _BesideTheCode]


class CompiledCache(FunctionCache):
    """What a dispatcher takes for its cache: one file for each signature, processor and state of the sources.

    Attributes:
        folder: where compiled code is kept; None if nothing can be written there or in any other place.
        loaded: the file that the code of this process comes from; None if it was compiled, or not asked for yet.
    """

    _impl_class = _Form

    def __init__(self, py_func: Any, name: str, key: str) -> None:
        """Find the place for what `name` calls and `key` tells from its other states.

        Raises:
            RuntimeError: there is none, not even one to look in.
        """
        super().__init__(py_func)
        locator = self._impl.locator
        here = Path(locator.get_cache_path())
        beside = Path(_BesideTheCode(py_func, py_func.__code__.co_filename).get_cache_path())
        self.folder = None if isinstance(locator, _BesideTheCode) else here
        # Whoever installed the package may have warmed it up for those who can write to their own folder only.
        self._readable = [here, beside] if isinstance(locator, UserWideCacheLocator) else [here]
        self._unit, self._made_of = name, key
        self.loaded: Path | None = None

    @property
    def cache_path(self) -> str | None:
        """`folder`, as `Dispatcher.stats` calls it."""
        return str(self.folder) if self.folder else None

    def flush(self) -> None:
        """Forget what is kept in the folder."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def holds(self, sig: Any, target_context: Any) -> bool:
        """Whether there is a file for this signature, good or bad."""
        name = self._file_name(sig, target_context.codegen())
        return any((folder / name).exists() for folder in self._readable)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was compiled for this signature; None if that has to be done."""
        target_context.refresh()
        name = self._file_name(sig, target_context.codegen())
        for folder in self._readable:
            path = folder / name
            try:
                data = path.read_bytes()
            except OSError:  # most often: it is not there
                continue
            try:
                if _checksum(data[_CHECKSUM_BYTES:]) != data[:_CHECKSUM_BYTES]:
                    raise ValueError("its checksum does not match")
                compiled = self._impl.rebuild(target_context, pickle.loads(data[_CHECKSUM_BYTES:]))
            except Exception as error:  # whatever it is: a file must not stop the simulator
                _tell(f"compiling again: the compiled code in {folder} is damaged ({path.name}: {error})")
                continue
            self.loaded = path
            return compiled
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what has just been compiled, if it can be kept."""
        if self.folder is None:
            nearest = self._impl.locator.get_cache_path()
            _tell_of_loss(f"no folder can be written to, not even {nearest}")
            return
        if not self._impl.check_cachable(data):
            return
        path = self.folder / self._file_name(sig, data.codegen)
        body = dumps(self._impl.reduce(data))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(path, _checksum(body) + body)
            for old in sorted(self._files(), key=lambda file: file.stat().st_mtime)[:-_MOST_FILES]:
                old.unlink(missing_ok=True)
        except OSError as error:
            _tell_of_loss(f"{self.folder}: {error.strerror or error}")

    def _file_name(self, sig: Any, codegen: Any) -> str:
        key = repr((numba.__version__, str(sig), codegen.magic_tuple(), self._made_of))
        return f"{self._stem}-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}.nbc"

    @property
    def _stem(self) -> str:
        return f"{self._unit}.{sys.implementation.cache_tag}"

    def _files(self) -> list[Path]:
        return list(self.folder.glob(f"{self._stem}-*.nbc")) if self.folder else []


_REMEDY = "set NUMBA_CACHE_DIR to a folder with room for some megabytes"


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, with the mode that any new file has."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _tell_of_loss(why: str) -> None:
    """Say once in a process why what was compiled is not kept."""
    if not _losses:
        _tell(f"what was compiled is lost: {why}; {_REMEDY}")
    _losses.append(why)


_losses: list[str] = []


def _tell(line: str) -> None:
    print(f"ple_gym: {line}", file=sys.stderr)
