from bitlaw import progress, published, tables

progress.log_to(snakemake.log[0])
cells = published.as_cells(published.cells(snakemake.input.published), snakemake.params.models)
tables.write(cells, snakemake.output.cells, snakemake.output.grids)
