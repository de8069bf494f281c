"""What a study found, in a sentence or two computed from its table of cells. Plain Python: the Snakefile uses it."""

import csv
import math

from bitlaw.study import PROTOCOLS


def finding(path, null="random"):
    """The finding of the table of cells at `path` (see `cell_table`), as text; `null`: the control.

    First what no code can compress, then the best ratio of each other modality; lossless ratios where there are any.
    Missing ratios are left out.
    """
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    control = [row for row in rows if row["modality"] == null]
    ranges = {protocol: _range(control, protocol) for protocol in PROTOCOLS}
    sentences = []
    if (published := ranges["published"]) and published[0] < 1:
        text = f"{null.capitalize()} bytes, which nothing can compress, “compress” to {_text(published)} of their size "
        text += "by the published number"
        if lossless := ranges["lossless"]:
            text += f"; as a stream that decodes they take {_text(lossless)}"
        sentences.append(text + ".")
    elif lossless := ranges["lossless"]:
        sentences.append(f"{null.capitalize()} bytes, the control, take {_text(lossless)} of their size.")
    protocol = "lossless" if _range(rows, "lossless") else "published"
    best = {}
    for row in rows:
        ratio = _ratio(row, protocol)
        if row["modality"] != null and ratio is not None:
            best.setdefault(row["modality"], []).append((ratio, row["model"], int(row["step"])))
    parts = [
        f"{modality} {ratio:.3f} ({model}, step {step:,})"
        for modality, (ratio, model, step) in ((name, min(ratios)) for name, ratios in best.items())
    ]
    if parts:
        how = "with every bit counted" if protocol == "lossless" else "by the published number"
        sentences.append(f"Best ratio {how}: {', '.join(parts)}.")
    return " ".join(sentences) or f"{path} holds no ratio: nothing found."


def ending(folder):
    """Three lines that end a run: where the figure of results/<study> is, where its page is, and what was found."""
    return [
        f"figure: {folder}/figures/scaling.png",
        f"page:   {folder}/report.html",
        f"found:  {finding(f'{folder}/tables/cells.csv')}",
    ]


def _ratio(row, protocol):
    """The ratio of a row, None where it has none (an empty or unfinite field)."""
    value = float(row[f"cr_{protocol}"] or "nan")
    return value if math.isfinite(value) else None


def _range(rows, protocol):
    """(smallest, largest) ratio of the rows, None where no row has one."""
    ratios = [ratio for row in rows if (ratio := _ratio(row, protocol)) is not None]
    return (min(ratios), max(ratios)) if ratios else None


def _text(ends):
    low, high = (f"{end:.2f}" for end in ends)
    return low if low == high else f"{low} to {high}"
