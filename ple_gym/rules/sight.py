"""What a rule sees at an exit: one record of facts, and the records of pCPUs, vCPUs and VMs that a hypervisor has.

`SIGHT` is the record that the simulator hands over, by its address, to compiled rules and to rules in C alike
(`header.py`). In a rule of ours or a user's, `see.now` is a number and `see.vcpu[v].queued_since` another: every number
is an int64, no vCPU and no pCPU are -1, an index out of range raises IndexError, and nothing can be written.

Nothing here names a lock, a ticket, a guest's phase or a future event, so no rule can peek.
"""

from __future__ import annotations

from ctypes import c_char
from typing import Any, NamedTuple

import numpy as np

from ple_gym.sim.state import IPI, PCPU, VCPU, VM_PARAMETERS


class Fact(NamedTuple):
    """A field of the sight."""

    name: str
    meaning: str
    points_to: str = ""  # the table at this address; else the field is a number


#: In the order of the record; every field is one word.
FACTS = (
    Fact("now", "time of the exit, cycles"),
    Fact("here", "the pCPU where the exit happened"),
    Fact("asker", "the vCPU that exited: to answer with it resumes it"),
    Fact("defer", "the answer that leaves the choice to the host's own yield; as many as there are vCPUs"),
    Fact("pcpus", "number of pCPUs"),
    Fact("vcpus", "number of vCPUs, of all VMs"),
    Fact("vms", "number of VMs"),
    Fact("sockets", "number of sockets, equal parts of the pCPUs"),
    Fact("tsc_hz", "cycles in a second"),
    Fact("window", "ple.window, cycles"),
    Fact("exit_cost", "cost.exit, cycles"),
    Fact("actuator", "PULL (hypothetical), LOCAL, HINT or YIELD_ONLY: what is done with an answer that is a vCPU"),
    Fact("exits", "pause-loop exits of the run so far, this one included"),
    Fact("random_key", "key of the stream of this run's random choices: see `draw`"),
    Fact("ipis_seen", "vCPUs whose interrupts the hypervisor sees: all, or 0 (`host.ipi_visible`)"),
    Fact("pcpu", "pCPUs 0..pcpus-1", "pcpu"),
    Fact("vcpu", "vCPUs 0..vcpus-1", "vcpu"),
    Fact("vm", "VMs 0..vms-1", "vm"),
    Fact("ipi", "interrupts of vCPUs 0..ipis_seen-1", "ipi"),
    Fact("queue", "vCPU at [pCPU, place] of a runqueue, head first; places 0..pcpu.queued-1", "queue"),
    Fact("host_vm", "what the host's scheduler keeps of each VM", "host"),
    Fact("host_pcpu", "what it keeps of each pCPU", "host"),
    Fact("host_vcpu", "what it keeps of each vCPU", "host"),
    Fact("parameters", "the rule's own parameters", "parameters"),
    Fact("vm_memory", "what the rule remembers of each VM", "memory"),
    Fact("vcpu_memory", "what the rule remembers of each vCPU", "memory"),
    # For rules that are not a hypervisor's: the oracle and learned policies. Else all of these are 0.
    Fact("description", "private"),
    Fact("row", "private"),
    Fact("mask", "private"),
    Fact("observation", "private"),
)
PRIVATE = ("description", "row", "mask", "observation")
#: What a rule reads as a number; the rest are addresses, of which it sees only what they point to.
NUMBERS = tuple(fact.name for fact in FACTS if not fact.points_to and fact.name not in PRIVATE)

SIGHT = np.dtype([(fact.name, "u8" if fact.name == "random_key" else "i8") for fact in FACTS])
SIGHT_BYTES = SIGHT.itemsize

#: Of no record: two fields of `VCPU` hold others once more.
HIDDEN_FIELDS = ("look", "exits", "pad0", "pad1", "nothing")
TABLES = {"pcpu": PCPU, "vcpu": VCPU, "vm": VM_PARAMETERS, "ipi": IPI}
COUNTS = {"pcpu": "pcpus", "vcpu": "vcpus", "vm": "vms", "ipi": "ipis_seen"}


def visible_fields(dtype: np.dtype[Any]) -> list[str]:
    """The fields of a record that a rule can read."""
    return [name for name in dtype.names or () if name not in HIDDEN_FIELDS]


# --- rules that are not compiled --------------------------------------------------------------------------------------


