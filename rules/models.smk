# Models. Those on the Hugging Face Hub are fetched, one job a step; GGUF files become checkpoint folders. The ladder is
# trained here: `snakemake ladder` makes it anew under results/ladder; the committed one is data/ladder.


localrules:
    fetch_model,
    fetch_tokenizer,


rule fetch_model:
    input:
        tokenizer=tokenizer_of_cell,
    output:
        config="data/models/{model}/step{step}/config.json",
        source="data/models/{model}/step{step}/source.json",
    log:
        f"{RESULTS}/logs/fetch/{{model}}/step{{step}}.log",
    wildcard_constraints:
        model=any_of(m["name"] for m in config["models"] if "repo" in m),
    conda:
        "../envs/gpu.yaml"
    params:
        repository=lambda wildcards: study.by_name(config, "models", wildcards.model)["repo"],
        revision=lambda wildcards: study.revision(config, wildcards.model, wildcards.step),
        commit=commit_of_checkpoint,
    script:
        "../scripts/fetch_model.py"


rule fetch_tokenizer:
    output:
        "data/tokenizers/{tokenizer}/tokenizer.json",
    log:
        f"{RESULTS}/logs/fetch/tokenizer/{{tokenizer}}.log",
    wildcard_constraints:
        tokenizer=any_of(name for name, entry in config["tokenizers"].items() if not isinstance(entry, str)),
    conda:
        "../envs/gpu.yaml"
    params:
        source=lambda wildcards: config["tokenizers"][wildcards.tokenizer],
    script:
        "../scripts/fetch_tokenizer.py"


[RECIPE] = of_repository("data/ladder/recipe.yaml")
LADDER = yaml.safe_load(Path(RECIPE).read_text())


rule ladder:
    input:
        expand("results/ladder/{model}/losses.csv", model=LADDER["models"]),


rule ladder_tokenizer:
    input:
        source="data/raw/enwik8/source.json",
        recipe=RECIPE,
        modules=modules_of("ladder_tokenizer"),
    output:
        "results/ladder/tokenizer.json",
    log:
        "results/ladder/logs/tokenizer.log",
    conda:
        "../envs/gpu.yaml"
    script:
        "../scripts/ladder_tokenizer.py"


rule ladder_model:
    input:
        source="data/raw/enwik8/source.json",
        recipe=RECIPE,
        tokenizer="results/ladder/tokenizer.json",
        modules=modules_of("ladder_model"),
    output:
        "results/ladder/{model}/losses.csv",
        expand(
            "results/ladder/{{model}}/step{step}/{file}",
            step=LADDER["training"]["checkpoints"],
            file=["config.json", "model.safetensors", "tokenizer.json"],
        ),
    log:
        "results/ladder/logs/{model}.log",
    wildcard_constraints:
        model=any_of(LADDER["models"]),
    conda:
        "../envs/gpu.yaml"
    threads: threads_of_a_job()
    script:
        "../scripts/ladder_model.py"


rule gguf_model:
    input:
        source="data/raw/{source}/source.json",
        modules=modules_of("gguf_model"),
    output:
        config="data/models/gguf/{source}/config.json",
        weights="data/models/gguf/{source}/model.safetensors",
        tokenizer="data/models/gguf/{source}/tokenizer.json",
    log:
        f"{RESULTS}/logs/gguf_model/{{source}}.log",
    conda:
        "../envs/gpu.yaml"
    script:
        "../scripts/gguf_model.py"
