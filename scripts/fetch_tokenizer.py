from pathlib import Path

from bitlaw.models import hub
from bitlaw.runtime import logs

logs.log_to(snakemake.log[0])
source = snakemake.params.source
hub.fetch_tokenizer(source["repo"], source["revision"], Path(snakemake.output[0]).parent, source.get("commit"))
