"""The page: what was asked, tables, pictures, and what made it, as one HTML text that loads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from ple_gym.evaluate.comparison import Comparison
from ple_gym.evaluate.runs import doubts
from ple_gym.evaluate.tables import comparison_note
from ple_gym.extras import needs
from ple_gym.provenance import provenance
from ple_gym.report.charts import distributions
from ple_gym.report.timeline import COLOURS, LEGEND, Timeline, timeline_plot

with needs("report"):
    from bokeh.embed import components
    from bokeh.resources import Resources

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1200px;margin:0 auto;padding:0 12px 40px}h2{margin-top:2em}
dt{font-weight:600}dd{margin:0 0 .4em;overflow-wrap:anywhere}
div.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;white-space:nowrap}caption{text-align:left}
th,td{padding:2px 8px;border-bottom:1px solid #ddd}
.note,.key{font-size:13px}.note{color:#555;white-space:pre-line}.key{display:inline-block;margin-right:1em}
.key i{display:inline-block;width:22px;margin-right:5px;vertical-align:middle}
"""


def report_page(comparison: Comparison, timelines: Sequence[Timeline] = (), argv: Sequence[str] = ()) -> str:
    """Return the page; `argv`: the words of the command line."""
    scenario = comparison.scenario
    vms = {name: vm.vcpus for name, vm in scenario.vms().items()}
    spread = distributions(comparison)
    drawn = [timeline_plot(one, scenario.host.pcpus, vms) for one in timelines]
    script, divs = components([*spread.values(), *drawn])
    places = iter(divs)

    def section() -> Iterator[str]:
        yield f"<h1>{escape(scenario.name)}: {len(comparison.members)} policies compared</h1>"
        yield _listed(_asked(comparison))
        yield from (f'<p class="note">{escape(doubt)}</p>' for doubt in doubts(comparison))
        yield f"<h2>Comparison</h2><div class=wide>{comparison._repr_html_()}</div>"
        yield f"<p class=note>{escape(comparison_note(comparison))}</p>"
        yield "<h2>Distributions</h2><p class=note>A dot is a run; a bar has the middle half, a line is the median.</p>"
        for title in spread:
            yield f"<h3>{escape(title)}</h3>{next(places)}"
        if timelines:
            yield "<h2>Timelines</h2><p class=note>Drag to zoom, or use the wheel with Ctrl; point at a bar to see "
            yield f"what it is. A pCPU's row shows what its vCPU does.</p><p>{_legend()}</p>"
        for one in timelines:
            begin, length = (1e3 * cycles / scenario.host.tsc_hz for cycles in (one.start, one.stop - one.start))
            yield f"<h3>{escape(one.policy)}: seed {one.seed}, {length:,.3f} ms from {begin:,.3f} ms</h3>{next(places)}"
        yield "<h2>What made this page</h2>"
        yield _listed({**provenance(argv), "scenario": scenario.digest})

    library = Resources(mode="inline", components=["bokeh"]).render_js()
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(scenario.name)}: report</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>{library}</head>\n'
        f"<body>{''.join(section())}{script}</body></html>\n"
    )


def _asked(comparison: Comparison) -> dict[str, object]:
    scenario, seeds = comparison.scenario, comparison.seeds
    vms = ", ".join(f"{vm.count} x {name} ({vm.vcpus} vCPUs)" for name, vm in scenario.tables().items())
    return {
        "Scenario": f"{scenario.name}: {scenario.description}" if scenario.description else scenario.name,
        "Machine": f"{scenario.host.pcpus} pCPUs, scheduler {scenario.host.scheduler}",
        "VMs": vms,
        "Policies": ", ".join(comparison.members),
        "Seeds": f"{len(seeds)}: {seeds[0]}..{seeds[-1]}" if len(seeds) > 1 else str(seeds[0]),
    }


def _listed(items: Mapping[str, object]) -> str:
    rows = (f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in items.items())
    return f"<dl>{''.join(rows)}</dl>"


def _legend() -> str:
    return "".join(
        f'<span class=key><i style="height:{round(16 * height)}px;background:{COLOURS[colour]}"></i>{name}</span>'
        for colour, height, name in LEGEND
    )
