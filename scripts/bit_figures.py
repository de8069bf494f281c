import pandas as pd

from bitlaw.figures import audit, context
from bitlaw.runtime import logs
from bitlaw.runtime.atomic import claim

logs.log_to(snakemake.log[0])
claim(*snakemake.output)


def files(name):
    return {kind: snakemake.output[f"{name}_{kind}"] for kind in ("svg", "pdf", "png")}


halves = [pd.read_csv(path) for path in snakemake.input.get("halves", [])]
audit.waterfall(pd.read_csv(snakemake.input.audit), files("audit"))
context.emergence(pd.read_csv(snakemake.input.context), files("context"), *halves)
context.positions(pd.read_csv(snakemake.input.curves), pd.read_csv(snakemake.input.laws), files("position"))
