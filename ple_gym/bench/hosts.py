"""What an event costs under each host's scheduler, against Xen's credit, and on big machines."""

from __future__ import annotations

from ple_gym.bench.kernel import cost, storm, take_turns
from ple_gym.bench.report import RULE, Measurement, at_most, plain
from ple_gym.rules.own import own_rule
from ple_gym.scenario.model import Scenario

OTHERS = ("credit2", "fair")
SIZES = ((4, 32), (16, 64))
RULES = ("host", RULE)
BIG = {(64, 1024): 2.0, (256, 1024): None}  # pCPUs, vCPUs -> times the cost at 4x32 that is allowed


def host_rows(repeats: int, seconds: float) -> list[Measurement]:
    """Ratios of costs per event, in one run."""
    rows = []
    for rule in RULES:
        for pcpus, vcpus in SIZES:
            scenario = storm(pcpus, vcpus)
            hosts = {name: _under(name, scenario) for name in ("credit", *OTHERS)}
            costs = _costs(hosts, rule, repeats, seconds)
            for name in OTHERS:
                title = f"kernel, Storm {pcpus}x{vcpus}, {rule}, {name} : credit"
                note = f"{costs[name]:.1f} : {costs['credit']:.1f} ns/event"
                rows.append(at_most(title, costs[name] / costs["credit"], "", 1.5, note))
    for name in ("credit", *OTHERS):
        rows += _big_rows(name, repeats, seconds)
    return rows


def _big_rows(scheduler: str, repeats: int, seconds: float) -> list[Measurement]:
    """What an event costs on big machines under the host's own rule, against 4x32; the biggest under credit alone."""
    big = {size: most for size, most in BIG.items() if most is not None or scheduler == "credit"}
    sizes = {(pcpus, vcpus): _under(scheduler, storm(pcpus, vcpus)) for pcpus, vcpus in ((4, 32), *big)}
    rule = own_rule(sizes[4, 32])
    costs = _costs({f"{pcpus}x{vcpus}": scenario for (pcpus, vcpus), scenario in sizes.items()}, rule, repeats, seconds)
    rows = []
    for (pcpus, vcpus), most in big.items():
        name, host = f"{pcpus}x{vcpus}", rule if scheduler == "credit" else f"{scheduler}, {rule}"
        title, ratio = f"kernel, Storm {name} : 4x32, {host}, cost per event", costs[name] / costs["4x32"]
        note = f"{costs[name]:.1f} : {costs['4x32']:.1f} ns/event"
        rows.append(plain(title, ratio, "", note) if most is None else at_most(title, ratio, "", most, note))
    return rows


def _under(scheduler: str, scenario: Scenario) -> Scenario:
    return scenario.with_overrides({"host.scheduler": scheduler, "decision.actuator": "hint"})


def _costs(scenarios: dict[str, Scenario], rule: str, repeats: int, seconds: float) -> dict[str, float]:
    """CPU time per event of each, nanoseconds."""
    return {name: cost(batches) for name, batches in take_turns(scenarios, rule, repeats, seconds).items()}
