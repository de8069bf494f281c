import json
from pathlib import Path

import pandas as pd

from bitlaw.analysis.cell_table import write_csv
from bitlaw.figures import exponents
from bitlaw.laws import together
from bitlaw.runtime import atomic, logs

logs.log_to(snakemake.log[0])
atomic.claim(*snakemake.output)
source, out = snakemake.input, snakemake.output
laws = {Path(path).stem: json.loads(Path(path).read_text()) for path in source.laws}
classical = pd.read_csv(str(source.classical)) if source.classical else None
write_csv(pd.DataFrame(together.table(laws, classical)), out.table)
exponents.draw(laws, {kind: out[kind] for kind in ("svg", "pdf", "png")})
