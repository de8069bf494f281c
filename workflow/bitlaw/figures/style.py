"""What all pictures share: fonts, palettes, numbers, ticks, headings, legends, and how a figure is written.

The pictures of laws (curves, contours, excess, residuals, identifiability, heldout) are drawn by functions `draw` that
take the same arguments:
  cells: DataFrame, a row per cell: modality, model, step, params_total, cr_lossless, cr_published (ratios, 1 = raw
    bytes; missing ones are left out) and, optional, cr_lossless_ci, cr_published_ci (half-widths, drawn as bars).
  laws: {modality: {"lossless" | "published": law}}, laws as `model_selection.assess` returns them; may lack some. A
    picture says in its docstring which keys it uses where they are present.
  out: {"svg" | "pdf" | "png": path}, written atomically; the bytes depend on the arguments alone.
  protocol: "lossless" | "published".   null: the modality that comes last, as the control.
They raise InputError. Of a law the terms that the data support are drawn, and words say what they do not. A modality
whose verdict is "no law" keeps its data, and words take the place of the law.
"""

import textwrap
from contextlib import contextmanager
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from bitlaw import InputError
from bitlaw.laws.formatting import equation, errors
from bitlaw.laws.forms import SIZE, TRAINING, Term
from bitlaw.laws.verdict import is_law, supported
from bitlaw.runtime.atomic import replacing
from bitlaw.study import PROTOCOLS

STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs on every machine
    "font.size": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "mathtext.fontset": "dejavusans",
    "pdf.fonttype": 42,
    "svg.hashsalt": "bitlaw",  # else the ids of an svg are random
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}
MARKERS = "osD^vPX<>*"
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # told apart by the colour-blind
DATELESS = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
GREY = "0.45"
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.8}
SMALL = 7  # points
WIDTH = 7.2  # inches: a page
WIDEST = 3.6  # inches: a panel that has no other beside it
LINE = 9.2  # points: a line of a heading
LETTERS = 17.5  # of a heading, in an inch


class Axis(NamedTuple):
    """A variable of the laws as an axis and as a family of curves."""

    label: str
    palette: str  # of matplotlib; two, so that a step is not taken for a size
    term: Term


AXES = {  # column of cells.csv → how it is drawn
    "params_total": Axis("parameters $P$", "plasma", SIZE),
    "step": Axis("step $S$", "viridis", TRAINING),
}


def check(cells, out):
    """Raise InputError when the table of cells lacks a column or any ratio, or `out` a format that is none."""
    ratios = [f"cr_{protocol}" for protocol in PROTOCOLS]
    if missing := {"modality", "model", "step", "params_total", *ratios} - set(cells.columns):
        raise InputError(f"figure: the table of cells lacks the columns {', '.join(sorted(missing))}")
    if cells[ratios].isna().all(axis=None):
        raise InputError("figure: the table of cells holds no ratio: nothing to draw")
    if unknown := set(out) - set(DATELESS):
        raise InputError(f"figure: cannot write {', '.join(sorted(unknown))}; can write {', '.join(DATELESS)}")


def cells_by_modality(cells, laws, out, protocol, null):
    """Check the arguments; the column of the protocol and {modality: its cells with a ratio}, `null` last."""
    if protocol not in PROTOCOLS:
        raise InputError(f"figure: protocol {protocol!r} is none of {', '.join(PROTOCOLS)}")
    check(cells, out)
    column = f"cr_{protocol}"
    present = cells[cells[column].notna()]
    if present.empty:
        raise InputError(f"figure: no cell has a {protocol} ratio: nothing to draw")
    for modality in present["modality"].drop_duplicates():
        law = laws.get(modality, {}).get(protocol) or {}
        if (kind := law.get("params_kind", "total")) != "total":
            raise InputError(
                f"figure: the law of {modality} is one of {kind} parameters; the cells are drawn at the total"
            )
    return column, {name: present[present["modality"] == name] for name in last(null, present["modality"])}


def last(null, modalities):
    """The modalities, each once, in order but for `null`, which comes last where it is among them."""
    return sorted(dict.fromkeys(modalities), key=lambda name: name == null)


