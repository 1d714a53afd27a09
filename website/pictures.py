"""Pictures of runs: of the cards, drawn with the site, and what git keeps: `python -m website.pictures` draws that."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ple_gym.scenario.builtin import SCENARIOS
from ple_gym.traces.events import PLE
from ple_gym.traces.pictures import plot_vcpus, timeline_figure
from ple_gym.traces.recording import find_busiest, record_window

DOCS = Path(__file__).resolve().parents[1] / "docs"
ROWS = 24  # vCPUs that one can tell apart: of more than these, the VM with most exits is shown
DPI, COLOURS, FIRST, FRAMES = 73, 22, 5, 20  # who sees the first frame alone sees something
SMALL = (0, 138, 60, 255, 216, 0)  # green and yellow, of marks
#: Scenario -> policy, seed, and how many milliseconds its card shows: those with most exits.
CARDS = {
    "Tiny": ("host", 0, 2.5),
    "Busy8": ("host", 0, 2),
    "Paper8": ("xen-4.5", 5, 5),
    "Paper32": ("host", 5, 5),
    "KvmServer614": ("kvm-6.13", 0, 4),
    "KvmServer614Flat": ("kvm-6.13", 0, 4),
    "KvmServer618": ("kvm-6.18", 0, 4),
    "KvmServer618Flat": ("kvm-6.18", 0, 4),
    "KvmFlushes618Flat": ("kvm-6.18", 0, 4),
    "KvmEbizzy": ("kvm-5.13", 0, 1),
    "KvmShootdown": ("kvm-5.13", 0, 0.5),
    "KvmDbench": ("kvm-5.13", 0, 0.5),
    "KvmWindows": ("kvm-5.13", 0, 1),
    "XcpWindows": ("host", 0, 1),
    "Consolidated": ("host", 0, 3),
}
#: File -> height in inches, scenario, policy, seed, milliseconds.
KEPT = {
    "understand/holder.png": (3.5, "HolderPreempted", "xen-4.5", 0, 5),
    "understand/order.png": (5, "TicketOrder", "xen-4.8", 0, 5),
}


@cache
def drawn() -> dict[str, bytes]:
    """Place in the site -> picture."""
    return {f"environments/{name}.png": png(figure(name, *shown)).getvalue() for name, shown in CARDS.items()}


def figure(name: str, policy: str, seed: int, ms: float) -> Figure:
    """The timeline of a busiest moment, of all vCPUs or of one VM's."""
    scenario = SCENARIOS[name]
    hz, vcpus = scenario.host.tsc_hz, scenario.vcpus
    start, stop = find_busiest(scenario, policy, seed, round(ms * hz / 1000))
    trace = record_window(scenario, policy, seed, start, stop)
    title = f"{name} under {policy}, seed {seed}: the {ms:g} ms with most PLE exits"
    if vcpus <= ROWS:
        end = min(stop, int(trace[-1, 0]) + 1)
        return timeline_figure(trace, scenario.host.pcpus, vcpus, start, end, hz, title)
    edges = np.cumsum([0, *(vm.vcpus for vm in scenario.vms().values())])
    vm = np.histogram(trace[(trace[:, 1] == PLE) & (trace[:, 0] >= start), 3], edges)[0].argmax()
    first, beyond = edges[vm : vm + 2]
    own = trace[(trace[:, 3] >= first) & (trace[:, 3] < beyond)] - [0, 0, 0, first, 0]
    made = Figure((12, 5), layout="constrained")
    axes = made.subplots()
    plot_vcpus(axes, own, int(beyond - first), start, stop)
    axes.set_xticks(np.linspace(start, stop, 6), [f"{ms * fifth / 5:g}" for fifth in range(6)])
    axes.set_xlabel("time from the left edge (ms)")
    made.suptitle(f"{title}; VM {vm + 1} of {len(edges) - 1}", fontsize="medium")
    made.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=9, frameon=False, fontsize="small")
    return made


def png(made: Figure) -> io.BytesIO:
    content = io.BytesIO()
    made.savefig(content, format="png", dpi=made.dpi, metadata={"Software": None})
    return content


def few(made: Figure, height: float) -> Image.Image:
    """The figure, 803 pixels wide, in its commonest colours: a drawing has flat ones, and the shades of its letters."""
    made.set_size_inches(11, height)
    made.set_dpi(DPI)
    made.axes[-1].xaxis.set_visible(False)  # cycles: the time stands above
    drawn = Image.open(png(made)).convert("RGB")
    commonest = sorted(drawn.getcolors(1 << 20), reverse=True)[:COLOURS]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(value for _, colour in commonest for value in colour), *SMALL])
    return drawn.quantize(palette=palette, dither=Image.Dither.NONE)


def unfolding(made: Figure, whole: Image.Image) -> list[Image.Image]:
    """Pictures in which the figure's panels fill from the left."""
    pixels, frames = np.array(whole), []
    boxes = [axes.get_window_extent().extents.round().astype(int) for axes in made.axes]
    for frame in range(FIRST, FRAMES + 1):
        shown = pixels.copy()
        for left, bottom, right, top in boxes:
            now = left + 1 + (right - left - 1) * frame // FRAMES
            shown[len(shown) - top + 1 : len(shown) - bottom - 1, now:right] = np.bincount(pixels.ravel()).argmax()
        frames.append(Image.fromarray(shown))
        frames[-1].putpalette(whole.palette)
    return frames


def main() -> None:
    for file, (height, *shown) in KEPT.items():
        few(figure(*shown), height).save(DOCS / file, optimize=True)
    made = figure("Paper8", *CARDS["Paper8"])
    first, *others = unfolding(made, few(made, 6))
    first.save(DOCS / "storm.gif", save_all=True, append_images=others, duration=[250] * len(others) + [5000], loop=0)


if __name__ == "__main__":
    main()
