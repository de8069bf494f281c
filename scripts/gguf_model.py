from pathlib import Path

from bitlaw import gguf_model, progress

progress.log_to(snakemake.log[0])
gguf_model.convert(Path(snakemake.input.source).parent, Path(snakemake.output.config).parent)
