# Cells: one job for each modality × model × step. Its target path is results/<study>/cells/<modality>/<model>/step<step>.json


def tokens_of_cell(wildcards):
    tokenizer = study.by_name(config, "models", wildcards.model)["tokenizer"]
    return f"data/tokens/{study.dataset(config, wildcards.modality)}/{tokenizer}.npz"


def tokenizer_of_cell(wildcards):
    return config["tokenizers"][study.by_name(config, "models", wildcards.model)["tokenizer"]]


def weights_of_cell(wildcards):
    folder = Path(study.checkpoint(config, wildcards.model, wildcards.step))
    return sorted(map(str, folder.glob("*.safetensors"))) or [str(folder / "model.safetensors")]


rule compress:
    input:
        shards=lambda wildcards: f"data/shards/{study.dataset(config, wildcards.modality)}/manifest.json",
        tokens=tokens_of_cell,
        tokenizer=tokenizer_of_cell,
        config=lambda wildcards: f"{study.checkpoint(config, wildcards.model, wildcards.step)}/config.json",
        weights=weights_of_cell,
        modules=modules(
            "ascii", "tokens", "checkpoints", "neox", "generic", "scoring", "coder", "plane", "codec", "accounting", "cell"
        ),
    output:
        table=f"{RESULTS}/cells/{{modality}}/{{model}}/step{{step}}.parquet",
        about=f"{RESULTS}/cells/{{modality}}/{{model}}/step{{step}}.json",
    params:
        precision=config["precision"],
        verify=config["verify"],
    threads: threads_of_a_job()
    resources:
        mem_mb=1536,
        tokens_at_a_time=config["tokens_at_a_time"],
    log:
        f"{RESULTS}/logs/cells/{{modality}}/{{model}}/step{{step}}.log",
    conda:
        "../envs/gpu.yaml"
    script:
        "../scripts/compress.py"
