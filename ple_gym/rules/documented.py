"""What rules there are and what a rule sees, as a page: `ple-gym rules`; docs/rules.md says where each wins, too."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence

from ple_gym.rules import helpers
from ple_gym.rules.registry import ACTUATORS, Rule
from ple_gym.rules.sight import FACTS, NUMBERS, TABLES, visible_fields

#: What each visible field of a record is. Times are in cycles.
MEANINGS: Mapping[str, Mapping[str, str]] = {
    "pcpu": {
        "mode": "what is on it: IDLE, GUEST, NOISE, or POLLING for a vCPU that sleeps",
        "noise_state": "of the noise: 0: it is away, 1: the rate limit makes it wait, 2: it runs",
        "notified": "1: the exit that is due here is a long-spin notification",
        "current": "vCPU that it runs; -1: none",
        "last_vcpu": "vCPU whose data its cache holds; -1: none",
        "queued": "length of its runqueue",
        "dispatch_exits": "exits since the last dispatch here",
        "hinted": "vCPU that was favoured here by a hint since the last choice; -1: none",
        "settled": "time up to which its cycles are in the accounts",
        "exit_until": "end of the hypervisor's part of the last exit",
        "entry": "time from which the guest runs here, after exit and switch",
        "dispatched_at": "time of the last dispatch here",
        "resched_at": "time of the next reschedule request here; more than 2^60: none",
        "tick_at": "time of the scheduler's next tick here; more than 2^60: none",
        "slice_end": "end of the time slice; more than 2^60: none",
        "decided_at": "time of the last decision here",
        "locked_until": "time at which the last decision lets go of its runqueue's lock",
        "deferred_until": "time at which a preemption that is deferred must take place; 0: none is",
    },
    "vcpu": {
        "state": "RUNNING, QUEUED, BLOCKED or DONE",
        "left_by": "why it last left its pCPU: NEVER_RAN, PREEMPTED, PLE_YIELD or WENT_TO_SLEEP",
        "left_kernel": "1: it was in kernel mode then",
        "moving": "1: it leaves its pCPU to be queued elsewhere",
        "pcpu": "pCPU that it runs or is queued on, or last was",
        "ples": "its exits since its last progress",
        "pc_class": "class of the code that it spun in at its last exit",
        "vm": "its VM",
        "hint": "what the last hint at it did: NEVER_HINTED, HINT_FAILED, HINT_PENDING, HINT_IGNORED or HINT_WON",
        "chosen": "1: its window is one that was chosen (`decision.window`)",
        "last_pcpu": "pCPU that it last ran on; -1: none yet",
        "dispatches": "how often it was switched in",
        "window": "its window at present, cycles, or its count of PAUSEs; it grows with `ple.window_grow`",
        "first_ple": "time of its first exit since its last progress",
        "last_ple": "time of its last exit",
        "cpu_at_ple": "its cpu_time at its last exit, and what its window has grown by until then",
        "cpu_time": "how long it has run in all; of one that runs only up to date if the rule is `settled`",
        "queued_since": "time at which it was queued",
        "left_at": "time at which it last left its pCPU",
        "last_run": "cycles: length of its last run, from dispatch until it left",
    },
    "vm": {
        "first": "its first vCPU; they have consecutive numbers",
        "vcpus": "number of its vCPUs",
        "weight": "its share in the host's scheduler",
        "roams": "1: its vCPUs may run on any pCPU",
        "pinned": "1: each may run only where it started",
        "affinity": "else the pCPUs that they may run on, a bit each: pCPUs 0 to 63",
        "affinity_64": "pCPUs 64 to 127",
        "affinity_128": "pCPUs 128 to 191",
        "affinity_192": "pCPUs 192 to 255",
        "progress": "cycles: who has run longer than this without an exit does not spin any more",
    },
    "ipi": {
        "senders": "who has interrupted it and has no acknowledgement, bit n % 62 for vCPU n of its VM; 0: nobody",
        "pending_since": "time of the first of these interrupts; while there is none, of the last first one",
    },
}
_INDEX = {"pcpu": "p", "vcpu": "v", "vm": "m", "ipi": "v"}


def rules_page(rules: Mapping[str, Rule], head: str = "", wins: Mapping[str, str] | None = None) -> str:
    """Every built-in rule, what a rule sees, and what helps; `head` and `wins` are what was measured of them."""
    parts = [f"{_HEAD}{head}", _rules(rules.values(), wins), _parameters(rules.values()), _SEES, _facts()]
    parts += [_record(name) for name in TABLES]
    return "\n\n".join([*parts, _HELPERS, _helpers()]) + "\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _rules(rules: Iterable[Rule], wins: Mapping[str, str] | None) -> str:
    heads = ["rule", "what it does", "reads", "actuator", "information", "hypothetical", "source"]
    heads += [] if wins is None else ["where it wins"]
    return _table(
        heads,
        [
            (
                f"`{one.name}`",
                one.summary,
                one.reads,
                ACTUATORS[one.actuator],
                one.information,
                "yes" if one.hypothetical else "no",
                one.source,
                *([] if wins is None else [wins.get(one.name, "-")]),
            )
            for one in rules
        ],
    )


def _parameters(rules: Iterable[Rule]) -> str:
    rows = [
        (f"`{rule.name}`", f"`{name}`", one.default, one.kind.allowed, one.help)
        for rule in rules
        for name, one in rule.parameters.items()
    ]
    return "Parameters:\n\n" + _table(("rule", "parameter", "default", "allowed", "what it is"), rows)


def _facts() -> str:
    numbers = [(f"`see.{fact.name}`", fact.meaning) for fact in FACTS if fact.name in NUMBERS]
    queue = next(fact.meaning for fact in FACTS if fact.name == "queue")
    return _table(("number", "what it is"), [*numbers, ("`see.queue[p, i]`", queue)])


def _record(name: str) -> str:
    row = f"see.{name}[{_INDEX[name]}]"
    fields = visible_fields(TABLES[name])
    return _table((f"`{row}`", "what it is"), [(f"`.{field}`", MEANINGS[name][field]) for field in fields])


def _helpers() -> str:
    functions = [getattr(value, "py_func", value) for value in vars(helpers).values()]
    own = [one for one in functions if inspect.isfunction(one) and one.__module__ == helpers.__name__]
    return _table(
        ("helper", "what it is"),
        [
            (
                f"`{one.__name__}({', '.join(inspect.signature(one).parameters)})`",
                inspect.cleandoc(one.__doc__ or "").splitlines()[0],
            )
            for one in own
        ],
    )


_HEAD = """\
# Rules

`ple-gym rules` prints this page; `python -m experiments results` adds where each rule wins. How to write a rule is in
[write a rule](howto/write-a-rule.md), how to make it a built-in one in [add a rule](howto/add-a-rule.md). What each
rule decides is specified in [the model](model.md#11-rules). *Hypothetical*: no hypervisor has it."""

_SEES = """\
## What a rule sees

Every number is an int64. Times are in cycles, as `see.now` is. No vCPU and no pCPU are -1. An index out of range raises
IndexError, and nothing can be written. The words in capitals can be imported from `ple_gym.rules`."""

_HELPERS = """\
## Helpers

They are imported from `ple_gym.rules`. A vCPU that there is not is -1."""
