from bitlaw import progress, published, tables
from bitlaw.atomic import claim

progress.log_to(snakemake.log[0])
claim(*snakemake.output)
cells = published.as_cells(published.cells(snakemake.input.published), snakemake.params.models)
tables.write(cells, snakemake.output.cells, snakemake.output.grids)
