"""Draw cells that a fit did not see: the predicted ratio against the observed one."""

import math

import numpy as np
from matplotlib.lines import Line2D

from bitlaw.figures.style import (
    GREY,
    MARKERS,
    OKABE_ITO,
    SMALL,
    WIDEST,
    WIDTH,
    cells_by_modality,
    headings,
    legend_entry,
    page,
    why_no_law,
    wrapped,
)
from bitlaw.laws.verdict import supported

MOST = 4  # panels side by side


def draw(cells, laws, out, protocol="lossless", null="random"):
    """A marker a kind of hold-out, a colour a form, the diagonal; for the arguments see `style`.

    Uses law["holdouts"], of the law's own form and of law["winner"] (where there is none, of every form); above each
    panel, the root mean square of observed - predicted by form.
    """
    _, tables = cells_by_modality(cells, laws, out, protocol, null)
    shown = {name: _shown_forms(laws.get(name, {}).get(protocol) or {}) for name in tables}
    holdouts = [(kind, held) for by_kind in shown.values() for kind, held in by_kind.items()]
    kinds = dict.fromkeys(kind for kind, _ in holdouts)
    forms = dict.fromkeys(form for _, held in holdouts for form in held["predicted"])
    markers = {kind: MARKERS[i % len(MARKERS)] for i, kind in enumerate(kinds)}
    colours = {form: OKABE_ITO[i % len(OKABE_ITO)] for i, form in enumerate(forms)}
    across = min(MOST, len(tables)) if len(tables) != 4 else 2
    rows = math.ceil(len(tables) / across)
    inches = min(WIDTH / across, WIDEST)
    lines = {
        name: why_no_law(laws.get(name, {}).get(protocol), inches - 0.9) + _errors(by_kind, inches - 0.9)
        for name, by_kind in shown.items()
    }
    height = min(0.75 * inches, 2.8) + 0.6 + 0.13 * max(map(len, lines.values()))
    with page(rows, across, (inches * across, height * rows + 0.3), out, len(tables)) as (figure, panels):
        entries = []
        for panel, modality in zip(panels.flat, tables, strict=False):
            _draw_predictions(panel, shown[modality], markers, colours)
            entries.append((panel, modality, lines[modality], laws.get(modality, {}).get(protocol)))
            panel.set(xlabel=f"observed CR, {protocol}", ylabel="predicted CR")
        for start in range(0, len(entries), across):
            headings(entries[start : start + across])
        legend = [legend_entry(kind, "0.3", marker) for kind, marker in markers.items()]
        legend += [Line2D([], [], color=colour, linewidth=3, label=form) for form, colour in colours.items()]
        if legend:
            figure.legend(
                handles=legend, loc="outside lower center", ncols=min(len(legend), 6), frameon=False, fontsize=SMALL
            )


def _shown_forms(law):
    """law["holdouts"] without the forms that are neither the one that the data support nor the winner."""
    own = (supported(law) or law).get("form") if law else None
    shown = {own, law["winner"]} if law.get("winner") else None
    return {
        kind: held | {"predicted": {f: p for f, p in held["predicted"].items() if shown is None or f in shown}}
        for kind, held in (law.get("holdouts") or {}).items()
    }


def _errors(holdouts, inches):
    """Lines with the root mean square of observed - predicted, by form."""
    errors = {}
    for held in holdouts.values():
        for form, predicted in held["predicted"].items():
            errors.setdefault(form, []).extend(np.subtract(held["observed"], np.array(predicted, dtype=float)))
    errors = {form: np.array(values)[np.isfinite(values)] for form, values in errors.items()}  # null: no such fit
    said = [f"{form} {np.sqrt((values**2).mean()):.2g}" for form, values in errors.items() if len(values)]
    return wrapped("RMSE " + ", ".join(said).replace(" ", "\u2009").replace(",\u2009", ", "), inches) if said else []


def _draw_predictions(panel, holdouts, markers, colours):
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
