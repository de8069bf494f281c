import json

import pandas as pd

from bitlaw.analysis import cell_table, published_cells
from bitlaw.laws import formatting, model_selection, published_law
from bitlaw.runtime import logs
from bitlaw.runtime.atomic import claim, write_text

logs.log_to(snakemake.log[0])
claim(*snakemake.output)
modality, paths = snakemake.wildcards.modality, snakemake.input.chunks
cells = pd.read_csv(snakemake.input.cells)
cells = cells[cells["modality"] == modality]
protocols = [protocol for protocol in cell_table.PROTOCOLS if cells[f"cr_{protocol}"].notna().any()]
there = [published_cells.cells(path) for path in snakemake.input.published]
found = {}
at = logs.progress(f"fit {modality}", len(protocols), "protocols")
for protocol in protocols:
    chunks = cell_table.chunk_ratios(paths, protocol) if paths else None
    found[protocol] = model_selection.assess(
        cells, f"cr_{protocol}", chunks, snakemake.params.kind, snakemake.params.warmup
    )
    at(len(found))
if paths and (law := published_law.law(modality, snakemake.input.printed, *there)):
    found["published"]["published"] = law
write_text(snakemake.output.law, json.dumps(found, indent=1, allow_nan=False) + "\n")
for path, write in ((snakemake.output.markdown, formatting.markdown), (snakemake.output.latex, formatting.latex)):
    write_text(path, write(modality, found))
