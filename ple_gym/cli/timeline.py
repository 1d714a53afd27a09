"""`--timeline`: a picture of the milliseconds with most pause-loop exits."""

from __future__ import annotations

from ple_gym import progress
from ple_gym.errors import UsageError
from ple_gym.evaluate.comparison import Comparison
from ple_gym.files import writing
from ple_gym.messages import shown_path
from ple_gym.traces.recording import find_busiest, record_window

TIMELINE_MS = 5


def draw_timeline(path: str, comparison: Comparison) -> str:
    """Draw the busiest milliseconds of the seed with most exits, under the baseline or, if that is an agent, the first
    compiled policy; what to tell of it.
    """
    from ple_gym.traces.pictures import timeline_figure

    scenario = comparison.scenario
    compiled = [name for name in comparison.runs if name not in comparison.asked]
    policy = comparison.baseline if comparison.baseline in compiled else compiled[0]
    worst = max(comparison.runs[policy], key=lambda run: run["ple_exits"])
    hz, end = scenario.host.tsc_hz, round(worst["simulated_s"] * scenario.host.tsc_hz)
    with progress.bar("finding the timeline", end, "%") as report:
        start, stop = find_busiest(scenario, policy, worst["seed"], TIMELINE_MS * hz // 1000, report)
    stop = min(stop, max(end, start + 1))
    with progress.bar("recording the timeline", stop, "%") as report:
        trace = record_window(scenario, policy, worst["seed"], start, stop, report)
    title = f"{scenario.name} under {policy}, seed {worst['seed']}: the {TIMELINE_MS} ms with most PLE exits"
    with writing(path, UsageError), progress.waiting("drawing the timeline"):
        timeline_figure(trace, scenario.host.pcpus, scenario.vcpus, start, stop, hz, title, path)
    return f"Timeline of seed {worst['seed']} under {policy}: {shown_path(path)}"
