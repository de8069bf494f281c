"""Draw a law beside its data: curves with bands, contours over both axes.

All pictures here and in `check_figures` take the same arguments:
  cells: DataFrame, a row per cell: modality, model, step, params_total, cr_lossless, cr_published (ratios, 1 = raw
    bytes; missing ones are left out) and, optional, cr_lossless_ci, cr_published_ci (half-widths, drawn as bars).
  laws: {modality: {"lossless" | "published": law}}, laws as `fitting.fit` returns them; may lack some. Keys used
    where present: samples, published, params, steps, profile_curve, holdouts (each function says which).
  out: {"svg" | "pdf" | "png": path}, written atomically; the bytes depend on the arguments alone.
  protocol: "lossless" | "published".   null: the modality that comes last, as the control.
They raise InputError. A modality whose verdict is "no law" keeps its data, and words take the place of the law.
"""

import textwrap
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from bitlaw import InputError
from bitlaw.figures.scaling import (
    GREY,
    PROTOCOLS,
    SMALL,
    STYLE,
    check,
    colours_and_markers,
    draw_panel,
    label_ends,
    label_references,
    references,
    short,
    write,
)
from bitlaw.laws.fitting import predict
from bitlaw.laws.formatting import equation, errors

WIDTH = 7.2  # inches: a page
WIDEST = 3.6  # inches: a panel that has no other beside it
PALETTES = {"step": "viridis", "params_total": "plasma"}  # two, so that a step is not taken for a size
NAMES = {"step": "step $S$", "params_total": "parameters $P$"}
TERMS = {"params_total": ("b", "alpha"), "step": ("c", "beta")}
OUTER = (2.5, 97.5)  # percentiles of the samples


def curves(cells, laws, out, protocol="lossless", null="random"):
    """Ratio over parameters at each step and over steps at each size: points, curves, 95 % bands of the samples.

    Uses law["samples"] (additive laws only) and law["published"], drawn dashed. For the arguments see the module.
    """
    column, tables = select(cells, laws, out, protocol, null)
    styles = {by: styles_of(tables, by) for by in TERMS}
    line = {f"{null} bytes": (tables[null][column].mean(), "--")} if null in tables else {}
    with picture(len(tables), 2, 2.35, out) as (figure, panels):
        finishers = []
        for row, (modality, data) in zip(panels, tables.items(), strict=True):
            law = laws.get(modality, {}).get(protocol)
            notes = _notes(law, WIDTH)
            if is_law(law) and not _sampled(law):
                notes[-1] += "; no samples: no bands"
            for panel, x, by in zip(row, TERMS, reversed(TERMS), strict=True):
                ends = draw_panel(panel, data, column, law, styles[by], x, by)
                _bands(panel, data, law, styles[by], x, by)
                labels = references(panel, data, column, line)
                shown = _published(panel, data, law, styles[by], x, by)
                finishers.append((panel, data, column, ends, labels, x, by))
            if law and "published" in law:
                notes.append(f"- - published ({law['published']['label']}): {equation(_as_law(law['published']))}")
                notes[-1] += "" if shown else ", outside the panels"
            heads([(row[0], modality, notes, law)])
            row[0].set_ylabel(f"CR, {protocol}")
        for panel, x in zip(panels[-1], TERMS, strict=True):
            panel.set_xlabel(NAMES[x])
        settle(figure)
        for panel, data, column, ends, labels, x, by in finishers:
            label_ends(panel, ends, styles[by], "size $P$" if by == "params_total" else NAMES[by])
            label_references(panel, data, column, labels, x)


