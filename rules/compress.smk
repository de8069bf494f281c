# Cells: one job for each modality × model × step. Its target path is results/<study>/cells/<modality>/<model>/step<step>.json


rule compress:
    input:
        shards=lambda wildcards: f"data/shards/{study.dataset(config, wildcards.modality)}/manifest.json",
        tokens=tokens_of_cell,
        tokenizer=tokenizer_of_cell,
        config=lambda wildcards: f"{study.checkpoint(config, wildcards.model, wildcards.step)}/config.json",
        weights=weights_of_cell,
        modules=modules_of("compress"),
    output:
        table=f"{RESULTS}/cells/{{modality}}/{{model}}/step{{step}}.parquet",
        about=f"{RESULTS}/cells/{{modality}}/{{model}}/step{{step}}.json",
    log:
        f"{RESULTS}/logs/cells/{{modality}}/{{model}}/step{{step}}.log",
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
        published=study.published_precision(config),
        verify=config["verify"],
    script:
        "../scripts/compress.py"
