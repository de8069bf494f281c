from pathlib import Path

import torch

from bitlaw.models import ladder
from bitlaw.runtime import logs

logs.log_to(snakemake.log[0])
torch.set_num_threads(1)  # what the committed checkpoints were trained with; models train side by side
ladder.train(
    snakemake.wildcards.model,
    ladder.read_recipe(snakemake.input.recipe),
    Path(snakemake.input.source).with_name("enwik8"),
    snakemake.input.tokenizer,
    Path(snakemake.output.losses).parent,
)
