"""House style of the pictures, and writing them whole."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ple_gym.files import write_whole

DPI = 90
PALETTE = 24  # colours of a chart; enough for the shades of blurred edges
VCPU_PALETTE = 48  # colours of a timeline, which has hues for its vCPUs
COLOURS = ("#1f4e79", "#c0504d", "#4f8a4c", "#8064a2", "#d28a1d", "#4aa3b5", "#7f7f7f", "#b0437d")


@contextmanager
def picture(path: Path, width: float = 8.0, height: float = 4.5, **subplots: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (figure, axes) of matplotlib and write them to `path` as PNG at the end.

    `subplots` are keyword arguments of `matplotlib.figure.Figure.subplots`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(**subplots)
    for axis in getattr(axes, "flat", [axes]):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
    yield figure, axes
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content.getvalue())


def shrink(path: Path, colours: int = PALETTE) -> None:
    """Give a PNG file its commonest colours alone: it keeps a third of its bytes, for drawings have few."""
    from PIL import Image

    content, palette = io.BytesIO(), Image.new("P", (1, 1))
    with Image.open(path) as file:
        image = file.convert("RGB")
    commonest = sorted(image.getcolors(1 << 24) or (), reverse=True)[:colours]
    palette.putpalette([value for _, colour in commonest for value in colour])
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(content, "png", optimize=True)
    write_whole(path, content.getvalue())
