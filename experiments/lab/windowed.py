"""A rule that chooses the asker's window, too: what `experiments/answer/windows.py` asks about."""

from __future__ import annotations

from ple_gym.rules import draw, may_run, rule, whole, with_window

MOST = 5  # windows are numbered 0..5 (docs/model.md, 8.4)


@rule(
    "windowed",
    reads="-",
    actuator="hint",
    source="ours, with the order of KVM until 3.5",
    hypothetical=True,
    settled=False,
    somebody=whole(0, MOST, default=0, help="the window where a sibling is named"),
    nobody=whole(0, MOST, default=0, help="the window where nobody can be"),
)
def windowed(see, asker, k):
    """`kvm-2012`, which sets one window where it names a sibling and another where it resumes the asker."""
    vcpu = see.vcpu[asker]
    first, n = see.vm[vcpu.vm].first, see.vm[vcpu.vm].vcpus
    start = draw(see) * n >> 32
    for i in range(n):
        v = first + (start + i) % n
        if v != asker and may_run(see, v):
            return with_window(see, v, k.somebody)
    return with_window(see, asker, k.nobody)
