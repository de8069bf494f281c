import json
from pathlib import Path

import pandas as pd

from bitlaw.figures import scaling
from bitlaw.runtime import atomic, logs

logs.log_to(snakemake.log[0])
atomic.claim(*snakemake.output)
source = snakemake.input
laws = {Path(path).stem: json.loads(Path(path).read_text()) for path in source.laws}
classical = pd.read_csv(str(source.classical)) if source.classical else None
scaling.draw(pd.read_csv(source.cells), laws, dict(snakemake.output.items()), classical=classical)
