# Bytes: sources are fetched, cut into chunks, and tokenised once per tokenizer.


rule fetch:
    input:
        files_of_folder,
    output:
        record="data/raw/{source}/source.json",  # what else there is it lists: names in archives are not known before
    log:
        f"{RESULTS}/logs/fetch/{{source}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch/{{source}}.tsv"
    localrule: True  # the kind of job that needs the network, which compute nodes may not have
    conda:
        "../envs/data.yaml"
    params:
        name=of_source("name"),
        source=of_source("source"),
        wanted=of_source("wanted"),
    message:
        "Fetch the source {wildcards.source}"
    script:
        "../scripts/fetch.py"


rule shard:
    input:
        source=source_of_dataset,
        modules=modules_of("shard"),
    output:
        manifest="data/shards/{dataset}/manifest.json",
        arrays=[f"data/shards/{{dataset}}/{name}" for name in study.arrays(config)],
    log:
        f"{RESULTS}/logs/shard/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/shard/{{dataset}}.tsv"
    conda:
        "../envs/data.yaml"
    params:
        modality=modality_of_dataset,
        chunk_bytes=config["chunk_bytes"],
    message:
        "Cut {wildcards.dataset} into chunks"
    script:
        "../scripts/shard.py"


rule tokenize:
    input:
        shards=rules.shard.output.manifest,
        arrays=rules.shard.output.arrays,
        tokenizer=file_of_tokenizer,
        modules=modules_of("tokenise"),
    output:
        tokens="data/tokens/{dataset}/{tokenizer}.npz",
    log:
        f"{RESULTS}/logs/tokenize/{{dataset}}/{{tokenizer}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tokenize/{{dataset}}/{{tokenizer}}.tsv"
    conda:
        "../envs/data.yaml"
    message:
        "Tokenise {wildcards.dataset} with the tokenizer {wildcards.tokenizer}"
    script:
        "../scripts/tokenise.py"
