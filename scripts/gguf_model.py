from pathlib import Path

from bitlaw.models import gguf_file
from bitlaw.runtime import atomic, logs

logs.log_to(snakemake.log[0])
folder = Path(snakemake.output.config).parent  # all of it is replaced as one
atomic.claim(folder)
gguf_file.convert(Path(snakemake.input.source).parent, folder)
