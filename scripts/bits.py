from pathlib import Path

import pandas as pd

from bitlaw import bits, progress, tables
from bitlaw.atomic import claim, replacing

progress.log_to(snakemake.log[0])
claim(*snakemake.output)
cells = pd.read_csv(snakemake.input.cells)
classical = pd.concat(map(pd.read_csv, snakemake.input.classical))
tables.write_csv(bits.audit(cells), snakemake.output.audit)
tables.write_csv(bits.codec(snakemake.input.abouts), snakemake.output.codec)
tables.write_csv(classical, snakemake.output.classical)
for path in snakemake.output.beside:
    with replacing(path) as temporary:
        temporary.write_text(bits.beside_models(classical, cells, Path(path).stem.removesuffix("_classical")))
