"""Scenarios: what is allowed, what is said when it is not, round trips, profiles, and the quantile tables."""

import math
import pickle
from dataclasses import FrozenInstanceError, replace
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ple_gym.lanes import Lanes
from ple_gym.scenario import (
    PROFILES,
    Cost,
    Decision,
    Host,
    Limit,
    Noise,
    Ple,
    Scenario,
    ScenarioError,
    Vm,
    describe_parameters,
)
from ple_gym.scenario.builtin import SCENARIOS, VERSIONS, load
from ple_gym.scenario.distributions import QUANTILES, parse, quantile_table
from ple_gym.scenario.model import AS_IN_XEN, XEN
from ple_gym.scenario.profiles import GUESTS
from ple_gym.sim.guest.kinds import HALTING

DEFAULT = Scenario()
A_LOCK_KIND = describe_parameters()["guest.lock_kind"][0]
CROWD = Scenario(neighbours=(Vm(vcpus=4), Vm(vcpus=2, locks=0)))

# --- random scenarios -------------------------------------------------------------------------------------------------

values = st.integers(1, 10**11)
probabilities = st.floats(0, 1)
costs = st.integers(1, 10**8)
lines_of_text = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20)


@st.composite
def knots(draw):
    inner = sorted(draw(st.sets(st.integers(1, 10**6 - 1), max_size=8)))
    size = len(inner) + 2
    levels = sorted(draw(st.lists(values, min_size=size, max_size=size)))
    chances = [Decimal(millionths) / 10**6 for millionths in [0, *inner, 10**6]]
    return "knots " + " ".join(f"{u:f}:{level}" for u, level in zip(chances, levels, strict=True))


laws = st.one_of(
    values.map("constant {}".format),
    st.tuples(values, values).map(lambda pair: f"uniform {min(pair)} {max(pair)}"),
    values.map("exponential {}".format),
    knots(),
)
vms = st.builds(
    Vm,
    vcpus=st.integers(1, 300),
    weight=st.integers(1, 65_535),
    locks=st.integers(1, 4096),
    lock_kind=st.sampled_from(["ticket", "mcs"]),
    transactions=st.integers(0, 10**9),
    sections=st.integers(1, 64),
    compute=laws,
    hold=laws,
    block=laws,
    kernel_share=probabilities,
    lock_probability=probabilities,
    hot_probability=probabilities,
    block_probability=probabilities,
    spin_period=st.integers(1, 10**6),
    spin_in_user_mode=st.booleans(),
    pv_spin_threshold=st.integers(0, 10**9),
    pc_classes=st.integers(1, 4096),
    start=st.sampled_from(["fresh", "convoy"]),
)
pollers = st.integers(1, 256).flatmap(
    lambda pcpus: st.builds(
        Host,
        pcpus=st.just(pcpus),
        sockets=st.integers(1, min(64, pcpus)),
        tsc_hz=st.integers(10**8, 10**10),
        timeslice_ms=st.integers(1, 1000),
        ratelimit_us=st.just(0) | st.integers(100, 1000),
        xen=st.sampled_from(XEN),
        runqueue=st.sampled_from(["cpu", "socket", "all"]),
        yield_bypasses_ratelimit=st.booleans() | st.just(AS_IN_XEN),
        fresh_ratelimit_slice=st.booleans() | st.just(AS_IN_XEN),
        scheduler=st.sampled_from(["credit", "fair"]),
        placement=st.sampled_from(["spread", "stacked"]),
        linux=st.sampled_from(["5.15", "6.6", "6.12", "6.14", "6.18", "6.18.2"]),
        groups=st.sampled_from(["vm", "vcpu"]),
        base_slice_us=st.just(0) | st.integers(100, 100_000),
        wakeup_granularity_us=st.integers(0, 10**6),
        tick_us=st.integers(100, 100_000),
        skew_tick=st.booleans(),
        tick_jitter_cycles=st.integers(0, 10_000),
        load_balance=st.booleans(),
        halt_poll_us=st.integers(0, 1_000_000),
        debooster=st.sampled_from(["off", "ishiguro", "li"]),
        kick_yields=st.booleans(),
        migration_cost_us=st.integers(0, 100_000),
    )
)
OFF = {"halt_poll_us": 0, "debooster": "off", "kick_yields": False}
hosts = pollers.map(lambda host: host if host.scheduler == "fair" else replace(host, **OFF))
noises = st.builds(
    Noise,
    rate_hz=st.integers(0, 10**6),
    burst_us=st.integers(1, 10**6),
    level=laws,
    cap_permille=st.integers(1, 999),
)
ples = st.builds(
    Ple,
    kind=st.sampled_from(["window", "count"]),
    gap=st.integers(0, 10**6),
    window=st.integers(1, 10**9),
    window_grow=st.integers(0, 10**9),
    window_shrink=st.integers(0, 10**9),
    window_max=st.integers(1, 2**32 - 1),
    count=st.integers(0, 10**6),
)


