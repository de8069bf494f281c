from bitlaw.analysis import cell_table, prior_and_context, rate_by_position
from bitlaw.runtime import logs
from bitlaw.runtime.atomic import claim

logs.log_to(snakemake.log[0])
claim(*snakemake.output)
cells, controls = snakemake.input.cells, snakemake.input.controls
cell_table.write_csv(prior_and_context.table(cells, controls), snakemake.output.context)
curves, laws = rate_by_position.tables(cells, controls)
cell_table.write_csv(curves, snakemake.output.curves)
cell_table.write_csv(laws, snakemake.output.laws)
for path in snakemake.output.get("halves", []):
    cell_table.write_csv(prior_and_context.halves(cells, controls), path)
