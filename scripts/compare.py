import pandas as pd

from bitlaw.analysis import cell_table, published_cells
from bitlaw.runtime import logs
from bitlaw.runtime.atomic import claim

logs.log_to(snakemake.log[0])
claim(*snakemake.output)
cells = pd.read_csv(snakemake.input.cells)
chunks = cell_table.chunk_ratios(snakemake.input.chunks, "published")
keys = zip(cells["modality"], cells["model"], cells["step"], strict=True)
there = published_cells.cells(snakemake.input.published)
files = dict(zip(cells["modality"], map(cell_table.chunk_files, snakemake.input.chunks), strict=True))
table = published_cells.compare(cells, there, dict(zip(keys, chunks, strict=True)), files)
cell_table.write_csv(table, snakemake.output.table)
