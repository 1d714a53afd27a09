"""`--timeline` and the timelines of a report: those milliseconds that have most exits, or others."""

from __future__ import annotations

from collections.abc import Sequence

from ple_gym import progress
from ple_gym.errors import UsageError
from ple_gym.evaluate.comparison import Comparison, Run
from ple_gym.files import write_whole, writing
from ple_gym.messages import shown_path
from ple_gym.provenance import told
from ple_gym.traces.events import Ints
from ple_gym.traces.recording import find_busiest, record_window

TIMELINE_MS = 5


def draw_timeline(path: str, comparison: Comparison, argv: Sequence[str]) -> str:
    """Draw the busiest milliseconds of the seed with most exits, under the baseline or, if that is an agent, the first
    compiled policy; what to tell of it.
    """
    from ple_gym.traces.pictures import save_figure, timeline_figure

    scenario, (policy, worst) = comparison.scenario, shown_run(comparison)
    trace, start, stop = recorded(comparison, policy, worst["seed"])
    title = f"{scenario.name} under {policy}, seed {worst['seed']}: the {TIMELINE_MS} ms with most PLE exits"
    with writing(path, UsageError), progress.waiting("drawing the timeline"):
        vms = {name: vm.vcpus for name, vm in scenario.vms().items()}
        pcpus, hz = scenario.host.pcpus, scenario.host.tsc_hz
        figure = timeline_figure(trace, pcpus, scenario.vcpus, start, stop, hz, title, vms=vms)
        save_figure(figure, path, told(argv, comparison.digests()))
    return f"Timeline of seed {worst['seed']} under {policy}: {shown_path(path)}"


def shown_run(comparison: Comparison) -> tuple[str, Run]:
    """The baseline or, if that is an agent, the first compiled policy; and its run with most exits."""
    compiled = [name for name in comparison.runs if name not in comparison.asked]
    policy = comparison.baseline if comparison.baseline in compiled else compiled[0]
    return policy, max(comparison.runs[policy], key=lambda run: run["ple_exits"])


def recorded(
    comparison: Comparison, policy: str, seed: int, window: tuple[int, int] | None = None
) -> tuple[Ints, int, int]:
    """The trace of a run's `window`, or its busiest milliseconds, and that window in cycles."""
    scenario, hz = comparison.scenario, comparison.scenario.host.tsc_hz
    end = round(next(run for run in comparison.runs[policy] if run["seed"] == seed)["simulated_s"] * hz)
    if window is None:
        with progress.bar("finding the timeline", end, "%") as report:
            window = find_busiest(scenario, policy, seed, TIMELINE_MS * hz // 1000, report)
    start, stop = window[0], min(window[1], max(end, window[0] + 1))
    with progress.bar("recording the timeline", stop, "%") as report:
        return record_window(scenario, policy, seed, start, stop, report), start, stop


def write_report(path: str, comparison: Comparison, window: tuple[int, int] | None, argv: Sequence[str]) -> str:
    """Write the page of a comparison; what to tell of it. `window` is as in `recorded`."""
    from ple_gym.report.page import report_page
    from ple_gym.report.timeline import Timeline

    timelines, hz = [], comparison.scenario.host.tsc_hz
    for name in comparison.runs:
        if name not in comparison.asked:
            seed = shown_run(comparison)[1]["seed"]
            timelines.append(Timeline(name, seed, hz, *recorded(comparison, name, seed, window)).shortened())
    with progress.waiting("drawing the report"):
        page = report_page(comparison, timelines, argv).encode()
    with writing(path, UsageError):
        write_whole(path, page)
    return f"Report of {len(comparison.members)} policies, {len(page) / 1e6:.1f} MB: {shown_path(path)}"
