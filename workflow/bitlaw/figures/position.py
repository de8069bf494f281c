"""Draw the rate by position in the chunk."""

from matplotlib.ticker import MaxNLocator, NullLocator

from bitlaw.analysis.rate_by_position import COEFFICIENTS, shape
from bitlaw.figures.by_size import layout, modalities_of, write_legend


def draw(curves, laws, out, null="random"):
    """Rate by position at each size's last step, a panel per modality; points with 95 % bars, lines the fitted falls.

    A fall that is not known (its note says why) is drawn dotted.
    """
    curves = curves[(curves["pass"] == "plain") & (curves["step"] == curves["step"].max())]
    laws = laws[(laws["pass"] == "plain") & (laws["step"] == laws["step"].max())]
    lines = [("fitted fall", "-"), ("fall not known", ":")]
    modalities = modalities_of(curves, null)
    figure_of, styles, legend = layout(curves, 1, out, lines, modalities)
    with figure_of as (figure, panels):
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
        write_legend(figure, legend)
