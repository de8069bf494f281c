"""Draw ratio against parameters for all kinds of data: the picture of a study."""

from bitlaw.figures import ratio_panel
from bitlaw.figures.style import AXES, check, headings, last, notes, page, settle, styles_of
from bitlaw.laws.together import of_chunks
from bitlaw.study import PROTOCOLS

PANEL = (3.2, 2.65)  # inches
HEADING = 3.31  # inches: may reach a little beyond the panel


def draw(cells, laws, out, null="random", classical=None):
    """A panel per modality and a row per protocol that has a ratio; for cells, laws, out and errors see `style`.

    null: the modality whose mean ratio is drawn in all panels. classical: DataFrame, rows as of `classical.measure`;
    the best compressor of single chunks becomes a line of its modality's lossless panel.
    """
    check(cells, out)
    modalities = last(null, cells["modality"])
    protocols = [protocol for protocol in PROTOCOLS if cells[f"cr_{protocol}"].notna().any()]
    styles = styles_of(cells["step"], AXES["step"].palette)
    size = (PANEL[0] * len(modalities) + 0.4, PANEL[1] * len(protocols) + 0.3)
    with page(len(protocols), len(modalities), size, out, pads=(0.09, 0.08)) as (figure, panels):
        finishers = []
        for row, protocol in zip(panels, protocols, strict=True):
            column = f"cr_{protocol}"
            entries = []
            for panel, modality in zip(row, modalities, strict=True):
                data = cells[(cells["modality"] == modality) & cells[column].notna()]
                law = laws.get(modality, {}).get(protocol)
                ends = ratio_panel.draw(panel, data, column, law, styles)
                entries.append((panel, modality, notes(law, HEADING), law))
                mean = cells.loc[cells["modality"] == null, column].mean()
                lines = {f"{null} bytes": (mean, "--"), "raw bytes": (1.0, ":")}
                if classical is not None and protocol == "lossless":
                    lines |= best_classical(classical, modality)
                finishers.append((panel, data, column, ends, ratio_panel.reference_lines(panel, data, lines)))
            headings(entries)
            row[0].set_ylabel(f"compression ratio, {protocol}")
        for panel in panels[-1]:
            panel.set_xlabel(AXES["params_total"].label)
        settle(figure)
        for panel, data, column, ends, lines in finishers:
            ratio_panel.label_ends(panel, ends, styles)
            ratio_panel.label_references(panel, data, column, lines)


def best_classical(classical, modality):
    """{name: (ratio, line style)} of the compressor that makes single chunks of the modality smallest.

    Empty when none has a ratio: none was asked for, or all failed.
    """
    return {name: (ratio, "-.") for name, ratio in of_chunks(classical, modality).nsmallest(1).items()}
