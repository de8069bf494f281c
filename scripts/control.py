from pathlib import Path

from bitlaw.analysis import control_passes
from bitlaw.runtime import logs
from bitlaw.runtime.atomic import claim

logs.log_to(snakemake.log[0])
claim(*snakemake.output)
control_passes.run(
    snakemake.wildcards.control,
    Path(snakemake.input.config).parent,
    snakemake.input.tokenizer,
    Path(snakemake.input.shards).parent,
    snakemake.output[0],
    precision=snakemake.params.precision,
    device=snakemake.config["device"],
    tokens_at_a_time=snakemake.resources.tokens_at_a_time,
    context=snakemake.params.context,
    bos=snakemake.params.bos,
)
