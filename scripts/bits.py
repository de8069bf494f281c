from pathlib import Path

import pandas as pd

from bitlaw.analysis import breakdown, cell_table
from bitlaw.runtime import logs
from bitlaw.runtime.atomic import claim, write_text

logs.log_to(snakemake.log[0])
claim(*snakemake.output)
cells = pd.read_csv(snakemake.input.cells)
classical = breakdown.read_classical(snakemake.input.classical)
cell_table.write_csv(breakdown.audit(cells), snakemake.output.audit)
cell_table.write_csv(breakdown.codec(snakemake.input.abouts), snakemake.output.codec)
cell_table.write_csv(classical, snakemake.output.classical)
for path in snakemake.output.beside:
    write_text(path, breakdown.beside_models(classical, cells, Path(path).stem.removesuffix("_classical")))