def _bytes(address: int, size: int) -> np.ndarray:
    return np.frombuffer((c_char * size).from_address(int(address)), np.uint8) if size else np.zeros(0, np.uint8)


class PlainRow:
    """One record, as compiled rules see it: its fields are ints (or floats)."""

    __slots__ = ("_record", "_writable")

    def __init__(self, record: np.ndarray, writable: bool = False) -> None:
        object.__setattr__(self, "_record", record)
        object.__setattr__(self, "_writable", writable)

    def __getattr__(self, name: str) -> int | float:
        if name not in visible_fields(self._record.dtype):
            raise AttributeError(f"a rule sees no {name!r}: there are {', '.join(visible_fields(self._record.dtype))}")
        value = self._record[name]
        return value.view(np.int32).item() if value.dtype == np.uint32 else value.item()

    def __setattr__(self, name: str, value: int) -> None:
        if not self._writable:
            raise AttributeError(f"{name}: what a rule sees cannot be changed")
        self._record[name] = value


class PlainRows:
    """Records of one kind."""

    def __init__(self, address: int, dtype: np.dtype[Any], count: int, writable: bool = False) -> None:
        size = dtype.itemsize * int(count)
        self._records = _bytes(address, size).view(dtype) if size else np.zeros(int(count), dtype)
        self._writable = writable

    def __getitem__(self, index: int) -> PlainRow:
        if not 0 <= index < len(self._records):
            raise IndexError(f"a rule's index {index} is out of range: there are {len(self._records)}")
        return PlainRow(self._records[index], self._writable)


class PlainQueue:
    """The runqueues."""

    def __init__(self, address: int, pcpus: int, vcpus: int) -> None:
        self._places = _bytes(address, 2 * pcpus * vcpus).view(np.uint16).reshape(pcpus, vcpus)

    def __getitem__(self, place: tuple[int, int]) -> int:
        if not all(0 <= i < n for i, n in zip(place, self._places.shape, strict=True)):
            raise IndexError(f"a rule's index {place} is out of range: there are {self._places.shape}")
        return int(self._places[place])


class PlainSight:
    """A sight, for a rule that is not compiled; `whole`: with its addresses, for rules that are not a hypervisor's."""

    def __init__(self, address: int, whole: bool = False) -> None:
        record = _bytes(address, SIGHT_BYTES).view(SIGHT)[0]
        visible: dict[str, Any] = {name: _plain(record[name]) for name in (SIGHT.names if whole else NUMBERS) or ()}
        for name, dtype in TABLES.items():
            visible[name] = PlainRows(record[name], dtype, record[COUNTS[name]])
        visible["queue"] = PlainQueue(record["queue"], int(record["pcpus"]), int(record["vcpus"]))
        object.__setattr__(self, "_visible", visible)
        object.__setattr__(self, "_addresses", record)

    def __getattr__(self, name: str) -> Any:
        if name not in self._visible:
            raise AttributeError(f"a rule sees no {name!r}: there are {', '.join(self._visible)}")
        return self._visible[name]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name}: what a rule sees cannot be changed")


def _plain(number: Any) -> Any:
    return number if number.dtype == np.uint64 else int(number)


class PlainMemory:
    """What a rule remembers, for one that is not compiled."""

    def __init__(self, see: PlainSight, vm: np.dtype[Any], vcpu: np.dtype[Any]) -> None:
        self.vm = PlainRows(see._addresses["vm_memory"], vm, see._addresses["vms"], True)
        self.vcpu = PlainRows(see._addresses["vcpu_memory"], vcpu, see._addresses["vcpus"], True)


class PlainScheduler:
    """What the host's scheduler keeps, for a rule that is not compiled."""

    def __init__(self, see: PlainSight, vm: np.dtype[Any], pcpu: np.dtype[Any], vcpu: np.dtype[Any]) -> None:
        self.vm = PlainRows(see._addresses["host_vm"], vm, see._addresses["vms"])
        self.pcpu = PlainRows(see._addresses["host_pcpu"], pcpu, see._addresses["pcpus"])
        self.vcpu = PlainRows(see._addresses["host_vcpu"], vcpu, see._addresses["vcpus"])


def plain_parameters(see: PlainSight, dtype: np.dtype[Any]) -> PlainRow:
    """A rule's parameters, for one that is not compiled."""
    return PlainRow(_bytes(see._addresses["parameters"], dtype.itemsize).view(dtype)[0])
