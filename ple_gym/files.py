"""Every file that a user gives is read here, and every file that we write is written here.

Whatever is wrong with a file that is read ends in one documented error of one line, which names the file; and no more
is read than a limit allows. What is written is written whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import lzma
import os
import secrets
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from ple_gym.messages import escaped, plain, show, shown_path

PathLike: TypeAlias = str | os.PathLike[str]

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_SPECIAL = 0x2061  # flags of an archive's entry: encrypted, patched, strongly encrypted, masked
_XZ_MEMORY = 2**25  # that uncompressing may take besides what comes out; preset 6 asks for 9 MB
ARCHIVE = ".tar.xz"
MAX_ARCHIVE_BYTES = 2**26  # of it, and of what is in it

MAX_REASON = 120
"""Characters of a parser's own words: the beginning and the end, where it says at which line."""


# ------------------------------------------------------------------------------------------------------------- reading


@contextmanager
def reading(path: PathLike, error: type[Exception], what: str, remedy: str = "") -> Iterator[None]:
    """Turn whatever goes wrong inside into `error`: one line that names the file.

    Args:
        path: the file.
        error: the documented error of the caller. Where it is raised inside, its message gets the file's name.
        what: what the file should be: "a learned policy".
        remedy: what the user can do about it.
    """
    end = f"; {remedy}" if remedy else ""
    try:
        yield
    except error as known:
        raise error(f"{shown_path(path)}: {known}{end}") from None
    except OSError as failure:
        raise error(f"{shown_path(path)}: {failure.strerror or plain(failure)}{end}") from None
    except Exception as failure:
        raise error(f"{shown_path(path)}: not {what}, or damaged ({_misread(failure)}){end}") from None


