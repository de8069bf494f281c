"""Draw the exponents of all laws of a study with their intervals, side by side."""

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bitlaw.figures.style import GREY, OKABE_ITO, SMALL, WIDTH, last, page
from bitlaw.laws.forms import BOUNDS, TERMS
from bitlaw.laws.together import exponent
from bitlaw.laws.verdict import GREEK
from bitlaw.study import PROTOCOLS

ROW = 0.27  # inches


def draw(laws, out, null="random"):
    """Left α, right β; a row a modality and protocol, the point its value, the line its 95 % profile interval.

    laws: {modality: {protocol: law}}; out, null: see `style`. An arrow: the interval has no end there. Words take the
    place of an exponent that the data do not support.
    """
    rows = [(name, protocol) for name in last(null, laws) for protocol in PROTOCOLS if protocol in laws[name]]
    colours = dict(zip(PROTOCOLS, OKABE_ITO, strict=False))
    with page(1, len(TERMS), (WIDTH, ROW * len(rows) + 0.9), out) as (_, panels):
        for panel, term in zip(panels.flat, TERMS, strict=True):
            panel.set(xscale="log", xlim=BOUNDS, ylim=(len(rows) - 0.5, -0.5))
            panel.set_xlabel(f"exponent {GREEK[term.exponent]} of {term.variable}")
            panel.set_yticks(range(len(rows)), [f"{m}, {p}" for m, p in rows] if term == TERMS[0] else [])
            panel.grid(axis="x", linewidth=0.4, color="0.92")
            panel.xaxis.set_major_locator(LogLocator())
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.xaxis.set_minor_locator(NullLocator())
            for y, (modality, protocol) in enumerate(rows):
                _draw_row(panel, y, laws[modality][protocol], term, colours[protocol])


def _draw_row(panel, y, law, term, colour):
    value, low, high = exponent(law, term)
    if value is None:
        words = "no law" if law["verdict"] == "no law" else f"no dependence on {term.variable} seen"
        panel.text(0.5, y, words, transform=panel.get_yaxis_transform(), ha="center", va="center", fontsize=SMALL,
                   color=GREY)  # fmt: skip
        return
    first, end = panel.get_xlim()
    ends = [first if low is None else max(low, first), end if high is None else min(high, end)]
    panel.plot(ends, [y, y], color=colour, linewidth=1.4)
    for known, place, marker in ((low, ends[0], "<"), (high, ends[1], ">")):
        if known is None:
            panel.plot(place, y, marker, color=colour, markersize=5, clip_on=False)
    panel.plot(min(max(value, first), end), y, "o", color=colour, markersize=4.5, markeredgecolor="white", zorder=3)
