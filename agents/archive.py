"""Trained policies in one archive, `agents/checkpoints.tar.xz`: `NAME.npz`, or of some the card alone, `NAME.json`.

Whatever reads a policy takes a path through the archive, `agents/checkpoints.tar.xz/NAME.npz`: `--policies
learned:agents/checkpoints.tar.xz/NAME.npz`, `python -m agents evaluate`. Unpacked by `tar`, the files are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
from ple_gym.learned.file import PolicyError


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
