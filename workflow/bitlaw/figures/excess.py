"""Draw what each term of a law leaves of the ratio above a, without the other term: a power is a straight line."""

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bitlaw.figures import ratio_panel
from bitlaw.figures.style import (
    AXES,
    SMALL,
    WHITE,
    WIDTH,
    cells_by_modality,
    headings,
    legend_entry,
    page,
    settle,
    short,
    styles_of,
    tick_values,
    why_no_law,
    wrapped,
)
from bitlaw.laws.fitting import values_of
from bitlaw.laws.formatting import interval
from bitlaw.laws.forms import ADDS_TERMS, terms_of
from bitlaw.laws.verdict import GREEK, is_identified, supported

ROW = 2.2  # inches


def draw(cells, laws, out, protocol="lossless", null="random"):
    """Left over parameters, right over steps; for the arguments see `style`.

    a moves every point: the bars and the band lead from where they are with a at the low end of its 95 % interval, all
    else refitted (law["at_ends_of_a"]), to where they are at its high end; the numbers at the right say what the
    exponent would then be. An exponent without a closed interval has a dashed grey line. Of a term that the data do not
    support the panel shows the ratio without the other term, and no line.
    """
    column, tables = cells_by_modality(cells, laws, out, protocol, null)
    styles = {x: styles_of(cells.loc[cells[column].notna(), x], axis.palette) for x, axis in AXES.items()}
    with page(len(tables), 2, (WIDTH, ROW * len(tables) + 0.8), out) as (figure, panels):
        finishers = []
        for row, (modality, data) in zip(panels, tables.items(), strict=True):
            law = laws.get(modality, {}).get(protocol)
            known = supported(law)
            additive = known is not None and known["form"] in ADDS_TERMS
            lines = why_no_law(law, WIDTH)
            if not lines and not additive:
                lines = [f"form {known['form']}: its terms cannot be told apart; the ratio itself is drawn"]
            headings([(row[0], modality, lines or _intervals(law), law if additive else None)])
            for panel, x, by in zip(row, AXES, reversed(AXES), strict=True):
                own = known if additive else None
                finishers.append((panel, _draw_term(panel, data, column, own, styles[by], x, by)))
                panel.set_ylabel(_label(own, x, by))
        for panel, x, by in zip(panels[-1], AXES, reversed(AXES), strict=True):
            panel.set_xlabel(AXES[x].label)
            legend = [legend_entry(short(value), *style) for value, style in styles[by].items()]
            figure.legend(
                handles=legend, title=AXES[by].label, loc=f"outside lower {'left' if x == 'params_total' else 'right'}",
                ncols=min(len(legend), 6), handletextpad=0.1, columnspacing=0.9, title_fontsize=SMALL, fontsize=SMALL,
                frameon=False,
            )  # fmt: skip
        settle(figure)
        for panel, (ends, colours) in finishers:
            ratio_panel.label_ends(panel, ends, colours, "", str)


def _power(values, x, along):
    """A term by itself, float64 like `along`; 0 where it vanished."""
    term = AXES[x].term
    scale, exponent = values.get(term.scale), values.get(term.exponent)
    return np.exp(np.log(scale) - exponent * np.log(along)) if scale else np.zeros(np.shape(along))


def _label(known, x, by):
    """What a panel over `x` shows of the ratio under the law `known`, which adds terms (None: no law)."""
    terms = terms_of(known["form"]) if known else ()
    own, other = AXES[x].term, AXES[by].term
    less = " − $a$" * (own in terms)
    less += f" − ${other.scale}\\,{other.symbol}^{{-{GREEK[other.exponent]}}}$" * (other in terms)
    return f"CR{less}"


def _intervals(law):
    """The heading of a law: its constant and exponents with their intervals, and what the data do not support."""
    reasons, law = law["verdict_reasons"], supported(law)
    values, intervals = values_of(law), law["profile"]
    parts = [f"a {values['a']:.3f} (95 %, the band: {interval(intervals['a'])})"]
    for name in (term.exponent for term in terms_of(law["form"])):
        doubt = "" if is_identified(law, name) else ", not identified"
        if values[name] is None:
            parts.append(f"{GREEK[name]}: its term vanished")
        else:
            parts.append(f"{GREEK[name]} = −slope {values[name]:.3g} (95 %: {interval(intervals[name])}){doubt}")
    return wrapped("; ".join(parts + reasons), WIDTH)


