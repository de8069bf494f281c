"""Draw how well a law is known: its residuals, its profile, cells that its fit did not see.

The arguments are those of `law_figures`.
"""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bitlaw.figures.curves import (
    TERMS,
    WIDEST,
    WIDTH,
    heads,
    is_law,
    key,
    numbers,
    picture,
    refused,
    select,
    span,
    wrapped,
)
from bitlaw.figures.scaling import GREY, SMALL, WHITE, short
from bitlaw.laws.fitting import predict

FORMS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito
KINDS = "osD^vPX"
ACROSS = 4  # panels side by side


def residuals(cells, laws, out, protocol="lossless", null="random"):
    """Observed - fitted in thousandths of the ratio, sizes down, steps across; colours: the largest of the panel.

    With law["params"] and law["steps"], cells that the fit did not see stand in parentheses. Without a law: observed
    minus the mean of all cells.
    """
    column, tables = select(cells, laws, out, protocol, null)
    widest = max(data["step"].nunique() for data in tables.values())
    least = (17 * widest + 42) / 72  # inches that the numbers need
    across = max(1, min(ACROSS, len(tables), int(WIDTH / least)))
    inches = min(WIDTH / across, max(WIDEST, least))
    rows = -(-len(tables) // across)
    deepest = max(data["params_total"].nunique() for data in tables.values())
    notes = {name: refused(laws.get(name, {}).get(protocol), inches - 0.25) for name in tables}
    for name, lines in notes.items():
        lines += ["observed − mean, × 1000"] if lines else _fit_of(laws[name][protocol])
    height = 0.2 * deepest + 0.7 + 0.13 * max(len(lines) for lines in notes.values())
    with picture(rows, across, height, out, len(tables), inches * across) as (_, panels):
        texts = []
        for i, (panel, (modality, data)) in enumerate(zip(panels.flat, tables.items(), strict=False)):
            law = laws.get(modality, {}).get(protocol)
            _heat(panel, data, column, law)
            texts.append((panel, modality, notes[modality], law))
            panel.set_xlabel("step $S$")
            if i % across == 0:
                panel.set_ylabel("parameters $P$")
            elif set(data["params_total"]) == set(next(iter(tables.values()))["params_total"]):
                panel.tick_params(labelleft=False)
        for start in range(0, len(texts), across):
            heads(texts[start : start + across])


def identifiability(cells, laws, out, protocol="lossless", null="random"):
    """The profile over alpha: how far the best fit at each alpha is from the best of all, and its a.

    Height: root of what the sum of squares exceeds its least by, 1 where the 95 % interval ends; straight arms would
    mean that alpha ± its standard error says all. Uses law["profile_curve"] and law["published"] (its alpha and a).
    """
    _, tables = select(cells, laws, out, protocol, null)
    across = min(ACROSS, len(tables))
    bands = -(-len(tables) // across)
    inches = min(WIDTH / across, WIDEST)
    with picture(2 * bands, across, 1.75, out, width=inches * across) as (_, panels):
        texts = []
        for i, modality in enumerate(tables):
            upper, lower = panels[2 * (i // across) : 2 * (i // across) + 2, i % across]
            law = laws.get(modality, {}).get(protocol)
            lines = refused(law, inches - 0.25)
            if law is not None and law["coefficients"]["alpha"]["value"] is not None:
                value = f"{law['coefficients']['alpha']['value']:.3g}"
                value += ", at its bound" * any(hit.startswith("alpha") for hit in law.get("bounds_hit", ()))
                lines = [
                    *lines[:4],
                    f"best fit: α {value}" if lines else f"α {value}",
                    f"95 %: {span(law['profile']['alpha'])}",
                ]
            texts.append((upper, modality, lines, law))
            _profile(upper, lower, law)
            if i % across == 0:
                upper.set_ylabel("√ excess, 1 = 95 %")
                lower.set_ylabel("best $a$")
            lower.set_xlabel("exponent α")
        for panel in panels[-2:, len(tables) - (bands - 1) * across :].flat:
            panel.remove()
        for start in range(0, len(texts), across):
            heads(texts[start : start + across])


def heldout(cells, laws, out, protocol="lossless", null="random"):
    """Predicted against observed ratio of cells held out of the fit: a marker a kind, a colour a form, the diagonal.

    Uses law["holdouts"], of the law's own form and of law["winner"] (where there is none, of every form); above each
    panel, the root mean square of observed - predicted by form.
    """
    _, tables = select(cells, laws, out, protocol, null)
    held = {name: _shown_forms(laws.get(name, {}).get(protocol) or {}) for name in tables}
    kinds = list(dict.fromkeys(kind for holdouts in held.values() for kind in holdouts))
    forms = list(dict.fromkeys(f for holdouts in held.values() for h in holdouts.values() for f in h["predicted"]))
    markers = {kind: KINDS[i % len(KINDS)] for i, kind in enumerate(kinds)}
    colours = {form: FORMS[i % len(FORMS)] for i, form in enumerate(forms)}
    across = min(ACROSS, len(tables)) if len(tables) != 4 else 2
    rows = -(-len(tables) // across)
    inches = min(WIDTH / across, WIDEST)
    notes = {name: refused(laws.get(name, {}).get(protocol), inches - 0.9) for name in tables}
    for name, lines in notes.items():
        lines += _misses(held[name], inches - 0.9)
    height = min(0.75 * inches, 2.8) + 0.6 + 0.13 * max(len(lines) for lines in notes.values())
    with picture(rows, across, height, out, len(tables), inches * across) as (figure, panels):
        texts = []
        for panel, modality in zip(panels.flat, tables, strict=False):
            _scatter(panel, held[modality], markers, colours)
            texts.append((panel, modality, notes[modality], laws.get(modality, {}).get(protocol)))
            panel.set(xlabel=f"observed CR, {protocol}", ylabel="predicted CR")
        for start in range(0, len(texts), across):
            heads(texts[start : start + across])
        keys = [key(kind, "0.3", marker) for kind, marker in markers.items()]
        keys += [Line2D([], [], color=colour, linewidth=3, label=form) for form, colour in colours.items()]
        if keys:
            figure.legend(
                handles=keys, loc="outside lower center", ncols=min(len(keys), 6), frameon=False, fontsize=SMALL
            )


def _fit_of(law):
    return ["observed − fitted, × 1000", f"RMSE {1000 * law['rmse']:.2g}"]


def _heat(panel, data, column, law):
    sizes, steps = (sorted(data[x].unique()) for x in TERMS)
    fitted = predict(law, data["params_total"], data["step"]) if is_law(law) else data[column].mean()
    left = 1000 * (data[column] - fitted)
    seen = set(zip(law.get("params", ()), law.get("steps", ()), strict=True)) if is_law(law) else set()
    table = np.full((len(sizes), len(steps)), np.nan)
    limit = max(np.abs(left).max(), 1e-9)
    panel.set(
        xticks=range(len(steps)), yticks=range(len(sizes)), xlim=(-0.5, len(steps) - 0.5), ylim=(-0.5, len(sizes) - 0.5)
    )
    panel.set_xticklabels([short(step) for step in steps], fontsize=SMALL - 0.5, rotation=90 if len(steps) > 5 else 0)
    panel.set_yticklabels([short(size) for size in sizes], fontsize=SMALL - 0.5)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    digits = 0 if limit >= 9.5 else 1
    for p, s, value in zip(data["params_total"], data["step"], left, strict=True):
        row, column_ = sizes.index(p), steps.index(s)
        table[row, column_] = value
        text = f"{value:+.{digits}f}".replace("-", "−")
        text = text[1:] if float(text.replace("−", "-")) == 0 else text
        text = f"({text})" if seen and (p, s) not in seen else text
        panel.text(column_, row, text, ha="center", va="center_baseline", fontsize=SMALL - 1,
                   color="white" if abs(value) > 0.65 * limit else "0.1")  # fmt: skip
    edges = (np.arange(len(columns) + 1) - 0.5 for columns in (steps, sizes))
    panel.pcolormesh(*edges, table, cmap="PuOr", vmin=-limit, vmax=limit)


def _profile(upper, lower, law):
    """Draw a law's profile over alpha: above how far it is from the best, below its a."""
    curve = (law or {}).get("profile_curve")
    if law is None or not curve or law["coefficients"]["alpha"]["value"] is None:
        why = "no law fitted" if law is None else "no profile computed" if not curve else "no size term"
        for panel in (upper, lower):
            panel.set(xticks=[], yticks=[])
            panel.text(0.5, 0.5, why, transform=panel.transAxes, ha="center", fontsize=SMALL, color=GREY)
        return
    alpha, a, objective = (np.array(curve[name], dtype=float) for name in ("alpha", "a", "objective"))
    best = law["coefficients"]  # between two points of the curve, which would miss the bottom
    place = np.searchsorted(alpha, best["alpha"]["value"])
    alpha, a = (np.insert(line, place, best[name]["value"]) for line, name in ((alpha, "alpha"), (a, "a")))
    objective = np.insert(objective, place, law["objective"])
    best = np.nanmin(objective)
    scale = curve["allowed"] - best
    colour = "#0072B2" if is_law(law) else GREY
    height = np.sqrt(np.maximum(objective - best, 0) / scale) if scale > 0 else np.full(len(alpha), np.nan)
    interval = law["profile"]["alpha"]
    edges = [interval[end] if interval[end] is not None else at for end, at in (("low", alpha[0]), ("high", alpha[-1]))]
    for panel, y in ((upper, height), (lower, a)):
        panel.set_xscale("log")
        panel.axvspan(*edges, color=colour, alpha=0.13, linewidth=0)
        panel.plot(alpha, y, color=colour, linewidth=1.3)
        panel.axvline(law["coefficients"]["alpha"]["value"], color=colour, linewidth=0.7)
        panel.set_xlim(alpha[0], alpha[-1])
        panel.xaxis.set_major_locator(LogLocator(numticks=6))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_locator(NullLocator())
    upper.tick_params(labelbottom=False)
    upper.axhline(1, color="0.3", linewidth=0.7, linestyle="--")
    upper.set_ylim(0, 3 if (height > 1.5).any() else 1.9)
    lower.yaxis.set_major_locator(MaxNLocator(4))
    words = {"low": (0.03, "left", "← unbounded"), "high": (0.97, "right", "unbounded →")}
    words = [words[end] for end in words if interval[f"{end}_unbounded"]]
    for at, side, text in [(0.5, "center", "← unbounded →")] if len(words) == 2 else words:
        upper.text(at, 0.97, text, transform=upper.transAxes, ha=side, va="top", fontsize=SMALL, color="#D55E00",
                   bbox=WHITE, zorder=4)  # fmt: skip
    if "published" in law and numbers(law["published"]["coefficients"])["alpha"] is not None:
        there = numbers(law["published"]["coefficients"])
        lower.plot(there["alpha"], there["a"], "D", color="#D55E00", markersize=4, markeredgecolor="white", zorder=4)
        lower.text(0.03, 0.98, f"◆ published,\n{law['published']['label']}", transform=lower.transAxes, va="top",
                   fontsize=SMALL, color="#D55E00")  # fmt: skip
    low, high = lower.dataLim.intervaly
    room = max(high - low, 1e-3)
    lower.set_ylim(low - 0.06 * room, high + (0.45 if lower.texts else 0.08) * room)


def _shown_forms(law):
    """law["holdouts"] without the forms that are neither the law's own nor the winner."""
    shown = {law.get("form"), law["winner"]} if law.get("winner") else None
    return {
        kind: held | {"predicted": {f: p for f, p in held["predicted"].items() if shown is None or f in shown}}
        for kind, held in (law.get("holdouts") or {}).items()
    }


def _misses(holdouts, inches):
    """Lines with the root mean square of observed - predicted, by form."""
    missed = {}
    for held in holdouts.values():
        for form, predicted in held["predicted"].items():
            missed.setdefault(form, []).extend(np.subtract(held["observed"], np.array(predicted, dtype=float)))
    missed = {form: np.array(values)[np.isfinite(values)] for form, values in missed.items()}  # null: no such fit
    off = [f"{form} {np.sqrt((values**2).mean()):.2g}" for form, values in missed.items() if len(values)]
    return wrapped("RMSE " + ", ".join(off).replace(" ", "\u2009").replace(",\u2009", ", "), inches) if off else []


def _scatter(panel, holdouts, markers, colours):
    if not holdouts:
        panel.set(xticks=[], yticks=[], box_aspect=1)
        panel.text(0.5, 0.5, "no cells held out", transform=panel.transAxes, ha="center", fontsize=SMALL, color=GREY)
        return
    for kind, held in holdouts.items():
        for form, predicted in held["predicted"].items():
            panel.plot(held["observed"], np.array(predicted, dtype=float), markers[kind], markeredgewidth=0.9,
                       markeredgecolor=colours[form], markerfacecolor="none", markersize=4.5)  # fmt: skip
    low, high = min(panel.dataLim.min), max(panel.dataLim.max)
    margin = 0.06 * max(high - low, 0.01)
    ends = (low - margin, high + margin)
    panel.plot(ends, ends, color=GREY, linewidth=0.7, zorder=1)
    panel.set(xlim=ends, ylim=ends, box_aspect=1)
    panel.locator_params(nbins=5)
