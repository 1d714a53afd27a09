"""A remedy at the host: who is in kernel mode is preempted later (docs/model.md, 9.11)."""

from __future__ import annotations

import pytest

from ple_gym.evaluate import simulate
from ple_gym.scenario import Cost, Host, Limit, Noise, Scenario, Vm

HOLD_US = 100
HZ = 1_000_000_000


def contended(scheduler: str, defer_us: int) -> Scenario:
    """Twice as many vCPUs as pCPUs take locks and hold them for 0.1 ms; nobody else interrupts them."""
    hold = f"constant {HOLD_US * HZ // 10**6}"
    vm = Vm(vcpus=4, locks=2, transactions=0, compute="exponential 400000", hold=hold, lock_probability=1.0)
    host = Host(scheduler=scheduler, pcpus=4, tsc_hz=HZ, timeslice_ms=1, defer_preemption_us=defer_us)
    return Scenario(host=host, noise=Noise(rate_hz=0), limit=Limit(simulated_s=0.5), guest=vm, neighbours=(vm,))


@pytest.mark.parametrize("scheduler", ["credit", "credit2", "fair"])
def test_no_holder_is_preempted_who_may_end_its_section(scheduler: str) -> None:
    off, enough, too_little = (
        simulate(contended(scheduler, defer_us), "host", [0])[0]["lhp_events"] for defer_us in (0, 100 * HOLD_US, 1)
    )
    assert enough == 0
    assert off > 10
    assert too_little > 10


def test_kernel_mode_lasts_as_long_as_it_may() -> None:
    def switches(kernel_share: float, defer_us: int) -> int:
        vm = Vm(vcpus=1, locks=0, transactions=0, compute=f"constant {10 * HZ}", kernel_share=kernel_share)
        host = Host(pcpus=1, tsc_hz=HZ, timeslice_ms=4, ratelimit_us=0, defer_preemption_us=defer_us)
        scenario = Scenario(host=host, cost=Cost(switch=0), limit=Limit(simulated_s=1), guest=vm, neighbours=(vm,))
        return int(simulate(scenario, "host", [0])[0]["switches"])

    # The first slice is shorter, by a draw.
    assert switches(0.0, 1000) == switches(0.0, 0) == pytest.approx(1000 / 4, abs=1), "4 ms each, in user mode"
    assert switches(1.0, 1000) == pytest.approx(1000 / 5, abs=1), "and a millisecond more in kernel mode"
