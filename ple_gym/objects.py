"""Objects of a user's own Python by name: `package.module:Object` or `./file.py:Object`.

A module is looked for in the working folder, too. A file is run once, until it changes; it can import what stands
beside it. Whatever goes wrong there ends in one line, with the file and line of the user's code.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import sysconfig
import traceback
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from ple_gym.errors import PleError
from ple_gym.files import read_bytes, reason
from ple_gym.messages import plain, shown_path

MAX_BYTES = 2**20  # of a file
_WORDS = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_NAME = re.compile(rf"(?P<where>.+\.py|{_WORDS}):(?P<what>{_WORDS})")
_OTHERS = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))  # not the user's own code


def names_object(text: str) -> bool:
    """Whether a text has the form of an object's name."""
    return _NAME.fullmatch(text) is not None


def load_object(text: str, error: type[PleError]) -> object:
    """The object of that name.

    Raises:
        PleError: `error`: there is no such module, file or object, or running it raised something.
    """
    match = _NAME.fullmatch(text)
    if match is None:
        raise error(f"{plain(text)}: must be package.module:Object or ./file.py:Object")
    where, what = match["where"], match["what"]
    try:
        found: object = _from_file(Path(where)) if where.endswith(".py") else _imported(where)
    except Exception as failure:
        if isinstance(failure, OSError) and not _own_places(failure):  # the file itself cannot be read
            raise error(f"{shown_path(where)}: {failure.strerror or plain(failure)}") from failure
        raise error(f"{shown_path(where)}: cannot be imported: {blame(failure)}") from failure
    for name in what.split("."):
        if not hasattr(found, name):
            raise error(f"{shown_path(where)}: has no {plain(what)}")
        found = getattr(found, name)
    return found


def blame(failure: Exception) -> str:
    """What an exception of the user's code says, and where in that code it was raised, in one short line."""
    if isinstance(failure, SyntaxError) and failure.filename:
        return f"SyntaxError: {failure.msg} ({shown_path(failure.filename)}, line {failure.lineno})"
    what, why = type(failure).__name__, reason(failure)
    said = what if why == what else f"{what}: {why}"
    own = _own_places(failure)
    return f"{said} ({shown_path(own[-1].filename)}, line {own[-1].lineno})" if own else said


def _own_places(failure: Exception) -> list[traceback.FrameSummary]:
    """Where an exception came through the user's code."""
    places = [place for place in traceback.extract_tb(failure.__traceback__) if not _is_ours(place.filename)]
    return [place for place in places if not place.filename.startswith((*_OTHERS, "<frozen"))]


def _imported(name: str) -> ModuleType:
    _look_in(os.getcwd())
    return importlib.import_module(name)


def _from_file(path: Path) -> ModuleType:
    whole = path.resolve()
    return _run(whole, whole.stat().st_mtime_ns)


@lru_cache
def _run(path: Path, changed_ns: int) -> ModuleType:
    """Run a file as a module; once more if it has changed."""
    source = read_bytes(path, MAX_BYTES)
    module = ModuleType(f"ple_gym_user.{path.stem}")
    module.__file__ = str(path)
    _look_in(str(path.parent))
    sys.modules[module.__name__] = module  # dataclasses and pickles look there
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module


def _look_in(folder: str) -> None:
    """Let modules be imported from a folder; those of other places come first."""
    if folder not in sys.path:
        sys.path.append(folder)


def _is_ours(filename: str) -> bool:
    return Path(filename).is_relative_to(Path(__file__).parent)