def scenario_or_none(**parts):
    try:
        return Scenario(**parts)
    except ScenarioError as error:
        if "weight x vcpus" in str(error):  # the one rule that this strategy cannot keep to by construction
            return None
        raise


scenarios = st.builds(
    scenario_or_none,
    name=lines_of_text,
    description=lines_of_text,
    host=hosts,
    noise=noises,
    cost=st.builds(Cost, costs, costs, costs, costs, costs, costs, costs),
    ple=ples,
    decision=st.builds(Decision, st.sampled_from(["pull", "local", "hint"]), st.booleans()),
    limit=st.builds(Limit, st.floats(0, 3600, exclude_min=True)),
    guest=vms,
    neighbours=st.lists(vms, max_size=2),
).filter(lambda scenario: scenario is not None)


# --- round trips ------------------------------------------------------------------------------------------------------


@given(scenarios)
@settings(deadline=None)
def test_round_trips_are_exact(scenario):
    assert Scenario.from_dict(scenario.to_dict()) == scenario
    assert Scenario.from_json(scenario.to_json()) == scenario
    assert Scenario.from_toml(scenario.to_toml()) == scenario
    assert scenario.with_overrides(scenario.parameters()) == scenario
    assert pickle.loads(pickle.dumps(scenario)) == scenario


@given(scenarios)
@settings(deadline=None)
def test_parameters_round_trip_through_typed_text(scenario):
    typed = {name: str(value) for name, value in scenario.parameters().items()}
    vms = 1 + len(scenario.neighbours)
    blank = Scenario(neighbours=(Vm(vcpus=1),) * (vms - 1))
    assert blank.with_overrides(typed) == scenario


@given(laws)
@settings(deadline=None)
def test_distribution_text_is_canonical(text):
    canonical = str(parse(text))
    assert parse(canonical) == parse(text)
    assert str(parse(canonical)) == canonical
    assert Vm(hold=text).hold == canonical


def test_equal_distributions_are_equal_values():
    assert Vm(hold="  knots 0:1_000  .50:2000 1.0:3000") == Vm(hold="knots 0:1000 0.5:2000 1:3000")
    assert Vm(hold="uniform 7 7").hold == "constant 7"


@pytest.mark.parametrize("read", [Scenario.from_json, Scenario.from_toml])
def test_what_is_left_out_takes_its_default(read):
    text = '{"host": {"pcpus": 2}}' if read == Scenario.from_json else "[host]\npcpus = 2"
    assert read(text) == Scenario(host=Host(pcpus=2))


def test_a_scenario_is_frozen_and_hashable():
    with pytest.raises(FrozenInstanceError):
        DEFAULT.name = "other"
    assert hash(CROWD) == hash(replace(CROWD))
    assert replace(CROWD, neighbours=list(CROWD.neighbours)) == CROWD


def test_values_take_their_plain_form():
    whole = pytest.importorskip("numpy").int64(2)
    scenario = DEFAULT.with_overrides({"host.pcpus": whole, "limit.simulated_s": whole})
    assert type(scenario.host.pcpus) is int
    assert type(scenario.limit.simulated_s) is float


# --- ranges -----------------------------------------------------------------------------------------------------------

WIDE_HOST = Host(pcpus=64, timeslice_ms=1000)
EDGES = [
    ("host.pcpus", 1, 256, False),
    ("host.sockets", 1, 64, False),
    ("host.tsc_hz", 10**8, 10**10, False),
    ("host.timeslice_ms", 1, 1000, False),
    ("host.ratelimit_us", 100, 500_000, True),
    ("noise.rate_hz", 1, 10**6, True),
    ("noise.burst_us", 1, 10**6, False),
    ("noise.cap_permille", 1, 999, False),
    ("cost.exit", 1, 10**8, False),
    *(
        (f"cost.{name}", 0, 10**8, False)
        for name in ("switch", "cache", "migration", "remote_migration", "ipi", "line")
    ),
    ("ple.gap", 1, 10**6, True),
    ("ple.window", 1, 10**9, False),
    ("ple.count", 1, 10**6, True),
    ("guest.vcpus", 1, 1024, False),
    ("guest.weight", 1, 65_535, False),
    ("guest.locks", 1, 4096, True),
    ("guest.transactions", 1, 10**9, True),
    ("guest.sections", 1, 64, False),
    ("guest.spin_period", 1, 10**6, False),
    ("guest.pv_spin_threshold", 1, 10**9, True),
    ("guest.pc_classes", 1, 4096, False),
]


