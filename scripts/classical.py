import csv
from pathlib import Path

from bitlaw.analysis import classical
from bitlaw.data import shards
from bitlaw.runtime import logs
from bitlaw.runtime.atomic import claim, replacing

logs.log_to(snakemake.log[0])
claim(*snakemake.output)
folder = Path(snakemake.input.shards).parent
chunks = [bytes(row) for row in shards.read(folder)]
sampling = shards.manifest(folder)["sampling"]
rows = classical.measure(snakemake.wildcards.modality, chunks, sampling, snakemake.params.compressors)
with replacing(snakemake.output[0]) as temporary, open(temporary, "w", newline="") as file:
    writer = csv.DictWriter(file, classical.COLUMN_NAMES, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
