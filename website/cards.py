"""A card per registered id: action, observation, reward, start, end, options, typical scores; and the table of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np

from experiments.lab.tables import Table, committed
from experiments.learning import trained, typical
from ple_gym.envs.interface import LEVELS, Interface
from ple_gym.envs.registration import MAX_EPISODE_STEPS, environment_id
from ple_gym.evaluate import Comparison, Row
from ple_gym.evaluate.tables import FEW
from ple_gym.lanes import INFORMATION
from ple_gym.rules import RULES
from ple_gym.scenario import Scenario
from ple_gym.scenario.builtin import SCENARIOS, SUITES, VERSIONS
from ple_gym.view.features import seen_in
from ple_gym.view.rows import Feature

SUITE = {
    "micro": "small, with a known best answer",
    "train": "for speed and for training",
    "repro": "the paper's experiments",
    "core": "where something can be learned",
    "deploy": "hosts and guests that people run",
}
#: What is seen in a picture that is drawn with the site (website/pictures.py).
DRAWN = {
    "Tiny": "The lock is free, but whose turn it is waits off the only pCPU; who has that spins for a millisecond.",
    "Busy8": "vCPUs that spin (coloured lines) have most of the time; whose turn it is waits for a pCPU.",
    "Paper8": "vCPU 2 is next in line behind vCPU 6, which computes; the others spin, 484 exits in a coloured line.",
    "Paper32": "Most of the benchmark's vCPUs that get a pCPU spin for a millisecond (coloured lines).",
    "KvmServer614": "vCPU 2 holds a lock and has no pCPU (red): 0, 1 and 3 spin. 4 to 7 serve, 8 to 11 compute.",
    "KvmServer614Flat": "vCPUs 0 to 3 take locks, 4 to 7 serve, 8 to 11 compute. Circles are exits of who spins.",
    "KvmServer618": "vCPUs 0 to 3 take locks, 4 to 7 serve, 8 to 11 compute. Circles are exits of who spins.",
    "KvmServer618Flat": "vCPUs 0 and 2 spin and hint away their pCPUs (yellow); 4 to 7 serve, 8 to 11 compute.",
    "KvmFlushes618Flat": "vCPUs 0 to 3 spin for locks and answers, and hint their pCPUs away; 4 to 7 serve.",
    "KvmEbizzy": "Circles in a row: a vCPU spins until all its siblings have flushed. Some have no pCPU (no grey).",
    "KvmShootdown": "vCPUs spin until siblings without a pCPU have flushed, and yield after a few exits.",
    "KvmDbench": "From red to green a vCPU waits for a lock: it spins, yields, and has its pCPU back.",
    "KvmWindows": "A red bar is a lock's holder that lost its pCPU: its siblings spin until it is back.",
    "XcpWindows": "Waiters exit again and again; a yield hands the pCPU from one to the next (stripes above).",
    "Consolidated": "A VM whose lock is free: its vCPUs spin for a millisecond, and whose turn it is has no pCPU.",
}
PICTURES = {
    "Storm": ("../results/storm_before.png", "The first two milliseconds of a Storm under Xen 4.8's rule."),
    "HolderPreempted": ("../understand/holder.png", "HolderPreempted under Xen 4.5's rule: 484 exits."),
    "TicketOrder": ("../understand/order.png", "TicketOrder under Xen 4.8's rule."),
    **{name: (f"{name}.png", text) for name, text in DRAWN.items()},
}
#: What version 1 changed, of all that have one and of some.
STAYS = (
    "who asks keeps its place in its queue when a vCPU is pulled from another one (`decision.pull_swaps` is off), as "
    "under Xen and in the paper"
)
_SIX = "all six pCPUs of the paper's machine earn credit, dom0's two as well (`host.credit_pcpus` is 6)"
MORE = {"Busy8": (_SIX,), "Paper8": (_SIX, "dom0 takes no time of the guest's pCPUs (`noise.rate_hz` is 0)")}


def pages() -> dict[str, str]:
    """Page -> Markdown: a card for every id."""
    return {f"environments/{name}.md": card(name) for name in SCENARIOS}


def card(name: str) -> str:
    """The card of a built-in scenario's id."""
    scenario = SCENARIOS[name]
    parts = [
        f"# {environment_id(name)}",
        f"{scenario.description}. This card says what an agent sees, does and gets here, and what others get.",
        *_picture(name),
        _summary(name, scenario),
        _make(name),
        "## Action",
        _actions(scenario),
        "## Observation",
        _observations(scenario),
        "## Reward, start and end",
        _course(name, scenario),
        "## Typical scores",
        _scores(name),
        "## Version history",
        _history(name),
        "## Where to go next",
        "[First agent](../start/first-agent.md) · [All options](../reference/python.md#ple_gym.PleEnv) · "
        "[Thousands of lanes](../vector.md) · [Scenarios in a file](../howto/describe-your-machine.md)",
    ]
    return "\n\n".join(parts) + "\n"


