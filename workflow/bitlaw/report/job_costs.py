"""What the jobs of a study took, from the benchmark files that Snakemake wrote. Plain Python."""

import csv
from pathlib import Path

FIELDS = {"seconds": "s", "cpu_seconds": "cpu_time", "peak_memory_mb": "max_rss"}  # ours → of a benchmark file
COLUMN_NAMES = ("rule", "job", *FIELDS)


def rows(folder):
    """A dict with COLUMN_NAMES for each job that left a benchmark file in `folder`, by rule and job.

    A file is <rule>.tsv, or <rule>/<job>.tsv where the rule has many jobs. seconds: wall clock; peak_memory_mb: what
    all processes of the job together had in memory at most. What Snakemake could not
    measure, as in a job of an instant, is empty.
    """
    found = []
    for path in sorted(Path(folder).rglob("*.tsv")):
        rule, *job = path.relative_to(folder).with_suffix("").parts
        with open(path, newline="") as file:
            *_, record = csv.DictReader(file, delimiter="\t")
        measured = {name: _number(record[field]) for name, field in FIELDS.items()}
        found.append({"rule": rule, "job": "/".join(job), **measured})
    return found


def _number(text):
    try:
        return float(text)
    except ValueError:
        return ""
