"""Draw what the prior gives and what context buys over training, and the rate by position in the chunk.

Both pictures take tables of `context` and `position` and write {"svg" | "pdf" | "png": path} atomically; the bytes
depend on the arguments alone. They raise InputError for a table without rows.
"""

from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from bitlaw import InputError
from bitlaw.context import HEADLINE
from bitlaw.figures import GREY, SMALL, colours_and_markers, short, ticks
from bitlaw.law_figures import PALETTES, WIDTH, picture
from bitlaw.position import COEFFICIENTS, shape

PARTS = {"prior": "prior (USP)", "context": "context (ICL)"}
GAINS = {"domain": ("after another half", "-"), "file": ("its own half instead", "--")}
WIDEST = 2.2  # inches a panel


def _panels(tables, rows, out, null, legend):
    """(figure, panels, modalities with `null` last, {parameters: (colour, marker)}) as a context, legend below."""
    if tables[0].empty:
        raise InputError("figure: the table is empty: nothing to draw")
    modalities = sorted(tables[0]["modality"].drop_duplicates(), key=lambda name: name == null)
    sizes = sorted(tables[0]["params_total"].unique())
    styles = dict(zip(sizes, colours_and_markers(len(sizes), PALETTES["params_total"]), strict=True))
    width = min(WIDTH, max(WIDEST * len(modalities) + 0.5, 3.6))
    line = {"linewidth": 1, "markersize": 4}
    handles = [Line2D([], [], color=c, marker=m, label=short(size), **line) for size, (c, m) in styles.items()]
    handles += [Line2D([], [], color="0.3", linestyle=style, label=text, **line) for text, style in legend]
    return picture(rows, len(modalities), 2.0, out, width=width), modalities, styles, handles


def _finish(figure, handles):
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), frameon=False,
                  fontsize=SMALL, title="parameters", title_fontsize=SMALL)  # fmt: skip


def emergence(context, out, halves=None, null="random", horizon=HEADLINE):
    """Prior and context at K = `horizon` over steps, a curve a size with its 95 % band, a panel per modality.

    Shuffled chunks, where the table holds that pass, are dashed; with `halves` (see `context.halves`) a third row
    says what another chunk's first half buys and what the chunk's own buys on top.
    """
    at = context[context["K"] == horizon]
    plain, mixed = at[at["pass"] == "plain"], at[at["pass"] == "shuffled"]
    legend = [("bytes in order", "-"), ("bytes shuffled", "--")] if len(mixed) else []
    gains = halves is not None and len(halves) > 0
    context_manager, modalities, styles, handles = _panels([plain], len(PARTS) + gains, out, null, legend)
    with context_manager as (figure, panels):
        for row, (part, text) in zip(panels, PARTS.items(), strict=False):
            for panel, modality in zip(row, modalities, strict=True):
                for table, style in ((plain, "-"), (mixed, "--")):
                    _over_steps(panel, table[table["modality"] == modality], part, styles, style, style == "-")
            row[0].set_ylabel(f"{text}, bits a byte")
        if gains:
            for panel, modality in zip(panels[-1], modalities, strict=True):
                for part, (_, style) in GAINS.items():
                    _over_steps(panel, halves[halves["modality"] == modality], part, styles, style, True)
            panels[-1][0].set_ylabel("second half, bits a byte")
            label = "solid: {}; dashed: {}".format(*(text for text, _ in GAINS.values()))
            panels[-1][0].set_title(label, loc="left", fontsize=SMALL, color=GREY)
        for panel, modality in zip(panels[0], modalities, strict=True):
            panel.set_title(f"{modality} bytes: the control" if modality == null else modality, loc="left",
                            fontweight="bold", fontsize=9)  # fmt: skip
        for row in panels:
            low, high = min(p.get_ylim()[0] for p in row), max(p.get_ylim()[1] for p in row)
            for panel in row:  # one scale: what the control does must be seen beside the rest
                panel.set(xscale="log", ylim=(low, high))
                panel.axhline(0, color=GREY, linewidth=0.6, zorder=0)
                ticks(panel, sorted(plain["step"].unique()))
        for panel in panels[-1]:
            panel.set_xlabel("training steps $S$")
        _finish(figure, handles)


def _over_steps(panel, table, part, styles, style, band):
    for size, group in table.sort_values("step").groupby("params_total"):
        colour, marker = styles[size]
        panel.plot(group["step"], group[part], color=colour, marker=marker, markersize=3, linewidth=1, linestyle=style,
                   markeredgecolor="white", markeredgewidth=0.3)  # fmt: skip
        if band:
            panel.fill_between(group["step"], group[f"{part}_low"], group[f"{part}_high"], color=colour, alpha=0.1,
                               linewidth=0)  # fmt: skip


def positions(curves, laws, out, null="random"):
    """Rate by position at each size's last step, a panel per modality; points with 95 % bars, lines the fitted falls.

    A fall that is not known (its note says why) is drawn dotted.
    """
    curves = curves[(curves["pass"] == "plain") & (curves["step"] == curves["step"].max())]
    laws = laws[(laws["pass"] == "plain") & (laws["step"] == laws["step"].max())]
    legend = [("fitted fall", "-"), ("fall not known", ":")]
    context_manager, modalities, styles, handles = _panels([curves], 1, out, null, legend)
    with context_manager as (figure, panels):
        for panel, modality in zip(panels[0], modalities, strict=True):
            panel.set_xscale("log")
            panel.set_title(f"{modality} bytes: the control" if modality == null else modality, loc="left",
                            fontweight="bold", fontsize=9)  # fmt: skip
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