def contours(cells, laws, out, protocol="lossless", null="random"):
    """The law's ratio over parameters and steps as lines and ground, the cells on it: a cell that fits vanishes in it.

    Ground, lines and cells share the scale of the bar at the right. For the arguments see the module.
    """
    column, tables = select(cells, laws, out, protocol, null)
    columns = min(len(tables), 2)
    rows = -(-len(tables) // columns)
    width = min(WIDTH, WIDEST * columns)
    with picture(rows, columns, 2.5, out, len(tables), width) as (figure, panels):
        finishers, texts = [], []
        for panel, (modality, data) in zip(panels.flat, tables.items(), strict=False):
            law = laws.get(modality, {}).get(protocol)
            texts.append((panel, modality, _notes(law, width / columns - 0.6), law))
            panel.set(xscale="log", yscale="log", xlabel=NAMES["params_total"], ylabel="step $S$")
            shown = data[column].to_numpy()
            p, s = (_grid(data[x]) for x in TERMS)
            surface = predict(law, p, s[:, None]) if is_law(law) else None
            fitted = predict(law, data["params_total"], data["step"]) if is_law(law) else shown
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
                edgecolors=np.where(shown > pale, "black", "white") if is_law(law) else "0.4", **colours,
            )  # fmt: skip
            panel.set(xlim=(p[0], p[-1]), ylim=(s[0], s[-1]))
            for axis, x in zip((panel.xaxis, panel.yaxis), TERMS, strict=True):
                _plain_log(axis, sorted(data[x].unique()))
            bar = figure.colorbar(dots, ax=panel, aspect=30, pad=0.02)
            bar.outline.set_linewidth(0.4)
            bar.ax.set_title("CR", fontsize=SMALL)
            finishers.append((panel, data, lines))
        for start in range(0, len(texts), columns):
            heads(texts[start : start + columns])
        settle(figure)
        for panel, data, lines in finishers:
            if lines is not None:
                _label_contours(panel, lines, data[list(TERMS)].to_numpy(float))


def select(cells, laws, out, protocol, null):
    """Check the arguments; the column of the protocol and {modality: its cells with a ratio}, `null` last."""
    named = {name: column for column, name in PROTOCOLS.items()}
    if protocol not in named:
        raise InputError(f"figure: protocol {protocol!r} is none of {', '.join(named)}")
    check(cells, out, column := named[protocol])
    present = cells[cells[column].notna()]
    if present.empty:
        raise InputError(f"figure: no cell has a {protocol} ratio: nothing to draw")
    for modality in present["modality"].drop_duplicates():
        law = laws.get(modality, {}).get(protocol) or {}
        if (kind := law.get("params_kind", "total")) != "total":
            raise InputError(
                f"figure: the law of {modality} is one of {kind} parameters; the cells are drawn at the total"
            )
    modalities = sorted(present["modality"].drop_duplicates(), key=lambda name: name == null)
    return column, {name: present[present["modality"] == name] for name in modalities}


@contextmanager
def picture(rows, columns, height, out, used=None, width=WIDTH):
    """A figure of rows of `height` inches and its panels; written to `out` at the end of the block.

    used: how many of the panels are used, where not all.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height * rows + 0.3), layout="constrained")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
        panels = figure.subplots(rows, columns, squeeze=False)
        for panel in panels.flat[used:] if used else ():
            panel.remove()
        yield figure, panels
        write(figure, out)


def settle(figure):
    """Fix the layout: labels placed among points must not move it."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def heads(texts):
    """Write name and notes above panels of one row, level with each other: [(panel, name, lines, law)].

    The pad of the title reserves their height; their width must not: a long note runs over the panels beside it.
    """
    most = max(len(lines) for _, _, lines, _ in texts)
    for panel, name, lines, law in texts:
        panel.set_title(name, loc="left", fontweight="bold", fontsize=9, pad=9.2 * most + 5)
        panel.annotate("\n".join(lines), (0, 1), (0, 9.2 * most + 2), xycoords="axes fraction", va="top",
                       textcoords="offset points", fontsize=SMALL, color="0.15" if is_law(law) else GREY,
                       linespacing=1.25, in_layout=False)  # fmt: skip


def is_law(law):
    return law is not None and law["verdict"] == "law"


def refused(law, inches):
    """Lines that say why there is no law; empty when there is one."""
    if law is None:
        return ["no law fitted"]
    return [] if is_law(law) else wrapped("no law: " + "; ".join(law["verdict_reasons"]), inches)


def wrapped(text, inches):
    for breakable in (" ± ", "ln ", "R² ", "RMSE "):
        text = text.replace(breakable, breakable.replace(" ", "\u2009"))
    return textwrap.wrap(text, int(17.5 * inches))