@pytest.mark.parametrize(("name", "low", "high", "zero"), EDGES)
def test_whole_numbers_at_the_edges(name, low, high, zero):
    # The limits between parameters must not get in the way.
    helpers = {"host.pcpus": {"host.sockets": 1}, "host.timeslice_ms": {"host.ratelimit_us": 0}}
    base = replace(DEFAULT, host=WIDE_HOST).with_overrides(helpers.get(name, {}))
    for value in [low, high, *([0] if zero else [])]:
        assert base.with_overrides({name: value}).parameters()[name] == value
        assert base.with_overrides({name: f"{value:_}"}).parameters()[name] == value
    for value in [low - 1, high + 1, -1]:
        if value == 0 and zero:
            continue
        with pytest.raises(ScenarioError) as caught:
            base.with_overrides({name: value})
        assert str(caught.value).startswith(f"{name} = {value}: must be ")
        assert str(low) in str(caught.value) and str(high) in str(caught.value)


PROBABILITIES = ["kernel_share", "lock_probability", "hot_probability", "block_probability"]


@pytest.mark.parametrize("name", [f"guest.{name}" for name in PROBABILITIES])
def test_probabilities_at_the_edges(name):
    for value in (0, 0.0, 1, 1.0, "0", "1", "1e-3", "0.000_1"):
        assert DEFAULT.with_overrides({name: value}).parameters()[name] == float(value)
    for value in (-1e-9, 1.0000001, math.nan, math.inf, "nan", "inf", 10**400):
        with pytest.raises(ScenarioError, match=rf"{name} = .*: must be 0\.\.1$"):
            DEFAULT.with_overrides({name: value})


def test_simulated_time_at_the_edges():
    for value in (1e-6, 1, 3600, "2e-3", "3_600"):
        assert DEFAULT.with_overrides({"limit.simulated_s": value}).limit.simulated_s == float(value)
    for value in (0, -1, 3600.1, math.nan):
        with pytest.raises(ScenarioError, match=r"limit\.simulated_s = .*: must be above 0 and at most 3600$"):
            DEFAULT.with_overrides({"limit.simulated_s": value})


def test_every_parameter_is_described():
    described = describe_parameters()
    assert list(described) == list(DEFAULT.parameters())
    assert described["host.ratelimit_us"][0] == "0 (off) or 100..500000"
    assert all(allowed and text for allowed, text in described.values())


# --- error messages ---------------------------------------------------------------------------------------------------


