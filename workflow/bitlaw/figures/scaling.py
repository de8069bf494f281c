"""Draw laws and the cells they were fitted to."""

import textwrap

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from scipy.optimize import isotonic_regression

from bitlaw import InputError
from bitlaw.laws.fitting import predict
from bitlaw.laws.formatting import equation, errors
from bitlaw.runtime.atomic import replacing

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
PROTOCOLS = {"cr_lossless": "lossless", "cr_published": "published"}
MARKERS = "osD^vPX<>*"
DATELESS = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
GREY = "0.45"
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.8}
PANEL = (3.2, 2.65)  # inches
SMALL = 7  # points


def scaling(cells, laws, out, response="cr_lossless", null="random", classical=None):
    """Draw ratio against parameters, a panel per modality and a row per protocol; write the files in `out`.

    cells: DataFrame, a row per cell: modality, model, step, params_total, cr_lossless, cr_published (ratios,
      1 = raw bytes) and, optional, cr_lossless_ci, cr_published_ci (half-widths, drawn as bars). Missing ratios
      are left out.
    laws: {modality: {"lossless" | "published": law}}, laws as `bitlaw.laws.fitting.fit` returns them; may lack some.
    out: {"svg" | "pdf" | "png": path}, written atomically; the bytes depend on the arguments alone.
    response: the column of the upper row.   null: the modality whose mean ratio is drawn in all panels.
    classical: DataFrame, rows as of `classical.measure`; the best compressor of single chunks becomes a line of
      its modality's lossless panel.
    Raises InputError.
    """
    check(cells, out, response)
    modalities = [m for m in cells["modality"].drop_duplicates() if m != null] + [null] * (
        null in set(cells["modality"])
    )
    columns = [response] + [column for column in PROTOCOLS if column != response]
    columns = [column for column in columns if cells[column].notna().any()]
    steps = sorted(cells["step"].unique())
    styles = dict(zip(steps, colours_and_markers(len(steps)), strict=True))
    with matplotlib.rc_context(STYLE):
        size = (PANEL[0] * len(modalities) + 0.4, PANEL[1] * len(columns) + 0.3)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(w_pad=0.09, h_pad=0.08)
        panels = figure.subplots(len(columns), len(modalities), squeeze=False)
        finishers = []
        for row, column in enumerate(columns):
            reference = cells.loc[cells["modality"] == null, column].mean()
            for panel, modality in zip(panels[row], modalities, strict=True):
                data = cells[(cells["modality"] == modality) & cells[column].notna()]
                law = laws.get(modality, {}).get(PROTOCOLS[column])
                ends = draw_panel(panel, data, column, law, styles)
                _title(panel, modality, law, modality == null)
                lines = {f"{null} bytes": (reference, "--"), "raw bytes": (1.0, ":")}
                if classical is not None and column == "cr_lossless":
                    lines |= best_classical(classical, modality)
                finishers.append((panel, data, column, ends, references(panel, data, column, lines)))
            panels[row][0].set_ylabel(f"compression ratio, {PROTOCOLS[column]}")
        for panel in panels[-1]:
            panel.set_xlabel("parameters $P$")
        figure.draw_without_rendering()  # the layout must stand before labels are placed among points
        figure.set_layout_engine("none")
        for panel, data, column, ends, lines in finishers:
            label_ends(panel, ends, styles)
            label_references(panel, data, column, lines)
        write(figure, out)


def best_classical(classical, modality):
    """{name: (ratio, line style)} of the compressor that makes single chunks of the modality smallest.

    Empty when none has a ratio: none was asked for, or all failed.
    """
    rows = classical[(classical["modality"] == modality) & (classical["scope"] == "chunk")].dropna(subset=["ratio"])
    return {row.compressor: (row.ratio, "-.") for row in rows.nsmallest(1, "ratio").itertuples()}


def write(figure, out):
    for kind, path in out.items():
        with replacing(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=200, metadata=DATELESS[kind])


def check(cells, out, response):
    if response not in PROTOCOLS:
        raise InputError(f"figure: response {response!r} is none of {', '.join(PROTOCOLS)}")
    if missing := {"modality", "model", "step", "params_total", *PROTOCOLS} - set(cells.columns):
        raise InputError(f"figure: the table of cells lacks the columns {', '.join(sorted(missing))}")
    if cells[list(PROTOCOLS)].isna().all(axis=None):
        raise InputError("figure: the table of cells holds no ratio: nothing to draw")
    if unknown := set(out) - set(DATELESS):
        raise InputError(f"figure: cannot write {', '.join(sorted(unknown))}; can write {', '.join(DATELESS)}")


