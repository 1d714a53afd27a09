"""Every file that a user gives is read here, and every file that we write is written here.

Whatever is wrong with a file that is read ends in one documented error of one line, which names the file; and no more
is read than a limit allows. What is written is written whole or not at all.
"""

from __future__ import annotations

import errno
import io
import json
import os
import secrets
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from ple_gym.messages import escaped, plain, show, shown_path

PathLike: TypeAlias = str | os.PathLike[str]

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_SPECIAL = 0x2061  # flags of an archive's entry: encrypted, patched, strongly encrypted, masked

MAX_REASON = 120
"""Characters of a parser's own words: the beginning and the end, where it says at which line."""


# ------------------------------------------------------------------------------------------------------------- reading


@contextmanager
def reading(path: PathLike, error: type[Exception], what: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into `error`: one line that names the file.

    Args:
        path: the file.
        error: the documented error of the caller. Where it is raised inside, its message gets the file's name.
        what: what the file should be: "a learned policy".
    """
    try:
        yield
    except error as known:
        raise error(f"{shown_path(path)}: {known}") from None
    except OSError as failure:
        raise error(f"{shown_path(path)}: {failure.strerror or plain(failure)}") from None
    except Exception as failure:
        raise error(f"{shown_path(path)}: not {what}, or damaged ({reason(failure)})") from None


@contextmanager
def parsing(error: type[Exception], what: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into `error`: `what`, "not TOML" say, and the reason."""
    try:
        yield
    except error:
        raise
    except Exception as failure:
        raise error(f"{what}: {reason(failure)}") from None


def reason(failure: Exception) -> str:
    """Say in one short line why something could not be read."""
    if isinstance(failure, RecursionError):
        return "nested too deeply"
    if isinstance(failure, MemoryError):
        return "too large for the memory"
    text = escaped(" ".join(str(failure).split()) or type(failure).__name__)
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON // 2]}...{text[-MAX_REASON // 2 :]}"


def read_bytes(path: PathLike, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes; of anything else nothing is read.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger.
    """
    with _naming(path), open(path, "rb", opener=_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        data = file.read(limit + 1) if status.st_size <= limit else b""
        size = max(status.st_size, len(data))  # it may have grown
        if size > limit:
            raise OSError(errno.EFBIG, f"{size:,} bytes are more than {limit:,}")
        return data


def _without_waiting(name: str, flags: int) -> int:
    """Open also a FIFO that nobody writes to."""
    return os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)


def read_text(path: PathLike, limit: int) -> str:
    """Read a regular file of at most `limit` bytes as UTF-8; line ends stay as they are.

    Raises:
        OSError: as `read_bytes`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path, limit).decode()


def unpack(data: bytes, members: int, limit: int) -> dict[str, bytes]:
    """The files in a zip archive by name. That they are few, and their sizes add up to no more than a limit, is checked
    before any is uncompressed.

    Raises:
        Exception: whatever `zipfile` makes of what is no archive; to be called within `reading`.
    """
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise ValueError("no .npz archive")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if len(entries) > members or len({entry.filename for entry in entries}) < len(entries):
            raise ValueError(f"its archive has more than {members} members, or two of one name")
        if any(entry.compress_type not in _METHODS or entry.flag_bits & _SPECIAL for entry in entries):
            raise ValueError("its archive is encrypted, or compressed by another method than deflate")
        if (size := sum(entry.file_size for entry in entries)) > limit:
            raise ValueError(f"what is in its archive has {size:,} bytes, more than {limit:,}")
        return {entry.filename: archive.read(entry) for entry in entries}


def parse_json(text: str) -> Any:
    """Parse a JSON document that has no key twice in one object.

    Raises:
        ValueError: it is not JSON, or has.
    """
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {show(twice)} stands there twice")
    return table


# ------------------------------------------------------------------------------------------------------------- writing


def write_whole(path: PathLike, content: bytes) -> None:
    """Write a file whole or not at all: nobody ever sees half of it, and a failure leaves an older one as it was.

    Of an older file the mode is kept. Writers of one file do not disturb each other: the last one's content stays.

    Raises:
        OSError: it cannot be written; `filename` is the path that was asked for.
    """
    with _naming(path):
        mode = _replaced_mode(path)
        temporary = _temporary_name(path)
        try:
            with open(temporary, "xb", opener=_create) as file:
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):  # before it was made
                temporary.unlink()
            raise


def check_writable(path: PathLike) -> None:
    """Raise the OSError that `write_whole` would, as far as it can be known beforehand."""
    with _naming(path):
        _replaced_mode(path)
        temporary = _temporary_name(path)
        with open(temporary, "xb", opener=_create):
            temporary.unlink()


def _replaced_mode(path: PathLike) -> int | None:
    """Mode of the file that will be replaced; None if there is none. Links and devices are never replaced."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "exists and is not a regular file")
    return stat.S_IMODE(status.st_mode)


def _temporary_name(path: PathLike) -> Path:
    """A name that nobody can foresee, in the file's folder."""
    return Path(path).with_name(f".{secrets.token_hex(8)}.tmp")


def _create(name: str, flags: int) -> int:
    """Open as `tempfile.mkstemp` does: only what does not exist yet, and no link; but with the mode of the umask."""
    return os.open(name, flags | os.O_EXCL | os.O_NOFOLLOW, 0o666)


@contextmanager
def _naming(path: PathLike) -> Iterator[None]:
    """Let an OSError name the user's file, and let a name that no file can have be one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or plain(error), os.fspath(path)) from None
    except ValueError:  # a NUL, or what cannot be encoded
        raise OSError(errno.EINVAL, "no file can have this name", os.fspath(path)) from None
