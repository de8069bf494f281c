"""Draw what the prior gives and what context buys over training, and the rate by position in the chunk.

Both pictures take tables of `context` and `position` and write {"svg" | "pdf" | "png": path} atomically; the bytes
depend on the arguments alone. They raise InputError for a table without rows.
"""

from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from bitlaw import InputError
from bitlaw.analysis.prior_and_context import HEADLINE
from bitlaw.analysis.rate_by_position import COEFFICIENTS, shape
from bitlaw.figures.curves import PALETTES, WIDTH, picture
from bitlaw.figures.scaling import GREY, SMALL, colours_and_markers, short, ticks

PARTS = {"prior": "prior (USP)", "context": "context (ICL)"}
GAINS = {"domain": ("after another half", "-"), "file": ("its own half instead", "--")}
NULL = "0.9"  # grey
WIDEST = 2.4  # inches a panel


def _layout(table, rows, out, legend, modalities):
    """The figure and panels as a context, {parameters: (colour, marker)}, and the legend's entries."""
    sizes = sorted(table["params_total"].unique())
    styles = dict(zip(sizes, colours_and_markers(len(sizes), PALETTES["params_total"]), strict=True))
    line = {"linewidth": 1, "markersize": 4}
    handles = [Line2D([], [], color=c, marker=m, label=short(size), **line) for size, (c, m) in styles.items()]
    handles += [Line2D([], [], color="0.3", linestyle=style, label=text, **line) for text, style in legend]
    width = min(WIDTH, max(WIDEST * len(modalities) + 0.5, 3.6))
    return picture(rows, len(modalities), 2.0, out, width=width), styles, handles


def _modalities(table, null):
    """The modalities of the table, `null` last; InputError when there is none."""
    if table.empty:
        raise InputError("figure: the table is empty: nothing to draw")
    return sorted(table["modality"].drop_duplicates(), key=lambda name: name == null)


def _finish(figure, handles):
    columns = len(handles) if len(handles) <= 7 else -(-len(handles) // 2)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False,
                  fontsize=SMALL, title="parameters", title_fontsize=SMALL)  # fmt: skip


def emergence(context, out, halves=None, null="random", horizon=HEADLINE):
    """Prior and context at K = `horizon` over steps, a curve a size with its 95 % band, a panel per modality.

    The controls: grey is the span of the 95 % bands of `null` at all sizes; shuffled chunks, where the table holds
    that pass, are dashed; with `halves` (see `context.halves`) a third row says what another chunk's first half buys
    and what the chunk's own buys on top.
    """
    at = context[context["K"] == horizon]
    plain, mixed = at[at["pass"] == "plain"], at[at["pass"] == "shuffled"]
    modalities = _modalities(plain, null)
    modalities = [name for name in modalities if name != null] or modalities
    behind = plain[(plain["modality"] == null) & (null not in modalities)]
    legend = [("bytes in order", "-"), ("bytes shuffled", "--")] if len(mixed) else []
    gains = halves is not None and len(halves) > 0
    layout, styles, handles = _layout(plain, len(PARTS) + gains, out, legend, modalities)
    if len(behind):
        handles.append(Patch(color=NULL, linewidth=0, label=f"{null} bytes, all sizes"))
    with layout as (figure, panels):
        for row, (part, text) in zip(panels, PARTS.items(), strict=False):
            for panel, modality in zip(row, modalities, strict=True):
                for table, style in ((plain, "-"), (mixed, "--")):
                    _over_steps(panel, table[table["modality"] == modality], part, styles, style)
                if len(behind):
                    span = behind.groupby("step").agg({f"{part}_low": "min", f"{part}_high": "max"})
                    panel.fill_between(span.index, *span.to_numpy().T, color=NULL, linewidth=0, zorder=0)
            row[0].set_ylabel(f"{text}, bits a byte")
        if gains:
            for panel, modality in zip(panels[-1], modalities, strict=True):
                for part, (_, style) in GAINS.items():
                    _over_steps(panel, halves[halves["modality"] == modality], part, styles, style)
            panels[-1][0].set_ylabel("second half, bits a byte")
            label = "solid: {}; dashed: {}".format(*(text for text, _ in GAINS.values()))
            panels[-1][0].set_title(label, loc="left", fontsize=SMALL, color=GREY)
        for panel, modality in zip(panels[0], modalities, strict=True):
            panel.set_title(modality, loc="left", fontweight="bold", fontsize=9)
        for panel in panels.flat:
            panel.set_xscale("log")
            panel.axhline(0, color=GREY, linewidth=0.6, zorder=0.5)
            ticks(panel, sorted(plain["step"].unique()))
        for panel in panels[-1]:
            panel.set_xlabel("training steps $S$")
        _finish(figure, handles)


def _over_steps(panel, table, part, styles, style):
    for size, group in table.sort_values("step").groupby("params_total"):
        colour, marker = styles[size]
        panel.plot(group["step"], group[part], color=colour, marker=marker, markersize=3, linewidth=1, linestyle=style,
                   markeredgecolor="white", markeredgewidth=0.3)  # fmt: skip
        low, high = group[f"{part}_low"], group[f"{part}_high"]
        if len(group) > 1:
            panel.fill_between(group["step"], low, high, color=colour, alpha=0.09, linewidth=0)
        else:  # a band has no width there
            panel.vlines(group["step"], low, high, color=colour, linewidth=0.6)


def positions(curves, laws, out, null="random"):
    """Rate by position at each size's last step, a panel per modality; points with 95 % bars, lines the fitted falls.

    A fall that is not known (its note says why) is drawn dotted.
    """
    curves = curves[(curves["pass"] == "plain") & (curves["step"] == curves["step"].max())]
    laws = laws[(laws["pass"] == "plain") & (laws["step"] == laws["step"].max())]
    legend = [("fitted fall", "-"), ("fall not known", ":")]
    modalities = _modalities(curves, null)
    layout, styles, handles = _layout(curves, 1, out, legend, modalities)
    with layout as (figure, panels):
        for panel, modality in zip(panels[0], modalities, strict=True):
            panel.set_xscale("log")
            panel.set_title(f"{modality} (control)" if modality == null else modality, loc="left", fontweight="bold",
                            fontsize=9)  # fmt: skip
            for size, group in curves[curves["modality"] == modality].groupby("params_total"):
                colour, marker = styles[size]
                first, last = group["first_byte"].to_numpy(float), group["last_byte"].to_numpy(float)
                rate, x = group["bits_per_byte"], (first * last) ** 0.5
                panel.errorbar(x, rate, (rate - group["low"], group["high"] - rate), fmt=marker, color=colour,
                               markersize=3, markeredgecolor="white", markeredgewidth=0.3, elinewidth=0.6)  # fmt: skip
                law = laws[(laws["modality"] == modality) & (laws["params_total"] == size)]
                if len(law) and law[list(COEFFICIENTS)].notna().all(axis=None):
                    h, a, gamma = law[list(COEFFICIENTS)].to_numpy(float)[0]
                    known = not isinstance(law["note"].iloc[0], str) or not law["note"].iloc[0]
                    panel.plot(x, h + a * shape(first, last, gamma), color=colour, linewidth=1,
                               linestyle="-" if known else ":")  # fmt: skip
            panel.xaxis.set_minor_locator(NullLocator())
            panel.yaxis.set_major_locator(MaxNLocator(5))
            panel.set_xlabel("byte of the chunk")
        panels[0][0].set_ylabel(f"bits a byte, step {curves['step'].max():,}")
        _finish(figure, handles)
