import pandas as pd

from bitlaw.figures import audit, context, overview, position
from bitlaw.runtime import logs
from bitlaw.runtime.atomic import claim

logs.log_to(snakemake.log[0])
claim(*snakemake.output)
source = snakemake.input


def files(name):
    return {kind: snakemake.output[f"{name}_{kind}"] for kind in ("svg", "pdf", "png")}


overview.draw(pd.read_csv(source.cells), pd.read_csv(source.classical), files("overview"))
audit.draw(pd.read_csv(source.audit), files("audit"))
halves = pd.read_csv(str(source.halves)) if source.halves else None
context.draw(pd.read_csv(source.context), files("context"), halves)
position.draw(pd.read_csv(source.curves), pd.read_csv(source.laws), files("position"))
