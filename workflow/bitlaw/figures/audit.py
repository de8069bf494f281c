"""Draw the audit: from the published ratio, term by term, to the size of a stream that decodes."""

import math

import numpy as np
from matplotlib.ticker import MaxNLocator

from bitlaw import InputError
from bitlaw.compression.accounting import AUDIT_TERMS
from bitlaw.figures.style import GREY, OKABE_ITO, SMALL, WHITE, WIDTH, last_of_largest, page

NAMES = {
    "published": "published",
    "audit_quantisation": "causal int8",
    "audit_probabilities": "fp32, no cap",
    "audit_past_1024": "tokens past 1,024",
    "audit_first_token": "first token",
    "audit_dropped": "dropped chunks",
    "audit_frequencies": "integer frequencies",
    "audit_termination": "coder's end",
    "audit_container": "container",
    "audit_top_bits": "top bits",
    "lossless": "lossless",
}
TOTAL, UP, DOWN = OKABE_ITO[:3]
NULL_TOTAL, NULL_STEP = "0.45", "0.7"
MOST = 3  # panels side by side


def draw(audit, out, null="random"):
    """Draw a panel per modality, bars from top to bottom, with those of `null` in grey beneath each.

    audit: DataFrame as `breakdown.audit` returns it; drawn are the largest model's cells of the last step.
    out: {"svg" | "pdf" | "png": path}, written atomically; the bytes depend on the arguments alone.
    Raises InputError for a table without rows.
    """
    if audit.empty:
        raise InputError("figure: the table of the audit is empty: nothing to draw")
    chosen = {name: last_of_largest(rows) for name, rows in audit.groupby("modality", sort=False)}
    beneath = chosen.pop(null, None) if len(chosen) > 1 else None
    terms = [t for t in AUDIT_TERMS if t != "audit_quantisation" or any(row[t] != 0 for row in chosen.values())]
    keys = ["published", *terms, "lossless"]
    across = min(MOST, len(chosen))
    down = math.ceil(len(chosen) / across)
    height = 0.24 * len(keys) + 0.55
    with page(down, across, (WIDTH, height * down + 0.3), out, len(chosen)) as (_, panels):
        for i, (panel, (modality, row)) in enumerate(zip(panels.flat, chosen.items(), strict=False)):
            most = _bars(panel, row, keys, -0.2, (TOTAL, UP, DOWN))
            if beneath is not None:
                most = max(most, _bars(panel, beneath, keys, 0.2, (NULL_TOTAL, NULL_STEP, NULL_STEP), f" {null} bytes"))
            panel.axvline(1.0, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
            panel.text(1.0, -0.75, "raw bytes", fontsize=SMALL - 0.5, color=GREY, ha="center", va="center", bbox=WHITE)
            panel.set(ylim=(len(keys) - 0.4, -1.1), xlim=(0, 1.24 * max(most, 1.0)), xlabel="ratio to the raw bytes")
            panel.set_yticks(range(len(keys)), [NAMES[key] for key in keys] if i % across == 0 else [""] * len(keys))
            panel.tick_params(axis="y", length=0)
            panel.xaxis.set_major_locator(MaxNLocator(4))
            panel.set_title(modality, loc="left", fontweight="bold", fontsize=9, pad=14)
            about = f"{row['model']}, step {row['step']:,}"
            panel.annotate(about, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points",
                           fontsize=SMALL, color=GREY, in_layout=False)  # fmt: skip


def _bars(panel, row, keys, offset, colours, name=""):
    """Totals from 0, terms from where the one before ended; a number at each. Returns the rightmost end.

    name: written after the first number.
    """
    total, up, down = colours
    reached, ends = row["published"], [row["lossless"]]
    if np.isnan(reached):  # the terms over kept chunks are unknown too: begin where the known ones do
        reached = row["lossless"] - np.nansum([row[key] for key in keys[1:-1]])
    for place, key in enumerate(keys):
        value, y = row[key], place + offset
        if key in ("published", "lossless"):
            left, width, colour, text = 0.0, value, total, f"{value:.3f}"
        else:
            left, width, colour, text = reached, value, up if value > 0 else down, f"{value:+.3f}"
        if np.isnan(value):
            panel.text(0.01, y, "no chunk kept", fontsize=SMALL - 1.5, color=total, va="center")
            continue
        if key not in ("published", "lossless"):
            reached += value
        if abs(value) < 5e-4:
            text = f"{value:+.0e}".replace("e-0", "e-") if value else "0"
        text += name * (key == "published")
        panel.barh(y, width, left=left, height=0.36, color=colour, linewidth=0)
        end = max(left, left + width)
        panel.annotate(text.replace("-", "−"), (end, y), (2, 0), textcoords="offset points", va="center_baseline",
                       fontsize=SMALL - 1.5, color="0.2" if offset < 0 else NULL_TOTAL, bbox=WHITE)  # fmt: skip
        ends.append(end)
    return max(ends)
