"""Print as JSON what Snakemake knows of each rule, in a process of its own: see `repository.rules`."""

import json
import sys
from pathlib import Path

from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

with SnakemakeApi(OutputSettings()) as api:
    made = api.workflow(
        snakefile=Path("Snakefile"),
        resource_settings=ResourceSettings(cores=1),
        config_settings=ConfigSettings(configfiles=[Path(name) for name in sys.argv[1:]]),
    )
    workflow = made._workflow
    found = {
        rule.name: {
            "script": rule.script and Path(rule.script).stem,
            "message": rule.message,
            "benchmark": rule.benchmark and str(rule.benchmark),
            "log": [str(path) for path in rule.log],
            "output": [str(path) for path in rule.output],
            "environment": str(rule.conda_env) if rule.conda_env else None,
            "local": rule.name in workflow._localrules,
            "gpus": rule.resources.get("gpu", 0),
            "modules": [str(path) for path in rule.input.get("modules", [])],
        }
        for rule in workflow.rules
    }
print(json.dumps(found))
