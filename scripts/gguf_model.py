from pathlib import Path

from bitlaw.models import gguf_file
from bitlaw.runtime import logs

logs.log_to(snakemake.log[0])
gguf_file.convert(Path(snakemake.input.source).parent, Path(snakemake.output.config).parent)
