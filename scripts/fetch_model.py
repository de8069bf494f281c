from pathlib import Path

from bitlaw.models import hub
from bitlaw.runtime import logs

logs.log_to(snakemake.log[0])
hub.fetch_model(
    snakemake.params.repository,
    snakemake.params.revision,
    Path(snakemake.output.source).parent,
    snakemake.input.tokenizer,
    snakemake.params.commit,
)
