"""Draw what a law leaves of each cell: observed - fitted; without a law, observed minus the mean of all cells."""

import math

import numpy as np

from bitlaw.figures.style import (
    AXES,
    SMALL,
    WIDEST,
    WIDTH,
    cells_by_modality,
    headings,
    not_seen,
    page,
    short,
    why_no_law,
)
from bitlaw.laws.fitting import predict
from bitlaw.laws.verdict import supported

MOST = 4  # panels side by side


def draw(cells, laws, out, protocol="lossless", null="random"):
    """Thousandths of the ratio, sizes down, steps across; colours: the largest of the panel.

    For the arguments see `style`. With law["params"] and law["steps"], cells that the fit did not see stand in
    parentheses.
    """
    column, tables = cells_by_modality(cells, laws, out, protocol, null)
    widest = max(data["step"].nunique() for data in tables.values())
    least = (17 * widest + 42) / 72  # inches that the numbers need
    across = max(1, min(MOST, len(tables), int(WIDTH / least)))
    inches = min(WIDTH / across, max(WIDEST, least))
    rows = math.ceil(len(tables) / across)
    deepest = max(data["params_total"].nunique() for data in tables.values())
    lines = {name: _lines(laws.get(name, {}).get(protocol), inches - 0.25) for name in tables}
    height = 0.2 * deepest + 0.7 + 0.13 * max(map(len, lines.values()))
    with page(rows, across, (inches * across, height * rows + 0.3), out, len(tables)) as (_, panels):
        entries = []
        for i, (panel, (modality, data)) in enumerate(zip(panels.flat, tables.items(), strict=False)):
            law = laws.get(modality, {}).get(protocol)
            _draw_grid(panel, data, column, law)
            entries.append((panel, modality, lines[modality], law))
            panel.set_xlabel(AXES["step"].label)
            if i % across == 0:
                panel.set_ylabel(AXES["params_total"].label)
            elif set(data["params_total"]) == set(next(iter(tables.values()))["params_total"]):
                panel.tick_params(labelleft=False)
        for start in range(0, len(entries), across):
            headings(entries[start : start + across])


def _lines(law, inches):
    if lines := why_no_law(law, inches):
        return [*lines, "observed − mean, × 1000"]
    return ["observed − fitted, × 1000", f"RMSE {1000 * supported(law)['rmse']:.2g}", *not_seen(law, inches)]


def _draw_grid(panel, data, column, law):
    sizes, steps = (sorted(data[x].unique()) for x in AXES)
    known = supported(law)
    fitted = predict(known, data["params_total"], data["step"]) if known else data[column].mean()
    residuals = 1000 * (data[column] - fitted)
    fitted_to = set(zip(known.get("params", ()), known.get("steps", ()), strict=True)) if known else set()
    table = np.full((len(sizes), len(steps)), np.nan)
    limit = max(np.abs(residuals).max(), 1e-9)
    panel.set(
        xticks=range(len(steps)), yticks=range(len(sizes)), xlim=(-0.5, len(steps) - 0.5), ylim=(-0.5, len(sizes) - 0.5)
    )
    panel.set_xticklabels([short(step) for step in steps], fontsize=SMALL - 0.5, rotation=90 if len(steps) > 5 else 0)
    panel.set_yticklabels([short(size) for size in sizes], fontsize=SMALL - 0.5)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    digits = 0 if limit >= 9.5 else 1
    for p, s, value in zip(data["params_total"], data["step"], residuals, strict=True):
        down, across = sizes.index(p), steps.index(s)
        table[down, across] = value
        text = f"{value:+.{digits}f}".replace("-", "−")
        text = text[1:] if float(text.replace("−", "-")) == 0 else text
        text = f"({text})" if fitted_to and (p, s) not in fitted_to else text
        panel.text(across, down, text, ha="center", va="center_baseline", fontsize=SMALL - 1,
                   color="white" if abs(value) > 0.65 * limit else "0.1")  # fmt: skip
    edges = (np.arange(len(columns) + 1) - 0.5 for columns in (steps, sizes))
    panel.pcolormesh(*edges, table, cmap="PuOr", vmin=-limit, vmax=limit)