def colours_and_markers(n, palette="viridis"):
    """n pairs, dark to light in order; a palette of matplotlib without its palest part, unreadable on white."""
    colours = matplotlib.colormaps[palette](np.linspace(0.0, 0.78, n))
    return [(colours[i], MARKERS[i % len(MARKERS)]) for i in range(n)]


def draw_panel(panel, data, column, law, styles, x="params_total", by="step"):
    """Points over x at each value of `by` (parameters, steps or the other way round), and curves where there is a law.

    Returns {value of `by`: (x, ratio) of the right end of its curve}.
    """
    panel.set_xscale("log")
    panel.grid(axis="y", linewidth=0.4, color="0.92")
    panel.set_axisbelow(True)
    if data.empty:
        panel.text(0.5, 0.5, "no data", transform=panel.transAxes, ha="center", color=GREY)
        panel.set(xticks=[], yticks=[])
        panel.xaxis.set_minor_locator(NullLocator())
        return {}
    first, last = data[x].min(), data[x].max()
    drawn = law is not None and law["verdict"] == "law"
    ends = {}
    for value, group in data.sort_values(x).groupby(by):
        colour, marker = styles[value]
        at, ratio = group[x].to_numpy(float), group[column].to_numpy(float)
        if drawn:
            along = np.geomspace(first, last, 100)
            y = predict(law, along, float(value)) if by == "step" else predict(law, float(value), along)
            panel.plot(along, y, color=colour, linewidth=1.1)
        else:
            along, y = at, ratio
            panel.plot(along, y, color=colour, linewidth=0.6, alpha=0.6)
        bars = group.get(f"{column}_ci")
        panel.errorbar(
            at, ratio, yerr=bars, fmt=marker, color=colour, markersize=4, markeredgecolor="white", markeredgewidth=0.4,
            elinewidth=0.7, zorder=3,
        )  # fmt: skip
        ends[value] = (along[-1], y[-1])
    span = last / first if last > first else 10.0
    panel.set_xlim(first / span**0.07, last * span**0.3)  # room for the labels of the ends
    ticks(panel, sorted(data[x].unique()))
    return ends


def ticks(panel, sizes):
    """Label the sizes themselves, those that have room; the last always."""
    room = 0.13 * np.ptp(np.log(panel.get_xlim()))
    labelled = sizes[-1:]
    for size in reversed(sizes[:-1]):
        if np.log(labelled[0] / size) > room:
            labelled.insert(0, size)
    panel.set_xticks(sizes, [short(size) if size in labelled else "" for size in sizes])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_locator(MaxNLocator(5))


def short(number):
    """64123 -> 64k, 1.41e9 -> 1.4B; below ten thousand as it is."""
    unit, name = next(((u, n) for u, n in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if number >= max(u, 1e4)), (1, ""))
    if not name:
        return f"{number:g}"
    return f"{number / unit:.0f}{name}" if number >= 9.95 * unit else f"{number / unit:.2g}{name}"


def _title(panel, modality, law, is_null):
    panel.set_title(modality, loc="left", fontweight="bold", fontsize=9, pad=33)
    if law is None:
        lines = ["no law fitted" + (": the control" if is_null else "")]
    elif law["verdict"] == "law":
        fit = f"{errors(law)}, R² {law['r2']:.3f}, RMSE {law['rmse']:.2g}"
        for breakable in (" ± ", "ln ", "R² ", "RMSE "):
            fit = fit.replace(breakable, breakable.replace(" ", "\u2009"))
        lines = [equation(law), *textwrap.wrap(fit, 58)]
    else:
        lines = textwrap.wrap("no law: " + ";\n".join(law["verdict_reasons"]), 54, replace_whitespace=False)
    colour = "0.15" if law is not None and law["verdict"] == "law" else GREY
    panel.annotate("\n".join(lines), (0, 1), (0, 30), xycoords="axes fraction", textcoords="offset points", va="top",
                   fontsize=SMALL, color=colour, linespacing=1.25)  # fmt: skip


