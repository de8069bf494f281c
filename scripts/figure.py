import json
from pathlib import Path

import pandas as pd

from bitlaw.figures import scaling
from bitlaw.runtime import atomic, logs

logs.log_to(snakemake.log[0])
atomic.claim(*snakemake.output)
laws = {Path(path).stem: json.loads(Path(path).read_text()) for path in snakemake.input.laws}
scaling.scaling(
    pd.read_csv(snakemake.input.cells),
    laws,
    dict(snakemake.output.items()),
    classical=next(map(pd.read_csv, snakemake.input.get("classical", [])), None),
)
