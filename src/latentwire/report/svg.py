"""From a matplotlib figure to one themed, self-contained ``<svg>``: the look of every chart is decided here."""

import html
import io
import re

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#010203"
GRID = "#040506"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#8a6d00", "#56b4e9")
"""Okabe and Ito's colour-blind-safe set, its yellow and pale purple darkened for contrast on white."""
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P")
WIDTH_INCHES = 4.9

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "latentwire",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


def new_figure(height_inches: float) -> tuple[Figure, Axes]:
    """A figure of the common width with one pair of axes, independent of any display."""
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    return figure, figure.subplots()


def to_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as one ``<svg>``: title, description, colours as CSS variables, every id starting with ``name``.

    Everything that names an address (XML header, metadata) is left out, so the element needs nothing from outside.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    body = buffer.getvalue()
    body = body[body.index("<svg") :]
    view_box = re.search(r'viewBox="[^"]*"', body)
    assert view_box is not None, "matplotlib writes a viewBox"
    body = re.sub(r"<metadata>.*?</metadata>", "", body[body.index(">") + 1 :], flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', body)
    body = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    head = f'<svg role="img" aria-labelledby="{name}-title {name}-desc" {view_box[0]}>'
    words = (
        f'<title id="{name}-title">{html.escape(title)}</title><desc id="{name}-desc">{html.escape(description)}</desc>'
    )
    return head + words + _themed(body)


def _themed(body: str) -> str:
    colors = {INK: "currentColor", GRID: "var(--grid)"}
    colors |= {color: f"var(--series-{index})" for index, color in enumerate(SERIES, start=1)}
    for color, variable in colors.items():
        body = body.replace(color, variable)
    body = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", body)
    return re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", body)
