from pathlib import Path

from bitlaw import control, progress
from bitlaw.atomic import claim

progress.log_to(snakemake.log[0])
claim(*snakemake.output)
control.run(
    snakemake.wildcards.control,
    Path(snakemake.input.config).parent,
    snakemake.input.tokenizer,
    Path(snakemake.input.shards).parent,
    snakemake.output[0],
    precision=snakemake.params.precision,
    device=snakemake.config["device"],
    tokens_at_a_time=snakemake.resources.tokens_at_a_time,
)
