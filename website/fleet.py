"""The page of the fleet: what its worlds are drawn from, which draws are kept, and how the splits are held apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from experiments.answer import fleet as question
from experiments.lab.tables import committed, kept
from ple_gym.envs.interface import Interface
from ple_gym.envs.registration import FLEET_STEPS
from ple_gym.evaluate.tables import FEW
from ple_gym.scenario.fleet import (
    AXES,
    BUSIEST,
    COMBINATIONS,
    EXITS,
    LIMIT,
    MAX_VCPUS,
    RANGES,
    SPARSEST,
    SPLITS,
    WORLDS,
    world,
)
from ple_gym.scenario.fleet_draws import PASSED
from ple_gym.view.features import INTERRUPTS, table_of_all

_BEGIN = """# PLE/Fleet-v0

This page says what the fleet is: {worlds:,} small worlds to train on, and as many to choose on and to report. Each
episode is run in one of them, and the agent is not told in which. A rule that wins in one world may lose in the next.

```python
import gymnasium as gym
import ple_gym

env = gym.make("PLE/Fleet-v0")
observation, info = env.reset(seed=0)
action = env.action_space.sample(mask=info["action_mask"])
observation, reward, terminated, truncated, info = env.step(action)
print(env.unwrapped.scenario.description)  # for you, not for the agent

envs = gym.make_vec("PLE/Fleet-v0", num_envs=64)  # each lane has a world of its own
print(ple_gym.load("FleetTest-17").host.scheduler)  # a world by its name, for ple-gym compare and show, too
```

## Episodes

A seed names a world and a run in it; `reset()` without a seed goes on to the next of both. Lane i of a vector
environment is the single environment of its seed, bit for bit, through all its worlds. All options are those of other
ids but `overrides`. The step limit is {steps:,} decisions. Drawing and describing a world takes a millisecond, once in
each process.

**Action** `Discrete({actions})`: 0 to {last} are vCPUs and {room} defers. A world has fewer vCPUs; the mask has 0 for
who is not there, and such an action is illegal: it defers, and is reported.

**Observation** `Box`, float32 [{length}] (with `observation="tokens"`: vcpus [{room}, {features}], host [{host}]). It
has the same form under every host: features that a host does not have are 0, and so are those of interrupts where
nobody sees them. A vCPU that is not there is 0 in all features, and so in none of the states `asker`, `running`,
`queued` and `asleep`, of which everybody else has one. What is there is what the world's own environment shows.

{order}

## Splits

| id | for | worlds | combinations | schedulers |
|---|---|---|---|---|
{splits}

A *combination* is a version of the host, a layout and a guest kernel. Every combination is in one split alone, in a
Latin square, so that each version, each layout and each kernel is in all three. Choose between policies on
`FleetValidation`; report `FleetTest`.

{axes}

## What worlds are drawn from

A draw is a hash of split, world and name, so the same split and number give the same world on every machine. Values
that stand twice are drawn twice as often.

{ranges}

## Which draws are kept

Of each world's stream of draws the first is kept that passes:

1. The guest has at least 2 vCPUs, and no lock of a VM is used for more than {busiest} per mille of the time if all
   pCPUs work for that VM. Beyond, the lock alone decides.
2. One run under the host's own rule ends before its limit, which is {limit} times what the work takes at its VMs'
   share of the machine; it has {least} to {most:,} exits; and it has at most {sparsest} events for each exit.

The second rule throws out worlds in which there is nothing to decide or no end, and keeps episodes quick. It also
leaves out worlds that only another rule than the host's can bring to an end, and those with few exits, which are many
where guests have test-and-set or PV locks. {passed:.0%} of the draws pass. Which one was kept is written down in
`ple_gym/scenario/fleet_draws.py`, and a test draws a sample again.

## The gap of the best single rule

{gap}

### On which hosts and guests

Change of the time against the rule that the world's host has, percent, of the same 200 worlds, by version, layout,
actuator and guest kernel; in **bold** where the whole interval says so. Groups of fewer than 5 worlds are left out.

{gains}

## Where to go next