def _picture(name: str) -> list[str]:
    if name not in PICTURES:
        return []
    file, text = PICTURES[name]
    return [f"![{text}]({file})", f"*{text} [How to read it](../howto/read-a-timeline.md).*"]


def _summary(name: str, scenario: Scenario) -> str:
    interface = Interface(scenario)
    (length,) = interface.observation_space().shape or ()
    tokens = f"vcpus [{scenario.vcpus}, {interface.features}], host [{len(seen_in(scenario).host)}]"
    rows = {
        "id": f"`{environment_id(name)}`",
        "suite": f"`{SUITES[name]}`: {SUITE[SUITES[name]]}",
        "machine": f"{_count(scenario.host.pcpus, 'pCPU')}, {_count(scenario.vcpus, 'vCPU')} in "
        f"{_count(len(scenario.vms()), 'VM')}, scheduler `{scenario.host.scheduler}`",
        "action space": f"`Discrete({scenario.vcpus + 1})`",
        "observation space": f'`Box`, float32 [{length}] (with `observation="tokens"`: {tokens})',
        "step limit": f"{MAX_EPISODE_STEPS[name]:,} decisions; longest of {typical.SEEDS} runs: {_longest(name)}",
        "parameters": f"`ple-gym show {environment_id(name)}` prints all of them",
    }
    return _table(("this id", ""), rows.items())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _make(name: str) -> str:
    return f"""```python
import gymnasium as gym
import ple_gym

env = gym.make("{environment_id(name)}")
observation, info = env.reset(seed=0)
action = env.action_space.sample(mask=info["action_mask"])
observation, reward, terminated, truncated, info = env.step(action)
```"""


def _actions(scenario: Scenario) -> str:
    last = scenario.vcpus - 1
    rows = [
        (f"0 to {last}", "run this vCPU on the pCPU of the exit; the asker's own number resumes it"),
        (str(scenario.vcpus), "defer: the host's scheduler chooses, as after a yield"),
    ]
    mask = (
        f'`info["action_mask"]`, int8 [{scenario.vcpus + 1}], is 1 where an action is legal. The asker and the last '
        'action always are. An illegal action defers and is reported in `info["illegal_action"]`; with '
        '`illegal="raise"` it raises. '
        f"The actuator is `{scenario.actuator}` ([what actuators can do](../understand/machine.md#actuators))."
    )
    return _table(("action", "what it does"), rows) + "\n\n" + mask


def _observations(scenario: Scenario) -> str:
    table, levels = seen_in(scenario), {code: name for name, code in INFORMATION.items()}
    vcpu = table.of_vcpu(max(INFORMATION[level] for level in LEVELS))
    flat = (
        f"The flat vector holds each feature for all {scenario.vcpus} vCPUs, feature by feature, and then the host's. "
        "A higher `information` level adds features of vCPUs and changes nothing else. "
        "[What an agent sees](../observation.md) says what L means."
    )
    return "\n\n".join([flat, _features("of every vCPU", vcpu, levels), _features("of the host", table.host, levels)])


def _features(whose: str, features: Sequence[Feature], levels: dict[int, str]) -> str:
    rows = (
        (f"`{one.name}`", levels[one.level], one.meaning, f"{one.range[0]:g} to {one.range[1]:g}") for one in features
    )
    return _table((whose, "level", "meaning", "range"), rows)


