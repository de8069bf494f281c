import math
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

if not os.path.exists("config.yaml") and not workflow.overwrite_configfiles:
    raise WorkflowError(
        f"{os.getcwd()}: holds no config.yaml; a study keeps its data and results where it runs, so run it in "
        f"{workflow.basedir}, or copy config.yaml and data/ladder from there"
    )


configfile: "config.yaml"


try:
    for path in workflow.configfiles:
        study.check_file(path)
    study.check(config)
except InputError as error:
    raise WorkflowError(str(error))


report: "workflow/report/workflow.rst"


wildcard_constraints:
    source="[a-z0-9_-]+",
    modality="[a-z0-9_-]+",
    step=r"\d+",
    protocol="lossless|published",


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/compression.smk"
include: "rules/analysis.smk"
include: "rules/laws.smk"
include: "rules/figures.smk"
include: "rules/report.smk"
include: "rules/messages.smk"


rule all:
    default_target: True
    input:
        of_cells(rules.compress.output.about),  # though tables need them: one that is deleted is made again
        rules.table.output.cells,
        rules.compare.output.table if COMPARED else [],
        BITS,
        if_law(LAWS),
        rules.figure.output,
        if_law(rules.laws_together.output),
        if_law(expand(rules.pictures.output.pngs, protocol=PROTOCOLS)),
        rules.page.output,
        rules.benchmarks.output.table,
