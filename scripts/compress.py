from pathlib import Path

from bitlaw.compression import cell
from bitlaw.runtime import atomic, logs

# the decoder of a cell on a GPU is started anew and reads this file, too: only the job itself works
if __name__ == "__main__":
    logs.log_to(snakemake.log[0])
    atomic.claim(*snakemake.output)
    cell.compress(
        cell.Inputs(
            folder=Path(snakemake.input.config).parent,
            tokenizer=Path(snakemake.input.tokenizer),
            shard_folder=Path(snakemake.input.shards).parent,
            token_file=Path(snakemake.input.tokens),
            precision=snakemake.params.precision,
            published=snakemake.params.published,
            device=snakemake.config["device"],
            verify=snakemake.params.verify,
            tokens_at_a_time=snakemake.resources.tokens_at_a_time,
            context=snakemake.params.context,
            bos=snakemake.params.bos,
        ),
        {
            "modality": snakemake.wildcards.modality,
            "model": snakemake.wildcards.model,
            "step": int(snakemake.wildcards.step),
        },
        Path(snakemake.output.about).with_suffix(""),
    )
    logs.cell_done(f"results/{snakemake.config['study']}/logs/run.json")
