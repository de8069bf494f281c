# Tables of all cells, and the law of each modality.


if "cells_from" in config:

    rule table:
        input:
            published=config["cells_from"],
            modules=modules_of("published_table"),
        output:
            cells=report(
                f"{RESULTS}/tables/cells.csv",
                caption="../workflow/report/cells.rst",
                category="Tables",
                labels={"table": "all cells"},
            ),
            grids=[f"{RESULTS}/tables/{modality}_published.md" for modality in MODALITIES],
        log:
            f"{RESULTS}/logs/table.log",
        conda:
            "../envs/analysis.yaml"
        params:
            models=config["models"],
        script:
            "../scripts/published_table.py"

else:

    rule table:
        input:
            cells=[
                f"{RESULTS}/cells/{modality}/{model}/step{step}.json" for modality, model, step in study.cells(config)
            ],
            chunks=[
                f"{RESULTS}/cells/{modality}/{model}/step{step}.parquet"
                for modality, model, step in study.cells(config)
            ],
            modules=modules_of("table"),
        output:
            cells=report(
                f"{RESULTS}/tables/cells.csv",
                caption="../workflow/report/cells.rst",
                category="Tables",
                labels={"table": "all cells"},
            ),
            grids=[f"{RESULTS}/tables/{modality}_{p}.md" for modality in MODALITIES for p in PROTOCOLS],
        log:
            f"{RESULTS}/logs/table.log",
        conda:
            "../envs/analysis.yaml"
        params:
            nominal=study.nominal(config),
        script:
            "../scripts/table.py"


rule compare:
    input:
        cells=f"{RESULTS}/tables/cells.csv",
        published=config.get("compare_with", []),
        chunks=[
            f"{RESULTS}/cells/{modality}/{model}/step{step}.parquet" for modality, model, step in study.cells(config)
        ],
        modules=modules_of("compare"),
    output:
        table=f"{RESULTS}/tables/comparison.csv",
    log:
        f"{RESULTS}/logs/compare.log",
    conda:
        "../envs/analysis.yaml"
    script:
        "../scripts/compare.py"


rule fit:
    input:
        cells=f"{RESULTS}/tables/cells.csv",
        chunks=lambda wildcards: (
            [
                f"{RESULTS}/cells/{modality}/{model}/step{step}.parquet"
                for modality, model, step in study.cells(config)
                if modality == wildcards.modality
            ]
            if "cells_from" not in config
            else []
        ),
        published=[config["compare_with"]] if "compare_with" in config else [],
        printed="data/published/printed_laws.csv",
        modules=modules_of("fit"),
    output:
        law=report(
            f"{RESULTS}/laws/{{modality}}.json",
            caption="../workflow/report/law.rst",
            category="Laws",
            labels={"modality": "{modality}"},
        ),
        markdown=f"{RESULTS}/laws/{{modality}}.md",
        latex=f"{RESULTS}/laws/{{modality}}.tex",
    log:
        f"{RESULTS}/logs/fit/{{modality}}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        kind=config["params"],
        warmup=config.get("warmup_steps"),
    script:
        "../scripts/fit.py"