def error_of(change, *arguments):
    with pytest.raises(ScenarioError) as caught:
        change(*arguments)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert isinstance(caught.value, ValueError)
    return message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("host.ratelimit_us", 50, "host.ratelimit_us = 50: must be 0 (off) or 100..500000"),
        ("host.ratelimit_us", "50", "host.ratelimit_us = 50: must be 0 (off) or 100..500000"),
        ("host.pcpus", True, "host.pcpus = True: must be a whole number, 1..256"),
        ("host.pcpus", 4.0, "host.pcpus = 4.0: must be a whole number, 1..256"),
        ("host.pcpus", "0.5", "host.pcpus = '0.5': must be a whole number, 1..256"),
        ("host.pcpus", "9" * 5000, None),  # Python refuses to convert it
        ("host.tsc_hz", "2e9", "host.tsc_hz = '2e9': must be a whole number, 100000000..10000000000"),
        ("host.pcpus", None, "host.pcpus = None: must be a whole number, 1..256"),
        ("guest.kernel_share", True, "guest.kernel_share = True: must be a number, 0..1"),
        ("guest.kernel_share", "half", "guest.kernel_share = 'half': must be a number, 0..1"),
        ("guest.spin_in_user_mode", 1, "guest.spin_in_user_mode = 1: must be true or false"),
        ("guest.spin_in_user_mode", "yes", "guest.spin_in_user_mode = 'yes': must be true or false"),
        ("guest.lock_kind", "Ticket", f"guest.lock_kind = 'Ticket': must be {A_LOCK_KIND}"),
        ("ple.kind", "amd", "ple.kind = 'amd': must be window or count"),
        ("decision.actuator", None, "decision.actuator = None: must be default, hint, yield, local or pull"),
        ("name", "two\nlines", "name = 'two\\nlines': must be one line of text"),
        ("description", "\ud800", "description = '\\ud800': must be one line of text"),
        ("neighbours.0.weight", 0, "neighbours.0.weight = 0: must be 1..65535"),
        ("neighbours.1.compute", "constant 0", None),
    ],
)
def test_a_wrong_value_is_named(name, value, message):
    said = error_of(CROWD.with_overrides, {name: value})
    assert said == message if message else said.startswith(f"{name} = ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be constant C | uniform A B | exponential MEAN | knots U:C U:C ..."),
        ("constant", "must be constant C | uniform A B | exponential MEAN | knots U:C U:C ..."),
        ("normal 3 4", "must be constant C | uniform A B | exponential MEAN | knots U:C U:C ..."),
        ("constant 0", "must have whole numbers 1..100000000000 as values, not '0'"),
        ("constant 1.5", "must have whole numbers 1..100000000000 as values, not '1.5'"),
        ("exponential 100000000001", "must have whole numbers 1..100000000000 as values, not '100000000001'"),
        ("uniform 9 8", "must have A <= B in 'uniform A B'"),
        ("knots 0:5", "must have knots from U = 0 to U = 1"),
        ("knots 0.1:5 1:6", "must have knots from U = 0 to U = 1"),
        ("knots 0:5 0.9:6", "must have knots from U = 0 to U = 1"),
        ("knots 0:5 .5:6 .5:7 1:8", "must have knots with rising U, not 0.5 before 0.5"),
        ("knots 0:5 .5:7 1:6", "must have knots whose values do not fall, not 7 before 6"),
        ("knots 0:5 x:7 1:6", "must have knots U:C with U in 0..1 (up to 12 decimals), not 'x:7'"),
        ("knots 0:5 7 1:6", "must have knots U:C with U in 0..1 (up to 12 decimals), not '7'"),
        ("knots 0:5 1:", "must have whole numbers 1..100000000000 as values, not ''"),
    ],
)
def test_a_wrong_distribution_is_explained(text, says):
    assert error_of(DEFAULT.with_overrides, {"guest.hold": text}) == f"guest.hold = {text!r}: {says}"
    with pytest.raises(ValueError, match=r"^must"):
        quantile_table(text)


