from bitlaw import progress, tables
from bitlaw.atomic import claim

progress.log_to(snakemake.log[0])
claim(*snakemake.output)
cells = tables.collect(snakemake.input.cells, snakemake.params.nominal)
tables.write(cells, snakemake.output.cells, snakemake.output.grids)