[All environments](index.md) · [Thousands of lanes](../vector.md) · [Rules](../rules.md) · [Profiles of
machines](../hosts/profiles.md)
"""


def pages() -> dict[str, str]:
    """Page -> Markdown."""
    return {"environments/Fleet.md": page()}


def page() -> str:
    """All of it, from the tables that worlds are drawn from."""
    interface = Interface(world(SPLITS[0], 0), fleet=SPLITS[0])
    (length,) = interface.observation_space().shape or ()
    return _BEGIN.format(
        worlds=WORLDS,
        steps=FLEET_STEPS,
        actions=MAX_VCPUS + 1,
        last=MAX_VCPUS - 1,
        room=MAX_VCPUS,
        length=length,
        features=interface.features,
        host=len(table_of_all().host),
        order=_order(),
        splits="\n".join(f"| {' | '.join(row)} |" for row in _splits()),
        axes=_axes(),
        ranges=_ranges(),
        busiest=BUSIEST,
        limit=LIMIT,
        least=EXITS[0],
        most=EXITS[-1],
        sparsest=SPARSEST,
        passed=_passed(),
        gap=_gap(),
        gains=_gains(),
    )


def _passed() -> float:
    """The share of draws that are kept, of those that were looked at."""
    digits = "".join(PASSED.values())
    return len(digits) / sum(int(digit, 36) + 1 for digit in digits)


def _order() -> str:
    table = table_of_all().with_more(INTERRUPTS)
    vcpu = [one for one in table.vcpu if one.level == table.vcpu[0].level]
    return (
        "The order of the features of a vCPU, at level `hypervisor`: "
        f"{', '.join(f'`{one.name}`' for one in vcpu)}. Of the host: "
        f"{', '.join(f'`{name}`' for name in table.host_names)}. Their meaning is that of [what an agent "
        "sees](../observation.md)."
    )


def _splits() -> Iterable[Sequence[str]]:
    for split, use in zip(SPLITS, ("training", "choosing", "reporting"), strict=True):
        hosts = Counter(world(split, number).host.scheduler for number in range(WORLDS))
        shares = ", ".join(f"{name} {count}" for name, count in sorted(hosts.items()))
        yield f"`PLE/{split}-v0`", use, f"{WORLDS:,}", str(len(COMBINATIONS[split])), shares


def _axes() -> str:
    rows = [
        (f"`{name}`", f"`{axis.version}`: {', '.join(axis.versions)}", f"`{axis.layout}`: {', '.join(axis.layouts)}",
         ", ".join(axis.kernels))
        for name, axis in AXES.items()
    ]  # fmt: skip
    return _table(("scheduler", "versions", "layouts", "guest kernels ([their sources](../guests.md))"), rows)


def _ranges() -> str:
    rows = [(f"`{name}`", ", ".join(map(str, one.values)), one.what, one.source) for name, one in RANGES.items()]
    return _table(("drawn", "values", "what it is", "source"), rows)


def _gap() -> str:
    if not kept(question.EXPERIMENT.name).exists():
        return "Not measured yet: `python -m experiments fleet` measures it."
    table = committed(question.EXPERIMENT.name)
    lines = [(check.metric, check.value) for check in question.checks(table)]
    told = " ".join((question.__doc__ or "").split("\n\n")[1].split())
    return f"{told} `python -m experiments fleet` measures it again; {FEW}: of fewer than 100 worlds.\n\n" + _table(
        ("", "measured"), lines
    )


def _gains() -> str:
    if not kept(question.EXPERIMENT.name).exists():
        return "Not measured yet."
    table = committed(question.EXPERIMENT.name)
    by_rule = {rule: question.gains(table, question.POLICIES.index(rule)) for rule in question.SHOWN}

    def cell(one: question.Group) -> str:
        found = one.found
        clear = found.low is not None and found.high is not None and found.low * found.high > 0
        return f"**{found.mean:+.0f}**" if clear else f"{found.mean:+.0f}"

    first = by_rule[question.SHOWN[0]]
    rows = [
        (f"{one.name} ({one.worlds})", *(cell(own[place]) for own in by_rule.values()))
        for place, one in enumerate(first)
    ]
    faster, slower = (
        sum(sign * (one.found.high if sign > 0 else one.found.low) < 0 for one in first[1:]) for sign in (1, -1)
    )
    return (
        f"`{question.SHOWN[0]}` is clearly faster in {faster} of {len(first) - 1} groups, and clearly slower in "
        f"{slower or 'none'}.\n\n" + _table(("worlds", *(f"`{rule}`" for rule in question.SHOWN)), rows)
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
