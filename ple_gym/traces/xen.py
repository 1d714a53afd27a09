"""Xen's trace as `xentrace_format` prints it with the file `formats` of Xen's sources: a line for each record.

A vCPU is a task here: its pid is 4096 times its domain's number, and its own number + 1. Times are cycles of the TSC.
"""

from __future__ import annotations

import re

from ple_gym.traces.hosts import Reading
from ple_gym.traces.lines import Content
from ple_gym.traces.linux import ENTRY, EXIT, IS_PREEMPTED, SLEEPS, SWITCH, WAKEUP, YIELDS

_LINE = re.compile(
    r"CPU(?P<cpu>\d{1,6})\s+(?P<tsc>\d{1,18}) \(\+\s*\d{1,18}\)\s+(?P<event>\S{1,40})\s*"
    r"(?:\[(?P<fields>.{0,300})\]\s*)?.*",
    re.ASCII,
)
_NO_LINE = re.compile(r"\s*(?:TSC stepped backward .*|#.*)?")
_WHO = r"dom:vcpu = 0x([0-9a-f]{8})\b"
_ONE = re.compile(rf" ?(?:new_)?{_WHO}.*", re.ASCII)
_BOTH = re.compile(r" ?prev<dom:vcpu> = 0x([0-9a-f]{8}), next<dom:vcpu> = 0x([0-9a-f]{8}) ?", re.ASCII)
_EXIT = re.compile(r" ?exitcode = 0x([0-9a-f]{8}), rIP +(?:= )?0x([0-9a-f]{1,16})\b.*", re.ASCII)
_IDLE = 0x7FFF  # the domain of idle vCPUs
#: Names of exits that mean something here, Intel's and AMD's, as Linux calls them.
_EXITS = {1: "EXTERNAL_INTERRUPT", 12: "HLT", 40: "PAUSE_INSTRUCTION", 0x60: "interrupt", 0x77: "pause", 0x78: "hlt"}
_STATES = {"running_to_runnable": IS_PREEMPTED, "running_to_blocked": SLEEPS, "running_to_offline": SLEEPS}
_ASKS = {"do_block": SLEEPS, "domain_sleep": SLEEPS, "do_yield": YIELDS}


class XenReading(Reading):
    """What was found in such a file. scheduler: Xen's that has told something: credit or credit2."""

    cycles = True

    def __init__(self, data: Content) -> None:
        self._on: dict[int, int] = {}  # who has each CPU, as far as it is known
        self._leaves: dict[int, int] = {}  # why each vCPU leaves its CPU next
        super().__init__(_LINE, data)

    def _line(self, form: re.Pattern[str], text: str) -> None:
        found = form.fullmatch(text)
        if not found:
            if not _NO_LINE.fullmatch(text):
                self._misread(text)
            return
        event, fields = found["event"], found["fields"] or ""
        if event.startswith(("csched:", "csched2:")):
            self.scheduler = ("credit2" if event[6] == "2" else "credit"), "it has events"
        row = self._row(event, fields, int(found["cpu"]), int(found["tsc"]))
        if row == ():
            self._misread(text)
        elif row is None:
            self.others += 1
        else:
            self._add(row)

    def _row(self, event: str, fields: str, cpu: int, time: int) -> tuple[int, ...] | None:
        """The event; None: it tells of none; (): it is not understood."""
        running = event in _STATES or event.endswith("_to_running")
        if event == "__enter_scheduler":
            if not (both := _BOTH.fullmatch(fields)):
                return ()
            return self._switch(time, cpu, self._who(both[1]), self._who(both[2]))
        if running or event in _ASKS or event == "domain_wake":
            if not (one := _ONE.fullmatch(fields)):
                return ()
            who = self._who(one[1])
            if event == "domain_wake":
                return time, WAKEUP, cpu, self._on.get(cpu, 0), who, 0, cpu, -1, -1, 0, -1, -1
            if event in _ASKS:
                self._leaves[who] = _ASKS[event]
            elif event in _STATES:
                self._leaves.setdefault(who, _STATES[event])
            elif self._on.get(cpu) != who:
                return self._switch(time, cpu, self._on.get(cpu, 0), who)
            return None
        who = self._on.get(cpu, 0)
        number = who % 4096 - 1
        if event == "VMENTRY" and who:
            return time, ENTRY, cpu, who, -1, 0, -1, number, -1, 0, -1, -1
        if event == "VMEXIT" and who:
            exits = _EXIT.fullmatch(fields)
            if not exits:
                return ()
            code = int(exits[1], 16)
            reason = self._names.reason(_EXITS.get(code, f"exit {code}"))
            if reason is None:
                return ()
            return time, EXIT, cpu, who, -1, 0, -1, number, reason, int(exits[2], 16), -1, -1
        return None

    def _switch(self, time: int, cpu: int, leaves: int, comes: int) -> tuple[int, ...]:
        self._on[cpu] = comes
        why = self._leaves.pop(leaves, IS_PREEMPTED)
        self._leaves.pop(comes, None)
        return time, SWITCH, cpu, leaves, comes, why, -1, -1, -1, 0, -1, -1

    def _who(self, text: str) -> int:
        """The pid of a vCPU; 0 if it is idle."""
        domain, vcpu = int(text[:4], 16), int(text[4:], 16) % 4095
        return 0 if domain == _IDLE else self._names.task(f"d{domain}v{vcpu}", str(domain * 4096 + vcpu + 1))
