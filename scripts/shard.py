from pathlib import Path

from bitlaw.data import shards
from bitlaw.runtime import atomic, logs

logs.log_to(snakemake.log[0])
folder = Path(snakemake.output[0]).parent  # all of it is replaced as one
atomic.claim(folder)
shards.cut(Path(snakemake.input.source).parent, snakemake.params.modality, snakemake.params.chunk_bytes, folder)
