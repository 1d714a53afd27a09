"""Traces from Linux hosts: real ones are read, what is written is read back, and no line of any file does harm."""

from __future__ import annotations

import io
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ple_gym.errors import TraceError
from ple_gym.traces import ftrace, hosts
from ple_gym.traces.lines import MAX_LINE, MAX_SHOWN
from ple_gym.traces.linux import (
    ENTRY,
    EVENT,
    EXIT,
    IS_PREEMPTED,
    KINDS,
    SLEEPS,
    SWITCH,
    WAKEUP,
    WAKING,
    WINDOW,
    YIELDS,
    HostTrace,
    table,
)
from ple_gym.traces.readers import READERS, SOURCES, read_trace
from ple_gym.traces.xen import XenReading

DATA = Path(__file__).parent / "data"
LINE = "  vm-7 [001] ..... 5.000000001: "


def read(text: str, form: str = "ftrace") -> hosts.Reading:
    return READERS[form].read(text.encode())


def kinds(trace: HostTrace) -> dict[str, int]:
    return {KINDS[kind]: count for kind, count in sorted(Counter(trace.events["kind"].tolist()).items())}


@pytest.mark.parametrize("name", ["perf-sched.perf", "tracefs-sched.ftrace"])
def test_recorded_traces_are_read_whole(name: str) -> None:
    found = read_trace(DATA / name)
    text = (DATA / name).read_text(encoding="utf-8")
    assert found.bad == 0 and found.lines == text.count("\n")
    assert kinds(found.trace) == {
        kind: count for kind in KINDS[:3] if (count := sum(f"{kind}: " in line for line in text.split("\n")))
    }
    assert len(found.trace.events) + found.others == sum(not line.startswith("#") for line in text.splitlines())
    events = found.trace.events
    assert (np.diff(events["time"]) >= 0).all() and set(events["cpu"].tolist()) == {0, 1}
    switches = events[events["kind"] == SWITCH]
    assert set(switches["state"].tolist()) == {SLEEPS, YIELDS}
    assert "python" in found.trace.comms.values() and 0 not in found.trace.comms


def test_a_trace_of_trace_cmd_with_kvm_events() -> None:
    found = read_trace(DATA / "trace-cmd-kvm.txt")
    assert kinds(found.trace) == {
        "sched_switch": 3, "sched_wakeup": 1, "kvm_entry": 2, "kvm_exit": 2, "kvm_ple_window_update": 1,
    }  # fmt: skip
    assert found.others == 1  # kvm_halt_poll_ns
    assert found.bad == 2 and [number for number, _ in found.shown] == [14, 15]
    assert found.trace.comms == {2100: "qemu-system-x86", 2101: "CPU 0/KVM", 2102: "CPU 1/KVM", 6705: "qemu-kvm"}
    assert found.trace.reasons == ("PAUSE_INSTRUCTION", "IO_INSTRUCTION")
    first, pause, window, old = (found.trace.events[i] for i in (0, 2, 3, 8))
    assert first["time"] == 81234000100000 and (first["pid"], first["other"]) == (2101, 2101)
    assert (pause["vcpu"], pause["reason"], pause["rip"]) == (0, 0, 0xFFFFFFFF8119FD2C)
    assert (window["vcpu"], window["old"], window["new"]) == (0, 4096, 8192)
    assert (old["vcpu"], old["reason"], old["rip"], old["cpu"]) == (-1, 1, 0xE8FE, 2)
    assert found.told()[0] == "9 events in 15 lines; 1 events of other kinds; 2 lines not understood"
    assert found.told()[1] == "line 14: 'CPU:1 [LOST 12 EVENTS]'"


def test_a_trace_of_xen() -> None:
    found = read_trace(DATA / "xen.xentrace")
    assert isinstance(found, XenReading) and found.cycles and found.scheduler == ("credit", "it has events")
    assert (found.lines, found.bad, found.others, found.shown[0][0]) == (33, 1, 17, 33)
    trace, start = found.trace, 2766218155093260
    assert trace.comms == {1: "d0v0", 4097: "d1v0", 4098: "d1v1"} and trace.reasons == ("PAUSE_INSTRUCTION", "HLT")
    events = [(int(e["time"]) - start, *(int(e[name]) for name in ("cpu", "pid", "other", "state"))) for e in
              trace.events[trace.events["kind"] == SWITCH]]  # fmt: skip
    assert events == [
        (1040, 0, 0, 4097, IS_PREEMPTED), (25040, 0, 4097, 4098, YIELDS), (91040, 0, 4098, 4097, SLEEPS),
        (2000, 1, 0, 1, IS_PREEMPTED), (191200, 1, 1, 4098, SLEEPS),
    ]  # fmt: skip
    exits = trace.events[trace.events["kind"] == EXIT]
    assert exits[["pid", "vcpu", "reason"]].tolist() == [(4097, 0, 0), (4097, 0, 0), (4098, 1, 1)]
    assert exits["rip"][0] == 0xFFFFFFFF8119FD2C
    bad = ["CPU0 1 (+ 1) __enter_scheduler [ prev<dom:vcpu> = 0x1 ]", "CPU0 1 (+ 1) domain_wake [ ]", "CPU0 1 VMENTRY"]
    assert read("\n".join(bad), "xentrace").bad == 3


