"""Draw laws of a table of one's own: the response over size, over training and, if asked for, over compute."""

import matplotlib
import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from bitlaw.figures.style import SMALL, WIDTH, headings, notes, page, settle, short
from bitlaw.laws.fitting import predict
from bitlaw.laws.verdict import supported

ROW = 2.5  # inches
CURVES = 6  # most of a panel
ROOM = 0.3  # of the axis, for the labels of the ends
PALETTES = {"params": "plasma", "steps": "viridis"}  # as in the pictures of a study


def draw(laws, out, compute=False):
    """A row a law: points and, at up to CURVES values of the other variable, the terms that the data support.

    laws: {name: law as `table_fit.fit_one` returns it}; out: {"svg" | "pdf" | "png": path}; compute: a panel over
    C = 6·P·S, which counts the operations of training where P is parameters and S tokens.
    """
    across = 3 if compute else 2
    with page(len(laws), across, (WIDTH / 2 * across, ROW * len(laws) + 0.3), out) as (figure, panels):
        for row, (name, law) in zip(panels, laws.items(), strict=True):
            p, s = np.array(law["params"]), np.array(law["steps"])
            values = {"params": p, "steps": s}
            size, steps = law["columns"]["size"], law["columns"]["steps"]
            over = [(size, "params", "steps"), (steps, "steps", "params"), (f"6 × {size} × {steps}", "steps", "params")]
            for i, (panel, (label, x, by)) in enumerate(zip(row, over, strict=False)):
                _draw_panel(panel, law, values, x, by, 6 * p if i == 2 else None)
                panel.set_xlabel(label)
            row[0].set_ylabel(law["response"])
            headings([(row[0], name, notes(law, WIDTH / 2 * across), law)])
        settle(figure)


def _draw_panel(panel, law, values, x, by, times=None):
    """Points over values[x], coloured by values[by], and curves; times: what x is multiplied by at each point."""
    panel.set_xscale("log")
    panel.grid(axis="y", linewidth=0.4, color="0.92")
    panel.set_axisbelow(True)
    place, response = values[x] if times is None else values[x] * times, np.array(law["ratio"])
    logs = np.log(values[by])
    shade = matplotlib.colors.Normalize(logs.min(), logs.min() + np.ptp(logs) / 0.78 + 1e-9)  # without the palest part
    colours = matplotlib.colormaps[PALETTES[by]]
    bars = None if law.get("sigma") is None else 1.96 * np.array(law["sigma"])
    if bars is not None and not law["log"]:
        panel.errorbar(place, response, yerr=bars, fmt="none", ecolor="0.7", elinewidth=0.6, zorder=2)
    panel.scatter(place, response, c=colours(shade(logs)), s=14, linewidths=0.4, edgecolors="white", zorder=3)
    known, labels = supported(law), []
    distinct = np.unique(values[by])
    chosen = distinct[np.unique(np.linspace(0, len(distinct) - 1, CURVES).round().astype(int))]
    for value in chosen:
        colour = colours(shade(np.log(value)))
        along = np.geomspace(values[x].min(), values[x].max(), 100)
        if known is None:
            continue
        at = {x: along, by: value}
        curve = np.broadcast_to(predict(known, at["params"], at["steps"]), along.shape)
        where = along if times is None else 6 * value * along
        panel.plot(where, curve, color=colour, linewidth=1.1)
        labels.append((where[-1], float(curve[-1]), short(value), colour))
    low, high = place.min(), place.max()
    low, high = min([low, *(end[0] for end in labels)]), max([high, *(end[0] for end in labels)])
    panel.set_xlim(low / (high / low) ** 0.05, high * (high / low) ** ROOM)
    panel.xaxis.set_major_locator(LogLocator(numticks=6))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_locator(MaxNLocator(5))
    _label(panel, labels)


def _label(panel, labels):
    """Write each curve's value at its end, those that have room from the top down."""
    bottom, top = panel.get_ylim()
    gap, last = 0.055 * (top - bottom), np.inf
    for x, y, text, colour in sorted(labels, key=lambda label: -label[1]):
        if last - y >= gap:
            panel.annotate(text, (x, y), (3, 0), textcoords="offset points", va="center", fontsize=SMALL, color=colour)
            last = y
