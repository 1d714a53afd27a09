"""Gives names to the inputs of policies that were kept before files named them (format 1), in place.

In format 1 the order of features was that of the simulator of that time, which is written down here. Nothing else
changes: the same weights, the same card, the same scores.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agents.archive import Archive
from agents.common import AgentError
from ple_gym.files import read_bytes, reading, write_whole, writing
from ple_gym.learned.file import FORMAT, LEVELS, MAX_BYTES, WHAT, PolicyError, decode, pack
from ple_gym.messages import shown_path
from ple_gym.scenario.parameters import check, choice

#: Features of a vCPU in format 1, level by level, and the ranks behind them.
VCPU = (
    (
        "asker", "queued", "running", "asleep", "here", "sibling", "position", "waited", "last_run", "credit",
        "priority", "left_in_kernel", "left_by_exit", "suspected_spinner", "exits", "since_exit", "spin_age",
        "same_code", "pcpu",
    ),
    ("lock_known", "same_lock", "line_guess"),
    ("holder", "next", "line", "holds", "behind"),
)  # fmt: skip
RANKS = ("rank of waited", "rank of spin_age")
HOST = (
    "queue", "slice_left", "ran", "rate_limited", "idle", "noisy", "spinning", "queued", "asleep", "queued_spinners",
    "since_decision", "since_decision_here", "pcpu",
)  # fmt: skip
WITH_RANKS = ("linear", "set")  # kinds


def names_of(kind: str, information: str) -> dict[str, list[str]]:
    """What a policy of format 1 reads, in the order of its weights."""
    vcpu = [name for names in VCPU[: LEVELS[information]] for name in names]
    return {"vcpu": [*vcpu, *(RANKS if kind in WITH_RANKS else ())], "host": list(HOST)}


def converted(data: bytes) -> bytes:
    """The bytes of a file of format 1 as one of the present format.

    Raises:
        PolicyError: it is of another format, or what it tells is no policy.
        Exception: whatever goes wrong with a file that is none; to be called within `files.reading`.
    """
    head, weights = decode(data, wanted=1)
    check("information level", choice(*LEVELS), head["information"], PolicyError)
    card = head.pop("card")
    features = names_of(head["kind"], head["information"])
    return pack({**head, "format": FORMAT, "features": features, "card": card}, weights)


def convert(paths: Iterable[str]) -> list[Path]:
    """Convert files, and those in folders and the folders within; which ones were converted.

    Files of the present format stay as they are.

    Raises:
        AgentError: there are none, or one cannot be written.
        PolicyError: one is no policy; those before it have been converted.
    """
    done = []
    for path in [Path(name) for name in paths]:
        if path.suffixes[-2:] == [".tar", ".xz"]:
            done += _convert_archive(Archive(path))
            continue
        files = sorted(path.rglob("*.npz")) if path.is_dir() else [path]
        if not files:
            raise AgentError(f"{shown_path(path)}: there is no .npz file in it")
        for file in files:
            with reading(file, PolicyError, WHAT):
                data = read_bytes(file, MAX_BYTES)
                new = None if _is_present(data) else converted(data)
            if new is not None:
                with writing(file, AgentError):
                    write_whole(file, new)
                done.append(file)
    return done


def _convert_archive(archive: Archive) -> list[Path]:
    """Convert the policies in an archive, which is written once; which ones were converted."""
    new: dict[str, bytes] = {}
    for name, data in archive.files().items():
        with reading(archive.file(name), PolicyError, WHAT):
            if name.endswith(".npz") and not _is_present(data):
                new[name] = converted(data)
    if new:
        archive.add(new)
    return [archive.file(name) for name in new]


def _is_present(data: bytes) -> bool:
    try:
        decode(data)
    except PolicyError:
        return False
    return True
