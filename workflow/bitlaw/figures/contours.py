"""Draw a law as a map over parameters and steps, the cells on it: a cell that fits vanishes in it."""

import math

import numpy as np
from matplotlib.ticker import MaxNLocator

from bitlaw.figures.style import (
    AXES,
    SMALL,
    WIDEST,
    WIDTH,
    cells_by_modality,
    headings,
    notes,
    page,
    settle,
    tick_values,
)
from bitlaw.laws.fitting import predict
from bitlaw.laws.verdict import supported

ROW = 2.5  # inches


def draw(cells, laws, out, protocol="lossless", null="random"):
    """Lines and ground are the law's ratio; they and the cells share the scale of the bar at the right.

    For the arguments see `style`.
    """
    column, tables = cells_by_modality(cells, laws, out, protocol, null)
    columns = min(len(tables), 2)
    rows = math.ceil(len(tables) / columns)
    width = min(WIDTH, WIDEST * columns)
    with page(rows, columns, (width, ROW * rows + 0.3), out, len(tables)) as (figure, panels):
        finishers, entries = [], []
        for panel, (modality, data) in zip(panels.flat, tables.items(), strict=False):
            law = laws.get(modality, {}).get(protocol)
            entries.append((panel, modality, notes(law, width / columns - 0.6), law))
            panel.set(
                xscale="log",
                yscale="log",
                **{f"{side}label": axis.label for side, axis in zip("xy", AXES.values(), strict=True)},
            )
            shown = data[column].to_numpy()
            p, s = (_grid(data[x]) for x in AXES)
            known = supported(law)
            surface = predict(known, p, s[:, None]) if known else None
            fitted = predict(known, data["params_total"], data["step"]) if known else shown
            levels = MaxNLocator(9).tick_values(min(shown.min(), fitted.min()), max(shown.max(), fitted.max()))
            colours = {"cmap": "viridis", "vmin": levels[0], "vmax": levels[-1]}
            pale = levels[0] + 0.6 * (levels[-1] - levels[0])  # white does not show on what is paler
            lines = None
            if surface is not None:
                panel.pcolormesh(p, s, surface, rasterized=True, shading="gouraud", **colours)
                lines = panel.contour(
                    p, s, surface, levels, colors=np.where(levels > pale, "black", "white"), linewidths=0.8
                )
            dots = panel.scatter(
                data["params_total"], data["step"], c=shown, s=24, linewidths=0.7, zorder=3,
                edgecolors=np.where(shown > pale, "black", "white") if known else "0.4", **colours,
            )  # fmt: skip
            panel.set(xlim=(p[0], p[-1]), ylim=(s[0], s[-1]))
            for axis, x in zip((panel.xaxis, panel.yaxis), AXES, strict=True):
                tick_values(axis, sorted(data[x].unique()), room=0.1)
            bar = figure.colorbar(dots, ax=panel, aspect=30, pad=0.02)
            bar.outline.set_linewidth(0.4)
            bar.ax.set_title("CR", fontsize=SMALL)
            finishers.append((panel, data, lines))
        for start in range(0, len(entries), columns):
            headings(entries[start : start + columns])
        settle(figure)
        for panel, data, lines in finishers:
            if lines is not None:
                _label_contours(panel, lines, data[list(AXES)].to_numpy(float))


def _grid(values):
    """A geometric grid over the values and a little beyond, so that the outermost cells are not cut."""
    low, high = float(values.min()), float(values.max())
    margin = (high / low) ** 0.09 if high > low else 2.0
    return np.geomspace(low / margin, high * margin, 90)


def _label_contours(panel, lines, cells):
    """Label each line where it is far from cells, edges and the other labels."""
    points = panel.figure.dpi / 72
    taken = panel.transData.transform(cells)
    box = panel.bbox
    places = []
    for level in lines.get_paths():
        at = panel.transData.transform(level.vertices)
        inside = np.minimum(at - box.p0, box.p1 - at).min(axis=1) > 12 * points
        if not inside.any():
            continue
        at = at[inside]
        away = np.linalg.norm((at[:, None] - taken) / (1.5, 1.0), axis=2).min(axis=1)  # labels are wider than high
        if away.max() > 9 * points:
            taken = np.vstack([taken, place := at[away.argmax()]])
            places.append(panel.transData.inverted().transform(place))
    if places:
        panel.clabel(lines, manual=places, fontsize=SMALL - 0.5, inline_spacing=2, fmt="%g")
