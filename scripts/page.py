from pathlib import Path

from bitlaw.report import page
from bitlaw.runtime import logs

logs.log_to(snakemake.log[0])
source, config = snakemake.input, snakemake.config
modalities = [modality["name"] for modality in config["modalities"]]
folders = [Path(manifest).parent for manifest in source.shards]  # none where the cells were published elsewhere
cuts = [modality["cut"] for modality in config["modalities"]] if folders else []
looks = zip(folders, source.tokens, source.chunks, cuts, strict=True)
page.write(
    snakemake.output[0],
    config,
    source.cells,
    dict(zip(modalities, source.laws, strict=True)),
    source.abouts,
    dict(zip(modalities, looks, strict=False)),
    source.figure,
    {Path(picture).stem.split("_")[0]: picture for picture in source.pictures},
    {Path(csv).stem: csv for csv in source.more},
    source.citation,
)