def test_a_distribution_must_be_text():
    assert error_of(DEFAULT.with_overrides, {"guest.hold": 3}).startswith("guest.hold = 3: must be constant C")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"host.ratelimt_us": 0},
            "unknown parameter 'host.ratelimt_us'; did you mean 'host.ratelimit_us'?",
        ),
        ({"pcpus": 2}, "unknown parameter 'pcpus'; did you mean 'host.pcpus'?"),
        ({"noise": 2}, "unknown parameter 'noise'; known: noise.rate_hz, noise.burst_us, noise.level, "),
        ({"zzz": 2}, "unknown parameter 'zzz'; known: name, description, host.scheduler, "),
        ({7: 2}, "unknown parameter 7; known: "),
        ({"neighbours.2.weight": 1}, "neighbours.2.weight: no such neighbour; this scenario has 2, numbered 0..1"),
        ({"neighbours.00.weight": 1}, "unknown parameter 'neighbours.00.weight'; did you mean 'neighbours.0.weight'?"),
        ({"neighbours.0.wieght": 1}, "unknown parameter 'neighbours.0.wieght'; did you mean 'neighbours.0.weight'?"),
        ({"profile": "xen-5"}, "unknown profile 'xen-5'; did you mean 'xen-4.8'? known: westmere-xen-4.5, xen-4.8"),
        ({"guest.profile": "linux"}, "unknown guest.profile 'linux'; did you mean "),
        ({"guest.profile": 7}, "unknown guest.profile 7; known: linux-ticket, "),
        ({"neighbours.2.profile": "windows"}, "neighbours.2.profile: no such neighbour; this scenario has 2"),
        ({"profile": None}, "unknown profile None; known: westmere-xen-4.5, xen-4.8"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_corrected(overrides, message):
    assert error_of(CROWD.with_overrides, overrides).startswith(message)


def test_a_missing_neighbour_is_counted():
    message = "neighbours.0.weight: no such neighbour; this scenario has 0"
    assert error_of(DEFAULT.with_overrides, {"neighbours.0.weight": 1}) == message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"host.sockets": 5}, "host.sockets = 5: must be at most host.pcpus = 4"),
        (
            {"host.timeslice_ms": 5, "host.ratelimit_us": 5001},
            "host.ratelimit_us = 5001: must be at most the time slice, host.timeslice_ms = 5 (5000 us)",
        ),
        (
            {"host.tick_us": 100, "host.tick_jitter_cycles": 267_001},
            "host.tick_jitter_cycles = 267001: must be at most a tick, host.tick_us = 100 (267000 cycles)",
        ),
        ({"guest.vcpus": 1019}, "guest.vcpus = 1019: all VMs together must have 1..1024 vCPUs, not 1025"),
        (
            {"guest.pv_early_wait": True},
            "guest.pv_early_wait = true: must be false with guest.lock_kind = 'ticket'; only 'pv' has it",
        ),
        (
            {"host.debooster": "li"},
            "host.debooster = 'li': must be 'off' with host.scheduler = 'credit'; only 'fair' has it",
        ),
        (
            {"neighbours.0.lock_kind": "tas", "neighbours.0.pv_spin_threshold": 9},
            "neighbours.0.pv_spin_threshold = 9: must be 0 (never) with neighbours.0.lock_kind = 'tas'; "
            f"waiters halt on {HALTING} locks only",
        ),
        (
            {"neighbours.1.start": "convoy"},
            "neighbours.1.start = 'convoy': must be fresh with neighbours.1.locks = 0, there is no lock 0",
        ),
        (
            {"host.tsc_hz": 10**10, "host.timeslice_ms": 1000, "guest.vcpus": 1000, "guest.weight": 65_535},
            "guest.weight = 65535: weight x vcpus of all VMs must add up to at most 456602 on this host, not 65536536",
        ),
        (
            {"host.scheduler": "fair", "host.groups": "flat", "host.base_slice_us": 100_000, "guest.weight": 29},
            "guest.weight = 29: must be at least 30 with host.groups = 'flat' and slices of 100000 us on this host",
        ),
    ],
)
def test_values_must_fit_together(overrides, message):
    assert error_of(CROWD.with_overrides, overrides) == message


def test_values_that_fit_only_together_may_change_together():
    scenario = DEFAULT.with_overrides({"host.sockets": 6, "host.pcpus": 12})
    assert (scenario.host.sockets, scenario.host.pcpus) == (6, 12)
    assert DEFAULT.with_overrides({"host.timeslice_ms": 1}).host.ratelimit_us == 1000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"hots": {}}, "unknown parameter 'hots'; did you mean 'host'?"),
        ({"guest": {"vcpu": 3}}, "unknown parameter 'guest.vcpu'; did you mean 'guest.vcpus'?"),
        ({"host": 3}, "host = 3: must be a table of parameters"),
        ({"neighbours": {}}, "neighbours = {}: must be a list of tables of parameters"),
        ({"neighbours": [{}, 5]}, "neighbours.1 = 5: must be a table of parameters"),
        ({"neighbours": [{"vcpus": 0}]}, "neighbours.0.vcpus = 0: must be 1..1024"),
        ({"host": {"pcpus": "4"}}, "host.pcpus = '4': must be a whole number, 1..256"),
        ([], "scenario = []: must be a table of parameters"),
    ],
)
def test_a_wrong_table_is_explained(data, message):
    assert error_of(Scenario.from_dict, data) == message


def test_a_wrong_document_is_explained():
    assert error_of(Scenario.from_json, "{").startswith("not JSON: ")
    assert error_of(Scenario.from_toml, "[").startswith("not TOML: ")
    assert error_of(Scenario.from_json, '{"guest": {"kernel_share": NaN}}') == "guest.kernel_share = nan: must be 0..1"


def test_a_wrong_part_is_explained():
    assert error_of(lambda: Vm(weight=0)) == "vm.weight = 0: must be 1..65535"
    assert error_of(lambda: Scenario(host=3)) == "host = 3: must be a Host"
    assert error_of(lambda: Scenario(neighbours=[3])) == "neighbours = [3]: must be a tuple of Vm"


