# Tables of all cells, and the law of each modality.


rule table:
    input:
        cells=[f"{RESULTS}/cells/{modality}/{model}/step{step}.json" for modality, model, step in study.cells(config)],
        chunks=[
            f"{RESULTS}/cells/{modality}/{model}/step{step}.parquet" for modality, model, step in study.cells(config)
        ],
        modules=modules("tables"),
    output:
        cells=report(
            f"{RESULTS}/tables/cells.csv",
            caption="../workflow/report/cells.rst",
            category="Tables",
            labels={"table": "all cells"},
        ),
        grids=[f"{RESULTS}/tables/{modality}_{p}.md" for modality in MODALITIES for p in ("lossless", "published")],
    log:
        f"{RESULTS}/logs/table.log",
    conda:
        "../envs/analysis.yaml"
    script:
        "../scripts/table.py"


rule fit:
    input:
        cells=f"{RESULTS}/tables/cells.csv",
        chunks=lambda wildcards: [
            f"{RESULTS}/cells/{modality}/{model}/step{step}.parquet"
            for modality, model, step in study.cells(config)
            if modality == wildcards.modality
        ],
        modules=modules("forms", "laws", "resampling", "comparison", "notation"),
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
