import os
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")

sys.path.insert(0, os.path.join(workflow.basedir, "workflow"))

from bitlaw import InputError, study


configfile: "config.yaml"


try:
    study.check(config)
except InputError as error:
    raise WorkflowError(str(error))

RESULTS = f"results/{config['study']}"
MODALITIES = [m["name"] for m in config["modalities"]]
DATASETS = study.datasets(config)


def modules(*names):
    """Modules of the library that a rule's numbers depend on: as inputs, an edit reruns it and a touch does not."""
    return [os.path.relpath(f"{workflow.basedir}/workflow/bitlaw/{name}.py") for name in names]


def threads_of_a_job():
    """Eight jobs on two processors must not thrash: a job takes as many of the cores given as make one processor."""
    return -(-workflow.cores // os.cpu_count()) if workflow.cores else 1


wildcard_constraints:
    source="[a-z0-9_-]+",
    modality="[a-z0-9_-]+",
    step=r"\d+",


include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/compress.smk"
include: "rules/laws.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        f"{RESULTS}/tables/cells.csv",
        expand(f"{RESULTS}/laws/{{modality}}.json", modality=MODALITIES),
        expand(f"{RESULTS}/figures/scaling.{{kind}}", kind=["svg", "pdf", "png"]),
