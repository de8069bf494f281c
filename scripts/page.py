from pathlib import Path

from bitlaw.report import page
from bitlaw.runtime import logs

logs.log_to(snakemake.log[0])
source, config = snakemake.input, snakemake.config
modalities = [modality["name"] for modality in config["modalities"]]
files = zip(modalities, source.shards, source.tokens, source.chunks, strict=False)  # none of cells published elsewhere
cuts = {modality["name"]: modality.get("cut") for modality in config["modalities"]}
first_chunks = {
    modality: page.FirstChunk(Path(manifest).parent, tokens, cell, cuts[modality])
    for modality, manifest, tokens, cell in files
}
study = page.Study(
    config=config,
    cells=source.cells,
    laws={Path(law).stem: law for law in source.laws},
    figure=source.figure,
    citation=source.citation,
    abouts=source.abouts,
    first_chunks=first_chunks,
    pictures={Path(picture).stem.split("_")[0]: picture for picture in source.pictures},
    tables={Path(csv).stem: csv for csv in source.more},
)
page.write(snakemake.output[0], study)
