"""Which findings survive? Every choice that no source settles is varied, one at a time, for every rule of the answer.

Where the vCPU goes that a pulled one displaces (`decision.pull_swaps`: neither Xen nor the paper swaps), whose credit
is handed out (`host.credit_pcpus`: that of all six pCPUs, if dom0's two were only pinned), what a rule can do
(`decision.actuator`), which lock the guest has and what else its vCPUs wait for, whether they ever sleep, whether it
has more threads than them, and which scheduler the host has. A sentence is a finding if its sign is the same in all of
them; else it depends on what changes the sign. Each world is also run without PLE (`ple.gap=0`), which section 4.4 of
the paper takes for the same as Xen 4.5. On hosts other than Xen 4.5, its rule is a plain yield, and the paper's
proposal brings work from other pCPUs only where the scheduler has a steal.

A row holds one seed under every rule: the time under Xen 4.5, and how much longer it is under the others, in
microseconds, to 13 bits; and the exits under Xen 4.5, of whole runs of `Paper8` alone. Short runs are cut off after two
seconds, which is then their time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from experiments.answer.answer import IN_LINE
from experiments.answer.rules import BASE, PAIRED, PROPOSAL, RULES, in_percent, paired, paired_logs, percent
from experiments.lab import Experiment, Table, Task, overrides_text, seeds, tasks, world
from experiments.lab.pictures import COLOURS, picture
from experiments.lab.report import Check
from experiments.lab.worlds import load_world
from ple_gym.evaluate.statistics import ENOUGH_DIFFERING, Estimate, ratio

NO_PLE = "no PLE"
PROPOSAL_ELSEWHERE = "paper-local"  # on schedulers without the steal that the paper's proposal is made of
OTHERS = (*(rule for rule in RULES if rule != BASE), NO_PLE)

#: Of runs that take a few tenths of it elsewhere: on some hosts storms never end.
CUT_OFF: Mapping[str, object] = {"limit.simulated_s": 2}
#: What is shown as -> scenario and overrides.
WORLDS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "Paper8": ("Paper8-v1", {}),
    "Paper32": ("Paper32-v1", {}),
    "Paper8 in line": ("Paper8-v1", IN_LINE | CUT_OFF),
    "Paper32 in line": ("Paper32-v1", IN_LINE | CUT_OFF),
    "Busy8": ("Busy8-v1", CUT_OFF),
}
HINT = {"decision.actuator": "hint"}
SWAP = {"decision.pull_swaps": "true"}
FOUR, SIX = {"host.credit_pcpus": 0}, {"host.credit_pcpus": 6}
#: dom0's bursts on the guest's pCPUs, as calibrated against Figure 2: `Paper8` had them in version 0.
NOISE = {f"noise.{name}": value for name, value in asdict(load_world("Paper8-v0").noise).items()}
FAIR = {"host.scheduler": "fair", "host.groups": "vm", "ple.window_grow": 2}
BLOCKS = {"guest.block_probability": 0.02, "guest.block": "exponential 267000"}
#: What is changed -> overrides. The first changes nothing.
SHIPPED = "as shipped"
VARIANTS: Mapping[str, Mapping[str, object]] = {
    SHIPPED: {},
    "swap": SWAP,
    "pool of 4": FOUR,
    "pool of 6": SIX,
    "swap, pool of 4": SWAP | FOUR,
    "swap, pool of 6": SWAP | SIX,
    "local": {"decision.actuator": "local"},
    "hint": HINT,
    "hint, yield skips the limit": HINT | {"host.yield_bypasses_ratelimit": "true"},
    "hint, no limit": HINT | {"host.ratelimit_us": 0},
    "MCS locks": {"guest.lock_kind": "mcs"},
    "MCS locks that halt": {"guest.lock_kind": "mcs", "guest.pv_spin_threshold": 1 << 15},
    "unfair locks": {"guest.lock_kind": "tas"},
    "2 % of sections block": BLOCKS,
    "128 threads, 2 % block": {"guest.threads": 128} | BLOCKS,
    "PV locks": {"guest.lock_kind": "pv", "guest.pv_spin_threshold": 1 << 15},
    "Windows": {"guest.lock_kind": "mcs", "guest.notify_after": 2047},
    "timer ticks": {"guest.tick_us": 4000},
    "dom0's noise": NOISE,
    "Xen 4.18": {"host.xen": "4.18"},
    "credit2": {"host.scheduler": "credit2", "host.xen": "4.18"},
    "Linux 5.15": FAIR | {"host.linux": "5.15"},
    "Linux 6.18.2": FAIR | {"host.linux": "6.18.2"},
}
WHOLE, SHORT = 200, 100  # seeds; nine of ten whole runs have no storm


def overrides(world: str, variant: str) -> dict[str, object]:
    """Of a world under a variant."""
    return {**WORLDS[world][1], **VARIANTS[variant]}


def run(quick: bool) -> list[Task]:
    """Every world under every variant."""
    wanted = []
    for name, (scenario, changes) in WORLDS.items():
        count = 2 if quick else SHORT if changes else WHOLE
        for variant in VARIANTS:
            wanted += tasks(scenario, PAIRED, seeds.ANSWER[:count], overrides(name, variant))
    return wanted


def measure(task: Task) -> dict[str, int]:
    """One seed under every rule, and without PLE."""
    without = task._replace(policy=BASE, overrides=";".join(filter(None, (task.overrides, "ple.gap=0"))))
    steals = world(task.scenario, task.overrides).host.scheduler == "credit"
    rules = [PROPOSAL_ELSEWHERE if rule == PROPOSAL and not steals else rule for rule in RULES]
    found = paired(task, rules, 13, {NO_PLE: without})
    whole = task.scenario == WORLDS["Paper8"][0] and "guest.start" not in task.overrides
    return {**found, PROPOSAL: found[rules[RULES.index(PROPOSAL)]], "exits": found["exits"] * whole}


def part(table: Table, world: str, variant: str) -> Table:
    """The rows of a world under a variant."""
    return table.where(scenario=WORLDS[world][0], overrides=overrides_text(overrides(world, variant)))


@dataclass(frozen=True)
class Claim:
    """A sentence, and what it says of a rule against Xen 4.5.

    Attributes:
        text: the sentence.
        rule: whose makespan it is about.
        sign: -1 if it says that the rule's is shorter, 1 if longer.
        without: variants that the sentence itself leaves out.
    """

    text: str
    rule: str
    sign: int
    without: tuple[str, ...] = ()


CLAIMS = (
    Claim("Without PLE the work takes longer than under Xen 4.5, unless waiters halt or call the hypervisor by "
          "themselves", NO_PLE, 1, without=("MCS locks that halt", "PV locks", "Windows")),
    Claim("On Xen, with its rate limit, `spin-age-self`, which runs a likely holder or the oldest spinner of the "
          "asker's VM on what a hypervisor sees, is faster than a yield wherever it may name a vCPU of another pCPU's "
          "queue",
          "spin-age-self", -1, without=("local", "hint, no limit", "Linux 5.15", "Linux 6.18.2")),
    Claim("`kvm` (KVM's candidate order) is faster than Xen 4.5", "kvm", -1),
    Claim("the paper's proposal is faster than Xen 4.5", "paper", -1),
    Claim("a yield that skips the rate limit (Xen 4.8) is faster than Xen 4.5", "xen-4.8", -1),
    Claim("`longest-waiting`, of any VM, is faster than Xen 4.5", "longest-waiting", -1),
)  # fmt: skip


TICKS = (-50, -10, -3, 0, 3, 10, 100, 1000)
WORDS = {-1: "faster", 1: "slower"}


@dataclass(frozen=True)
class Grid:
    """Changes of the makespan of one rule against Xen 4.5, in percent: (world, variant) -> estimate."""

    rule: str
    changes: Mapping[tuple[str, str], Estimate]

    def where(self, wanted: int, without: Sequence[str] = ()) -> list[tuple[str, str]]:
        """The places with this sign; those where a variant changes nothing for the rule are counted once."""
        first = {(world, change): (world, variant) for (world, variant), change in reversed(self.changes.items())}
        places = [place for place in self.changes if place in first.values() and place[1] not in without]
        return [place for place in places if sign(self.changes[place]) == wanted]


def sign(change: Estimate) -> int:
    """-1 or 1 if the whole interval lies there and rests on enough, else 0."""
    if change.low is None or change.high is None or change.few:
        return 0
    return -1 if change.high < 0 else 1 if change.low > 0 else 0


@lru_cache(maxsize=32)
def grid(table: Table, rule: str) -> Grid:
    """One rule everywhere."""
    places = [(world, variant) for world in WORLDS for variant in VARIANTS]
    return Grid(rule, {place: in_percent(ratio(paired_logs(part(table, *place), rule))) for place in places})


def survives(table: Table, claim: Claim) -> bool:
    """Whether nothing speaks against a claim, and something for it."""
    one = grid(table, claim.rule)
    return bool(one.where(claim.sign, claim.without)) and not one.where(-claim.sign, claim.without)


def told(table: Table, claim: Claim) -> str:
    """A claim and its grid in a line."""
    one = grid(table, claim.rule)
    for_it, against, unclear = (one.where(sign, claim.without) for sign in (claim.sign, -claim.sign, 0))
    text = f"{claim.text}: {len(for_it)} of {len(for_it) + len(against) + len(unclear)} cells are clearly"
    text += f" {WORDS[claim.sign]}, {len(unclear)} unclear, {len(against) or 'none'} clearly {WORDS[-claim.sign]}."
    return text + (_left_out(one, claim) if not against else _depends(one))


def _depends(one: Grid) -> str:
    """What a sign depends on: the world, and what turns it round there."""
    shipped = {world: sign(one.changes[world, SHIPPED]) for world in WORLDS}
    by_world = [
        f"{word} in {', '.join(world for world in WORLDS if shipped[world] == wanted)}"
        for wanted, word in WORDS.items()
        if wanted in shipped.values()
    ]
    turned = {
        variant: [world for world in WORLDS if sign(one.changes[world, variant]) * shipped[world] < 0]
        for variant in VARIANTS
    }
    clear = {
        variant: [world for world in WORLDS if not shipped[world] and sign(one.changes[world, variant])]
        for variant in VARIANTS
    }
    texts = [f"{variant} ({', '.join(worlds)})" for variant, worlds in turned.items() if worlds]
    signs = [
        f"{variant} ({', '.join(f'{world}: {WORDS[sign(one.changes[world, variant])]}' for world in worlds)})"
        for variant, worlds in clear.items()
        if worlds
    ]
    text = f" As shipped it is {', '.join(by_world)}." if by_world else ""
    text += f" The sign is turned round by: {'; '.join(texts)}." if texts else ""
    return text + (f" Where it is unclear as shipped: {'; '.join(signs)}." if signs else "")


def _left_out(one: Grid, claim: Claim) -> str:
    """What a claim that survives says nothing of, where that has the other sign."""
    other = [place for place in one.where(-claim.sign) if place[1] in claim.without]
    texts = [f"{world}: {percent(one.changes[world, variant])}" for world, variant in other]
    return f" Left out: {', '.join(claim.without)} ({'; '.join(texts)})." if texts else ""


def checks(table: Table) -> list[Check]:
    """The claims, then every rule in every world under every variant."""
    found = []
    if all(len(part(table, world, variant)) >= ENOUGH_DIFFERING for world in WORLDS for variant in VARIANTS):
        for claim in CLAIMS:
            kept = "a finding" if survives(table, claim) else "depends"
            found.append(Check("robustness", kept, told(table, claim)))
    for rule in OTHERS:
        one = grid(table, rule)
        found += [
            Check("robustness", f"`{rule}`, {world}: {variant}", percent(change))
            for (world, variant), change in one.changes.items()
        ]
    return found


def draw(table: Table, path: Path) -> None:
    """A panel per rule, a line per variant, a colour per world."""
    shown = [rule for rule in OTHERS if rule not in ("spin-age", "oracle")]
    with picture(path, 13, 13, nrows=2, ncols=3, sharey=True) as (figure, axes):
        for axis, rule in zip(axes.flat, shown, strict=True):
            one = grid(table, rule)
            for number, world in enumerate(WORLDS):
                for height, variant in enumerate(reversed(VARIANTS)):
                    change = one.changes[world, variant]
                    place = height + 0.13 * (2 - number)
                    if change.low is not None and change.high is not None:
                        axis.plot([change.low, change.high], [place] * 2, color=COLOURS[number], linewidth=1.5)
                    label = world if height == 0 else None
                    axis.plot(change.mean, place, "o", color=COLOURS[number], markersize=3, label=label)
            axis.axvline(0, color="0.5", linewidth=0.8)
            axis.set_xscale("symlog", linthresh=5, subs=None)
            axis.set_xticks(TICKS, [f"{tick:+d}" if tick else "0" for tick in TICKS])
            axis.set_xlim(-85, 2500)
            axis.set_yticks(range(len(VARIANTS)), list(reversed(VARIANTS)))
            axis.set_title(rule, fontsize="medium")
            axis.set_xlabel(f"makespan against {BASE}, %")
        worlds = axes[0, 0].get_legend_handles_labels()
        figure.legend(*worlds, ncols=len(WORLDS), frameon=False, fontsize="small", loc="outside lower center")


EXPERIMENT = Experiment("robustness", __doc__, (*RULES, NO_PLE, "exits", "unfinished"), run, checks, draw, measure)