def last_of_largest(rows):
    """The row of the largest model's last step, a dict."""
    rows = rows[rows["params_total"] == rows["params_total"].max()]
    return rows.loc[rows["step"].idxmax()].to_dict()


@contextmanager
def page(rows, columns, size, out, used=None, pads=(0.06, 0.06)):
    """A figure of `size` (inches: width, height) and its panels `[rows, columns]`; written to `out` at the block's end.

    used: how many of the panels are used, where not all. pads: inches beside and above each panel.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(w_pad=pads[0], h_pad=pads[1])
        panels = figure.subplots(rows, columns, squeeze=False)
        for panel in panels.flat[used:] if used else ():
            panel.remove()
        yield figure, panels
        write(figure, out)


def settle(figure):
    """Fix the layout: labels placed among points must not move it."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def write(figure, out):
    """Write the figure to each path of `out`, without a date."""
    for kind, path in out.items():
        with replacing(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=200, metadata=DATELESS[kind])


def colours_and_markers(n, palette="viridis"):
    """n pairs, dark to light in order; a palette of matplotlib without its palest part, unreadable on white."""
    colours = matplotlib.colormaps[palette](np.linspace(0.0, 0.78, n))
    return [(colours[i], MARKERS[i % len(MARKERS)]) for i in range(n)]


def styles_of(values, palette):
    """{value: (colour, marker)} of the distinct values, in order."""
    distinct = sorted(set(values))
    return dict(zip(distinct, colours_and_markers(len(distinct), palette), strict=True))


def tick_values(axis, values, room=0.13):
    """Tick the values themselves on a logarithmic axis; label those that have `room`, a share of it, and the last."""
    least = room * np.ptp(np.log(axis.get_view_interval()))
    labelled = values[-1:]
    for value in reversed(values[:-1]):
        if np.log(labelled[0] / value) > least:
            labelled.insert(0, value)
    axis.set_ticks(values, [short(value) if value in labelled else "" for value in values])
    axis.set_minor_locator(NullLocator())


def short(number):
    """64123 -> 64k, 1.41e9 -> 1.4B; below ten thousand as it is."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= max(unit, 1e4):
            return f"{number / unit:.0f}{name}" if number >= 9.95 * unit else f"{number / unit:.2g}{name}"
    return f"{number:g}"


def headings(entries):
    """Write name and notes above panels of one row, level with each other: [(panel, name, lines, law)].

    The pad of the title reserves their height; their width must not: a long note runs over the panels beside it.
    """
    most = max(len(lines) for _, _, lines, _ in entries)
    for panel, name, lines, law in entries:
        panel.set_title(name, loc="left", fontweight="bold", fontsize=9, pad=LINE * most + 5)
        panel.annotate("\n".join(lines), (0, 1), (0, LINE * most + 2), xycoords="axes fraction", va="top",
                       textcoords="offset points", fontsize=SMALL, color="0.15" if is_law(law) else GREY,
                       linespacing=1.25, in_layout=False)  # fmt: skip


def notes(law, inches):
    """Lines on a law for a heading: why there is none, or equation, errors, quality, and what is not seen."""
    if lines := why_no_law(law, inches):
        return lines
    reasons = not_seen(law, inches)
    law = supported(law)
    quality = f", RMSE {law['rmse']:.2g}" + (f", R² {law['r2']:.3f}" if law.get("r2") is not None else "")
    return [equation(law), *wrapped(errors(law) + quality, inches), *reasons]


def not_seen(law, inches):
    """Lines that say which term of a law the data do not support; empty where they support both, or none."""
    return wrapped("; ".join(law.get("verdict_reasons", [])), inches) if is_law(law) else []


def why_no_law(law, inches):
    """Lines that say why there is no law; empty when there is one."""
    if law is None:
        return ["no law fitted"]
    return [] if is_law(law) else wrapped("no law: " + "; ".join(law["verdict_reasons"]), inches)


def wrapped(text, inches):
    """The text in lines that fit the width; a number stays with its name."""
    for breakable in (" ± ", "ln ", "R² ", "RMSE "):
        text = text.replace(breakable, breakable.replace(" ", "\u2009"))
    return textwrap.wrap(text, int(LETTERS * inches))


def legend_entry(text, colour, marker):
    return Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=4, label=text)
