import os
import re
import sys
from pathlib import Path

import yaml
from snakemake.utils import min_version

min_version("9.27")

sys.path.insert(0, os.path.join(workflow.basedir, "workflow"))

from bitlaw import InputError, study
from bitlaw.report import findings
from bitlaw.runtime import imports, logs, resources


configfile: "config.yaml"


try:
    study.check(config)
except InputError as error:
    raise WorkflowError(str(error))


report: "workflow/report/workflow.rst"


RESULTS = f"results/{config['study']}"
MODALITIES = [m["name"] for m in config["modalities"]]
DATASETS = study.datasets(config)
PROTOCOLS = study.protocols(config)
RAW = study.raws(config)


wildcard_constraints:
    source="[a-z0-9_-]+",
    modality="[a-z0-9_-]+",
    step=r"\d+",
    protocol="lossless|published",


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/compress.smk"
include: "rules/bits.smk"
include: "rules/laws.smk"
include: "rules/report.smk"
include: "rules/messages.smk"


rule all:
    default_target: True
    input:
        f"{RESULTS}/tables/cells.csv",
        if_law(expand(f"{RESULTS}/laws/{{modality}}.json", modality=MODALITIES)),
        if_law(expand(f"{RESULTS}/figures/scaling.{{kind}}", kind=["svg", "pdf", "png"])),
        if_law(expand(f"{RESULTS}/figures/{{picture}}_{{protocol}}.png", picture=PICTURES, protocol=PROTOCOLS)),
        [f"{RESULTS}/tables/comparison.csv"] if "compare_with" in config else [],
        BITS,
        if_law(f"{RESULTS}/report.html"),