def _draw_term(panel, data, column, known, styles, x, by):
    """Draw one term's excess under the law `known` (None: no law); the labels of the lines' ends and their colours."""
    panel.set(xscale="log", yscale="log")
    panel.grid(axis="y", linewidth=0.4, color="0.92")
    variable, ratio = data[x].to_numpy(float), data[column].to_numpy(float)
    first, last = variable.min(), variable.max()
    along = np.geomspace(first, last, 60)
    others = data[by].to_numpy(float)
    variants = [values_of(known), *known.get("at_ends_of_a", [])] if known else []
    left = [ratio - _power(variants[0], by, others)] if known else [ratio]
    if known and AXES[x].term in terms_of(known["form"]):
        left = [ratio - c["a"] - _power(c, by, others) for c in variants]
    else:
        variants = []
    lines = [_power(c, x, along) for c in variants]
    positive = left[0][left[0] > 0]
    high = max([values.max() for values in (*left, *lines)])
    # What is at or below 0 has no place on the axis, what is near 0 stretches it over noise: both end at a floor.
    least = min([values[values > 0].min() for values in (*left, *lines) if (values > 0).any()])
    floor = max(least, 0.03 * np.median(positive) if len(positive) else least) / 1.3
    if not variants:
        floor = least / 1.02
    shown = [np.maximum(values, floor) for values in left]
    panel.vlines(variable, np.min(shown, axis=0), np.max(shown, axis=0), color="0.8", linewidth=0.8, zorder=1)
    if len(lines) > 1:
        clipped = np.maximum(lines, floor)
        panel.fill_between(along, clipped.min(axis=0), clipped.max(axis=0), color="0.5", alpha=0.15, linewidth=0)
    for value in sorted(data[by].unique()):
        chosen = (data[by] == value).to_numpy()
        bars = data[f"{column}_ci"].to_numpy()[chosen] if f"{column}_ci" in data else None
        seen = left[0][chosen] >= floor
        colour, marker = styles[value]
        panel.errorbar(
            variable[chosen][seen], left[0][chosen][seen], yerr=None if bars is None else bars[seen], fmt=marker,
            color=colour, markersize=4, markeredgecolor="white", markeredgewidth=0.4, elinewidth=0.7, zorder=3,
        )  # fmt: skip
        panel.plot(variable[chosen][~seen], np.full((~seen).sum(), floor), "|", color=colour, markersize=5)
    ends, colours = {}, {}
    exponent = AXES[x].term.exponent
    for i, (c, line) in enumerate(zip(variants, lines, strict=True)):
        if not line.any():
            continue
        main = i == 0
        sure = is_identified(known, exponent)
        colour = "0.1" if main and sure else "0.45"
        style = "-" if main and sure else "--" if main else ":"
        panel.plot(along, np.where(line < floor, np.nan, line), style, color=colour, linewidth=1.3 if main else 0.9)
        text = f"$a$ {c['a']:.3f}: {GREEK[exponent]} {c[exponent]:.2g}"
        ends[text], colours[text] = (last, max(line[-1], floor)), (colour, None)
    width = last / first if last > first else 10.0
    panel.set_xlim(first / width**0.07, last * width**0.55)
    panel.set_ylim(floor / 1.15, high * (high / floor) ** 0.08)
    tick_values(panel.xaxis, sorted(data[x].unique()))
    decades = np.log10(high / floor)
    logarithmic = LogLocator(subs=(1, 2, 5) if decades < 2.2 else (1,))
    panel.yaxis.set_major_locator(MaxNLocator(4) if decades < 0.5 else logarithmic)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    panel.yaxis.set_minor_locator(NullLocator())
    if below := int((left[0] < floor).sum()):
        text = f"{below} of {len(ratio)} below" + ", some ≤ 0" * bool((left[0] <= 0).any())
        panel.text(0.015, 0.03, text, transform=panel.transAxes, va="bottom", fontsize=SMALL, color="0.3", bbox=WHITE,
                   zorder=4)  # fmt: skip
    return ends, colours
