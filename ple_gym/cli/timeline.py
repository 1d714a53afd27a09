"""`--timeline`: a picture of the milliseconds with most pause-loop exits."""

from __future__ import annotations

from ple_gym import evaluate, progress
from ple_gym.cli.parsing import UsageError
from ple_gym.comparison import Comparison
from ple_gym.files import writing
from ple_gym.tables import vcpus
from ple_gym.trace import window

TIMELINE_MS = 5


def draw_timeline(path: str, comparison: Comparison) -> str:
    """Draw the busiest milliseconds of the baseline's seed with most exits; what to tell of it."""
    from ple_gym.render import timeline_figure

    scenario, policy = comparison.scenario, comparison.baseline
    worst = max(comparison.runs[policy], key=lambda run: run["ple_exits"])
    hz = scenario.host.tsc_hz
    trace = evaluate.record(scenario, policy, worst["seed"])
    start, stop = evaluate.busiest_window(trace, TIMELINE_MS * hz // 1000)
    stop = min(stop, max(round(worst["simulated_s"] * hz), start + 1))
    title = f"{scenario.name} under {policy}, seed {worst['seed']}: the {TIMELINE_MS} ms with most PLE exits"
    # Half a second of the past is enough to know what everybody was doing at the left edge.
    shown = window(trace, start - hz // 2, stop)
    with writing(path, UsageError), progress.waiting("drawing the timeline"):
        timeline_figure(shown, scenario.host.pcpus, vcpus(scenario), start, stop, hz, title, path)
    return f"Timeline of seed {worst['seed']} under {policy}: {path}"
