import csv

from bitlaw.report import job_costs
from bitlaw.runtime import logs
from bitlaw.runtime.atomic import claim, replacing

logs.log_to(snakemake.log[0])
claim(*snakemake.output)
with replacing(snakemake.output.table) as temporary, open(temporary, "w", newline="") as file:
    writer = csv.DictWriter(file, job_costs.COLUMN_NAMES, lineterminator="\n")
    writer.writeheader()
    writer.writerows(job_costs.rows(snakemake.params.folder))
