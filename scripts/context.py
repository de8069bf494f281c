from bitlaw import context, position, progress, tables
from bitlaw.atomic import claim

progress.log_to(snakemake.log[0])
claim(*snakemake.output)
cells, controls = snakemake.input.cells, snakemake.input.controls
tables.write_csv(context.table(cells, controls), snakemake.output.context)
curves, laws = position.tables(cells, controls)
tables.write_csv(curves, snakemake.output.curves)
tables.write_csv(laws, snakemake.output.laws)
for path in snakemake.output.get("halves", []):
    tables.write_csv(context.halves(cells, controls), path)
