from pathlib import Path

from bitlaw.data import seven_bit, shards, tokens
from bitlaw.runtime import atomic, logs

logs.log_to(snakemake.log[0])
atomic.claim(*snakemake.output)
tokenizer, spelling, sha256 = tokens.open_tokenizer(snakemake.input.tokenizer)
texts = [seven_bit.to_ascii(chunk) for chunk in shards.read(Path(snakemake.input.shards).parent)]
ids, repaired = tokens.encode_counted(tokenizer, spelling, texts)
tokens.write(snakemake.output[0], ids, spelling, sha256, repaired)
