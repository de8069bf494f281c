import json
from pathlib import Path

import pandas as pd

from bitlaw.figures import contours, curves, excess, heldout, identifiability, residuals
from bitlaw.runtime import atomic, logs

PICTURES = {
    "curves": curves,
    "contours": contours,
    "excess": excess,
    "residuals": residuals,
    "identifiability": identifiability,
    "heldout": heldout,
}

logs.log_to(snakemake.log[0])
atomic.claim(*snakemake.output)
cells = pd.read_csv(snakemake.input.cells)
laws = {Path(path).stem: json.loads(Path(path).read_text()) for path in snakemake.input.laws}
drawn = logs.progress("pictures", len(PICTURES), "pictures")
for number, (name, picture) in enumerate(PICTURES.items(), 1):
    out = {Path(path).suffix[1:]: path for path in snakemake.output if Path(path).stem.startswith(f"{name}_")}
    picture.draw(cells, laws, out, snakemake.wildcards.protocol)
    drawn(number)