def span(interval, digits=2):
    """A 95 % interval of law["profile"] as text: "0.063 to 0.71", "below 0.3", "unbounded"."""
    low, high = (None if interval[f"{end}_unbounded"] else f"{interval[end]:.{digits}g}" for end in ("low", "high"))
    if low and high:
        return f"{low} to {high}"
    return f"above {low}, no upper end" if low else f"below {high}, no lower end" if high else "unbounded"


def known(law, power):
    """Whether the exponent has a value and a 95 % interval with two ends."""
    interval = law["profile"][power]
    unbounded = interval["low_unbounded"] or interval["high_unbounded"]
    return law["coefficients"][power]["value"] is not None and not unbounded


def numbers(coefficients):
    """{name: number or None} of coefficients given as numbers or as dicts with a value."""
    return {name: c["value"] if isinstance(c, dict) else c for name, c in coefficients.items()}


def key(text, colour, marker):
    """An entry of a legend."""
    return Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=4, label=text)


def _notes(law, inches):
    if lines := refused(law, inches):
        return lines
    quality = f", RMSE {law['rmse']:.2g}" + (f", R² {law['r2']:.3f}" if law.get("r2") is not None else "")
    return [equation(law), *wrapped(errors(law) + quality, inches)]


def _sampled(law):
    return is_law(law) and law["form"] == "additive" and bool(law.get("samples"))


def styles_of(tables, by):
    keys = sorted(set().union(*(data[by] for data in tables.values())))
    return dict(zip(keys, colours_and_markers(len(keys), PALETTES[by]), strict=True))


def _bands(panel, data, law, styles, x, by):
    """95 % of the sampled laws at each x."""
    if not _sampled(law):
        return
    rows = np.array(law["samples"], dtype=float)  # null becomes nan
    along = np.geomspace(data[x].min(), data[x].max(), 60)
    for value in sorted(data[by].unique()):
        sampled = rows[:, :1] + _term(rows[:, 1:3], along if x == "params_total" else value)
        low, high = np.percentile(sampled + _term(rows[:, 3:], along if x == "step" else value), OUTER, axis=0)
        panel.fill_between(along, low, high, color=styles[value][0], alpha=0.16, linewidth=0, zorder=0.5)


def _term(scales_and_powers, at):
    """Rows of scale at^-power; a scale of 0 has no power."""
    scale, power = scales_and_powers.T[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(scale > 0, np.exp(np.log(scale) - power * np.log(at)), 0.0)


def _as_law(published):
    coefficients = {name: {"value": value} for name, value in numbers(published["coefficients"]).items()}
    return {"form": "additive", "coefficients": coefficients}


def _published(panel, data, law, styles, x, by):
    """Draw the published law dashed, the axes left as they are; returns whether any of it is within them."""
    if not law or "published" not in law:
        return False
    along = np.geomspace(data[x].min(), data[x].max(), 60)
    low, high = panel.get_ylim()
    inside = False
    for value in sorted(data[by].unique()):
        p, s = (along, value) if x == "params_total" else (value, along)
        y = predict(_as_law(law["published"]), p, float(s) if np.isscalar(s) else s)
        panel.plot(along, y, color=styles[value][0], linewidth=0.9, linestyle=(0, (4, 2.5)), zorder=1.5)
        inside |= bool(((y > low) & (y < high)).any())
    panel.set_ylim(low, high)
    return inside


def _grid(values):
    """A geometric grid over the values and a little beyond, so that the outermost cells are not cut."""
    low, high = float(values.min()), float(values.max())
    margin = (high / low) ** 0.09 if high > low else 2.0
    return np.geomspace(low / margin, high * margin, 90)


def _plain_log(axis, values):
    """Label the values themselves on a logarithmic axis, those that have room; the last always."""
    room = 0.1 * np.ptp(np.log(axis.get_view_interval()))
    labelled = values[-1:]
    for value in reversed(values[:-1]):
        if np.log(labelled[0] / value) > room:
            labelled.insert(0, value)
    axis.set_ticks(values, [short(value) if value in labelled else "" for value in values])
    axis.set_minor_locator(NullLocator())


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
