# Bytes: sources are fetched, cut into chunks, and tokenised once per tokenizer.


def files_of_folder(wildcards):
    """The files of a local folder are inputs, so that a change of them is seen; other sources have none."""
    source = config["sources"][wildcards.source]
    if "folder" not in source:
        return []
    return sorted(map(str, filter(Path.is_file, Path(source["folder"]).glob(source.get("pattern", "*")))))


rule fetch:
    input:
        files_of_folder,
    output:
        "data/raw/{source}/source.json",
    params:
        source=lambda wildcards: config["sources"][wildcards.source],
    log:
        f"{RESULTS}/logs/fetch/{{source}}.log",
    conda:
        "../envs/data.yaml"
    script:
        "../scripts/fetch.py"


rule shard:
    input:
        source=lambda wildcards: f"data/raw/{DATASETS[wildcards.dataset]['source']}/source.json",
        modules=modules("shards"),
    output:
        "data/shards/{dataset}/manifest.json",
    params:
        modality=lambda wildcards: DATASETS[wildcards.dataset],
        chunk_bytes=config["chunk_bytes"],
    log:
        f"{RESULTS}/logs/shard/{{dataset}}.log",
    conda:
        "../envs/data.yaml"
    script:
        "../scripts/shard.py"


rule tokenize:
    input:
        shards="data/shards/{dataset}/manifest.json",
        tokenizer=lambda wildcards: config["tokenizers"][wildcards.tokenizer],
        modules=modules("ascii", "tokens"),
    output:
        "data/tokens/{dataset}/{tokenizer}.npz",
    log:
        f"{RESULTS}/logs/tokenize/{{dataset}}/{{tokenizer}}.log",
    conda:
        "../envs/data.yaml"
    script:
        "../scripts/tokenise.py"