# --- profiles and warnings --------------------------------------------------------------------------------------------


def test_the_defaults_are_the_papers_machine():
    assert DEFAULT.with_profile("westmere-xen-4.5") == DEFAULT
    assert DEFAULT.warnings() == ()


def test_a_profile_leaves_sizes_and_guests_alone():
    scenario = replace(CROWD, host=Host(pcpus=2, ratelimit_us=0), cost=Cost(exit=9)).with_profile("xen-4.8")
    host = Host(pcpus=2, xen="4.8")
    assert scenario == replace(CROWD, host=host)


def test_a_profile_is_applied_before_all_other_overrides():
    expected = DEFAULT.with_profile("xen-4.8").with_overrides({"host.yield_bypasses_ratelimit": False})
    for overrides in (
        {"profile": "xen-4.8", "host.yield_bypasses_ratelimit": "false"},
        {"host.yield_bypasses_ratelimit": "False", "profile": "xen-4.8"},
    ):
        assert DEFAULT.with_overrides(overrides) == expected


def test_every_profile_runs_and_the_page_lists_it():
    """Under the rule that its hypervisor has: every machine has exits on a lock that all wait for."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "hosts" / "profiles.md").read_text(encoding="utf-8")
    ran = {}
    for name, profile in PROFILES.items():
        assert f"| `{name}` |" in page
        world = load("Paper8").with_profile(name).with_overrides({"guest.start": "convoy", "limit.simulated_s": 0.2})
        lanes = Lanes(world, 1, policy="kvm-6.18" if profile["host.scheduler"] == "fair" else "host")
        lanes.run(0, 1)
        ran[name] = lanes.totals(0)
        assert ran[name]["exits"] > 0 and (ran[name]["hints"] > 0) == ("kvm" in name), name
    assert len({totals["exits"] for totals in ran.values()}) == len(PROFILES)


CONVOY = load("Paper8").with_overrides({"guest.start": "convoy", "limit.simulated_s": 0.2})


def test_every_guest_kernel_runs_and_the_page_lists_it():
    """As the guest's and as a neighbour's: each waits in its own way."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "guests.md").read_text(encoding="utf-8")
    ran = {}
    for name in GUESTS:
        assert f"| `{name}` |" in page
        world = CONVOY.with_overrides({"guest.profile": name})
        lanes = Lanes(world, 1, policy="continue")
        lanes.run(0, 1)
        totals = ran[name] = lanes.totals(0)
        assert (totals["halts"] > 0) == ("-pv" in name), name
        assert (totals["notifications"] > 0) == name.startswith("windows"), name
    assert len({str(totals) for totals in ran.values()}) == len(GUESTS)


def test_a_guest_kernel_is_applied_to_one_vm_before_other_settings():
    changed = CROWD.with_overrides({"neighbours.1.notify_after": 7, "neighbours.1.profile": "windows"})
    vm = replace(CROWD.neighbours[1], lock_kind="mcs", pv_spin_threshold=0, notify_after=7)
    assert changed == replace(CROWD, neighbours=(CROWD.neighbours[0], vm))


def test_every_profile_applies_to_every_scenario():
    for scenario in SCENARIOS.values():
        for profile in PROFILES:
            assert scenario.with_profile(profile).guest == scenario.guest


@pytest.mark.parametrize(
    ("overrides", "warning"),
    [
        ({"ple.gap": 49}, "guest.spin_period = 50: longer than ple.gap = 49, PLE is silently dead"),
        ({"ple.gap": 0}, "ple.gap = 0: pause-loop exiting is off, nothing is ever decided"),
        ({"ple.kind": "count", "ple.count": 0}, "ple.count = 0: pause-loop exiting is off, nothing is ever decided"),
        (
            {"ple.window": 80_100_000},
            "ple.window = 80100000: not shorter than a time slice (80100000 cycles), PLE is silently dead",
        ),
        (
            {"guest.pv_spin_threshold": 81},
            "guest.pv_spin_threshold = 81: waiters halt after 4050 cycles, within ple.window = 4096, "
            "PLE is silently dead",
        ),
        (
            {"guest.spin_in_user_mode": True},
            "guest.spin_in_user_mode = true: PLE does not look at user mode, PLE is silently dead",
        ),
        ({"guest.locks": 0}, "no VM ever takes a shared lock: nothing is ever decided"),
        ({"guest.lock_probability": 0}, "no VM ever takes a shared lock: nothing is ever decided"),
        (
            {"host.timeslice_ms": 1},
            "host.ratelimit_us = 1000: as long as the time slice, a vCPU is never preempted earlier",
        ),
        ({"guest.vcpus": 4}, "host.pcpus = 4: no fewer than there are vCPUs, there is rarely another vCPU to run"),
        (
            {"guest.transactions": 0},
            "no VM has a finite number of transactions: every run lasts until limit.simulated_s",
        ),
    ],
)
def test_what_is_probably_not_meant_gives_one_warning(overrides, warning):
    assert DEFAULT.with_overrides(overrides).warnings() == (warning,)


