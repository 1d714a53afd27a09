"""Random small scenarios for property-based tests: every mechanism of docs/model.md, in runs of a few milliseconds."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from ple_gym.scenario import Cost, Decision, Host, Limit, Noise, Ple, Scenario, Vm

TSC_HZ = 100_000_000  # the slowest allowed clock: milliseconds of scheduling in few cycles

_durations = st.sampled_from(
    ["constant 1", "constant 3000", "uniform 1 5000", "exponential 2000", "exponential 40000", "exponential 300000"]
)
_holds = st.sampled_from(
    ["constant 1", "exponential 500", "exponential 20000", "knots 0:120 0.5:600 0.995:2048 1:200000"]
)
_probabilities = st.sampled_from([0.0, 0.1, 0.5, 1.0])

hosts = st.builds(
    Host,
    pcpus=st.integers(1, 5),
    sockets=st.just(1),
    credit_pcpus=st.sampled_from([0, 0, 1, 8]),
    tsc_hz=st.just(TSC_HZ),
    timeslice_ms=st.sampled_from([1, 2, 3, 10]),
    ratelimit_us=st.sampled_from([0, 100, 500, 1000]),
    yield_bypasses_ratelimit=st.booleans(),
    fresh_ratelimit_slice=st.booleans(),
)
noises = st.builds(
    Noise,
    rate_hz=st.sampled_from([0, 0, 500, 3000]),
    burst_us=st.sampled_from([20, 300]),
    level=st.sampled_from(["constant 1000", "knots 0:100 0.5:1000 1:20000"]),
    cap_permille=st.sampled_from([50, 300]),
)
costs = st.builds(
    Cost,
    exit=st.sampled_from([20, 142, 1420]),
    switch=st.sampled_from([0, 300]),
    cache=st.sampled_from([0, 2670]),
    migration=st.sampled_from([0, 8010]),
    remote_migration=st.sampled_from([0, 26700]),
    ipi=st.sampled_from([0, 260]),
    line=st.sampled_from([0, 80]),
)
ples = st.builds(
    Ple,
    kind=st.sampled_from(["window", "window", "count"]),
    gap=st.sampled_from([0, 32, 128, 5000]),
    window=st.sampled_from([1, 512, 4096]),
    count=st.sampled_from([0, 1, 40, 300]),
)


@st.composite
def vms(draw: st.DrawFn, endless: bool = False) -> Vm:
    """A VM; an endless one is a busy neighbour that may still use locks."""
    locks = draw(st.integers(0, 4))
    kind = draw(st.sampled_from(["ticket", "ticket", "mcs", "tas"]))
    return Vm(
        vcpus=draw(st.integers(1, 7)),
        weight=draw(st.sampled_from([64, 256, 1000])),
        locks=locks,
        lock_kind=kind,
        transactions=0 if endless else draw(st.integers(1, 60)),
        sections=draw(st.integers(1, 5)),
        compute=draw(_durations),
        hold=draw(_holds),
        block=draw(_durations),
        kernel_share=draw(_probabilities),
        lock_probability=draw(_probabilities),
        hot_probability=draw(_probabilities),
        block_probability=draw(st.sampled_from([0.0, 0.0, 0.2])),
        spin_period=draw(st.sampled_from([1, 50, 100])),
        spin_in_user_mode=draw(st.sampled_from([False, False, False, True])),
        pv_spin_threshold=draw(st.sampled_from([0, 0, 5, 200])) if kind != "tas" else 0,
        pc_classes=draw(st.integers(1, 3)),
        start=draw(st.sampled_from(["fresh", "convoy"])) if locks else "fresh",
    )


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """A whole world; its guest's pool is finite, a neighbour's may be."""
    host = draw(hosts)
    neighbours = draw(st.lists(vms() | vms(endless=True), max_size=2))
    return Scenario(
        name="random",
        description="",
        host=Host(**{**{f: getattr(host, f) for f in host.__slots__}, "sockets": draw(st.integers(1, host.pcpus))}),
        noise=draw(noises),
        cost=draw(costs),
        ple=draw(ples),
        decision=Decision(
            actuator=draw(st.sampled_from(["pull", "pull", "local", "hint"])), pull_swaps=draw(st.booleans())
        ),
        limit=Limit(simulated_s=draw(st.sampled_from([0.001, 0.004]))),
        guest=draw(vms()),
        neighbours=tuple(neighbours),
    )


@st.composite
def contended_scenarios(draw: st.DrawFn) -> Scenario:
    """A random world in which the guest's vCPUs fight for locks and spinning is noticed: there is much to decide."""
    scenario = draw(scenarios())
    guest = replace(
        scenario.guest,
        vcpus=draw(st.integers(2, 7)),
        locks=draw(st.integers(1, 4)),
        lock_probability=draw(st.sampled_from([0.5, 1.0])),
        spin_in_user_mode=False,
        transactions=60,
    )
    gap, count = draw(st.sampled_from([128, 5000])), draw(st.sampled_from([1, 40]))
    return replace(scenario, guest=guest, ple=replace(scenario.ple, gap=gap, count=count))
