"""Draw what a law's terms leave above its asymptote.   The arguments are those of `law_figures`."""

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from scipy.optimize import minimize, nnls

from bitlaw.figures.curves import (
    NAMES,
    TERMS,
    WIDTH,
    heads,
    is_law,
    key,
    known,
    numbers,
    picture,
    refused,
    select,
    settle,
    span,
    styles_of,
    wrapped,
)
from bitlaw.figures.scaling import SMALL, WHITE, label_ends, short, ticks
from bitlaw.laws.formatting import GREEK
from bitlaw.laws.forms import BOUNDS


def excess(cells, laws, out, protocol="lossless", null="random"):
    """What is left of the ratio above a, without the other term, on logarithmic axes: a power is a straight line.

    Left over parameters, right over steps. a moves every point: the bars and the band lead from where they are with
    a at the low end of its 95 % interval, all else refitted, to where they are at its high end; the numbers at the
    right say what the exponent would then be. An exponent without a closed interval has a dashed grey line.
    """
    column, tables = select(cells, laws, out, protocol, null)
    styles = {by: styles_of(tables, by) for by in TERMS}
    with picture(len(tables), 2, 2.2 + 0.5 / len(tables), out) as (figure, panels):
        finishers = []
        for row, (modality, data) in zip(panels, tables.items(), strict=True):
            law = laws.get(modality, {}).get(protocol)
            additive = is_law(law) and law["form"] == "additive"
            variants = _variants(law, data, column) if additive else []
            notes = refused(law, WIDTH)
            if not notes and not additive:
                notes = [f"form {law['form']}: its terms cannot be told apart; the ratio itself is drawn"]
            heads([(row[0], modality, notes or _excess_notes(law), law if additive else None)])
            for panel, x, by in zip(row, TERMS, reversed(TERMS), strict=True):
                finishers.append((panel, _excess_panel(panel, data, column, law, variants, styles[by], x, by)))
            row[0].set_ylabel("CR − a − c$\\,S^{-β}$" if additive else "CR")
            row[1].set_ylabel("CR − a − b$\\,P^{-α}$" if additive else "")
        for panel, x, by in zip(panels[-1], TERMS, reversed(TERMS), strict=True):
            panel.set_xlabel(NAMES[x])
            legend = [key(short(value), *style) for value, style in styles[by].items()]
            figure.legend(
                handles=legend, title=NAMES[by], loc=f"outside lower {'left' if x == 'params_total' else 'right'}",
                ncols=min(len(legend), 6), handletextpad=0.1, columnspacing=0.9, title_fontsize=SMALL, fontsize=SMALL,
                frameon=False,
            )  # fmt: skip
        settle(figure)
        for panel, (ends, colours) in finishers:
            label_ends(panel, ends, colours, "", str)


def _given(a, data, column, start):
    """The additive law with this a, all else refitted: linear in the scales, so only the exponents are searched."""
    p, s = (data[x].to_numpy(float) for x in TERMS)
    centres = [np.exp(np.log(values).mean()) for values in (p, s)]
    target = data[column].to_numpy(float) - a

    def solved(log_exponents):
        alpha, beta = np.exp(np.clip(log_exponents, *np.log(BOUNDS)))
        return nnls(np.column_stack([(p / centres[0]) ** -alpha, (s / centres[1]) ** -beta]), target)

    starts = [start, (0.03, 0.3), (0.3, 0.3), (0.3, 0.03), (1.0, 1.0), (3.0, 0.5)]
    found = [minimize(lambda at: solved(at)[1], np.log(at), method="Nelder-Mead").x for at in starts]
    best = min(found, key=lambda at: solved(at)[1])
    (b, c), (alpha, beta) = solved(best)[0], np.exp(np.clip(best, *np.log(BOUNDS)))
    return {"a": a, "b": b * centres[0] ** alpha, "alpha": alpha, "c": c * centres[1] ** beta, "beta": beta}


def _variants(law, data, column):
    """The law's coefficients, then those at the ends of a's 95 % interval (an end that is unbounded has none)."""
    best = numbers(law["coefficients"])
    start = [best[power] or 0.5 for _, power in TERMS.values()]
    interval = law["profile"]["a"]
    ends = [interval[end] for end in ("low", "high") if interval[end] is not None]
    tolerance = 1e-6 * data[column].mean()
    return [best] + [_given(a, data, column, start) for a in ends if abs(a - best["a"]) > tolerance]


