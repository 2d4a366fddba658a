"""The style of all charts: SVG that follows the page's light or dark theme.

Equal data give equal bytes.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """Colours by their part in a chart."""

    ink: str
    muted: str
    rule: str
    accent: str
    float_: str
    warn: str


# Drawn in colours that nothing else uses, then replaced by the page's CSS variables.
INK, MUTED, RULE, ACCENT, FLOAT, WARN = (f"#0a0b0{digit}" for digit in range(6))
PAGE = Palette(ink=INK, muted=MUTED, rule=RULE, accent=ACCENT, float_=FLOAT, warn=WARN)
# The page's light theme, for files of their own.
LIGHT = Palette(
    ink="#171a26",
    muted="#626a80",
    rule="#dfe3ee",
    accent="#4b47e0",
    float_="#98a2b8",
    warn="#b4530a",
)
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    ACCENT: "var(--accent)",
    FLOAT: "var(--float)",
    WARN: "var(--warn)",
}


def bare(axes: Axes) -> None:
    """No scale along the bars: their values are printed."""
    axes.set_xticks([])
    axes.tick_params(length=0)
    for side in ("bottom", "left"):
        axes.spines[side].set_visible(False)


def _style(palette: Palette) -> dict[str, Any]:
    return {
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.family": "sans-serif",
        "font.size": 9.0,
        "text.color": palette.ink,
        "axes.labelcolor": palette.muted,
        "axes.edgecolor": palette.rule,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": palette.rule,
        "ytick.color": palette.rule,
        "xtick.labelcolor": palette.muted,
        "ytick.labelcolor": palette.muted,
        "grid.color": palette.rule,
        "grid.linewidth": 0.6,
    }


@contextmanager
def drawing(
    salt: str, width_inch: float, height_inch: float, *, palette: Palette = PAGE
) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes in the report's style; `salt` makes its ids its own."""
    import matplotlib
    from matplotlib.figure import Figure

    # rcdefaults: the reader's own matplotlibrc must not change the report's bytes.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_style(palette), "svg.hashsalt": salt})
        figure = Figure(figsize=(width_inch, height_inch), layout="constrained")
        yield figure, figure.add_subplot()


def svg_of(figure: Figure, name: str, title: str) -> str:
    """The figure as an element of the page, drawn in `PAGE`."""
    from markupsafe import escape

    stream = io.StringIO()
    figure.savefig(
        stream,
        format="svg",
        transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    text = stream.getvalue()
    box = text.split('viewBox="', 1)[1].split('"', 1)[0]
    # matplotlib's <style> would apply to the whole page; page.css has its rule.
    body = text.split("</style>\n </defs>", 1)[1].rstrip()
    # Ids are unique per file only; several charts share the page.
    body = body.replace('id="', f'id="{name}-').replace("url(#", f"url(#{name}-")
    body = body.replace('xlink:href="#', f'xlink:href="#{name}-')
    for color, variable in _VARIABLES.items():
        body = body.replace(color, variable)
    return (
        f'<svg class="chart chart-{name}" viewBox="{box}" role="img" '
        f'aria-label="{escape(title)}" xmlns:xlink="http://www.w3.org/1999/xlink">{body}'
    )


def image_of(figure: Figure, suffix: str) -> bytes:
    """The figure as a file of this suffix (`.svg`, `.png`, `.pdf`), drawn in `LIGHT`."""
    stream = io.BytesIO()
    kind = suffix.removeprefix(".")
    dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    figure.savefig(stream, format=kind, dpi=160, facecolor="white", metadata=dated)
    return stream.getvalue()
