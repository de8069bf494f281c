"""Draw what the prior gives and what context buys over training."""

from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from bitlaw.analysis.prior_and_context import HEADLINE
from bitlaw.figures.by_size import layout, modalities_of, write_legend
from bitlaw.figures.style import GREY, SMALL, tick_values

PARTS = {"prior": "prior", "context": "context"}
GAINS = {"domain": ("after another half", "-"), "file": ("its own half instead", "--")}
NULL = "0.9"  # grey


def draw(context, out, halves=None, null="random", horizon=HEADLINE):
    """Prior and context at K = `horizon` over steps, a curve a size with its 95 % band, a panel per modality.

    The controls: grey is the span of the 95 % bands of `null` at all sizes; shuffled chunks, where the table holds
    that pass, are dashed; with `halves` (see `context.halves`) a third row says what another chunk's first half buys
    and what the chunk's own buys on top.
    """
    rows = context[context["K"] == horizon]
    plain, mixed = rows[rows["pass"] == "plain"], rows[rows["pass"] == "shuffled"]
    modalities = modalities_of(plain, null)
    modalities = [name for name in modalities if name != null] or modalities
    behind = plain[(plain["modality"] == null) & (null not in modalities)]
    lines = [("bytes in order (filled)", "-"), ("bytes shuffled (hollow)", "--")] if len(mixed) else []
    gains = halves is not None and len(halves) > 0
    figure_of, styles, legend = layout(plain, len(PARTS) + gains, out, lines, modalities)
    if len(behind):
        legend.append(Patch(color=NULL, linewidth=0, label=f"{null} bytes, all sizes"))
    with figure_of as (figure, panels):
        for row, (part, text) in zip(panels, PARTS.items(), strict=False):
            for panel, modality in zip(row, modalities, strict=True):
                for table, style in ((plain, "-"), (mixed, "--")):
                    _draw_over_steps(panel, table[table["modality"] == modality], part, styles, style)
                if len(behind):
                    span = behind.groupby("step").agg({f"{part}_low": "min", f"{part}_high": "max"})
                    panel.fill_between(span.index, *span.to_numpy().T, color=NULL, linewidth=0, zorder=0)
            row[0].set_ylabel(f"{text}, bits a byte")
        if gains:
            for panel, modality in zip(panels[-1], modalities, strict=True):
                for part, (_, style) in GAINS.items():
                    _draw_over_steps(panel, halves[halves["modality"] == modality], part, styles, style)
            panels[-1][0].set_ylabel("second half, bits a byte")
            label = "solid, filled: {}; dashed, hollow: {}".format(*(text for text, _ in GAINS.values()))
            panels[-1][0].set_title(label, loc="left", fontsize=SMALL, color=GREY)
        for panel, modality in zip(panels[0], modalities, strict=True):
            panel.set_title(modality, loc="left", fontweight="bold", fontsize=9)
        for panel in panels.flat:
            panel.set_xscale("log")
            panel.axhline(0, color=GREY, linewidth=0.6, zorder=0.5)
            tick_values(panel.xaxis, sorted(plain["step"].unique()))
            panel.yaxis.set_major_locator(MaxNLocator(5))
        for panel in panels[-1]:
            panel.set_xlabel("training steps $S$")
        write_legend(figure, legend)


def _draw_over_steps(panel, table, part, styles, style):
    for size, group in table.sort_values("step").groupby("params_total"):
        colour, marker = styles[size]
        dashed = {"markerfacecolor": "white", "markeredgecolor": colour, "markeredgewidth": 0.8}
        panel.plot(group["step"], group[part], color=colour, marker=marker, markersize=3, linewidth=1, linestyle=style,
                   **(dashed if style == "--" else {"markeredgecolor": "white", "markeredgewidth": 0.3}))  # fmt: skip
        low, high = group[f"{part}_low"], group[f"{part}_high"]
        if len(group) > 1:
            panel.fill_between(group["step"], low, high, color=colour, alpha=0.09, linewidth=0)
        else:  # a band has no width there
            panel.vlines(group["step"], low, high, color=colour, linewidth=0.6)