@pytest.mark.parametrize(
    "overrides",
    [
        {"ple.gap": 50},
        {"ple.kind": "count", "ple.gap": 0},
        {"guest.lock_probability": 0, "guest.start": "convoy"},
        {"guest.pv_spin_threshold": 82},
    ],
)
def test_what_works_gives_no_warning(overrides):
    assert DEFAULT.with_overrides(overrides).warnings() == ()


# --- quantile tables --------------------------------------------------------------------------------------------------

LEVEL_18 = Noise().level
LEVEL_16 = load("Paper8-v0").noise.level


def mean(table):
    """Mean of what is sampled: the table is linear between its entries."""
    return sum((u1 - u0) * (a + b) / 2 for (u0, u1), (a, b) in zip(pairwise(QUANTILES), pairwise(table), strict=True))


def share_up_to(table, value):
    """Share of all samples that do not exceed a value."""
    at = max(i for i, entry in enumerate(table) if entry <= value)
    if at == len(table) - 1:
        return 1.0
    step = float(QUANTILES[at + 1] - QUANTILES[at])
    return float(QUANTILES[at]) + step * (value - table[at]) / (table[at + 1] - table[at])


def test_quantiles_are_where_the_model_says():
    assert len(QUANTILES) == 505
    exact = [Fraction(i, 256) for i in range(248)] + [Fraction(31, 32) + Fraction(j, 8192) for j in range(257)]
    assert [Fraction(u) for u in QUANTILES] == exact


@given(laws)
@settings(deadline=None)
def test_tables_have_505_whole_numbers_that_never_fall(text):
    table = quantile_table(text)
    assert len(table) == 505
    assert all(type(value) is int for value in table)
    assert all(a <= b for a, b in pairwise(table))
    kind, *numbers = text.split()
    if kind == "exponential":
        # 16 ln 2 means, at the probability 1 - 2^-16
        assert table[0] == 0 and table[-1] == pytest.approx(int(numbers[0]) * 16 * math.log(2), abs=0.6, rel=1e-12)
    else:
        assert table[0] == int(numbers[0].split(":")[-1])
        assert table[-1] == int(numbers[-1].split(":")[-1])


@given(values, values)
@settings(deadline=None)
def test_uniform_tables_are_exact(a, b):
    low, high = min(a, b), max(a, b)
    # Python rounds a Fraction half to even, too.
    expected = [round(low + (high - low) * Fraction(u)) for u in QUANTILES]
    assert list(quantile_table(f"uniform {low} {high}")) == expected


@pytest.mark.parametrize("cycles", [1000, 110_000, 145_000, 2_670_000])
def test_exponential_tables(cycles):
    table = quantile_table(f"exponential {cycles}")
    assert mean(table) == pytest.approx(cycles, rel=0.01)
    assert mean(table) == pytest.approx(cycles, rel=2e-4)  # what it really is; the model gives no number
    assert all(abs(x + cycles * math.log1p(-float(u))) < 0.500001 for u, x in zip(QUANTILES[:-1], table, strict=False))


def test_entries_computed_by_hand():
    # 110,000 ln 2 = 76,246.19; 110,000 * 16 ln 2 = 1,219,939.04
    table = quantile_table("exponential 110000")
    assert (table[0], table[128], table[-1]) == (0, 76_246, 1_219_939)
    # 65,536 ln 2 = 45,426.09; 65,536 ln 32 = 227,130.47; 65,536 ln 8192 = 590,539.23; 65,536 * 16 ln 2 = 726,817.50
    table = quantile_table("exponential 65536")
    assert (table[128], table[248], table[-2], table[-1]) == (45_426, 227_130, 590_539, 726_817)
    # sqrt(100 * 400) is exact; halves go to the even number
    assert quantile_table("knots 0:100 1:400")[128] == 200
    assert quantile_table("uniform 1 2")[128] == 2
    assert quantile_table("uniform 2 3")[128] == 2


