from bitlaw.analysis import cell_table
from bitlaw.runtime import logs
from bitlaw.runtime.atomic import claim

logs.log_to(snakemake.log[0])
claim(*snakemake.output)
cells = cell_table.collect(snakemake.input.cells, snakemake.params.nominal)
cell_table.write(cells, snakemake.output.cells, snakemake.output.grids)
