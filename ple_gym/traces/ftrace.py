"""A host's events as ftrace text: the lines that `/sys/kernel/tracing/trace` has, and `trace-cmd report -t` prints.

The formats of the fields are those of the tracepoints in Linux 6.18 (`print fmt` of `sched_switch`, `sched_wakeup`,
`kvm_entry`, `kvm_exit` and `kvm_ple_window_update` of Intel's). What a host's table does not hold is 0, or 120 for a
priority. Times have nine decimals, where Linux prints six unless it is asked for more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ple_gym.traces import columns
from ple_gym.traces.columns import CHUNK, Ints, Texts
from ple_gym.traces.linux import ENTRY, EXIT, KINDS, SWITCH, WAKEUP, WAKING, WINDOW, HostTrace, Table

HEAD = "# tracer: nop\n#\n"  # how Perfetto knows what it is
STATES = ("S", "R", "R+")
_MOST_CPUS = 10**6


class _Tasks:
    """The tasks in some events, and the words for each."""

    def __init__(self, pids: Ints, cpus: Ints, comms: dict[int, str]) -> None:
        # Each CPU has an idle task of its own, and all of these have pid 0.
        keys, self.which = np.unique(pids * _MOST_CPUS + np.where(pids == 0, cpus, 0), return_inverse=True)
        self._tasks = [(int(key) // _MOST_CPUS, int(key) % _MOST_CPUS) for key in keys.tolist()]
        self._comms = comms

    def told(self, form: Callable[[str, int], str], idle: str = "") -> Texts:
        """In each line the text that `form` makes of a task's name and pid; `idle`: a name for all idle ones."""
        words = []
        for pid, cpu in self._tasks:
            comm = self._comms.get(pid, "<...>") if pid else idle or f"swapper/{cpu}"
            words.append(form(comm, pid))
        return columns.choice(words, self.which)


def lines(trace: HostTrace) -> Iterator[str]:
    """Yield the text of these events, without the head, in pieces."""
    for first in range(0, len(trace.events), CHUNK):
        yield _text(trace.events[first : first + CHUNK], trace)


def _text(events: Table, trace: HostTrace) -> str:
    seconds, rest = np.divmod(events["time"], 10**9)
    fields = [(rows, _FIELDS[kind](events[rows], trace)) for kind in range(len(KINDS))
              if len(rows := np.flatnonzero(events["kind"] == kind))]  # fmt: skip
    varied = np.zeros((len(events), max(text.shape[1] for _, text in fields)), np.uint8)
    for rows, text in fields:
        varied[rows, : text.shape[1]] = text
    tasks = _Tasks(events["pid"], events["cpu"], trace.comms)
    return "".join(
        columns.lines(
            len(events), tasks.told(lambda comm, pid: f"{comm:>16}-{pid:<7} [", idle="<idle>"),
            columns.padded(events["cpu"], 3 if events["cpu"].max() < 1000 else 6), "] ..... ",
            columns.whole(seconds), ".", columns.padded(rest, 9), ": ", varied, "\n",
        )
    )  # fmt: skip


def _switch(events: Table, trace: HostTrace) -> Texts:
    leaves = _Tasks(events["pid"], events["cpu"], trace.comms)
    comes = _Tasks(events["other"], events["cpu"], trace.comms)
    return _joined(
        "sched_switch: ",
        leaves.told(lambda comm, pid: f"prev_comm={comm} prev_pid={pid} prev_prio=120 prev_state="),
        columns.choice(STATES, events["state"]),
        comes.told(lambda comm, pid: f" ==> next_comm={comm} next_pid={pid} next_prio=120"),
    )


def _wakeup(events: Table, trace: HostTrace) -> Texts:
    woken = _Tasks(events["other"], events["target"], trace.comms)
    return _joined(
        f"{KINDS[events['kind'][0]]}: ",
        woken.told(lambda comm, pid: f"comm={comm} pid={pid} prio=120 target_cpu="),
        columns.padded(events["target"], 3 if events["target"].max() < 1000 else 6),
    )


def _entry(events: Table, trace: HostTrace) -> Texts:
    end = " intr_info 0x00000000 error_code 0x00000000"
    return _joined("kvm_entry: vcpu ", _vcpu(events), ", rip ", _address(events), end)


def _exit(events: Table, trace: HostTrace) -> Texts:
    whose = columns.either(events["vcpu"] >= 0, _joined("vcpu ", _vcpu(events), " "), _joined("", _vcpu(events)[:, :0]))
    end = " info1 0x0000000000000000 info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000"
    why = columns.choice(trace.reasons, events["reason"])
    return _joined("kvm_exit: ", whose, "reason ", why, " rip ", _address(events), end)


def _window(events: Table, trace: HostTrace) -> Texts:
    old, new = columns.whole(events["old"]), columns.whole(events["new"])
    how = columns.choice(("growed", "shrinked"), (events["old"] >= events["new"]).astype(np.int64))
    return _joined("kvm_ple_window_update: vcpu ", _vcpu(events), " old ", old, " new ", new, " (", how, ")")


_FIELDS: dict[int, Callable[[Table, HostTrace], Texts]] = {
    SWITCH: _switch, WAKING: _wakeup, WAKEUP: _wakeup, ENTRY: _entry, EXIT: _exit, WINDOW: _window,
}  # fmt: skip


def _vcpu(events: Table) -> Texts:
    return columns.whole(events["vcpu"].astype(np.int64))


def _address(events: Table) -> Texts:
    """Addresses as `0x%lx`; there are only a few different ones."""
    values, which = np.unique(events["rip"], return_inverse=True)
    return columns.choice([f"{value:#x}" for value in values.tolist()], which)


def _joined(*parts: str | Texts) -> Texts:
    count = next(len(part) for part in parts if not isinstance(part, str))
    return np.hstack([columns.constant(part, count) if isinstance(part, str) else part for part in parts])
