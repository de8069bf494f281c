import json

import pandas as pd

from bitlaw import laws, progress
from bitlaw.atomic import replacing

progress.log_to(snakemake.log[0])
cells = pd.read_csv(snakemake.input.cells)
cells = cells[cells["modality"] == snakemake.wildcards.modality]
found = {
    protocol: laws.fit(cells["params_total"], cells["step"], cells[f"cr_{protocol}"])
    for protocol in ("lossless", "published")
}
with replacing(snakemake.output[0]) as temporary:
    temporary.write_text(json.dumps(found, indent=1) + "\n")
