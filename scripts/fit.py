import json

import pandas as pd

from bitlaw import comparison, notation, progress, tables
from bitlaw.atomic import claim, replacing

progress.log_to(snakemake.log[0])
claim(*snakemake.output)
cells = pd.read_csv(snakemake.input.cells)
cells = cells[cells["modality"] == snakemake.wildcards.modality]
found = {}
at = progress.progress(f"fit {snakemake.wildcards.modality}", 2, "protocols")
for protocol in tables.PROTOCOLS:
    chunks = tables.chunk_ratios(snakemake.input.chunks, protocol)
    found[protocol] = comparison.assess(cells, f"cr_{protocol}", chunks, snakemake.params.kind, snakemake.params.warmup)
    at(len(found))
with replacing(snakemake.output.law) as temporary:
    temporary.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
for path, write in ((snakemake.output.markdown, notation.markdown), (snakemake.output.latex, notation.latex)):
    with replacing(path) as temporary:
        temporary.write_text(write(snakemake.wildcards.modality, found))
