"""Write the tables of README.md and docs/*.md from the tables of two studies.

    python docs/write_tables.py take    # first results/{embedded,smollm2}/tables → docs/tables, but for times
    python docs/write_tables.py         # docs/tables → the pages: what stands between the marks of each table

A table stands between `<!-- numbers: NAME -->` and `<!-- end -->`, NAME being a function below. Exact arithmetic makes
docs/tables the same on every machine; a test compares them with a fresh run, and the pages with them.
"""

import re
import sys
from pathlib import Path

import pandas as pd

from bitlaw.laws.together import of_chunks

DOCS = Path(__file__).parent
PAGES = (DOCS.parent / "README.md", *sorted(DOCS.glob("*.md")))
AUDIT = [f"audit_{term}" for term in ("past_1024", "top_bits", "container")]
TABLES = {  # the columns that the pages show
    "cells": ["modality", "model", "step", "params_total", "cr_published", "cr_lossless", "cr_lossless_ci", *AUDIT],
    "classical": ["modality", "compressor", "scope", "ratio"],
    "context": ["modality", "model", "step", "pass", "K", "total", "top_bits", "tokeniser", "first_token", "prior",
                "context"],
    "halves": ["modality", "model", "step", "domain", "domain_low", "domain_high", "file", "file_low", "file_high"],
}  # fmt: skip
STUDIES = ("embedded", "smollm2")
KINDS = {
    "text": "text (enwik8)",
    "image": "image (thirty photographs)",
    "speech": "speech (five readers)",
    "random": "random bytes",
}
MARKED = re.compile(r"(?<=<!-- numbers: )(\w+)( -->\n).*?(?=<!-- end -->)", re.S)


def take(results=DOCS.parent / "results", into=DOCS / "tables"):
    """Copy from results/<study>/tables the columns that the pages show."""
    into.mkdir(exist_ok=True)
    for study in STUDIES:
        for name, columns in TABLES.items():
            path = results / study / "tables" / f"{name}.csv"
            if path.exists():  # halves are there where the study has the control
                rows = pd.read_csv(path, usecols=columns)
                rows = rows[rows["K"] == 32] if name == "context" else rows
                rows.to_csv(into / f"{study}_{name}.csv", index=False)


def render(page):
    """The text of a page with its tables made anew."""
    return MARKED.sub(lambda found: found[1] + found[2] + globals()[found[1]](), page)


def real_model():
    """SmolLM2-135M on each kind of data."""
    cells = table("smollm2", "cells").set_index("modality")
    rows = []
    for modality, name in KINDS.items():
        ratios = classical_ratios("smollm2", modality)
        cell = cells.loc[modality]
        lossless = f"**{cell['cr_lossless']:.3f}** ± {cell['cr_lossless_ci']:.3f}"
        rows.append(
            [
                name,
                f"{cell['cr_published']:.3f}",
                lossless,
                f"{ratios['gzip']:.3f}",
                f"{ratios.min():.3f} ({ratios.idxmin()})",
            ]
        )
    head = ["compressed / original size", "counted as published", "every bit counted", "gzip", "best classical"]
    return markdown(head, rows)


def ladder_ranges():
    """The smallest and largest ratio of the embedded study's cells."""
    cells = table("embedded", "cells")
    rows = []
    for modality, name in KINDS.items():
        own = cells[cells["modality"] == modality]
        rows.append([name, *(f"{own[c].min():.3f} to {own[c].max():.3f}" for c in ("cr_published", "cr_lossless"))])
    return markdown([f"smallest and largest ratio of {len(cells) // 4} cells", "published", "lossless"], rows)


def ladder_text():
    """Lossless ratios of text, models by steps."""
    cells = table("embedded", "cells")
    grid = cells[cells["modality"] == "text"].pivot(index=["params_total", "model"], columns="step")["cr_lossless"]
    rows = [[model, f"{size:,}", *(f"{ratio:.3f}" for ratio in own)] for (size, model), own in grid.iterrows()]
    return markdown(["text, lossless", "parameters", *(f"step {step:,}" for step in grid.columns)], rows)


def how_much_is_real():
    """The published number beside the lossless one at the largest model's last step, and where the difference goes."""
    cells = table("embedded", "cells")
    cells = cells[(cells["model"] == "ladder-1.9m") & (cells["step"] == 1200)].set_index("modality")
    rows = [
        [name, f"{own['cr_published']:.3f}", *(f"{own[term]:.3f}" for term in AUDIT),
         f"{own['cr_lossless']:.3f} ± {own['cr_lossless_ci']:.3f}",
         f"{classical_ratios('embedded', modality).min():.3f}"]
        for modality, name in KINDS.items() for own in [cells.loc[modality]]
    ]  # fmt: skip
    terms = ["tokens past 1,024", "top bits", "header and lengths"]
    return markdown(["ladder-1.9m, step 1,200", "published", *terms, "lossless", "best classical"], rows)


def prior_or_context():
    """Where the 8 bits of a byte go, at K = 32, at the largest model's last step."""
    rows = table("embedded", "context")
    return bits_of_a_byte(rows[(rows["model"] == "ladder-1.9m") & (rows["step"] == 1200)], {"plain": ""})


def real_model_bits():
    """Where the 8 bits of a byte go under SmolLM2, at K = 32, in order and with the bytes of each chunk shuffled."""
    return bits_of_a_byte(table("smollm2", "context"), {"plain": "", "shuffled": ", bytes shuffled"})


def bits_of_a_byte(rows, passes):
    """The terms of each modality in rows of a table of context; `passes`: pass to what is said behind the modality."""
    own, terms = rows.set_index(["modality", "pass"]), ["top_bits", "tokeniser", "prior", "context", "total"]
    shown = [
        [name + said, *(f"{own.loc[(modality, of), term]:.2f}" for term in terms)]
        for modality, name in KINDS.items()
        for of, said in passes.items()
    ]
    return markdown(["of the 8 bits of a byte", "top bits", "tokeniser", "prior", "context", "left"], shown)


def real_model_halves():
    """What precedes the second half of a chunk, and what it buys, in bits a byte."""
    own = table("smollm2", "halves").set_index("modality")
    shown = []
    for modality, name in KINDS.items():
        row = own.loc[modality]
        shown.append(
            [name, *(f"{row[n]:.3f} [{row[f'{n}_low']:.3f}, {row[f'{n}_high']:.3f}]" for n in ("domain", "file"))]
        )
    return markdown(
        ["bits a byte of the second half", "another's half against nothing", "its own against another's"], shown
    )


def classical_ratios(study, modality):
    """Ratios of single chunks by compressor."""
    return of_chunks(table(study, "classical"), modality)


def table(study, name):
    return pd.read_csv(DOCS / "tables" / f"{study}_{name}.csv")


def markdown(head, rows):
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    if sys.argv[1:] == ["take"]:
        take()
    for page in PAGES:
        text = page.read_text()
        if (new := render(text)) != text:
            page.write_text(new)
            print(page.relative_to(DOCS.parent))