def test_a_line_without_an_end_is_one_line(tmp_path: Path) -> None:
    for end in ("", "\n", f"\n{LINE}kvm_entry: vcpu 1\n"):
        (tmp_path / "a.txt").write_text(f"{LINE}kvm_entry: vcpu 1\n{'x' * 10 * MAX_LINE}{end}")
        found = read_trace(tmp_path / "a.txt")
        assert (found.lines, found.bad) == (2 + (len(end) > 1), 1) and found.shown == ((2, "x" * MAX_LINE),)


comms = st.from_regex(r"[A-Za-z0-9_/.:<>-]([A-Za-z0-9_/.: <>-]{0,12}[A-Za-z0-9_/.:<>-])?", fullmatch=True).filter(
    lambda comm: comm != "<...>"
)


@st.composite
def traces(draw: st.DrawFn) -> HostTrace:
    """Events of all kinds, in which each field that its kind has is drawn, and each name is used."""
    names = draw(st.dictionaries(st.integers(1, 10**10 - 1), comms, min_size=1, max_size=5))
    reasons = tuple(draw(st.lists(st.from_regex(r"[A-Z_]{1,20}", fullmatch=True), min_size=1, max_size=4, unique=True)))
    pids, vcpus, cpus = st.sampled_from([0, *names]), st.integers(0, 10**9 - 1), st.integers(0, 10**6 - 1)
    rips, windows = st.integers(0, 2**64 - 1), st.integers(0, 10**10 - 1)
    fields = {
        SWITCH: {"other": pids, "state": st.sampled_from([SLEEPS, YIELDS, IS_PREEMPTED])},
        WAKING: {"other": st.sampled_from(list(names)), "target": cpus},
        WAKEUP: {"other": st.sampled_from(list(names)), "target": cpus},
        ENTRY: {"vcpu": vcpus, "rip": rips},
        EXIT: {"vcpu": st.integers(-1, 10**9 - 1), "reason": st.integers(0, len(reasons) - 1), "rip": rips},
        WINDOW: {"vcpu": vcpus, "old": windows, "new": windows},
    }
    chosen = draw(st.lists(st.sampled_from(sorted(fields)), max_size=30))
    events = table(len(chosen))
    for event, kind in zip(events, chosen, strict=True):
        event["kind"], event["pid"], event["cpu"] = kind, draw(pids), draw(cpus)
        event["time"] = draw(st.integers(0, 10**18 - 1))
        for name, values in fields[kind].items():
            event[name] = draw(values)
    return HostTrace(events, names, reasons)


@given(traces())
def test_what_is_written_as_ftrace_text_is_read_back(trace: HostTrace) -> None:
    found = read(ftrace.HEAD + "".join(ftrace.lines(trace)))
    assert (found.bad, found.others) == (0, 0)
    again = found.trace.events
    assert [found.trace.reasons[i] for i in again["reason"] if i >= 0] == [
        trace.reasons[i] for i in trace.events["reason"] if i >= 0
    ]
    for name in EVENT.fields or ():
        if name != "reason":
            assert (again[name] == trace.events[name]).all(), name
    assert found.trace.comms.items() <= trace.comms.items()
    used = set(trace.events["pid"].tolist()) | set(trace.events["other"].tolist())
    assert set(found.trace.comms) == used - {0, -1}


@given(st.binary(max_size=300))
@pytest.mark.parametrize("form", sorted(READERS))
def test_whatever_is_in_a_file_nothing_is_raised(form: str, data: bytes) -> None:
    found = READERS[form].read(data)
    assert found.bad + found.others + len(found.trace.events) <= found.lines


