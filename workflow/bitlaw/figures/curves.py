"""Draw a law along each of its variables: ratio over parameters at each step and over steps at each size."""

import numpy as np

from bitlaw.analysis.block_bootstrap import TAILS
from bitlaw.figures import ratio_panel
from bitlaw.figures.style import AXES, WIDTH, cells_by_modality, headings, notes, page, settle, styles_of
from bitlaw.laws.bootstrap import responses
from bitlaw.laws.fitting import predict
from bitlaw.laws.formatting import equation
from bitlaw.laws.verdict import is_law, supported

ROW = 2.35  # inches


def draw(cells, laws, out, protocol="lossless", null="random"):
    """Points, curves and 95 % bands of the samples; for the arguments see `style`.

    Uses the samples of the terms that the data support and law["reference"], drawn dashed.
    """
    column, tables = cells_by_modality(cells, laws, out, protocol, null)
    styles = {x: styles_of(cells.loc[cells[column].notna(), x], axis.palette) for x, axis in AXES.items()}
    line = {f"{null} bytes": (tables[null][column].mean(), "--")} if null in tables else {}
    with page(len(tables), 2, (WIDTH, ROW * len(tables) + 0.3), out) as (figure, panels):
        finishers = []
        for row, (modality, data) in zip(panels, tables.items(), strict=True):
            law = laws.get(modality, {}).get(protocol)
            lines = notes(law, WIDTH)
            if is_law(law) and not _sampled(law):
                lines[-1] += "; no samples: no bands"
            for panel, x, by in zip(row, AXES, reversed(AXES), strict=True):
                ends = ratio_panel.draw(panel, data, column, law, styles[by], x, by)
                _draw_bands(panel, data, law, styles[by], x, by)
                labels = ratio_panel.reference_lines(panel, data, line)
                shown = _draw_reference_law(panel, data, law, styles[by], x, by)
                finishers.append((panel, data, ends, labels, x, by))
            if law and "reference" in law:
                lines.append(f"- - published ({law['reference']['label']}): {equation(_reference_law(law))}")
                lines[-1] += "" if shown else ", outside the panels"
            headings([(row[0], modality, lines, law)])
            row[0].set_ylabel(f"CR, {protocol}")
        for panel, axis in zip(panels[-1], AXES.values(), strict=True):
            panel.set_xlabel(axis.label)
        settle(figure)
        for panel, data, ends, labels, x, by in finishers:
            ratio_panel.label_ends(panel, ends, styles[by], "size $P$" if by == "params_total" else AXES[by].label)
            ratio_panel.label_references(panel, data, column, labels, x)


def _sampled(law):
    return is_law(law) and bool(supported(law).get("samples"))


def _draw_bands(panel, data, law, styles, x, by):
    """95 % of the sampled laws at each x."""
    if not _sampled(law):
        return
    along = np.geomspace(data[x].min(), data[x].max(), 60)
    for value in sorted(data[by].unique()):
        places = {x: along, by: np.full(len(along), float(value))}
        low, high = np.percentile(responses(supported(law), *(places[column] for column in AXES)), TAILS, axis=0)
        panel.fill_between(along, low, high, color=styles[value][0], alpha=0.16, linewidth=0, zorder=0.5)


def _reference_law(law):
    coefficients = {name: {"value": value} for name, value in law["reference"]["coefficients"].items()}
    return {"form": "additive", "coefficients": coefficients}


def _draw_reference_law(panel, data, law, styles, x, by):
    """Draw law["reference"] dashed, the axes left as they are; returns whether any of it is within them."""
    if not law or "reference" not in law:
        return False
    along = np.geomspace(data[x].min(), data[x].max(), 60)
    low, high = panel.get_ylim()
    inside = False
    for value in sorted(data[by].unique()):
        places = {x: along, by: float(value)}
        ratio = predict(_reference_law(law), places["params_total"], places["step"])
        panel.plot(along, ratio, color=styles[value][0], linewidth=0.9, linestyle=(0, (4, 2.5)), zorder=1.5)
        inside |= bool(((ratio > low) & (ratio < high)).any())
    panel.set_ylim(low, high)
    return inside
