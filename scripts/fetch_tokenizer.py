from pathlib import Path

from bitlaw import hub, progress

progress.log_to(snakemake.log[0])
source = snakemake.params.source
hub.fetch_tokenizer(source["repo"], source["revision"], Path(snakemake.output[0]).parent, source.get("commit"))