@given(st.data())
@pytest.mark.parametrize("name", ["perf-sched.perf", "tracefs-sched.ftrace", "trace-cmd-kvm.txt", "xen.xentrace"])
def test_a_damaged_trace_is_read_as_far_as_it_goes(name: str, data: st.DataObject) -> None:
    content = bytearray((DATA / name).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=20)):
        content[place] = data.draw(st.integers(0, 255))
    form = next((form for form in READERS if name.endswith(form)), "ftrace")
    whole, found = READERS[form].read((DATA / name).read_bytes()), READERS[form].read(bytes(content))
    assert abs(len(found.trace.events) - len(whole.trace.events)) <= 21
    assert all(0 <= reason < len(found.trace.reasons) for reason in found.trace.events["reason"] if reason >= 0)


@pytest.mark.parametrize(
    "line",
    [
        LINE + "kvm_entry: vcpu x, rip 0x0",
        LINE + "kvm_entry: vcpu 99999999999, rip 0x0",
        LINE + "kvm_exit: vcpu 0 reason ",
        LINE + "kvm_exit: vcpu 0 reason HLT rip 0x12345678123456789",
        LINE + "kvm_ple_window_update: vcpu 0 old 1",
        LINE + "sched_switch: prev_comm=a prev_pid=1 prev_prio=1 prev_state=R ==>",
        LINE + "sched_wakeup: comm=a pid=99999999999 prio=1 target_cpu=0",
        LINE + "sched_wakeup: comm=a pid=9 prio=1 target_cpu=1234567",
        LINE + "kvm_entry: vcpu 1" + " " * MAX_LINE,
        LINE.replace("5.0", "5,0") + "kvm_entry: vcpu 1",
        LINE.replace("[001]", "[1234567]") + "kvm_entry: vcpu 1",
        "something else",
    ],
)
def test_a_line_that_is_not_understood_is_shown_with_its_number(line: str) -> None:
    found = read(f"# tracer: nop\n{LINE}kvm_entry: vcpu 1\n{line}\n{LINE}kvm_entry: vcpu 2\n")
    assert found.trace.events["vcpu"].tolist() == [1, 2]
    assert found.bad == 1 and found.shown == ((3, line[:MAX_LINE]),)


def test_only_some_bad_lines_are_shown_and_all_are_counted() -> None:
    found = read("x\n" * 25)
    assert found.bad == 25 and len(found.shown) == MAX_SHOWN
    assert found.told()[-1] == "and 15 more"


def test_there_may_not_be_too_many_names_of_exits() -> None:
    lines = [f"{LINE}kvm_exit: vcpu 0 reason R{number} rip 0x0\n" for number in range(hosts.MAX_REASONS + 2)]
    found = read("".join(lines))
    assert len(found.trace.reasons) == hosts.MAX_REASONS and found.bad == 2


class Counted(io.BytesIO):
    """A file that notes how much of it is asked for at a time."""

    most = 0

    def read1(self, size: int | None = -1) -> bytes:
        assert size is not None and size >= 0
        self.most = max(self.most, size)
        return super().read1(size)


@pytest.mark.parametrize("form", sorted(SOURCES))
def test_a_file_is_read_in_pieces(form: str) -> None:
    file = Counted(b"a line\n" * 20_000)
    assert SOURCES[form].read(file).lines == 20_000 and 0 < file.most < 2**16 and not file.closed


def test_a_long_trace_takes_little_memory() -> None:
    line = f"{LINE}kvm_exit: vcpu 0 reason HLT rip 0x0 info1 0x0000000000000000 info2 0x0000000000000000\n"
    data = (line * 50_000).encode()
    tracemalloc.start()
    READERS["ftrace"].read(data)
    assert tracemalloc.get_traced_memory()[1] < 4 * len(data)  # 100 MB must be read within 500
    tracemalloc.stop()


def test_what_is_no_trace_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "other.txt").write_text("one\ntwo\n")
    (tmp_path / "a.csv").write_text("")
    cases = {
        "empty.txt": "none of sched_switch, .* in 0 lines$",
        "other.txt": "none of sched_switch, .* in 2 lines; line 1: 'one'$",
        "missing.txt": "missing.txt: No such file or directory$",
        "a.csv": "a.csv: name its form, ftrace or perf or xentrace, or let it end in .*, .script, .xentrace$",
    }
    for name, message in cases.items():
        with pytest.raises(TraceError, match=message) as caught:
            read_trace(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(TraceError, match="form = 'xen': must be ftrace or perf or xentrace"):
        read_trace(tmp_path / "empty.txt", "xen")


def test_a_form_that_is_named_is_taken_whatever_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "trace.log").write_bytes((DATA / "perf-sched.perf").read_bytes())
    assert read_trace(tmp_path / "trace.log", "perf").bad == 0
