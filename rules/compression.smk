# Cells: one job for each modality × model × step. Its target path is results/<study>/cells/<modality>/<model>/step<step>.json


rule compress:
    input:
        shards=shards_of_cell,
        arrays=arrays_of_cell,
        tokens=tokens_of_cell,
        tokenizer=tokenizer_of_cell,
        config=config_of_cell,
        weights=weights_of_cell,
        modules=modules_of("compress"),
    output:
        table=f"{RESULTS}/cells/{{modality}}/{{model}}/step{{step}}.parquet",
        about=f"{RESULTS}/cells/{{modality}}/{{model}}/step{{step}}.json",
    log:
        f"{RESULTS}/logs/cells/{{modality}}/{{model}}/step{{step}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/compress/{{modality}}/{{model}}/step{{step}}.tsv"
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
        published=study.published_precision(config),
        verify=config["verify"],
    message:
        "Compress {wildcards.modality} with {wildcards.model} at step {wildcards.step}"
    script:
        "../scripts/compress.py"