def _course(name: str, scenario: Scenario) -> str:
    guest = scenario.guest
    lines = [
        "**Reward** `waste` (the default), in milliseconds of the whole machine: minus the pCPU time since the "
        "previous decision that was no guest progress. `time` is minus the time itself; `fair` adds how far VMs fall "
        "behind.",
        f"**Start**: `reset(seed=n)` starts world n at its first decision. The guest begins `{guest.start}`. "
        '`start="storm"` begins inside a storm of exits.',
        f"**End**: `terminated` when the guest's {guest.transactions:,} transactions are done, `truncated` at "
        f'{scenario.limit.simulated_s:g} s of simulated time or at the step limit. Then `info["ple_episode"]` holds '
        "makespan, exits and where the time went.",
        '**Arguments** of `gym.make`: `information` ("hypervisor", "introspection", "oracle"), `observation` ("flat", '
        '"tokens"), `observation_dtype` ("float32", "float16", "uint8"), `reward` ("waste", "time", "fair", '
        '"response"), `start` ("first", "storm"), `illegal` ("defer", "raise"), `infos` ("sparse", "uniform"), '
        '`overrides` (`{"host.ratelimit_us": 500}`), `render_mode` ("ansi", "rgb_array"), `max_episode_steps`.',
    ]
    return "\n\n".join(lines)


@cache
def _runs() -> Table:
    return committed(typical.EXPERIMENT.name)


@cache
def _compared(name: str) -> Comparison:
    return typical.compared(_runs(), _version(name))


def _scores(name: str) -> str:
    here = _compared(name)
    rows = {row.policy: row for row in here.rows()}
    learned = [row for row in rows.values() if row.policy not in RULES]
    wanted = [("random", "random"), ("the host's own", here.own_rule)]
    wanted += [("yields", "host")] if here.own_rule != "host" else []
    wanted.append(("spins on", "continue"))
    wanted.append(("best rule" if learned else f"best of {len(here.members)} rules", str(here.best_rule)))
    if learned:
        wanted.append(("best learner", min(learned, key=lambda row: row.makespan_s.mean).policy))
    wanted.append(("knows the locks", "oracle"))
    lines = [(f"{what}: `{policy}`", *_numbers(rows[policy])) for what, policy in wanted if policy in rows]
    lines.append(("ideal, out of reach", f"{1e3 * _ideal(here):,.4g}", "-", "1"))
    note = (
        f"Means over {len(here.seeds)} test worlds, from the committed results. *Score* is 0 for `{here.baseline}` "
        "and 1 for the ideal. "
    )
    if learned:
        note += "Learners, two trainings each, are those of [the leaderboard](../leaderboard.md)."
    else:
        note += f"Nothing is trained on it yet. `ple-gym compare {environment_id(name)}` compares all rules."
    return note + "\n\n" + _table(("policy", "makespan, ms", "exits", "score"), lines)


def _longest(name: str) -> str:
    here = _compared(name)
    longest = {one: max(run["ple_exits"] for run in here.runs[one]) for one in ("random", "host", str(here.best_rule))}
    return ", ".join(f"{exits:,} (`{one}`)" for one, exits in longest.items())


def _version(name: str) -> str:
    return environment_id(name).removeprefix("PLE/")


def _history(name: str) -> str:
    """A line per version, the newest first."""
    first = f"`v0`: the first version. `ple-gym show PLE/{name}-v0` prints it."
    raised = "A change of what the scenario computes raises the version ([changelog](../project/changelog.md))."
    if not VERSIONS[name]:
        return f"- {first} {raised}"
    here = typical.changes(_runs(), _version(name))
    effects = ", ".join(f"`{rule}` {trained.percent(change)}" for rule, change in here.items())
    worlds = len(typical.both_seeds(_version(name)))
    return (
        f"- `v1`: {'; '.join((STAYS, *MORE.get(name, ())))}. Makespans against those of v0, in the same {worlds} "
        f"worlds, with 95 % intervals ({FEW}: of few that differ): {effects}.\n- {first}\n\n{raised}"
    )


def _numbers(row: Row) -> tuple[str, str, str]:
    """Makespan, exits and score of a row."""
    makespan = f"{1e3 * row.makespan_s.mean:,.4g}" + (" (cut off)" if row.capped else "")
    return makespan, f"{row.ple_exits:,.0f}", "-" if row.score is None else f"{row.score.mean:.2f}"


def _ideal(here: Comparison) -> float:
    """Useful work over pCPUs, of runs that finished, seconds."""
    return float(np.mean([run["ideal_s"] for run in here.runs["oracle"]]))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
