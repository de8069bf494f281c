# The law of each modality.


rule fit:
    input:
        cells=rules.table.output.cells,
        chunks=chunks_of_modality,
        published=COMPARED,
        printed=of_repository("data/published/printed_laws.csv"),
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
    benchmark:
        f"{RESULTS}/benchmarks/fit/{{modality}}.tsv"
    conda:
        "../envs/analysis.yaml"
    params:
        kind=config["params"],
        warmup=config.get("warmup_steps"),
    message:
        "Fit the laws of {wildcards.modality}"
    script:
        "../scripts/fit.py"


LAWS = expand(rules.fit.output.law, modality=MODALITIES)
