"""What the simulator must know of this machine: its kernel's version, tick, and control groups."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path

from ple_gym.errors import RealityError
from ple_gym.messages import show
from ple_gym.reality.measured import Machine

#: First release -> `host.linux` whose rules act from there on, and the base slice (CFS: least granularity) of a machine
#: with one CPU in microseconds. Stable releases have rules of later ones: 6.12.13 has 6.14's, and 6.12.63 yields as
#: 6.18.2 does. Sources: docs/model.md, section 15.
RULES = {
    (0, 0, 0): ("5.15", 750),
    (6, 6, 0): ("6.6", 750),
    (6, 12, 0): ("6.12", 750),
    (6, 12, 13): ("6.14", 750),
    (6, 12, 63): ("6.18.2", 700),
    (6, 13, 0): ("6.12", 750),
    (6, 13, 2): ("6.14", 750),
    (6, 15, 0): ("6.14", 700),
    (6, 17, 0): ("6.18", 700),
    (6, 18, 2): ("6.18.2", 700),
}

CLOCK_MONOTONIC_COARSE = 6
"""Of Linux, which sets this clock at each tick; Python has no name for it."""


def this_machine(cpus: int) -> Machine:
    """The machine that this process runs on, and the first `cpus` CPUs that it may use.

    Raises:
        RealityError: it may use fewer.
    """
    usable = sorted(os.sched_getaffinity(0))
    if not 1 <= cpus <= min(len(usable), 64):
        raise RealityError(f"cpus = {cpus}: must be 1..{min(len(usable), 64)}, which this process may use")
    tick_ns = round(time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e9)
    online = os.sysconf("SC_NPROCESSORS_ONLN")
    return Machine(platform.release(), online, tuple(usable[:cpus]), tick_ns, "autogroup" if autogroup() else "none")


def autogroup(root: Path = Path("/")) -> bool:
    """Whether the kernel gives each session a control group of its own: it is told to, and no cgroup overrides it.

    root: of the file system.
    """
    if _read(root / "proc/sys/kernel/sched_autogroup_enabled").strip() != "1":
        return False
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(",") and path != "/":
            return False
        # Of version 2: only a cgroup below the root has the controller's files, and it has the processes beneath it.
        if number == "0" and _weighted(root / "sys/fs/cgroup", path):
            return False
    return True


def _weighted(mount: Path, path: str) -> bool:
    """Whether a cgroup or one that it is in has a CPU weight."""
    folder = mount / path.lstrip("/")
    return any((one / "cpu.weight").exists() for one in (folder, *folder.parents) if one.is_relative_to(mount))


def _read(path: Path) -> str:
    """What a file of the kernel says; empty if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def rules_of(release: str) -> tuple[str, int]:
    """`host.linux` and the base slice in microseconds on one CPU for a kernel's release: `6.18.44-generic`.

    Raises:
        RealityError: it does not begin with a version.
    """
    found = re.match(r"([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,4}))?", release)
    if not found:
        raise RealityError(f"release = {show(release)}: must begin with a version, as 6.18.44 does")
    version = tuple(int(part or 0) for part in found.groups())
    return RULES[max(first for first in RULES if first <= version)]
