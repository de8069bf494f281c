import pandas as pd

from bitlaw import context_figures, progress, waterfall
from bitlaw.atomic import claim

progress.log_to(snakemake.log[0])
claim(*snakemake.output)


def files(name):
    return {kind: snakemake.output[f"{name}_{kind}"] for kind in ("svg", "pdf", "png")}


halves = [pd.read_csv(path) for path in snakemake.input.get("halves", [])]
waterfall.waterfall(pd.read_csv(snakemake.input.audit), files("audit"))
context_figures.emergence(pd.read_csv(snakemake.input.context), files("context"), *halves)
context_figures.positions(pd.read_csv(snakemake.input.curves), pd.read_csv(snakemake.input.laws), files("position"))
