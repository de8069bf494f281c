from pathlib import Path

from bitlaw.data import sources
from bitlaw.runtime import logs

logs.log_to(snakemake.log[0])
sources.fetch(
    snakemake.params.name,
    snakemake.params.source,
    Path(snakemake.output[0]).parent,
    snakemake.params.wanted,
)
