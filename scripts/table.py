from bitlaw import progress, tables

progress.log_to(snakemake.log[0])
cells = tables.collect(snakemake.input.cells, snakemake.params.models)
tables.write(cells, snakemake.output.cells, snakemake.output.grids)
