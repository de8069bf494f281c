from pathlib import Path

from bitlaw.data import shards
from bitlaw.runtime import logs

logs.log_to(snakemake.log[0])
shards.cut(
    Path(snakemake.input.source).parent,
    snakemake.params.modality,
    snakemake.params.chunk_bytes,
    Path(snakemake.output[0]).parent,
)