def _power(coefficients, x, at):
    scale, power = (coefficients[name] for name in TERMS[x])
    return np.exp(np.log(scale) - power * np.log(at)) if scale else np.zeros(np.shape(at))


def _excess_notes(law):
    intervals = law["profile"]
    parts = [f"a {law['coefficients']['a']['value']:.3f} (95 %, the band: {span(intervals['a'])})"]
    for power in ("alpha", "beta"):
        value = law["coefficients"][power]["value"]
        doubt = "" if known(law, power) else ", not identified"
        if value is None:
            parts.append(f"{GREEK[power]}: its term vanished")
        else:
            parts.append(f"{GREEK[power]} = −slope {value:.3g} (95 %: {span(intervals[power])}){doubt}")
    return wrapped("; ".join(parts), WIDTH)


def _excess_panel(panel, data, column, law, variants, styles, x, by):
    """Draw one term's excess; returns the labels of the lines' ends and their colours."""
    panel.set(xscale="log", yscale="log")
    panel.grid(axis="y", linewidth=0.4, color="0.92")
    at, ratio = data[x].to_numpy(float), data[column].to_numpy(float)
    first, last = at.min(), at.max()
    along = np.geomspace(first, last, 60)
    left = [ratio - c["a"] - _power(c, by, data[by].to_numpy(float)) for c in variants] or [ratio]
    lines = [_power(c, x, along) for c in variants]
    positive = left[0][left[0] > 0]
    high = max([values.max() for values in (*left, *lines)])
    # What is at or below 0 has no place on the axis, what is near 0 stretches it over noise: both end at a floor.
    least = min([values[values > 0].min() for values in (*left, *lines) if (values > 0).any()])
    floor = max(least, 0.03 * np.median(positive) if len(positive) else least) / 1.3
    if not variants:
        floor = least / 1.02
    shown = [np.maximum(values, floor) for values in left]
    panel.vlines(at, np.min(shown, axis=0), np.max(shown, axis=0), color="0.8", linewidth=0.8, zorder=1)
    if len(lines) > 1:
        clipped = np.maximum(lines, floor)
        panel.fill_between(along, clipped.min(axis=0), clipped.max(axis=0), color="0.5", alpha=0.15, linewidth=0)
    for value in sorted(data[by].unique()):
        chosen = (data[by] == value).to_numpy()
        bars = data[f"{column}_ci"].to_numpy()[chosen] if f"{column}_ci" in data else None
        seen = left[0][chosen] >= floor
        colour, marker = styles[value]
        panel.errorbar(
            at[chosen][seen], left[0][chosen][seen], yerr=None if bars is None else bars[seen], fmt=marker,
            color=colour, markersize=4, markeredgecolor="white", markeredgewidth=0.4, elinewidth=0.7, zorder=3,
        )  # fmt: skip
        panel.plot(at[chosen][~seen], np.full((~seen).sum(), floor), "|", color=colour, markersize=5)
    ends, colours = {}, {}
    power = TERMS[x][1]
    for i, (c, line) in enumerate(zip(variants, lines, strict=True)):
        if not line.any():
            continue
        main = i == 0
        sure = known(law, power)
        colour = "0.1" if main and sure else "0.45"
        style = "-" if main and sure else "--" if main else ":"
        panel.plot(along, np.where(line < floor, np.nan, line), style, color=colour, linewidth=1.3 if main else 0.9)
        text = f"$a$ {c['a']:.3f}: {GREEK[power]} {c[power]:.2g}"
        ends[text], colours[text] = (last, max(line[-1], floor)), (colour, None)
    width = last / first if last > first else 10.0
    panel.set_xlim(first / width**0.07, last * width**0.55)
    panel.set_ylim(floor / 1.15, high * (high / floor) ** 0.08)
    ticks(panel, sorted(data[x].unique()))
    decades = np.log10(high / floor)
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.2 else (1,)))
    panel.yaxis.set_major_locator(MaxNLocator(4)) if decades < 0.5 else None
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    panel.yaxis.set_minor_locator(NullLocator())
    if below := int((left[0] < floor).sum()):
        text = f"{below} of {len(at)} below" + ", some ≤ 0" * bool((left[0] <= 0).any())
        panel.text(0.015, 0.03, text, transform=panel.transAxes, va="bottom", fontsize=SMALL, color="0.3", bbox=WHITE,
                   zorder=4)  # fmt: skip
    return ends, colours