def references(panel, data, column, lines):
    """Set the range of y and draw the reference lines within it; returns [(text, value or "top" / "bottom")].

    The points come first: a line so far off that they would fill less than 40 % of the height gets a note instead.
    """
    if data.empty:
        return []
    low, high = panel.dataLim.intervaly  # curves and bars included
    most = max(high - low, 0.02 * high) / 0.4
    notes = {"top": [], "bottom": []}
    labels = []
    for name, (value, style) in lines.items():
        if not np.isfinite(value):
            continue
        text = f"{name} {value:.2f}"
        if max(high, value) - min(low, value) <= most:
            low, high = min(low, value), max(high, value)
            panel.axhline(value, color=GREY, linewidth=0.8, linestyle=style, zorder=1)
            labels.append((text, value))
        else:
            notes["top" if value > high else "bottom"].append(text)
    span = max(high - low, 0.02 * high)
    panel.set_ylim(low - span * (0.16 if notes["bottom"] else 0.07), high + span * (0.16 if notes["top"] else 0.09))
    arrows = {"top": "↑", "bottom": "↓"}
    return labels + [(f"{arrows[side]} " + ", ".join(texts), side) for side, texts in notes.items() if texts]


def label_ends(panel, ends, styles, title="step $S$", text=short):
    """Write each key at the right end of its curve, moved apart as little as legibility asks (least squares)."""
    if not ends:
        return
    points = panel.figure.dpi / 72
    steps = sorted(ends, key=lambda step: ends[step][1])
    tips = panel.transData.transform([ends[step] for step in steps])
    box = panel.bbox
    gap = min(1.2 * SMALL * points, 0.9 * box.height / (len(steps) + 1))
    offsets = gap * np.arange(len(steps))
    heights = isotonic_regression(tips[:, 1] - offsets).x
    heights = np.clip(heights, box.y0 + gap, box.y1 - gap * (len(steps) + 1)) + offsets
    left = tips[0, 0] + 0.06 * box.width
    inverse = panel.transData.inverted()
    written = {"fontsize": SMALL, "va": "center_baseline", "zorder": 4, "bbox": WHITE}
    for step, tip, height in zip(steps, tips, heights, strict=True):
        colour = styles[step][0]
        if abs(height - tip[1]) > 2 * points:  # a level leader would look like a minus sign
            line = inverse.transform([(tip[0] + 3.5 * points, tip[1]), (left - points, height)])
            panel.plot(*line.T, color=colour, linewidth=0.5, zorder=2)
        panel.text(*inverse.transform((left, height)), text(step), color=colour, **written)
    panel.text(*inverse.transform((left, heights[-1] + 1.15 * gap)), title, color=GREY, **written)


def label_references(panel, data, column, labels, x="params_total"):
    """Write each label where it covers the fewest points and lines."""
    if not labels:
        return
    points, box = panel.figure.dpi / 72, panel.bbox
    busy = [panel.transData.transform(data[[x, column]].to_numpy(float))] * 30  # points outweigh lines
    for line in panel.lines:
        path = line.get_transform().transform_path(line.get_path())
        if len(set(path.vertices[:, 1])) > 1 and line.get_linestyle() != "None":
            busy.append(path.interpolated(20).vertices)
    busy = np.concatenate(busy)
    taken = [text.get_window_extent() for text in panel.texts]
    style = {"fontsize": SMALL, "color": "0.3", "va": "center", "zorder": 4, "bbox": WHITE}
    edges = {"top": box.y1 - 5 * points, "bottom": box.y0 + 5 * points}
    for label, at in sorted(labels, key=lambda pair: pair[1] not in edges):  # what has one place only goes first
        heights = [edges[at]] if at in edges else []
        if not heights:  # above the line, below it, else at an edge where it covers no point
            line = panel.transData.transform((1, at))[1]
            heights = [line + 5 * points, line - 5.5 * points, *edges.values()]
        text = panel.text(0, 0, "", transform=None, **style)
        found = []
        for rank, y in enumerate(heights):
            text.set_text("- - " * (rank > 1) + label)
            for left in np.linspace(box.x0 + 0.01 * box.width, box.x0 + 0.6 * box.width, 25):
                text.set_position((left, y))
                extent = text.get_window_extent()
                near = np.abs(busy - (extent.p0 + extent.p1) / 2) < np.array(extent.size) / 2 + 2.5 * points
                outside = extent.y0 < box.y0 or extent.y1 > box.y1 or extent.x1 > box.x1
                blocked = outside + sum(extent.overlaps(other) for other in taken)
                found.append((near.all(axis=1).sum() + 100 * blocked + 15 * (rank > 1), rank, left, y, extent))
        text.remove()
        _, rank, left, y, extent = min(found, key=lambda candidate: candidate[:3])
        panel.text(*panel.transData.inverted().transform((left, y)), "- - " * (rank > 1) + label, **style)
        taken.append(extent)
