"""Draw what a study found in one look: each kind of data, beside the best classical compressor on the same chunks."""

import numpy as np

from bitlaw.figures.style import GREY, OKABE_ITO, SMALL, WHITE, WIDTH, check, last, last_of_largest, page
from bitlaw.laws.together import of_chunks

MODEL, CLASSICAL, PUBLISHED = OKABE_ITO[0], "0.62", OKABE_ITO[1]


def draw(cells, classical, out, null="random"):
    """Draw a group of bars for each modality, `null` last: classical, every bit counted, counted as published.

    cells: as `style` says; of each modality the largest model's cell of the last step is drawn.
    classical: DataFrame of `classical.run`; the smallest output chunk by chunk is drawn, with its compressor's name.
    out: {"svg" | "pdf" | "png": path}, written atomically; the bytes depend on the arguments alone.
    Raises InputError for a table without ratios.
    """
    check(cells, out)
    modalities = last(null, cells["modality"])
    with page(1, 1, (WIDTH, 0.72 * len(modalities) + 0.75), out) as (_, panels):
        panel = panels[0, 0]
        ends = [1.0]
        for place, modality in enumerate(modalities):
            row = last_of_largest(cells[cells["modality"] == modality])
            best = of_chunks(classical, modality).nsmallest(1).items()
            bars = [
                *((-0.27, ratio, np.nan, name, {"color": CLASSICAL, "linewidth": 0}) for name, ratio in best),
                (0.0, row["cr_lossless"], row.get("cr_lossless_ci", np.nan), "every bit counted",
                 {"color": MODEL, "linewidth": 0}),
                (0.27, row["cr_published"], row.get("cr_published_ci", np.nan), "counted as published",
                 {"fill": False, "edgecolor": PUBLISHED, "hatch": "/////", "linewidth": 0.8}),
            ]  # fmt: skip
            for offset, ratio, half, name, how in bars:
                if not np.isfinite(ratio):
                    continue
                panel.barh(place + offset, ratio, height=0.24, **how)
                end = ratio
                if np.isfinite(half):
                    panel.errorbar(ratio, place + offset, xerr=half, color="0.15", linewidth=0.9, capsize=1.8)
                    end += half
                panel.annotate(f"{ratio:.3f}  {name}", (end, place + offset), (4, 0), textcoords="offset points",
                               va="center_baseline", fontsize=SMALL, color="0.25", bbox=WHITE)  # fmt: skip
                ends.append(end)
        panel.axvline(1.0, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        panel.set(xlim=(0, 1.33 * max(ends)), ylim=(len(modalities) - 0.5, -0.5))
        panel.set_xlabel("compressed size / original size (dotted: no compression)")
        panel.set_yticks(range(len(modalities)), modalities, fontweight="bold", fontsize=9)
        panel.tick_params(axis="y", length=0)
        about = last_of_largest(cells)
        panel.set_title(f"{about['model']}, step {about['step']:,}", loc="left", fontsize=SMALL, color=GREY)
