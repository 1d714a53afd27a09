"""Trained policies in one archive, `agents/checkpoints.tar.xz`: `NAME.npz`, or of some the card alone, `NAME.json`.

Whatever reads a policy takes a path through the archive, `agents/checkpoints.tar.xz/NAME.npz`: `--policies
learned:agents/checkpoints.tar.xz/NAME.npz`, `python -m agents evaluate`. Unpacked by `tar`, the files are the same.
Weights in it are of half precision, since the last 13 bits of a float32 cannot be compressed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ple_gym.files import (
    MAX_ARCHIVE_BYTES,
    archive_of,
    archived,
    make_folder,
    read_bytes,
    reading,
    write_whole,
    writing,
)
from ple_gym.learned.file import PolicyError, decode, pack

PRECISION = 2.0**-11  # of half precision: the most that a rounding moves a number, as a share of it


@dataclass(frozen=True)
class Archive:
    """The files in an archive; none if there is no archive.

    Attributes:
        path: of the archive; must end with `.tar.xz`.
    """

    path: Path

    def file(self, name: str) -> Path:
        """The path by which a file in it is read: see `ple_gym.files.read_packed`."""
        return self.path / name

    def files(self) -> Mapping[str, bytes]:
        """Content by name.

        Raises:
            PolicyError: the archive cannot be read, or is damaged.
        """
        if not self.path.exists():
            return {}
        with reading(self.path, PolicyError, "an archive of learned policies", "get it again, or train again"):
            return archived(read_bytes(self.path, MAX_ARCHIVE_BYTES))

    def add(self, files: Mapping[str, bytes]) -> None:
        """Add files, or replace those of the same name. The archive is written whole or not at all.

        Of two writers at the same time the later one may leave out what the other has just added.

        Raises:
            PolicyError: the archive cannot be read or written, or is damaged.
        """
        content = archive_of({**self.files(), **files})
        with writing(self.path, PolicyError):
            make_folder(self.path.parent)
            write_whole(self.path, content)


def halved(data: bytes) -> bytes:
    """The bytes of a policy's file with every weight rounded to half precision.

    Raises:
        PolicyError: half precision has no such large numbers, or none of so small ones.
        Exception: it is no such file; to be called within `files.reading`.
    """
    head, weights = decode(data)
    with np.errstate(over="ignore"):
        halves = {name: array.astype(np.float16) for name, array in weights.items()}
    for name, array in weights.items():
        largest = np.abs(array).max(initial=0)
        if np.abs(halves[name].astype(np.float32) - array).max(initial=0) > PRECISION * largest:
            raise PolicyError(f"weights {name}: the largest is {largest:g}, out of the range of half precision")
    return pack(head, halves)
