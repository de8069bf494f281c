from pathlib import Path

from bitlaw import progress, sources

progress.log_to(snakemake.log[0])
sources.fetch(
    snakemake.params.name,
    snakemake.params.source,
    Path(snakemake.output[0]).parent,
    snakemake.params.wanted,
)
