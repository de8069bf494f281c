# What the cells say: the table of all of them, and where the bits go (audit, classical compressors, prior and context,
# the stream against its ideal; docs/context.md).

ALL_CELLS = report(
    f"{RESULTS}/tables/cells.csv",
    caption="../workflow/report/cells.rst",
    category="Tables",
    labels={"table": "all cells"},
)


if "cells_from" in config:

    rule table:
        input:
            published=config["cells_from"],
            modules=modules_of("published_table"),
        output:
            cells=ALL_CELLS,
            grids=expand(f"{RESULTS}/tables/{{modality}}_{{protocol}}.md", modality=MODALITIES, protocol=PROTOCOLS),
        log:
            f"{RESULTS}/logs/table.log",
        benchmark:
            f"{RESULTS}/benchmarks/table.tsv"
        conda:
            "../envs/analysis.yaml"
        params:
            models=config["models"],
        message:
            "Enter the published cells as a table"
        script:
            "../scripts/published_table.py"

else:

    rule table:
        input:
            cells=of_cells(rules.compress.output.about),
            chunks=of_cells(rules.compress.output.table),
            modules=modules_of("table"),
        output:
            cells=ALL_CELLS,
            grids=expand(f"{RESULTS}/tables/{{modality}}_{{protocol}}.md", modality=MODALITIES, protocol=PROTOCOLS),
        log:
            f"{RESULTS}/logs/table.log",
        benchmark:
            f"{RESULTS}/benchmarks/table.tsv"
        conda:
            "../envs/analysis.yaml"
        params:
            nominal=study.nominal(config),
        message:
            "Put the cells into one table"
        script:
            "../scripts/table.py"


rule compare:
    input:
        cells=rules.table.output.cells,
        published=config.get("compare_with", []),
        chunks=of_cells(rules.compress.output.table),
        modules=modules_of("compare"),
    output:
        table=f"{RESULTS}/tables/comparison.csv",
    log:
        f"{RESULTS}/logs/compare.log",
    benchmark:
        f"{RESULTS}/benchmarks/compare.tsv"
    conda:
        "../envs/analysis.yaml"
    message:
        "Set the cells beside the published ones"
    script:
        "../scripts/compare.py"


rule classical:
    input:
        shards=shards_of_cell,
        arrays=arrays_of_cell,
        modules=modules_of("classical"),
    output:
        table=f"{RESULTS}/classical/{{modality}}.csv",
    log:
        f"{RESULTS}/logs/classical/{{modality}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/classical/{{modality}}.tsv"
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=1024,
    params:
        compressors=config["classical"],
    message:
        "Compress {wildcards.modality} with classical compressors"
    script:
        "../scripts/classical.py"


rule control:
    input:
        shards=shards_of_cell,
        arrays=arrays_of_cell,
        tokenizer=tokenizer_of_cell,
        config=config_of_cell,
        weights=weights_of_cell,
        modules=modules_of("control"),
    output:
        table=f"{RESULTS}/controls/{{control}}/{{modality}}/{{model}}/step{{step}}.parquet",
    log:
        f"{RESULTS}/logs/controls/{{control}}/{{modality}}/{{model}}/step{{step}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/control/{{control}}/{{modality}}/{{model}}/step{{step}}.tsv"
    wildcard_constraints:
        control="shuffled|after_other",
    conda:
        "../envs/gpu.yaml"
    threads: threads_of_a_job()
    resources:
        **GPU,
        mem_mb=memory_of_cell,
        runtime=minutes_of_cell,
        tokens_at_a_time=config["tokens_at_a_time"],
    params:
        precision=config["precision"],
        context=context_of_model,
        bos=bos_of_model,
    message:
        "Control pass {wildcards.control}: {wildcards.modality}, {wildcards.model} at step {wildcards.step}"
    script:
        "../scripts/control.py"


rule bits:
    input:
        cells=rules.table.output.cells,
        abouts=of_cells(rules.compress.output.about),
        chunks=of_cells(rules.compress.output.table),
        classical=expand(rules.classical.output.table, modality=MODALITIES if CELLS else []),
        modules=modules_of("bits"),
    output:
        audit=f"{RESULTS}/tables/audit.csv",
        codec=f"{RESULTS}/tables/codec.csv",
        classical=f"{RESULTS}/tables/classical.csv",
        beside=expand(f"{RESULTS}/tables/{{modality}}_classical.md", modality=MODALITIES),
    log:
        f"{RESULTS}/logs/bits.log",
    benchmark:
        f"{RESULTS}/benchmarks/bits.tsv"
    conda:
        "../envs/analysis.yaml"
    message:
        "Say where the bits go: audit, classical compressors, the stream against its ideal"
    script:
        "../scripts/bits.py"


rule context:
    input:
        cells=of_cells(rules.compress.output.about),
        chunks=of_cells(rules.compress.output.table),
        controls=[path for name in CONTROLS for path in of_cells(rules.control.output.table.replace("{control}", name))],
        modules=modules_of("context"),
    output:
        context=f"{RESULTS}/tables/context.csv",
        curves=f"{RESULTS}/tables/position.csv",
        laws=f"{RESULTS}/tables/position_laws.csv",
        halves=[f"{RESULTS}/tables/halves.csv"] if "after_other" in CONTROLS else [],
    log:
        f"{RESULTS}/logs/context.log",
    benchmark:
        f"{RESULTS}/benchmarks/context.tsv"
    conda:
        "../envs/analysis.yaml"
    message:
        "Part the bits into prior and context"
    script:
        "../scripts/context.py"
