from bitlaw.analysis import cell_table, published_cells
from bitlaw.runtime import logs
from bitlaw.runtime.atomic import claim

logs.log_to(snakemake.log[0])
claim(*snakemake.output)
cells = published_cells.as_cells(published_cells.cells(snakemake.input.published), snakemake.params.models)
cell_table.write(cells, snakemake.output.cells, snakemake.output.grids)
