"""A panel a modality and a curve a size of model: what the pictures of context and of position have in common."""

import math

from matplotlib.lines import Line2D

from bitlaw import InputError
from bitlaw.figures.style import AXES, SMALL, WIDTH, last, page, short, styles_of

ROW = 2.0  # inches
PANEL = 2.4  # inches


def modalities_of(table, null):
    """The modalities of the table, `null` last; raises InputError when there is none."""
    if table.empty:
        raise InputError("figure: the table is empty: nothing to draw")
    return last(null, table["modality"])


def layout(table, rows, out, lines, modalities):
    """A page as a context (see `style.page`), {parameters: (colour, marker)}, and the legend's entries.

    lines: [(text, line style)] that the legend explains besides the sizes.
    """
    styles = styles_of(table["params_total"], AXES["params_total"].palette)
    entry = {"linewidth": 1, "markersize": 4}
    legend = [Line2D([], [], color=c, marker=m, label=short(size), **entry) for size, (c, m) in styles.items()]
    legend += [Line2D([], [], color="0.3", linestyle=style, label=text, **entry) for text, style in lines]
    width = min(WIDTH, max(PANEL * len(modalities) + 0.5, WIDTH / 2))
    return page(rows, len(modalities), (width, ROW * rows + 0.3), out), styles, legend


def write_legend(figure, legend):
    """Write the entries below the panels, in two rows where there are many."""
    columns = len(legend) if len(legend) <= 7 else math.ceil(len(legend) / 2)
    figure.legend(handles=legend, loc="outside lower center", ncols=columns, frameon=False,
                  fontsize=SMALL, title="parameters", title_fontsize=SMALL)  # fmt: skip
