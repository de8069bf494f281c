import json

import pandas as pd

from bitlaw import comparison, notation, progress, published, tables
from bitlaw.atomic import claim, replacing

progress.log_to(snakemake.log[0])
claim(*snakemake.output)
modality, paths = snakemake.wildcards.modality, snakemake.input.chunks
cells = pd.read_csv(snakemake.input.cells)
cells = cells[cells["modality"] == modality]
protocols = [protocol for protocol in tables.PROTOCOLS if cells[f"cr_{protocol}"].notna().any()]
there = [published.cells(path) for path in snakemake.input.published]
found = {}
at = progress.progress(f"fit {modality}", len(protocols), "protocols")
for protocol in protocols:
    chunks = tables.chunk_ratios(paths, protocol) if paths else None
    found[protocol] = comparison.assess(cells, f"cr_{protocol}", chunks, snakemake.params.kind, snakemake.params.warmup)
    at(len(found))
if paths and (law := published.law(modality, *there)):
    found["published"]["published"] = law
with replacing(snakemake.output.law) as temporary:
    temporary.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
for path, write in ((snakemake.output.markdown, notation.markdown), (snakemake.output.latex, notation.latex)):
    with replacing(path) as temporary:
        temporary.write_text(write(modality, found))
