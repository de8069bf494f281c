from pathlib import Path

from bitlaw import progress, tables
from bitlaw.atomic import claim, replacing

progress.log_to(snakemake.log[0])
claim(*snakemake.output)
table = tables.collect(snakemake.input.cells)
tables.write_csv(table, snakemake.output.cells)
for path in snakemake.output.grids:
    with replacing(path) as temporary:
        temporary.write_text(tables.grid(table, *Path(path).stem.rsplit("_", 1)))