@contextmanager
def parsing(error: type[Exception], what: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into `error`: `what`, "not TOML" say, and the reason."""
    try:
        yield
    except error:
        raise
    except Exception as failure:
        raise error(f"{what}: {_misread(failure)}") from None


def _misread(failure: Exception) -> str:
    """As `reason`, without Python's words for content that is there, but is not of the kind that a reader expects."""
    if isinstance(failure, KeyError) and failure.args:
        return f"{show(failure.args[0])} is missing"
    if isinstance(failure, AttributeError | LookupError | TypeError):
        return "what is in it is of another kind"
    return reason(failure)


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
    with open_file(path, limit) as file:
        data = file.read(limit + 1)
        if len(data) > limit:  # it has grown
            raise OSError(errno.EFBIG, f"{len(data):,} bytes are more than {limit:,}")
        return data


@contextmanager
def open_file(path: PathLike, limit: int) -> Iterator[BinaryIO]:
    """Open a regular file of at most `limit` bytes, which is too large to be kept in memory.

    Raises:
        OSError: as `read_bytes`.
    """
    with _naming(path), open(path, "rb", opener=_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"{status.st_size:,} bytes are more than {limit:,}")
        yield file


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


#: Width of most numbers, in bytes -> settings of LZMA; what has them is smallest with now one and now another.
_SETTINGS: Mapping[int, Sequence[Mapping[str, int]]] = {
    1: ({}, {"lc": 0}, {"lc": 0, "pb": 0}, {"lc": 1, "pb": 0}, {"lc": 2, "pb": 0}),
    2: ({"lc": 4, "pb": 1}, {"lc": 0, "lp": 1, "pb": 1}),
}


def compressed(data: bytes, width: int = 1) -> bytes:
    """Some bytes as an `.xz` file; `width`: 2 if most are numbers of two bytes, of which it then makes less."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6 | lzma.PRESET_EXTREME, **one} for one in _SETTINGS[width]]
    return min((lzma.compress(data, check=lzma.CHECK_CRC64, filters=[one]) for one in filters), key=len)


def uncompressed(data: bytes, limit: int) -> bytes:
    """What is in the bytes of an `.xz` file; at most `limit` bytes are uncompressed.

    Raises:
        Exception: it is no such file, a damaged one, or more is in it; to be called within `reading`.
    """
    stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)
    content = stream.decompress(data, limit + 1)
    if len(content) > limit:
        raise ValueError(f"more than {limit:,} bytes are in it")
    if not stream.eof or stream.unused_data:
        raise ValueError("its end is missing, or something stands behind it")
    return content


def in_archive(path: PathLike) -> bool:
    """Whether a path leads into an archive: `ARCHIVE.tar.xz/NAME`."""
    return Path(path).parent.name.endswith(ARCHIVE)


def read_packed(path: PathLike, limit: int) -> bytes:
    """As `read_bytes`, but of `ARCHIVE.tar.xz/NAME` too: of the file of that name in the archive.

    Raises:
        OSError: it cannot be read, is not there, is not a regular file, or is larger.
        Exception: the archive is damaged; to be called within `reading`.
    """
    if not in_archive(path):
        return read_bytes(path, limit)
    content = archived(read_bytes(Path(path).parent, MAX_ARCHIVE_BYTES)).get(Path(path).name)
    if content is None:
        raise FileNotFoundError(errno.ENOENT, "no such file in the archive", os.fspath(path))
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"{len(content):,} bytes are more than {limit:,}", os.fspath(path))
    return content


@lru_cache(maxsize=1)  # one archive is read again and again
def archived(data: bytes) -> Mapping[str, bytes]:
    """The files in the bytes of a `.tar.xz` archive by name.

    Raises:
        Exception: it is no such archive, or damaged, or has anything but files; to be called within `reading`.
    """
    with tarfile.open(fileobj=io.BytesIO(uncompressed(data, MAX_ARCHIVE_BYTES)), mode="r:") as archive:
        members = archive.getmembers()
        plain_files = all(member.isreg() and not member.issparse() for member in members)
        if not plain_files or len({one.name for one in members}) < len(members):
            raise ValueError("its archive has something else than files, or two of one name")
        return {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]


def archive_of(files: Mapping[str, bytes]) -> bytes:
    """A `.tar.xz` archive of files by name, sorted; the same for the same files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            archive.addfile(member, io.BytesIO(files[name]))
    return compressed(content.getvalue(), width=2)


def unpack(data: bytes, members: int, limit: int) -> dict[str, bytes]:
    """Return the files in a zip archive by name. Before any is uncompressed, their number and the sum of their sizes
    are compared with the limits.

    Raises:
        Exception: whatever `zipfile` makes of what is no archive; to be called within `reading`.
    """
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise ValueError("no .npz archive")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {entry.filename: archive.read(entry) for entry in _checked_entries(archive, members, limit)}


def check_archive(data: bytes, members: int, limit: int) -> None:
    """Raise the errors of `unpack` except those of damaged content, because nothing is uncompressed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        _checked_entries(archive, members, limit)


def _checked_entries(archive: zipfile.ZipFile, members: int, limit: int) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    if len(entries) > members or len({entry.filename for entry in entries}) < len(entries):
        raise ValueError(f"its archive has more than {members} members, or two of one name")
    if any(entry.compress_type not in _METHODS or entry.flag_bits & _SPECIAL for entry in entries):
        raise ValueError("its archive is encrypted, or compressed by another method than deflate")
    if (size := sum(entry.file_size for entry in entries)) > limit:
        raise ValueError(f"what is in its archive has {size:,} bytes, more than {limit:,}")
    return entries


def seal(kind: str, content: bytes) -> bytes:
    """Put a line before some bytes that says what they are and what their checksum is. `kind` has a format number."""
    return f"ple_gym {kind} {_checksum(kind, content)}\n".encode() + content


def unseal(kind: str, data: bytes) -> bytes:
    """What `seal` was given.

    Raises:
        ValueError: they are of another kind or format, or have changed.
    """
    head, _, content = data.partition(b"\n")
    if not head.startswith(f"ple_gym {kind} ".encode()):
        raise ValueError(f"it does not begin with 'ple_gym {kind}'")
    if head != f"ple_gym {kind} {_checksum(kind, content)}".encode():
        raise ValueError("its checksum is of another content")
    return content


def seal_json(kind: str, content: Mapping[str, Any]) -> bytes:
    """A JSON document that says what it is and what the checksum of its `content` is."""
    text = json.dumps(content, sort_keys=True)
    document = {"format": f"ple_gym {kind}", "checksum": _checksum(kind, text.encode()), "content": content}
    return (json.dumps(document, indent=1) + "\n").encode()


def unseal_json(kind: str, data: bytes) -> Any:
    """The content that `seal_json` was given, as JSON has it.

    Raises:
        ValueError: it is of another kind or format, or has changed.
    """
    document = parse_table(data.decode())
    if document["format"] != f"ple_gym {kind}":
        raise ValueError(f"its format is not 'ple_gym {kind}'")
    if document["checksum"] != _checksum(kind, json.dumps(document["content"], sort_keys=True).encode()):
        raise ValueError("its checksum is of another content")
    return document["content"]


def _checksum(kind: str, content: bytes) -> str:
    return hashlib.blake2b(kind.encode() + b"\n" + content, digest_size=16).hexdigest()


def parse_json(text: str) -> Any:
    """Parse a JSON document that has no key twice in one object.

    Raises:
        ValueError: it is not JSON, or has.
    """
    return json.loads(text, object_pairs_hook=_once)


def parse_table(text: str) -> dict[str, Any]:
    """Parse a JSON document that is an object with names.

    Raises:
        ValueError: as `parse_json`, or it is something else.
    """
    table = parse_json(text)
    if not isinstance(table, dict):
        raise ValueError(f"{show(table)}: must be a table")
    return table


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {show(twice)} stands there twice")
    return table


# ------------------------------------------------------------------------------------------------------------- writing


def write_whole(path: PathLike, content: bytes) -> None:
    """Write a file whole or not at all, as `whole`.

    Raises:
        OSError: it cannot be written; `filename` is the path that was asked for.
    """
    with whole(path) as write:
        write(content)


@contextmanager
def whole(path: PathLike) -> Iterator[Callable[[bytes], object]]:
    """Write a file in pieces, whole or not at all: yields what to call with each piece.

    Nobody ever sees half of it, and a failure leaves an older one as it was. Of an older file the mode is kept. Writers
    of one file do not disturb each other: the last one's content stays.

    Raises:
        OSError: it cannot be written; `filename` is the path that was asked for.
    """
    with _naming(path):
        mode = _replaced_mode(path)
        descriptor, temporary = _create(path)
    try:
        with open(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(descriptor, mode)

            def write(piece: bytes) -> None:
                with _naming(path):
                    file.write(piece)

            yield write
            with _naming(path):
                file.flush()
                os.fsync(descriptor)
        with _naming(path):
            os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):  # Ctrl-C may come when it has just been renamed
            os.unlink(temporary)
        raise


class Log:
    """A file that there is, to be written at its end; what was added is on the disk.

    Raises:
        OSError: there is none, it is not a regular file, or nothing can be added.
    """

    def __init__(self, path: PathLike) -> None:
        self._path = path
        with _naming(path):
            _replaced_mode(path)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)

    def add(self, content: bytes) -> None:
        """Write some bytes."""
        with _naming(self._path):
            while content:
                content = content[os.write(self._descriptor, content) :]
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Write no more."""
        os.close(self._descriptor)


def make_folder(path: PathLike) -> None:
    """Make a folder, and those that it is in, unless there is one.

    Raises:
        OSError: it cannot be made.
    """
    with _naming(path):
        os.makedirs(path, exist_ok=True)


def check_writable(path: PathLike) -> None:
    """Raise the OSError that `write_whole` would, as far as it can be known beforehand."""
    with _naming(path):
        _replaced_mode(path)
        descriptor, temporary = _create(path)
        os.close(descriptor)
        os.unlink(temporary)


def _replaced_mode(path: PathLike) -> int | None:
    """Mode of the file that will be replaced; None if there is none. Links and devices are never replaced."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "exists and is not a regular file")
    return stat.S_IMODE(status.st_mode)


def _create(path: PathLike) -> tuple[int, Path]:
    """Create and open an empty file in the folder of a path, under a name that nobody can foresee. It must be a new
    file: a link of that name is not followed. `tempfile.mkstemp` does the same, but not with the mode of the umask.
    """
    temporary = Path(path).with_name(f".{secrets.token_hex(8)}.tmp")
    return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), temporary


@contextmanager
def writing(path: PathLike, error: type[Exception]) -> Iterator[None]:
    """Turn a failure to write into `error`: one line that names the file."""
    try:
        yield
    except OSError as failure:
        raise error(f"{shown_path(path)}: cannot be written: {failure.strerror or plain(failure)}") from None


@contextmanager
def _naming(path: PathLike) -> Iterator[None]:
    """Let an OSError name the user's file, and let a name that no file can have be one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or plain(error), os.fspath(path)) from None
    except ValueError:  # a NUL, or what cannot be encoded
        raise OSError(errno.EINVAL, "no file can have this name", os.fspath(path)) from None
