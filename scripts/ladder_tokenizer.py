from pathlib import Path

from bitlaw.models import ladder
from bitlaw.runtime import logs
from bitlaw.runtime.atomic import replacing

logs.log_to(snakemake.log[0])
recipe = ladder.read_recipe(snakemake.input.recipe)
texts = ladder.text_range(Path(snakemake.input.source).with_name("enwik8"), *recipe["source"]["train_range"])
with replacing(snakemake.output[0]) as temporary:
    ladder.train_tokenizer(texts, recipe["tokenizer"]["vocabulary"]).save(str(temporary))