def test_lock_holds():
    table = quantile_table(DEFAULT.guest.hold)
    assert share_up_to(table, 2048) == pytest.approx(0.995, abs=2e-4)
    assert (table[0], table[64], table[128], table[192], table[-1]) == (120, 390, 600, 860, 53_400)
    assert mean(table) == pytest.approx(702, abs=1)
    assert table[-1] / DEFAULT.host.tsc_hz == pytest.approx(20e-6, rel=0.01)


@pytest.mark.parametrize(("sigma", "level"), [(1.8, LEVEL_18), (1.6, LEVEL_16)])
def test_noise_levels_are_lognormal(sigma, level):
    for knot in level.split()[1:]:
        u, permille = map(float, knot.split(":"))
        z = NormalDist().inv_cdf(min(max(u, 0.0001), 0.9999))
        assert permille == round(1000 * math.exp(sigma * z))


def test_tables_do_not_depend_on_the_decimal_context():
    text = "knots 0:120 0.123456789012:4567 1:98765"
    expected = quantile_table(text)
    with localcontext(prec=4, rounding="ROUND_UP"):
        assert quantile_table.__wrapped__(text) == expected
        assert str(parse(text)) == text


# --- built-in scenarios -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
def test_built_in_scenarios(name):
    scenario = load(name)
    assert scenario is load(f"PLE/{name}-v{VERSIONS[name]}") is SCENARIOS[name]
    assert scenario.name == name
    assert scenario.description
    assert scenario.warnings() == ()
    # A vCPU without a transaction would have no place in the line of a convoy.
    assert scenario.guest.start == "fresh" or scenario.guest.transactions >= scenario.guest.vcpus


@pytest.mark.parametrize(
    ("name", "pcpus", "vcpus", "work_ms"),
    [("Tiny", 1, 3, 20), ("Storm", 4, 32, 10), ("Paper8", 4, 8, 1500), ("Paper32", 4, 32, 1030)],
)
def test_size_and_work_per_pcpu(name, pcpus, vcpus, work_ms):
    scenario = SCENARIOS[name]
    guest = scenario.guest
    assert scenario.host.pcpus == pcpus
    assert scenario.vcpus == vcpus
    section = mean(quantile_table(guest.compute)) + Decimal(guest.lock_probability) * mean(quantile_table(guest.hold))
    work = guest.transactions * guest.sections * section / pcpus / scenario.host.tsc_hz
    assert float(work) == pytest.approx(work_ms / 1000, rel=0.04)


@pytest.mark.parametrize(("name", "milliseconds"), [("Paper8", 20), ("Paper32", 56)])
def test_time_between_two_takings_of_one_lock(name, milliseconds):
    guest = SCENARIOS[name].guest
    between = guest.locks * float(mean(quantile_table(guest.compute))) / guest.lock_probability
    assert between / SCENARIOS[name].host.tsc_hz == pytest.approx(milliseconds / 1000, rel=0.01)


@pytest.mark.parametrize("name", ["paper8", "Papper8", "PLE/Paper8-v2", "ple/Paper8-v1"])
def test_an_unknown_scenario_is_corrected(name):
    message = error_of(load, name)
    assert message.startswith(f"unknown scenario {name!r}; did you mean 'Paper8'?")
    assert all(known in message for known in SCENARIOS)


def test_scenarios_are_read_from_files(tmp_path):
    (tmp_path / "crowd.toml").write_text(CROWD.to_toml(), encoding="utf-8")
    (tmp_path / "crowd.json").write_text(CROWD.to_json(), encoding="utf-8")
    assert load(str(tmp_path / "crowd.toml")) == load(str(tmp_path / "crowd.json")) == CROWD


def test_wrong_files_are_named(tmp_path):
    missing, wrong, binary = tmp_path / "missing.toml", tmp_path / "wrong.toml", tmp_path / "binary.json"
    wrong.write_text("[host]\npcpus = 0", encoding="utf-8")
    binary.write_bytes(b"\xff\xfe")
    assert error_of(load, str(missing)) == f"{missing}: No such file or directory"
    assert error_of(load, str(wrong)) == f"{wrong}: host.pcpus = 0: must be 1..256"
    assert error_of(load, str(binary)).startswith(f"{binary}: ")
