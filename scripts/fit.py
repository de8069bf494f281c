import json

import pandas as pd

from bitlaw.analysis import cell_table, published_cells
from bitlaw.laws import formatting, model_selection, published_law
from bitlaw.runtime import logs
from bitlaw.runtime.atomic import claim, write_text
from bitlaw.study import PROTOCOLS

logs.log_to(snakemake.log[0])
claim(*snakemake.output)
source, modality = snakemake.input, snakemake.wildcards.modality
cells = pd.read_csv(source.cells)
cells = cells[cells["modality"] == modality]
protocols = [protocol for protocol in PROTOCOLS if cells[f"cr_{protocol}"].notna().any()]
laws = {}
fitted = logs.progress(f"fit {modality}", len(protocols), "protocols")
for protocol in protocols:
    chunks = cell_table.chunk_ratios(source.chunks, protocol) if source.chunks else None
    files = cell_table.chunk_files(source.chunks[0]) if source.chunks else None
    laws[protocol] = model_selection.assess(
        cells, f"cr_{protocol}", chunks, snakemake.params.kind, snakemake.params.warmup, files
    )
    fitted(len(laws))
if source.chunks and "published" in laws:  # a study of its own, beside which the law of the published one is drawn
    published = published_cells.cells(str(source.published)) if source.published else None
    if reference := published_law.law(modality, source.printed, published):
        laws["published"]["reference"] = reference
write_text(snakemake.output.law, json.dumps(laws, indent=1, allow_nan=False) + "\n")
for path, write in ((snakemake.output.markdown, formatting.markdown), (snakemake.output.latex, formatting.latex)):
    write_text(path, write(modality, laws))
