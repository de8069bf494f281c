"""Draw how well the exponent of size is known: the profile of the fit along it."""

import math

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bitlaw.figures.style import (
    GREY,
    OKABE_ITO,
    SMALL,
    WHITE,
    WIDEST,
    WIDTH,
    cells_by_modality,
    headings,
    not_seen,
    page,
    why_no_law,
)
from bitlaw.laws.fitting import values_of
from bitlaw.laws.formatting import interval
from bitlaw.laws.forms import SIZE, terms_of
from bitlaw.laws.verdict import supported

ROW = 1.75  # inches
MOST = 4  # panels side by side
OWN, OTHER = OKABE_ITO[:2]


def draw(cells, laws, out, protocol="lossless", null="random"):
    """Above how far the best fit at each exponent is from the best of all, below its a; for the arguments see `style`.

    Height: root of what the sum of squares exceeds its least by, 1 where the 95 % interval ends; straight arms would
    mean that alpha ± its standard error says all. Uses law["profile_curve"] and law["reference"] (its alpha and a).
    """
    _, tables = cells_by_modality(cells, laws, out, protocol, null)
    across = min(MOST, len(tables))
    bands = math.ceil(len(tables) / across)
    inches = min(WIDTH / across, WIDEST)
    with page(2 * bands, across, (inches * across, 2 * bands * ROW + 0.3), out) as (_, panels):
        entries = []
        for i, modality in enumerate(tables):
            upper, lower = panels[2 * (i // across) : 2 * (i // across) + 2, i % across]
            law = laws.get(modality, {}).get(protocol)
            lines = _lines(law, inches - 0.25)
            entries.append((upper, modality, lines, law))
            _draw_profile(upper, lower, law)
            if i % across == 0:
                upper.set_ylabel("√ excess, 1 = 95 %")
                lower.set_ylabel("best $a$")
            lower.set_xlabel("exponent α")
        for panel in panels[-2:, len(tables) - (bands - 1) * across :].flat:
            panel.remove()
        for start in range(0, len(entries), across):
            headings(entries[start : start + across])


def _lines(law, inches):
    lines = why_no_law(law, inches) or (not_seen(law, inches) if not _size_is_seen(law) else [])
    if law is None or law["coefficients"]["alpha"]["value"] is None:
        return lines
    value = f"{law['coefficients']['alpha']['value']:.3g}"
    value += ", at its bound" if any(bound.startswith("alpha") for bound in law.get("bounds_hit", ())) else ""
    return [*lines[:4], f"best fit: α {value}" if lines else f"α {value}", f"95 %: {interval(law['profile']['alpha'])}"]


def _size_is_seen(law):
    known = supported(law)
    return known is not None and SIZE in terms_of(known["form"])


def _draw_profile(upper, lower, law):
    """Draw a law's profile over alpha: above how far it is from the best, below its a."""
    curve = (law or {}).get("profile_curve")
    if law is None or not curve or law["coefficients"]["alpha"]["value"] is None:
        why = "no law fitted" if law is None else "no profile computed" if not curve else "no size term"
        for panel in (upper, lower):
            panel.set(xticks=[], yticks=[])
            panel.text(0.5, 0.5, why, transform=panel.transAxes, ha="center", fontsize=SMALL, color=GREY)
        return
    best = values_of(law) | {"objective": law["objective"]}
    place = np.searchsorted(curve["alpha"], best["alpha"])  # between two points of the curve, which miss the bottom
    alpha, a, objective = (np.insert(np.array(curve[name], float), place, best[name]) for name in
                           ("alpha", "a", "objective"))  # fmt: skip
    least = np.nanmin(objective)
    scale = curve["allowed"] - least
    colour = OWN if _size_is_seen(law) else GREY
    height = np.sqrt(np.maximum(objective - least, 0) / scale) if scale > 0 else np.full(len(alpha), np.nan)
    ends = law["profile"]["alpha"]
    edges = [alpha[0] if ends["low"] is None else ends["low"], alpha[-1] if ends["high"] is None else ends["high"]]
    for panel, y in ((upper, height), (lower, a)):
        panel.set_xscale("log")
        panel.axvspan(*edges, color=colour, alpha=0.13, linewidth=0)
        panel.plot(alpha, y, color=colour, linewidth=1.3)
        panel.axvline(best["alpha"], color=colour, linewidth=0.7)
        panel.set_xlim(alpha[0], alpha[-1])
        panel.xaxis.set_major_locator(LogLocator(numticks=6))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_locator(NullLocator())
    upper.tick_params(labelbottom=False)
    upper.axhline(1, color="0.3", linewidth=0.7, linestyle="--")
    upper.set_ylim(0, 3 if (height > 1.5).any() else 1.9)
    lower.yaxis.set_major_locator(MaxNLocator(4))
    words = {
        (True, False): (0.03, "left", "← unbounded"),
        (False, True): (0.97, "right", "unbounded →"),
        (True, True): (0.5, "center", "← unbounded →"),
    }.get((ends["low_unbounded"], ends["high_unbounded"]))
    if words:
        place, side, text = words
        upper.text(place, 0.97, text, transform=upper.transAxes, ha=side, va="top", fontsize=SMALL, color=OTHER,
                   bbox=WHITE, zorder=4)  # fmt: skip
    if "reference" in law and law["reference"]["coefficients"]["alpha"] is not None:
        reference = law["reference"]["coefficients"]
        lower.plot(
            reference["alpha"], reference["a"], "D", color=OTHER, markersize=4, markeredgecolor="white", zorder=4
        )
        lower.text(0.03, 0.98, f"◆ published,\n{law['reference']['label']}", transform=lower.transAxes, va="top",
                   fontsize=SMALL, color=OTHER)  # fmt: skip
    low, high = lower.dataLim.intervaly
    room = max(high - low, 1e-3)
    lower.set_ylim(low - 0.06 * room, high + (0.45 if lower.texts else 0.08) * room)
