# Where the bits go: the audit, classical compressors, prior and context, the stream against its ideal; see docs/context.md.

CONTROLS = config["controls"]
CELLS = [f"{modality}/{model}/step{step}" for modality, model, step in study.cells(config)]
HALVES = [f"{RESULTS}/tables/halves.csv"] if "after_other" in CONTROLS else []
CLASSICAL = [f"{RESULTS}/tables/classical.csv"] if "cells_from" not in config else []
BITS = []  # published cells come without bytes: nothing to take apart
if "cells_from" not in config:
    BITS += [f"{RESULTS}/tables/{name}.csv" for name in ("audit", "classical", "codec", "context", "position")]
    BITS += expand(
        f"{RESULTS}/figures/{{name}}.{{kind}}", name=["audit", "context", "position"], kind=["svg", "pdf", "png"]
    )


rule classical:
    input:
        shards=lambda wildcards: f"data/shards/{study.dataset(config, wildcards.modality)}/manifest.json",
        modules=modules_of("classical"),
    output:
        f"{RESULTS}/classical/{{modality}}.csv",
    log:
        f"{RESULTS}/logs/classical/{{modality}}.log",
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=1024,
    params:
        compressors=config["classical"],
    script:
        "../scripts/classical.py"


rule control:
    input:
        shards=lambda wildcards: f"data/shards/{study.dataset(config, wildcards.modality)}/manifest.json",
        tokenizer=tokenizer_of_cell,
        config=lambda wildcards: f"{study.checkpoint(config, wildcards.model, wildcards.step)}/config.json",
        weights=weights_of_cell,
        modules=modules_of("control"),
    output:
        f"{RESULTS}/controls/{{control}}/{{modality}}/{{model}}/step{{step}}.parquet",
    log:
        f"{RESULTS}/logs/controls/{{control}}/{{modality}}/{{model}}/step{{step}}.log",
    wildcard_constraints:
        control="shuffled|after_other",
    conda:
        "../envs/gpu.yaml"
    threads: threads_of_a_job()
    resources:
        **({"gpu": 1} if config["device"] == "cuda" else {}),
        mem_mb=memory_of_cell,
        runtime=minutes_of_cell,
        tokens_at_a_time=config["tokens_at_a_time"],
    params:
        precision=config["precision"],
    script:
        "../scripts/control.py"


rule bits:
    input:
        cells=f"{RESULTS}/tables/cells.csv",
        abouts=[f"{RESULTS}/cells/{cell}.json" for cell in CELLS],
        chunks=[f"{RESULTS}/cells/{cell}.parquet" for cell in CELLS],
        classical=expand(f"{RESULTS}/classical/{{modality}}.csv", modality=MODALITIES),
        modules=modules_of("bits"),
    output:
        audit=f"{RESULTS}/tables/audit.csv",
        codec=f"{RESULTS}/tables/codec.csv",
        classical=f"{RESULTS}/tables/classical.csv",
        beside=expand(f"{RESULTS}/tables/{{modality}}_classical.md", modality=MODALITIES),
    log:
        f"{RESULTS}/logs/bits.log",
    conda:
        "../envs/analysis.yaml"
    script:
        "../scripts/bits.py"


rule context:
    input:
        cells=[f"{RESULTS}/cells/{cell}.json" for cell in CELLS],
        chunks=[f"{RESULTS}/cells/{cell}.parquet" for cell in CELLS],
        controls=[f"{RESULTS}/controls/{control}/{cell}.parquet" for control in CONTROLS for cell in CELLS],
        modules=modules_of("context"),
    output:
        context=f"{RESULTS}/tables/context.csv",
        curves=f"{RESULTS}/tables/position.csv",
        laws=f"{RESULTS}/tables/position_laws.csv",
        halves=HALVES,
    log:
        f"{RESULTS}/logs/context.log",
    conda:
        "../envs/analysis.yaml"
    script:
        "../scripts/context.py"
