"""Figure 1: does a yield that knows no holder run the wrong vCPU, and then the spinner once more?

Section 3.1: vCPU 1 holds a lock and is preempted; vCPU 2 exits; the hypervisor runs vCPU 3; vCPU 2 runs, and exits
again. Three vCPUs (here 0, 1 and 2) on one pCPU under Xen's own rules. The script is a seed: the first of 2,200,000 to
2,209,999 in which the story is told without a prologue. `as_told` counts the events that come in its order.
"""

from __future__ import annotations

from pathlib import Path

from experiments.lab import Experiment, Table, Task, tasks, world
from experiments.lab.report import Check, exactly
from experiments.lab.traces import trace_of
from ple_gym.traces import events as tr
from ple_gym.traces.pictures import timeline_figure

WORLD = "ThreeVcpus"
SEED = 2_207_778
POLICIES = ("xen-4.8", "xen-4.5", "paper", "kvm")

STORY = (
    (tr.RUN, 0), (tr.TRY, 0), (tr.ACQUIRE, 0), (tr.STOP, 0),  # vCPU 0 takes the lock and is preempted
    (tr.RUN, 1), (tr.TRY, 1), (tr.PLE, 1), (tr.STOP, 1),  # vCPU 1 exits
    (tr.RUN, 2), (tr.STOP, 2),  # vCPU 2 runs, which does not help
    (tr.RUN, 1), (tr.PLE, 1), (tr.STOP, 1),  # vCPU 1 exits again
    (tr.RUN, 2), (tr.STOP, 2),
    (tr.RUN, 0), (tr.RELEASE, 0), (tr.STOP, 0),  # the holder at last
    (tr.RUN, 1), (tr.ACQUIRE, 1), (tr.RELEASE, 1),
)  # fmt: skip
DIRECTED = (*STORY[:8], *STORY[15:18])  # the holder runs at once
ENDS = {"xen-4.8": STORY, "xen-4.5": STORY, "paper": STORY, "kvm": DIRECTED}


def run(quick: bool) -> list[Task]:
    """The story under each rule."""
    return tasks(WORLD, POLICIES, [SEED])


def told(trace: tr.Ints) -> list[tuple[int, int]]:
    """(kind, vCPU) of every event but decisions and the end of a vCPU's work, equal ones in a row once."""
    events = [(kind, vcpu) for _, kind, _, vcpu, _ in trace.tolist() if kind not in (tr.BLOCK, tr.DECIDE)]
    return [event for i, event in enumerate(events) if i == 0 or event != events[i - 1]]


def measure(task: Task) -> dict[str, int]:
    """How far the events follow the story (and the other ending), and the exits of vCPU 1 each time it runs."""
    trace = trace_of(task)
    events = told(trace)
    row = {"as_told": _common(events, STORY), "as_directed": _common(events, DIRECTED)}
    runs = tr.runs(trace, partial=True)
    exits = trace[(trace[:, 1] == tr.PLE) & (trace[:, 3] == 1)]
    visits = [len(tr.window(exits, start, stop + 1)) for _, vcpu, start, stop in runs.tolist() if vcpu == 1]
    row |= {f"exits_{i}": count for i, count in enumerate((*visits, 0, 0, 0)[:3])}
    (wait,) = tr.waits(trace)[-1:, 2:4].tolist()
    return row | {"wait": wait[1] - wait[0]}


def _common(events: list[tuple[int, int]], story: tuple[tuple[int, int], ...]) -> int:
    """How many events at the beginning are those of the story."""
    agree = [event == expected for event, expected in zip(events, story, strict=False)]
    return agree.index(False) if False in agree else len(agree)


def checks(table: Table) -> list[Check]:
    """R17."""
    row = {policy: table.where(policy=policy) for policy in POLICIES}
    found = []
    for policy, ending in ENDS.items():
        column, name = ("as_told", "told") if ending is STORY else ("as_directed", "with the holder at once")
        found.append(exactly("R17", f"{policy}: events in the order {name}", int(row[policy][column][0]), len(ending)))
    exits = {policy: f"{row[policy]['exits_0'][0]} + {row[policy]['exits_1'][0]}" for policy in POLICIES}
    found.append(exactly("R17", "xen-4.8: exits of the spinner, first and second time", exits["xen-4.8"], "1 + 1"))
    found.append(exactly("R17", "xen-4.5: the same", exits["xen-4.5"], "1 + 484"))
    waits = ", ".join(f"{policy} {row[policy]['wait'][0] / HZ * 1e3:.1f}" for policy in POLICIES)
    return [*found, Check("R17", "wait of the spinner, ms", waits)]


def draw(table: Table, path: Path) -> None:
    """The story under Xen 4.8, in the style of the paper's figures 3 to 6."""
    task = Task(WORLD, "", "xen-4.8", SEED)
    scenario, trace = world(task.scenario, task.overrides), trace_of(task)
    title = "Figure 1: vCPU 0 holds and is preempted; vCPU 1 exits, vCPU 2 runs, vCPU 1 exits again (Xen 4.8)"
    end = int(tr.waits(trace)[-1, 3])
    path.parent.mkdir(parents=True, exist_ok=True)
    timeline_figure(trace, 1, scenario.guest.vcpus, 0, end + end // 20, scenario.host.tsc_hz, title, path)


HZ = 2_670_000_000
COLUMNS = ("as_told", "as_directed", "exits_0", "exits_1", "exits_2", "wait")
EXPERIMENT = Experiment("figure1", __doc__, COLUMNS, run, checks, draw, measure)
