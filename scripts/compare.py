import pandas as pd

from bitlaw import progress, published, tables
from bitlaw.atomic import claim

progress.log_to(snakemake.log[0])
claim(*snakemake.output)
cells = pd.read_csv(snakemake.input.cells)
chunks = tables.chunk_ratios(snakemake.input.chunks, "published")
keys = zip(cells["modality"], cells["model"], cells["step"], strict=True)
there = published.cells(snakemake.input.published)
table = published.compare(cells, there, dict(zip(keys, chunks, strict=True)))
tables.write_csv(table, snakemake.output.table)
