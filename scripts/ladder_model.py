import shutil
from pathlib import Path

import torch

from bitlaw.models import ladder
from bitlaw.runtime import logs
from bitlaw.runtime.atomic import claim, replacing

logs.log_to(snakemake.log[0])
torch.set_num_threads(1)  # what the committed checkpoints were trained with; models train side by side
name = snakemake.wildcards.model
# beside the outputs, which Snakemake removes before it starts a job again
training = Path("results/ladder/training") / name
ladder.train(
    name,
    ladder.read_recipe(snakemake.input.recipe),
    Path(snakemake.input.source).with_name("enwik8"),
    snakemake.input.tokenizer,
    training,
)
claim(*snakemake.output)
for output in snakemake.output:
    with replacing(output) as temporary:
        shutil.copyfile(training / Path(output).relative_to(f"results/ladder/{name}"), temporary)
shutil.rmtree(training)
