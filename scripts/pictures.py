import json
from pathlib import Path

import pandas as pd

from bitlaw import atomic, check_figures, excess_figure, law_figures, progress

DRAW = {
    "curves": law_figures.curves,
    "contours": law_figures.contours,
    "excess": excess_figure.excess,
    "residuals": check_figures.residuals,
    "identifiability": check_figures.identifiability,
    "heldout": check_figures.heldout,
}

progress.log_to(snakemake.log[0])
atomic.claim(*snakemake.output)
cells = pd.read_csv(snakemake.input.cells)
laws = {Path(path).stem: json.loads(Path(path).read_text()) for path in snakemake.input.laws}
at = progress.progress("pictures", len(DRAW), "pictures")
for number, (name, draw) in enumerate(DRAW.items(), 1):
    out = {Path(path).suffix[1:]: path for path in snakemake.output if Path(path).stem.startswith(f"{name}_")}
    draw(cells, laws, out, snakemake.wildcards.protocol)
    at(number)
