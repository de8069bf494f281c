import json
from pathlib import Path

import pandas as pd

from bitlaw.figures import curves, diagnostics, excess
from bitlaw.runtime import atomic, logs

DRAW = {
    "curves": curves.curves,
    "contours": curves.contours,
    "excess": excess.excess,
    "residuals": diagnostics.residuals,
    "identifiability": diagnostics.identifiability,
    "heldout": diagnostics.heldout,
}

logs.log_to(snakemake.log[0])
atomic.claim(*snakemake.output)
cells = pd.read_csv(snakemake.input.cells)
laws = {Path(path).stem: json.loads(Path(path).read_text()) for path in snakemake.input.laws}
at = logs.progress("pictures", len(DRAW), "pictures")
for number, (name, draw) in enumerate(DRAW.items(), 1):
    out = {Path(path).suffix[1:]: path for path in snakemake.output if Path(path).stem.startswith(f"{name}_")}
    draw(cells, laws, out, snakemake.wildcards.protocol)
    at(number)
