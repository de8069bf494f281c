"""A panel of ratios over parameters or steps: points, the curves of a law, labels at their ends, reference lines."""

import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator
from scipy.optimize import isotonic_regression

from bitlaw.figures.style import GREY, SMALL, WHITE, short, tick_values
from bitlaw.laws.fitting import predict
from bitlaw.laws.verdict import supported

FILLED = 0.4  # least share of a panel's height that its points must fill, whatever reference lines there are


def draw(panel, data, column, law, styles, x="params_total", by="step"):
    """Points over x at each value of `by`, and curves where there is a law.

    data: cells of one modality; column: of its ratio; styles: {value of `by`: (colour, marker)}; x, by: params_total,
    step or the other way round. Returns {value of `by`: (x, ratio) of the right end of its curve}.
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
    ends, known = {}, supported(law)
    for value, group in data.sort_values(x).groupby(by):
        colour, marker = styles[value]
        variable, ratio = group[x].to_numpy(float), group[column].to_numpy(float)
        if known is not None:
            along = np.geomspace(first, last, 100)
            y = predict(known, along, float(value)) if by == "step" else predict(known, float(value), along)
            y = np.broadcast_to(y, along.shape)
            panel.plot(along, y, color=colour, linewidth=1.1)
        else:
            along, y = variable, ratio
            panel.plot(along, y, color=colour, linewidth=0.6, alpha=0.6)
        bars = group.get(f"{column}_ci")
        panel.errorbar(
            variable, ratio, yerr=bars, fmt=marker, color=colour, markersize=4, markeredgecolor="white",
            markeredgewidth=0.4, elinewidth=0.7, zorder=3,
        )  # fmt: skip
        ends[value] = (along[-1], y[-1])
    span = last / first if last > first else 10.0
    panel.set_xlim(first / span**0.07, last * span**0.3)  # room for the labels of the ends
    tick_values(panel.xaxis, sorted(data[x].unique()))
    panel.yaxis.set_major_locator(MaxNLocator(5))
    return ends


def reference_lines(panel, data, lines):
    """Set the range of y and draw the reference lines within it; returns [(text, value or "top" / "bottom")].

    lines: {name: (ratio, line style)}. The points come first: a line so far off that they would fill less than FILLED
    of the height gets a note instead.
    """
    if data.empty:
        return []
    low, high = panel.dataLim.intervaly  # curves and bars included
    most = max(high - low, 0.02 * high) / FILLED
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
    """Write each key of `ends` at the right end of its curve, moved apart as little as must be (least squares)."""
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
    """Write each of `labels`, as `reference_lines` returned them, where it covers the fewest points and lines."""
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
    for label, place in sorted(labels, key=lambda pair: pair[1] not in edges):  # what has one place only goes first
        heights = [edges[place]] if place in edges else []
        if not heights:  # above the line, below it, else at an edge where it covers no point
            line = panel.transData.transform((1, place))[1]
            heights = [line + 5 * points, line - 5.5 * points, *edges.values()]
        text = panel.text(0, 0, "", transform=None, **style)
        candidates = []
        for rank, y in enumerate(heights):
            text.set_text("- - " * (rank > 1) + label)
            for left in np.linspace(box.x0 + 0.01 * box.width, box.x0 + 0.6 * box.width, 25):
                text.set_position((left, y))
                extent = text.get_window_extent()
                near = np.abs(busy - (extent.p0 + extent.p1) / 2) < np.array(extent.size) / 2 + 2.5 * points
                outside = extent.y0 < box.y0 or extent.y1 > box.y1 or extent.x1 > box.x1
                blocked = outside + sum(extent.overlaps(other) for other in taken)
                candidates.append((near.all(axis=1).sum() + 100 * blocked + 15 * (rank > 1), rank, left, y, extent))
        text.remove()
        _, rank, left, y, extent = min(candidates, key=lambda candidate: candidate[:3])
        panel.text(*panel.transData.inverted().transform((left, y)), "- - " * (rank > 1) + label, **style)
        taken.append(extent)
