# Bytes: sources are fetched, cut into chunks, and tokenised once per tokenizer.


rule fetch:
    input:
        files_of_folder,
    output:
        "data/raw/{source}/source.json",
    log:
        f"{RESULTS}/logs/fetch/{{source}}.log",
    localrule: True  # the one kind of job that needs the network, which compute nodes may not have
    conda:
        "../envs/data.yaml"
    params:
        name=lambda wildcards: RAW[wildcards.source]["name"],
        source=lambda wildcards: RAW[wildcards.source]["source"],
        wanted=lambda wildcards: RAW[wildcards.source]["wanted"],
    script:
        "../scripts/fetch.py"


rule shard:
    input:
        source=lambda wildcards: f"data/raw/{study.raw(config, wildcards.dataset)}/source.json",
        modules=modules_of("shard"),
    output:
        "data/shards/{dataset}/manifest.json",
    log:
        f"{RESULTS}/logs/shard/{{dataset}}.log",
    conda:
        "../envs/data.yaml"
    params:
        modality=lambda wildcards: DATASETS[wildcards.dataset],
        chunk_bytes=config["chunk_bytes"],
    script:
        "../scripts/shard.py"


rule tokenize:
    input:
        shards="data/shards/{dataset}/manifest.json",
        tokenizer=lambda wildcards: study.tokenizer(config, wildcards.tokenizer),
        modules=modules_of("tokenise"),
    output:
        "data/tokens/{dataset}/{tokenizer}.npz",
    log:
        f"{RESULTS}/logs/tokenize/{{dataset}}/{{tokenizer}}.log",
    conda:
        "../envs/data.yaml"
    script:
        "../scripts/tokenise.py"
