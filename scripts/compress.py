from pathlib import Path

from bitlaw.compression import cell
from bitlaw.runtime import atomic, logs

# the decoder of a cell on a GPU is started anew and reads this file, too: only the job itself works
if __name__ == "__main__":
    logs.log_to(snakemake.log[0])
    atomic.claim(*snakemake.output)
    cell.compress(
        Path(snakemake.input.config).parent,
        snakemake.input.tokenizer,
        Path(snakemake.input.shards).parent,
        snakemake.input.tokens,
        Path(snakemake.output.about).with_suffix(""),
        labels={
            "modality": snakemake.wildcards.modality,
            "model": snakemake.wildcards.model,
            "step": int(snakemake.wildcards.step),
        },
        precision=snakemake.params.precision,
        device=snakemake.config["device"],
        verify=snakemake.params.verify,
        tokens_at_a_time=snakemake.resources.tokens_at_a_time,
    )
    logs.cell_done(f"results/{snakemake.config['study']}/logs/run.json")
