"""What a study found, in a sentence or two computed from its table of cells. Plain Python: the Snakefile uses it."""

import csv
import math
from pathlib import Path


def finding(cells, classical=None, null="random"):
    """What the table of cells at the path `cells` says (see `cell_table`), as text.

    First the best ratio of each modality beside that of the best classical compressor on the same chunks (`classical`:
    path of the table of `analysis.classical`), lossless ratios where there are any; then what becomes of bytes that no
    code can compress, the modality `null`. Missing ratios are left out.
    """
    rows = _rows(cells)
    protocol = "lossless" if _range(rows, "lossless") else "published"
    others = _best_classical(classical) if classical and protocol == "lossless" else {}
    best = {}
    for row in rows:
        ratio = _ratio(row, protocol)
        if row["modality"] != null and ratio is not None:
            best.setdefault(row["modality"], []).append(
                (ratio, row["model"], int(row["step"]), _interval(row, protocol))
            )
    best = {modality: min(ratios) for modality, ratios in best.items()}
    cells_named = {(model, step) for _, model, step, _ in best.values()}
    parts = []
    for modality, (ratio, model, step, interval) in best.items():
        beside = [f"{model} at step {step:,}"] if len(cells_named) > 1 else []
        beside += [f"{others[modality][1]}: {others[modality][0]:.3f}"] if modality in others else []
        takes = f"{modality} {ratio:.3f}{interval}" if parts else f"{modality} takes {ratio:.3f}{interval} of its size"
        parts.append(takes + (f" ({'; '.join(beside)})" if beside else ""))
    sentences = []
    if parts:
        how = "With every bit counted" if protocol == "lossless" else "Counted as published"
        under = [f"under {model} at step {step:,}" for model, step in cells_named] if len(cells_named) == 1 else []
        sentences.append(f"{how}, {', '.join([*parts, *under])}.")
    if control := _control([row for row in rows if row["modality"] == null], null):
        sentences.append(control)
    return " ".join(sentences) or f"{cells} holds no ratio: nothing found."


def _control(rows, null):
    """What becomes of bytes that nothing can compress, under both protocols; empty where no ratio is known."""
    published, lossless = (_range(rows, protocol) for protocol in ("published", "lossless"))
    who = f"{null.capitalize()} bytes, which nothing can compress,"
    if published and published[0] < 1:
        would = f"{_text(published)} counted as published, from which nothing can be decoded"
        return f"{who} take {_text(lossless)}; {would}." if lossless else f"{who} take {would}."
    return f"{who} take {_text(lossless)}." if lossless else ""


def _best_classical(path):
    """{modality: (ratio, compressor)} of the smallest output, chunk by chunk."""
    best = {}
    for row in _rows(path):
        if row["scope"] == "chunk" and row["ratio"]:  # a compressor that failed has none
            found = (float(row["ratio"]), row["compressor"])
            best[row["modality"]] = min(best.get(row["modality"], found), found)
    return best


def _rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def ending(folder):
    """Three lines that end a run: where the figure of results/<study> is, where its page is, and what was found."""
    classical = Path(folder, "tables/classical.csv")
    return [
        f"figure: {folder}/figures/scaling.png",
        f"page:   {folder}/report.html",
        f"found:  {finding(f'{folder}/tables/cells.csv', classical if classical.exists() else None)}",
    ]


def _ratio(row, protocol):
    """The ratio of a row, None where it has none (an empty or unfinite field)."""
    value = float(row[f"cr_{protocol}"] or "nan")
    return value if math.isfinite(value) else None


def _interval(row, protocol):
    """Half of the 95 % interval of a row's ratio as text; empty where the table has none."""
    half = row.get(f"cr_{protocol}_ci") or "nan"
    return f" ± {float(half):.3f}" if math.isfinite(float(half)) else ""


def _range(rows, protocol):
    """(smallest, largest) ratio of the rows, None where no row has one."""
    ratios = [ratio for row in rows if (ratio := _ratio(row, protocol)) is not None]
    return (min(ratios), max(ratios)) if ratios else None


def _text(ends):
    low, high = (f"{end:.2f}" for end in ends)
    return low if low == high else f"{low} to {high}"
