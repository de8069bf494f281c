from pathlib import Path

from bitlaw import page, progress

progress.log_to(snakemake.log[0])
source, config = snakemake.input, snakemake.config
modalities = [modality["name"] for modality in config["modalities"]]
cuts = [modality["cut"] for modality in config["modalities"]]
folders = [Path(manifest).parent for manifest in source.shards]
page.write(
    snakemake.output[0],
    config,
    source.cells,
    dict(zip(modalities, source.laws, strict=True)),
    source.abouts,
    {m: where for m, *where in zip(modalities, folders, source.tokens, source.chunks, cuts, strict=True)},
    source.figure,
    {Path(picture).stem.split("_")[0]: picture for picture in source.pictures},
    {},
    source.citation,
)
